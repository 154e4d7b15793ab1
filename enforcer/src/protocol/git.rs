//! What git's smart HTTP protocol needs for a refusal that its user gets to read
//! (gitprotocol-http(5), gitprotocol-pack(5)): git shows the body of an error only
//! while it discovers references, and later only what comes in the protocol.

use http::{Method, Uri};

/// The longest text in one packet line, in bytes; longer text is cut.
const MAX_TEXT: usize = 900;

/// A request of git's that can be refused in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `GET info/refs?service=git-...`
    Discovery,
    /// `POST git-receive-pack`: a push.
    ReceivePack,
    /// `POST git-upload-pack`: a fetch.
    UploadPack,
}

impl Service {
    pub fn of(method: &Method, uri: &Uri, content_type: &[u8]) -> Option<Self> {
        let path = uri.path();
        let discovers = uri.query().is_some_and(|query| query.starts_with("service=git-"));
        match content_type {
            _ if method == Method::GET && path.ends_with("/info/refs") && discovers => Some(Self::Discovery),
            b"application/x-git-receive-pack-request" if method == Method::POST => Some(Self::ReceivePack),
            b"application/x-git-upload-pack-request" if method == Method::POST => Some(Self::UploadPack),
            _ => None,
        }
    }

    /// Content type and body of an answer that says this; it is a success of HTTP
    /// for all but the discovery.
    pub fn refusal(self, text: &str) -> (&'static str, Vec<u8>) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        match self {
            Self::Discovery => ("text/plain; charset=utf-8", format!("{text}\n").into_bytes()),
            Self::UploadPack => ("application/x-git-upload-pack-result", packet(&format!("ERR {text}\n"))),
            Self::ReceivePack => {
                // Band 2 is shown to the user, band 1 holds the report of the push.
                let report = [packet("unpack denied by policy\n"), b"0000".to_vec()].concat();
                let mut body = packet(&format!("\x02{text}\n"));
                body.extend(packet(&format!("\x01{}", String::from_utf8_lossy(&report))));
                body.extend(b"0000");
                ("application/x-git-receive-pack-result", body)
            }
        }
    }
}

/// The path of the push that a discovery begins (`service=git-receive-pack`); who asks
/// otherwise is refused when it pushes.
pub fn begun_push(method: &Method, path: &str, query: Option<&str>) -> Option<String> {
    let repository = path.strip_suffix("/info/refs").filter(|_| method == Method::GET)?;
    let pushes = query?.split('&').any(|pair| pair == "service=git-receive-pack");
    pushes.then(|| format!("{repository}/git-receive-pack"))
}

/// A packet line: four hexadecimal digits with the length, their own included.
fn packet(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_apart_and_nothing_else_is_one() {
        let of = |method: Method, uri: &str, kind: &str| {
            Service::of(&method, &uri.parse().unwrap(), kind.as_bytes())
        };
        let push = "application/x-git-receive-pack-request";
        assert_eq!(of(Method::GET, "/a/info/refs?service=git-receive-pack", ""), Some(Service::Discovery));
        assert_eq!(of(Method::POST, "/a/git-receive-pack", push), Some(Service::ReceivePack));
        assert_eq!(of(Method::GET, "/a/git-receive-pack", push), None);
        assert_eq!(of(Method::GET, "/a/info/refs", ""), None);
        assert_eq!(of(Method::POST, "/a/git-receive-pack", "text/plain"), None);
    }

    #[test]
    fn a_push_is_known_by_its_discovery() {
        let begun = |method: Method, path: &str, query: &str| begun_push(&method, path, Some(query));
        let push = "service=git-receive-pack";
        assert_eq!(begun(Method::GET, "/a/info/refs", push).as_deref(), Some("/a/git-receive-pack"));
        assert_eq!(begun(Method::GET, "/a/info/refs", "x&service=git-upload-pack"), None);
        assert_eq!(begun(Method::POST, "/a/info/refs", push), None);
        assert_eq!(begun(Method::GET, "/a/refs", push), None);
        assert_eq!(begun_push(&Method::GET, "/a/info/refs", None), None);
    }

    #[test]
    fn a_refusal_is_framed_and_cut() {
        let (_, body) = Service::UploadPack.refusal("no\nway");
        assert_eq!(body, b"000fERR no way\n");
        let (_, body) = Service::ReceivePack.refusal(&"ü".repeat(MAX_TEXT));
        let length = usize::from_str_radix(std::str::from_utf8(&body[..4]).unwrap(), 16).unwrap();
        assert_eq!(length, 4 + 1 + MAX_TEXT + 1);
        assert_eq!(body[4], 2);
        assert_eq!(&body[length..], b"0025\x01001cunpack denied by policy\n00000000");
    }
}
