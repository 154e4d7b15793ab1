//! Who a workload is, as the gate asks for it and as it is written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

use crate::mask::Masker;
use crate::policy::{Fact, IdentityFacts};
use crate::session::IdentityRecord;
use crate::workload::identity::Identity;
use crate::workload::identity::slot::{Bound, Slot};

/// The identity that a workload has now.
#[derive(Debug, Default)]
pub struct Whose {
    pub slot: Slot,
    /// Masked once: it stands in each session.
    recorded: ArcSwapOption<IdentityRecord>,
}

impl Whose {
    /// What holds at this moment: an identity ends by its age, whoever looks.
    pub fn now(&self) -> Option<Arc<Bound>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.slot.get(now.as_secs())
    }

    /// As policy sees it.
    pub fn facts(now: Option<&Bound>) -> Fact<IdentityFacts<'_>> {
        now.map_or(Fact::Absent, |bound| {
            let (claims, assurance) = (bound.identity.claims(), bound.identity.assurance());
            Fact::Known(IdentityFacts { claims, assurance })
        })
    }

    /// As it stands in what is recorded.
    pub fn recorded(&self) -> Option<Arc<IdentityRecord>> {
        self.now().and_then(|_| self.recorded.load_full())
    }

    /// After it was bound: as it is recorded from now on.
    pub fn record(&self, identity: &Identity, everything: &Masker) -> Arc<IdentityRecord> {
        let text = |text: &str| everything.text(text).0;
        let claims = identity.claims();
        let texts: BTreeMap<_, _> =
            claims.texts.iter().map(|(field, value)| (field.as_str(), text(value))).collect();
        let record = Arc::new(IdentityRecord {
            assurance: identity.assurance().as_str(),
            provider: claims.provider.as_str(),
            issuer: text(&claims.issuer),
            subject: text(&claims.subject),
            texts,
            ref_protected: claims.ref_protected,
            groups: claims.groups.iter().map(|group| text(group)).collect(),
            roles: claims.roles.iter().map(|role| text(role)).collect(),
        });
        self.recorded.store(Some(Arc::clone(&record)));
        record
    }
}
