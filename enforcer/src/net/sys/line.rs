//! Whether the other end of a connection is still there, for somebody who does not read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A second descriptor of a connection. Drop it together with the connection: until then
/// the other end is not told that it has ended.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    pub fn of(connection: &impl AsFd) -> io::Result<Self> {
        connection.as_fd().try_clone_to_owned().map(Self)
    }

    /// Waits until the other end has closed its side, or all is over. What it sent before
    /// that stays to be read.
    pub async fn closed(&self) -> io::Result<()> {
        // SAFETY: the descriptor is ours and borrowed for as long as `line` lives, which ends
        // within this call; a borrowed descriptor always gives the same number.
        let line = unsafe { AsyncFd::register_with_interest(self.0.as_fd(), Interest::READABLE) };
        let line = line.map_err(io::Error::from)?;
        loop {
            let mut ready = line.readable().await?;
            if ready.ready().is_read_closed() || ready.ready().is_error() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::Line;

    #[tokio::test]
    async fn it_is_closed_when_the_other_end_is_and_not_when_something_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for reset in [false, true] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let line = Line::of(&server).unwrap();
            client.write_all(b"one").await.unwrap();
            let short = Duration::from_millis(50);
            tokio::time::timeout(short, line.closed()).await.unwrap_err();
            client.write_all(b"two").await.unwrap();
            tokio::time::timeout(short, line.closed()).await.unwrap_err();
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            tokio::time::timeout(Duration::from_secs(5), line.closed()).await.unwrap().unwrap();
            // Nothing was taken away from whoever reads.
            let mut text = Vec::new();
            if !reset {
                server.read_to_end(&mut text).await.unwrap();
                assert_eq!(text, b"onetwo");
            }
        }
    }
}
