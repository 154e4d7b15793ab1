//! Conditions on who a job is.
//!
//! **Invariant**: what a job says of itself is its own word. A condition that does not name the
//! assurance sees what a verified token says, and nothing else: every other identity is missing.

use crate::workload::identity::{Assurance, Claims, Field, Profile};

use super::facts::{Fact, IdentityFacts};
use super::glob::TextGlob;
use super::rule::Tri;

/// A part of an identity that is one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPart {
    Provider,
    Issuer,
    Subject,
    Of(Field),
}

impl TextPart {
    pub fn of(self, claims: &Claims) -> Option<&str> {
        let text = match self {
            TextPart::Provider => claims.provider.as_str(),
            TextPart::Issuer => &claims.issuer,
            TextPart::Subject => &claims.subject,
            TextPart::Of(field) => return claims.get(field),
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

/// Why a condition sees no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It may still become known.
    Unknown,
    Nobody,
    /// It is known by less than a token.
    Unproven(Assurance),
}

/// What a condition sees that names the assurance (`named`), or that does not.
pub fn seen(identity: Fact<IdentityFacts<'_>>, named: bool) -> Result<&Claims, Unseen> {
    match identity {
        Fact::Unknown => Err(Unseen::Unknown),
        Fact::Absent => Err(Unseen::Nobody),
        Fact::Known(known) if named || known.assurance == Assurance::Oidc => Ok(known.claims),
        Fact::Known(known) => Err(Unseen::Unproven(known.assurance)),
    }
}

/// How far it is known who a job is, which is known of every job.
pub fn assurance(identity: Fact<IdentityFacts<'_>>) -> Fact<Assurance> {
    match identity {
        Fact::Known(known) => Fact::Known(known.assurance),
        Fact::Absent => Fact::Known(Assurance::None),
        Fact::Unknown => Fact::Unknown,
    }
}

/// `when.identity`, compiled.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub assurance: Vec<Assurance>,
    pub provider: Vec<Profile>,
    pub protected: Option<bool>,
    pub texts: Vec<(TextPart, Vec<TextGlob>)>,
    pub groups: Vec<TextGlob>,
    pub roles: Vec<TextGlob>,
}

impl Conditions {
    /// Whether it asks for more than the assurance.
    pub fn asks_who(&self) -> bool {
        let lists = [&self.groups, &self.roles];
        !self.provider.is_empty()
            || self.protected.is_some()
            || !self.texts.is_empty()
            || lists.iter().any(|globs| !globs.is_empty())
    }

    /// Whether it holds for a rule that lets something through (`grants`), or for one that does
    /// not: a part that is missing is false for the one, and true for the other.
    pub fn holds(&self, identity: Fact<IdentityFacts<'_>>, grants: bool) -> Tri {
        let named = !self.assurance.is_empty();
        match assurance(identity) {
            Fact::Known(assurance) if named && !self.assurance.contains(&assurance) => return Tri::No,
            Fact::Known(_) => {}
            Fact::Unknown | Fact::Absent => return Tri::Maybe,
        }
        let claims = seen(identity, named).ok();
        let told = |holds: Option<bool>| holds.map_or(Tri::from(!grants), Tri::from);
        let any = |globs: &[TextGlob], text: &str| globs.iter().any(|glob| glob.matches(text));
        let texts = self.texts.iter().map(|(part, globs)| {
            let text = claims.and_then(|claims| part.of(claims));
            told(text.map(|text| any(globs, text)))
        });
        let provider = (!self.provider.is_empty())
            .then(|| told(claims.map(|claims| self.provider.contains(&claims.provider))));
        let protected = self.protected.map(|wanted| {
            let is = claims.and_then(|claims| claims.ref_protected);
            told(is.map(|is| is == wanted))
        });
        let list = |globs: &[TextGlob], of: fn(&Claims) -> &[String]| {
            let one = |claims| of(claims).iter().any(|text| any(globs, text));
            (!globs.is_empty()).then(|| told(claims.map(one)))
        };
        let groups = list(&self.groups, |claims| &claims.groups);
        let roles = list(&self.roles, |claims| &claims.roles);
        texts.chain(provider).chain(protected).chain(groups).chain(roles).min().unwrap_or(Tri::Yes)
    }
}

#[cfg(test)]
mod tests;
