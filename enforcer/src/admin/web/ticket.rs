//! A login that is under way. The browser keeps it, sealed: whoever begins a thousand takes
//! nothing of anybody else's room.
//!
//! From one random number come what the issuer gives back (`state`), what stands in its token
//! (`nonce`) and what proves that the code is ours (PKCE, RFC 7636). The seal keeps others from
//! choosing any of them, or where the login leads.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::limits::LOGIN;

/// The most bytes of where a login leads.
const MAX_TO: usize = 512;

/// 256 random bits as text.
pub fn random_text() -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Seals them; after a restart all that are under way begin anew.
pub struct Tickets {
    key: [u8; 32],
}

/// What belongs to one login.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    pub state: String,
    pub nonce: String,
    pub verifier: String,
    /// A path of ours.
    pub to: String,
}

impl Ticket {
    /// What the issuer gets of the verifier.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }
}

impl Tickets {
    pub fn new() -> Result<Self, Unspecified> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key)?;
        Ok(Self { key })
    }

    /// A new one, and what the browser keeps of it; `now` is in seconds since 1970.
    pub fn begin(&self, to: &str, now: u64) -> Result<(Ticket, String), Unspecified> {
        let random = random_text()?;
        let to = own_path(to);
        let kept = format!("{random}.{now}.{}", URL_SAFE_NO_PAD.encode(&to));
        let seal = self.part("seal", &kept);
        Ok((self.ticket(&random, to), format!("{kept}.{seal}")))
    }

    /// The one that was begun in this browser, if it is the one that the issuer answers to.
    pub fn end(&self, kept: &str, state: &str, now: u64) -> Option<Ticket> {
        let (kept, seal) = kept.rsplit_once('.')?;
        if !same(&self.part("seal", kept), seal) {
            return None;
        }
        let mut parts = kept.split('.');
        let (random, begun, to) = (parts.next()?, parts.next()?.parse::<u64>().ok()?, parts.next()?);
        if now.saturating_sub(begun) >= LOGIN.as_secs() {
            return None;
        }
        let to = String::from_utf8(URL_SAFE_NO_PAD.decode(to).ok()?).ok()?;
        let ticket = self.ticket(random, to);
        same(&ticket.state, state).then_some(ticket)
    }

    fn ticket(&self, random: &str, to: String) -> Ticket {
        let part = |what| self.part(what, random);
        Ticket { state: part("state"), nonce: part("nonce"), verifier: part("verifier"), to }
    }

    fn part(&self, what: &str, of: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, format!("{what}\0{of}").as_bytes());
        URL_SAFE_NO_PAD.encode(hash.as_bytes())
    }
}

/// In a time that does not depend on where they differ.
pub fn same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

/// **Invariant**: a login leads to a page of ours. Anything else leads to the first one.
pub fn own_path(to: &str) -> String {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.?=&%*:+".contains(&byte);
    let ours = to.starts_with('/') && !to.starts_with("//") && to.bytes().all(fine);
    if ours && to.len() <= MAX_TO { to.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_ends_where_it_was_begun_and_in_time() {
        let tickets = Tickets::new().unwrap();
        let (begun, kept) = tickets.begin("/approvals/apr-1", 1000).unwrap();
        let late = 1000 + LOGIN.as_secs();
        assert_eq!(tickets.end(&kept, &begun.state, late - 1), Some(begun));
        let (begun, kept) = tickets.begin("/", 1000).unwrap();
        assert_eq!(tickets.end(&kept, &begun.state, late), None);
        let (other, other_kept) = tickets.begin("/", 1000).unwrap();
        assert_eq!(tickets.end(&kept, &other.state, 1000), None);
        assert_eq!(tickets.end(&other_kept, &begun.state, 1000), None);
        assert_eq!(Tickets::new().unwrap().end(&kept, &begun.state, 1000), None);
        for cut in 0..kept.len() {
            assert_eq!(tickets.end(&kept[..cut], &begun.state, 1000), None, "{cut}");
        }
        let later = kept.replacen(".1000.", ".9000.", 1);
        assert_eq!(tickets.end(&later, &begun.state, 9000), None);
    }

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let ticket = Ticket { state: String::new(), nonce: String::new(), verifier, to: String::new() };
        assert_eq!(ticket.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_login_leads_nowhere_but_here() {
        for ours in ["/", "/approvals/apr-1", "/sessions?host=*.test&outcome=denied"] {
            assert_eq!(own_path(ours), ours);
        }
        for other in [
            "",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "evil",
            "/\r\nset-cookie: a",
            "javascript:alert(1)",
            "/\t/evil.test",
            "/a\"b",
        ] {
            assert_eq!(own_path(other), "/", "{other}");
        }
        assert_eq!(own_path(&format!("/{}", "a".repeat(MAX_TO - 1))).len(), MAX_TO);
        assert_eq!(own_path(&format!("/{}", "a".repeat(MAX_TO))), "/");
    }
}
