//! What policy answers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::mask::Selection;

use super::cidr::Cidr;

/// Bytes of a body that the class `inspect` may hold before anything goes out.
pub const INSPECT_CAP_BYTES: u64 = 16 * 1024 * 1024;

/// `<policy name>/<rule id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct RuleId(Arc<str>);

impl RuleId {
    pub(super) fn new(policy: &str, rule: &str) -> Self {
        Self(format!("{policy}/{rule}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as it stands in the file, without the policy's name.
    pub fn local(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, rule)| rule)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// BLAKE3 over names and contents of all policy files, as hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct PolicyHash(Arc<str>);

impl PolicyHash {
    pub(super) fn new(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().as_str().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Allow,
    Deny,
    /// The TLS connection is relayed unread to the verified SNI host.
    Passthrough,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Passthrough => "passthrough",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    PolicyAllow,
    PolicyPassthrough,
    PolicyDeny,
    /// No rule decided.
    PolicyDefaultDeny,
    /// A rule needed a fact that is not known.
    MissingFact,
    /// A fact is not in canonical form, so no rule can be trusted to match it.
    InvalidFact,
    /// No policy could be loaded.
    NoPolicy,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::PolicyAllow => "policy-allow",
            Reason::PolicyPassthrough => "policy-passthrough",
            Reason::PolicyDeny => "policy-deny",
            Reason::PolicyDefaultDeny => "policy-default-deny",
            Reason::MissingFact => "missing-fact",
            Reason::InvalidFact => "invalid-fact",
            Reason::NoPolicy => "no-policy",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a body is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyClass {
    #[default]
    Stream,
    Inspect {
        cap: u64,
    },
}

/// What the verdict has to reach before a byte is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    #[default]
    PageCache,
    Fsync,
}

/// One network that may be dialled beyond public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressRule {
    Loopback,
    /// RFC 1918 and RFC 4193.
    Private,
    Network(Cidr),
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressRule::Loopback => f.write_str("loopback"),
            AddressRule::Private => f.write_str("private"),
            AddressRule::Network(cidr) => cidr.fmt(f),
        }
    }
}

impl serde::Serialize for AddressRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Networks that policy names for upstream dialling. Hashable, since the pool
/// of upstream connections is keyed by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct AddressRules(BTreeSet<AddressRule>);

impl AddressRules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &AddressRule> {
        self.0.iter()
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().copied());
    }

    /// Whether policy names this address. It says nothing of public addresses,
    /// which need no naming.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|rule| match rule {
            AddressRule::Loopback => address.is_loopback(),
            AddressRule::Private => match address {
                IpAddr::V4(v4) => v4.is_private(),
                IpAddr::V6(v6) => v6.is_unique_local(),
            },
            AddressRule::Network(cidr) => cidr.contains(address),
        })
    }
}

impl FromIterator<AddressRule> for AddressRules {
    fn from_iter<I: IntoIterator<Item = AddressRule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

/// What enforce mode would have answered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WouldDeny {
    pub rule: Option<RuleId>,
    pub reason: Reason,
    pub message: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub rule: Option<RuleId>,
    pub reason: Reason,
    pub message: Option<Arc<str>>,
    pub request_mask: Selection,
    pub response_mask: Selection,
    pub observe: bool,
    pub body: BodyClass,
    pub durability: Durability,
    pub addresses: AddressRules,
    /// Set when audit mode turned a deny into an allow.
    pub audit: Option<WouldDeny>,
}

impl Decision {
    /// A verdict without any adding effect. A denial is on disk before it is
    /// answered, whatever the rules say.
    pub(super) fn bare(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            rule: None,
            reason,
            message: None,
            request_mask: Selection::None,
            response_mask: Selection::None,
            observe: false,
            body: BodyClass::Stream,
            durability: match verdict {
                Verdict::Deny => Durability::Fsync,
                Verdict::Allow | Verdict::Passthrough => Durability::PageCache,
            },
            addresses: AddressRules::default(),
            audit: None,
        }
    }
}

/// Whether a destination can still be allowed once all facts are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feasibility {
    Possible,
    /// No completion of the missing facts allows it; this is the denial.
    Never(Box<Decision>),
}

impl Feasibility {
    pub fn is_possible(&self) -> bool {
        matches!(self, Feasibility::Possible)
    }
}
