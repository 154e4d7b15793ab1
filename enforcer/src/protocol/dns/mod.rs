//! DNS (RFC 1035) as far as a tagged process needs it: one question for the
//! addresses of one name.
//!
//! Everything else that the protocol can carry is a channel out of the host (TXT
//! and NULL answers, labels of names that nobody looks at) or hides what the
//! proxy has to see (`ech` and `h3` in HTTPS records, RFC 9460): such questions
//! get an empty answer, and nobody is asked. The codec does no I/O.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// The largest query that is looked at, in bytes: a name (255), a question and
/// EDNS options fit well.
pub const MAX_QUERY: usize = 1024;
/// The most addresses that one answer carries.
pub const MAX_ADDRESSES: usize = 32;
/// What a client without EDNS takes over UDP, in bytes (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;
/// The most that is sent over UDP, in bytes, whatever the client offers: it fits
/// the loopback interface and every path MTU.
const MAX_UDP: usize = 1232;
/// RFC 8914, 4.16: the server refuses by policy of its own.
const EDE_BLOCKED: u16 = 15;
/// RFC 8914: the option's code.
const EDE: u16 = 15;

/// Why a query is not looked at further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the query is longer than {MAX_QUERY} bytes")]
    TooLong,
    #[error("the bytes are no DNS message")]
    Unparsed,
    #[error("the message is not a query")]
    NotAQuery,
    #[error("the message does not have exactly one question")]
    NotOneQuestion,
    #[error("the message carries records beside its question")]
    ExtraRecords,
    #[error("the name is not a host name")]
    BadName,
}

impl Malformed {
    /// The reason as it stands in the recording.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "dns-query-too-long",
            Self::Unparsed => "dns-unparsed",
            Self::NotAQuery => "dns-not-a-query",
            Self::NotOneQuestion => "dns-not-one-question",
            Self::ExtraRecords => "dns-extra-records",
            Self::BadName => "dns-bad-name",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    /// Any other type or class, which gets an empty answer.
    Other(u16),
}

/// One well-formed question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Lower case, without the trailing dot.
    pub name: String,
    pub kind: Kind,
    id: u16,
    query: Query,
    recursion_desired: bool,
    /// What the client takes over UDP, in bytes, if it speaks EDNS.
    payload: Option<u16>,
}

/// How a message travels, which bounds its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Reads a query. Strict: what two parsers could read in two ways is refused.
pub fn parse(bytes: &[u8]) -> Result<Question, Malformed> {
    if bytes.len() > MAX_QUERY {
        return Err(Malformed::TooLong);
    }
    let message = Message::from_vec(bytes).map_err(|_| Malformed::Unparsed)?;
    let head = message.metadata;
    if head.message_type != MessageType::Query || head.op_code != OpCode::Query || head.truncation {
        return Err(Malformed::NotAQuery);
    }
    let [query] = message.queries.as_slice() else { return Err(Malformed::NotOneQuestion) };
    if !message.answers.is_empty() || !message.authorities.is_empty() || !message.additionals.is_empty() {
        return Err(Malformed::ExtraRecords);
    }
    let kind = match (query.query_class(), query.query_type()) {
        (DNSClass::IN, RecordType::A) => Kind::A,
        (DNSClass::IN, RecordType::AAAA) => Kind::Aaaa,
        (_, other) => Kind::Other(other.into()),
    };
    Ok(Question {
        name: host_name(query.name())?,
        kind,
        id: head.id,
        query: query.clone(),
        recursion_desired: head.recursion_desired,
        payload: message.edns.as_ref().map(Edns::max_payload),
    })
}

/// A name of letters, digits, hyphens and underscores; anything else (a dot
/// inside a label, NUL, spaces) would be a different name in policy.
fn host_name(name: &Name) -> Result<String, Malformed> {
    let mut text = String::with_capacity(64);
    for label in name.iter() {
        let fine = label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if label.is_empty() || !fine {
            return Err(Malformed::BadName);
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    if text.is_empty() { Err(Malformed::BadName) } else { Ok(text) }
}

impl Question {
    /// The name in the case in which it was asked for.
    pub fn asked(&self) -> String {
        self.query.name().to_ascii()
    }

    /// The addresses of the asked family, for `ttl` seconds. None is an empty
    /// answer: the name exists, the type does not (RFC 2308, NODATA).
    pub fn addresses(&self, addresses: &[IpAddr], ttl: u32, over: Transport) -> Vec<u8> {
        let mut reply = self.reply(ResponseCode::NoError);
        let wanted = addresses.iter().filter_map(|address| match (self.kind, address) {
            (Kind::A, IpAddr::V4(v4)) => Some(RData::A((*v4).into())),
            (Kind::Aaaa, IpAddr::V6(v6)) => Some(RData::AAAA((*v6).into())),
            _ => None,
        });
        for data in wanted.take(MAX_ADDRESSES) {
            reply.add_answer(Record::from_rdata(self.query.name().clone(), ttl, data));
        }
        self.emit(reply, over)
    }

    /// The name does not exist.
    pub fn not_found(&self, over: Transport) -> Vec<u8> {
        self.emit(self.reply(ResponseCode::NXDomain), over)
    }

    /// Policy cannot allow the name. NXDOMAIN and not REFUSED: at REFUSED a stub
    /// resolver goes on to its next server and then reports a passing failure,
    /// which programs retry. Who speaks RFC 8914 gets the true reason.
    pub fn blocked(&self, text: &str, over: Transport) -> Vec<u8> {
        let mut reply = self.reply(ResponseCode::NXDomain);
        if let Some(edns) = reply.edns.as_mut() {
            let mut option = EDE_BLOCKED.to_be_bytes().to_vec();
            option.extend_from_slice(text.as_bytes());
            edns.options_mut().insert(EdnsOption::Unknown(EDE, option));
        }
        self.emit(reply, over)
    }

    /// The name servers did not answer, or not in a way that can be used.
    pub fn failed(&self, over: Transport) -> Vec<u8> {
        self.emit(self.reply(ResponseCode::ServFail), over)
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = Message::response(self.id, OpCode::Query);
        reply.metadata.recursion_desired = self.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.add_query(self.query.clone());
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            reply.set_edns(edns);
        }
        reply
    }

    /// Over UDP a reply that is too long is cut down to its head, with the bit
    /// that makes the client ask again over TCP.
    fn emit(&self, reply: Message, over: Transport) -> Vec<u8> {
        let limit = match (over, self.payload) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(payload)) => usize::from(payload).clamp(PLAIN_UDP, MAX_UDP),
        };
        match reply.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            Ok(_) => reply.truncate().to_vec().unwrap_or_default(),
            // An empty reply is not sent; the client times out and asks again.
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
