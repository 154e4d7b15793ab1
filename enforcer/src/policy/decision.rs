//! What policy answers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::mask::Selection;

use super::cidr::Cidr;
use super::facts::Awaits;
use super::limit::Limited;
use super::meter::Over;
use super::requirement::Requirement;
use super::rule::Rule;

/// Bytes of a body that the class `inspect` may hold before anything goes out.
pub const INSPECT_CAP_BYTES: u64 = 16 * 1024 * 1024;

/// `<policy name>/<rule id>`, with the name of its layer before it (`<layer>:`) if that is not
/// the host's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Of the host's layer, or of the one below it that is named.
    pub(super) fn new(layer: Option<&str>, policy: &str, rule: &str) -> Self {
        Self(match layer {
            None => format!("{policy}/{rule}").into(),
            Some(layer) => format!("{layer}:{policy}/{rule}").into(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The layer that it is of, if that is not the host's: no other part of it has a colon.
    pub fn layer(&self) -> Option<&str> {
        self.0.split_once(':').map(|(layer, _)| layer)
    }

    /// The id as it stands in the file, without the policy's name.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, rule)| rule)
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
    /// It waits until people have agreed.
    Hold,
    /// The TLS connection is relayed unread to the verified SNI host.
    Passthrough,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Hold => "hold",
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
    PolicyHold,
    /// Different rules hold it for the methods that a server may read.
    HeldByTwo,
    /// There was more of it than its rule allows.
    LimitExceeded,
    /// A limit cannot be counted, since there are too many counters.
    TooManyCounters,
    /// A rule leaves it to a layer below, which does not decide it.
    NotDecidedBelow,
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
            Reason::PolicyHold => "policy-hold",
            Reason::HeldByTwo => "held-by-two-rules",
            Reason::LimitExceeded => "limit-exceeded",
            Reason::TooManyCounters => "too-many-counters",
            Reason::NotDecidedBelow => "not-decided-below",
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

/// What enforce mode would have answered, which is a denial or a hold.
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
    /// Who that rule belongs to.
    pub owner: Option<Arc<str>>,
    pub reason: Reason,
    pub message: Option<Arc<str>>,
    pub request_mask: Selection,
    pub response_mask: Selection,
    pub observe: bool,
    pub body: BodyClass,
    pub durability: Durability,
    pub addresses: AddressRules,
    /// Whether rules may match tool calls in the answer.
    pub tools: bool,
    /// The same of the blocks of code in it.
    pub code: bool,
    /// What of the body is not known, and rules on the way to this would have had to know.
    pub awaits: Awaits,
    /// Who has to agree; set if the verdict is to hold.
    pub hold: Option<Arc<Requirement>>,
    /// Set when audit mode turned a deny into an allow.
    pub audit: Option<WouldDeny>,
    /// How much of it there may be, by the rules that allow it.
    pub limits: Vec<Limited>,
    /// Set if it is denied since there was too much of it.
    pub over: Option<Box<Over>>,
}

impl Decision {
    /// The rule that it is of.
    pub(super) fn by(&mut self, rule: &Rule) {
        self.rule = Some(rule.id.clone());
        self.owner.clone_from(&rule.owner);
    }

    /// The same, under the limits of another rule, too, that allows it in another reading.
    #[must_use]
    pub fn limited_by(mut self, other: Vec<Limited>) -> Self {
        for limited in other {
            if !self.limits.contains(&limited) {
                self.limits.push(limited);
            }
        }
        self
    }

    /// The same, but that it has to wait as the other one says.
    #[must_use]
    pub fn held_by(self, other: Self) -> Self {
        let Self { verdict, rule, owner, reason, message, body, durability, hold, .. } = other;
        Self { verdict, rule, owner, reason, message, body, durability, hold, ..self }
    }

    /// Denied: another rule holds it as well, and those who are asked by the one are not asked by
    /// the other.
    #[must_use]
    pub fn held_by_two(self) -> Self {
        let Self { rule, owner, .. } = self;
        Self { rule, owner, ..Self::bare(Verdict::Deny, Reason::HeldByTwo) }
    }

    /// A verdict without any adding effect. A denial is on disk before it is
    /// answered, whatever the rules say.
    pub(super) fn bare(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            rule: None,
            owner: None,
            reason,
            message: None,
            request_mask: Selection::None,
            response_mask: Selection::None,
            observe: false,
            body: BodyClass::Stream,
            durability: match verdict {
                Verdict::Deny | Verdict::Hold => Durability::Fsync,
                Verdict::Allow | Verdict::Passthrough => Durability::PageCache,
            },
            addresses: AddressRules::default(),
            tools: false,
            code: false,
            awaits: Awaits::default(),
            hold: None,
            audit: None,
            limits: Vec::new(),
            over: None,
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
