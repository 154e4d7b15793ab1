//! Where this proxy does otherwise than a collection wants.
//!
//! An entry that is not needed any more fails the suite.

use super::vectors::Expected::{self, Forwarded, Refused};

#[derive(Debug)]
pub struct Pin {
    pub name: &'static str,
    pub expected: Expected,
    pub why: &'static str,
}

const fn forwarded(name: &'static str, why: &'static str) -> Pin {
    Pin { name, expected: Forwarded, why }
}

const fn refused(name: &'static str, why: &'static str) -> Pin {
    Pin { name, expected: Refused { after: 0 }, why }
}

const OTHER_PROTOCOL: &str = "it is not HTTP: this proxy carries no protocol that it does not know";
const ANY_METHOD: &str = "any token is a method (RFC 9110, 9.1), and policy decides on it";
const CODING: &str = "of transfer codings only `chunked` is carried: of others nobody could mask the body";

pub const PINS: &[Pin] = &[
    forwarded("NORM-UNDERSCORE-TE", "Transfer_Encoding is a field like any other; the length is what counts"),
    forwarded("SMUG-CL-DOUBLE-ZERO", "1*DIGIT allows zeros ahead (RFC 9110, 8.6); it goes on as 0"),
    forwarded("SMUG-EXPECT-100-CL", "a good request: the expectation is answered here and does not go on"),
    forwarded("SMUG-HEAD-CL-BODY", "a HEAD may have a body; its length is clear, and it goes on whole"),
    forwarded("request/invalid.md #31", ANY_METHOD),
    forwarded("request/invalid.md #38", ANY_METHOD),
    refused("request/method.md #54", "`*` is a target of OPTIONS alone (RFC 9112, 3.2.4)"),
    refused("request/method.md #58", OTHER_PROTOCOL),
    refused("request/method.md #59", OTHER_PROTOCOL),
    refused("request/method.md #60", OTHER_PROTOCOL),
    refused("request/sample.md #77", "HTTP/0.9 names no host"),
    refused("request/transfer-encoding.md #97", CODING),
    refused("request/transfer-encoding.md #98", CODING),
    refused("request/uri.md #109", "a target holds no quotation marks (RFC 3986, 2)"),
];

pub fn of(name: &str) -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.name == name)
}
