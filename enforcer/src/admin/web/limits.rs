//! How much the page takes of whoever asks, and gives.

use std::time::Duration;

/// Connections at the same time; whoever comes then waits.
pub const CONNECTIONS: usize = 256;
/// The head of a request, with the time before it on a connection that is kept.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and as many of an answer wait for a slow reader.
pub const HEAD: usize = 32 * 1024;
/// Header fields of a request.
pub const FIELDS: usize = 64;
/// Bytes of a path with its query.
pub const TARGET: usize = 2048;
/// Bytes of a form.
pub const BODY: usize = 16 * 1024;
/// From the end of a request's head to the head of its answer.
pub const REQUEST: Duration = Duration::from_secs(30);
/// After this a connection gets no further request.
pub const CONNECTION: Duration = Duration::from_secs(60);
/// So much later it is closed, whoever is still reading.
pub const CONNECTION_END: Duration = Duration::from_secs(40);
/// Logins that are kept. The one that was used least lately makes room.
pub const LOGINS: usize = 1024;
/// Logins of one person.
pub const LOGINS_OF_ONE: usize = 8;
/// From the beginning of a login to its end at the issuer.
pub const LOGIN: Duration = Duration::from_secs(600);
/// Logins that the issuer is asked about at the same time; others are told to try again.
pub const LOGINS_AT_ONCE: usize = 8;
/// Bytes of a reason.
pub const REASON: usize = 1000;
/// For this long a list is shown as it was, however many look at it.
pub const LIST_KEPT: Duration = Duration::from_millis(900);
/// Sessions of a list.
pub const SESSIONS: usize = 100;
/// Records of one session that are shown, and bytes of them as text.
pub const RECORDS: usize = 2000;
pub const RECORD_BYTES: usize = 1024 * 1024;
/// Recordings that are read at the same time; others wait.
pub const READING: usize = 2;
/// Sockets on which the loader is asked.
pub const LINES: usize = 4;
/// How long the loader may take, which gives the proxy 10 s.
pub const ANSWER: Duration = Duration::from_secs(20);
/// How long a question waits for one of the sockets.
pub const TURN: Duration = Duration::from_secs(10);
