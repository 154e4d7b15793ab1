//! What a rule takes from a URL.

use std::net::IpAddr;

/// Segments of a path that are this long and hold digits may be keys.
const KEY_CHARACTERS: usize = 16;

/// Where a registry is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub tls: bool,
    /// Lower case; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Without a slash at its end; none if it says nothing or cannot be told.
    pub path: Option<String>,
}

/// Why there is no rule for a URL. The messages do not repeat it: it may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("a file of this host, which needs no rule")]
    Local,
    #[error("not an http or https URL; write a rule for it by hand")]
    Scheme,
    #[error("the URL's host or port cannot stand in a rule; write one by hand")]
    Host,
}

impl Address {
    /// Reads a URL; says also whether something secret was left out.
    pub fn parse(url: &str) -> Result<(Self, bool), AddressError> {
        let url = url.trim().trim_matches(['"', '\'']);
        let plain = ["sparse+", "registry+"].iter().find_map(|p| url.strip_prefix(p)).unwrap_or(url);
        let Some((scheme, rest)) = plain.split_once("://") else {
            let local = plain.starts_with(['/', '.', '~']) || !plain.contains(':');
            let local = local || ["file:", "cdrom:", "copy:"].iter().any(|p| plain.starts_with(p));
            return Err(if local { AddressError::Local } else { AddressError::Scheme });
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            "file" | "cdrom" | "copy" => return Err(AddressError::Local),
            _ => return Err(AddressError::Scheme),
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((_, authority)) => (true, authority),
            None => (false, authority),
        };
        let (host, port) = split_port(authority).ok_or(AddressError::Host)?;
        let port = match port {
            None | Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| AddressError::Host)?
            }
            Some(_) => return Err(AddressError::Host),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if port == 0 || !(host.parse::<IpAddr>().is_ok() || is_name(&host)) {
            return Err(AddressError::Host);
        }
        let (path, query) = match rest.find(['?', '#']) {
            Some(at) => (&rest[..at], true),
            None => (rest, false),
        };
        let path = path.trim_end_matches('/');
        let keys = path.split('/').any(is_key);
        let tellable = !keys && !userinfo && is_plain_path(path);
        let path = (tellable && !path.is_empty()).then(|| path.to_owned());
        Ok((Self { tls, host, port, path }, userinfo || keys || query))
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            rest => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// As policy has it: what it would not load is no host.
fn is_name(host: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(fine);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label) && !last.starts_with(|c: char| c.is_ascii_digit())
}

fn is_key(segment: &str) -> bool {
    segment.len() >= KEY_CHARACTERS && segment.bytes().any(|b| b.is_ascii_digit())
}

/// A path that stands in a rule as it stands in a request.
fn is_plain_path(path: &str) -> bool {
    let segment = |segment: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'~');
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(fine)
    };
    path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (String, u16, bool, Option<String>, bool) {
        let (address, secret) = Address::parse(url).unwrap();
        (address.host, address.port, address.tls, address.path, secret)
    }

    #[test]
    fn a_url_is_taken_apart_and_its_secrets_are_left_out() {
        let path = Some("/debian".to_owned());
        assert_eq!(parse("http://Deb.Test./debian/"), ("deb.test".into(), 80, false, path, false));
        assert_eq!(parse("sparse+https://c.test:8443"), ("c.test".into(), 8443, true, None, false));
        for url in [
            "https://user:pa@ss@c.test/simple",
            "https://c.test/f00dF00df00df00d/simple",
            "https://c.test/?token=x",
            "https://c.test#x",
        ] {
            assert_eq!(parse(url), ("c.test".into(), 443, true, None, true), "{url}");
        }
        assert_eq!(parse("http://[fd00::1]:81/a"), ("fd00::1".into(), 81, false, Some("/a".into()), false));
        assert_eq!(parse("https://c.test/a*/..").3, None);
    }

    #[test]
    fn what_cannot_stand_in_a_rule_is_said_so() {
        for (url, error) in [
            ("ftp://c.test/", AddressError::Scheme),
            ("git@c.test:o/r", AddressError::Scheme),
            ("https://*.test/", AddressError::Host),
            ("https://c.test:0/", AddressError::Host),
            ("https://c.test:65536/", AddressError::Host),
            ("https:///x", AddressError::Host),
            ("https://127.1/", AddressError::Host),
            ("https://[::1/", AddressError::Host),
            ("file:///srv/wheels", AddressError::Local),
            ("cdrom:[Debian]/", AddressError::Local),
            ("/opt/wheels", AddressError::Local),
        ] {
            assert_eq!(Address::parse(url), Err(error), "{url}");
        }
    }
}
