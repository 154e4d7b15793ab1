//! A workload as the gate sees it: facts for policy and compiled maskers.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mask::{ExactValue, MaskError, Masker, Place, Selection, SurrogateKey};
use crate::policy::WorkloadFacts;
use crate::session::WorkloadRecord;
use crate::workload::Workload;
use crate::workload::wire::RefusedTo;

use super::Whose;
use super::held::Budget;

/// Maskers of one workload that are kept; policies use a handful of selections.
const MASKERS: usize = 32;
/// Denials of one workload that are told on a leaf of their own, in a second and at once
/// after a pause; others get an alert.
const TOLD_PER_SECOND: NonZeroU32 = NonZeroU32::new(25).expect("not 0");
const TOLD_AT_ONCE: NonZeroU32 = NonZeroU32::new(250).expect("not 0");
/// Destinations that are kept of those that a workload was refused; others are counted.
const REFUSED: usize = 16;
/// Letters of each of them.
const REFUSED_LETTERS: usize = 256;

/// What is secret for everybody, with the maskers of all workloads that have no secrets of their
/// own: compiled once.
pub struct Operator {
    values: Vec<ExactValue>,
    everything: Masker,
    known: Masker,
}

impl Operator {
    /// `values` are those that the operator registered.
    pub fn new(values: Vec<ExactValue>) -> Result<Self, MaskError> {
        let (everything, known) = maskers(&values)?;
        Ok(Self { values, everything, known })
    }

    /// Masks everything that is known of no workload alone.
    pub fn everything(&self) -> &Masker {
        &self.everything
    }
}

/// For everything, and for the values that are known alone.
fn maskers(exact: &[ExactValue]) -> Result<(Masker, Masker), MaskError> {
    Ok((Masker::new(&Selection::All, exact)?, Masker::new(&Selection::All.exact_part(), exact)?))
}

/// A workload with what was compiled for it.
pub struct Subject {
    pub workload: Arc<Workload>,
    pub facts: WorkloadFacts,
    /// The same as sessions record it.
    pub recorded: Arc<WorkloadRecord>,
    /// Whose job it is; the same for a workload whose labels change.
    pub whose: Arc<Whose>,
    /// Connections that are open now.
    pub connections: Arc<AtomicUsize>,
    /// Bodies that are held now.
    pub held: Budget,
    /// Denials that are told on a leaf of their own.
    told: DefaultDirectRateLimiter,
    exact: Vec<ExactValue>,
    surrogates: Option<SurrogateKey>,
    everything: Masker,
    known: Masker,
    maskers: Mutex<Vec<(Selection, Compiled)>>,
    refused: Mutex<RefusedTo>,
}

impl Subject {
    pub fn new(workload: Arc<Workload>, operator: &Operator) -> Result<Self, MaskError> {
        let exact: Vec<_> = workload.secrets.iter().chain(&operator.values).cloned().collect();
        let facts = WorkloadFacts {
            name: workload.name.clone(),
            cgroup: workload.cgroup_path.clone(),
            labels: workload.labels.clone(),
        };
        let (everything, known) = if workload.secrets.is_empty() {
            (operator.everything.clone(), operator.known.clone())
        } else {
            maskers(&exact)?
        };
        let text = |text: &str| everything.text(text).0;
        let recorded = Arc::new(WorkloadRecord {
            cgroup_path: text(&facts.cgroup),
            labels: facts.labels.iter().map(|(key, value)| (text(key), text(value))).collect(),
        });
        let told = RateLimiter::direct(Quota::per_second(TOLD_PER_SECOND).allow_burst(TOLD_AT_ONCE));
        Ok(Self {
            workload,
            facts,
            recorded,
            whose: Arc::default(),
            connections: Arc::default(),
            held: Budget::default(),
            told,
            exact,
            surrogates: None,
            everything,
            known,
            maskers: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// With the key of surrogates; without it there are placeholders in their place.
    #[must_use]
    pub fn with_surrogates(self, key: Option<SurrogateKey>) -> Self {
        Self { surrogates: key, ..self }
    }

    /// With what is known of who the same workload is.
    #[must_use]
    pub fn with_identity(self, whose: Arc<Whose>) -> Self {
        Self { whose, ..self }
    }

    /// Masks everything that is known; for what is recorded.
    pub fn everything(&self) -> &Masker {
        &self.everything
    }

    /// Masks the values that are known, and nothing that only looks like a secret.
    pub fn known(&self) -> &Masker {
        &self.known
    }

    /// Of what policy selected only the known values; what is selected by nothing masks nothing.
    pub fn exact(&self, selection: &Selection) -> Result<Masker, MaskError> {
        match selection {
            Selection::None => Ok(Masker::nothing()),
            Selection::All => Ok(self.known.clone()),
            _ => Ok(self.compiled(selection)?.exact),
        }
    }

    /// Whether one more denial may be told on a leaf of its own: the signer is there
    /// for all workloads.
    pub fn may_be_told(&self) -> bool {
        self.told.check().is_ok()
    }

    /// Keeps where the workload was not let go: whoever started it is told at its end.
    pub fn note_refused(&self, to: &str) {
        let to: String = self.everything.text(to).0.as_str().chars().take(REFUSED_LETTERS).collect();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.destinations.contains(&to) {
            return;
        }
        if refused.destinations.len() < REFUSED {
            refused.destinations.push(to);
        } else {
            refused.more += 1;
        }
    }

    pub fn refused_to(&self) -> RefusedTo {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anything that is known as a secret stands in a host name.
    pub fn reveals(&self, name: &str) -> bool {
        !self.everything.text_at(name, Place::Dns).1.is_empty()
    }

    /// Masks what policy selected; `None` if that is nothing.
    pub fn masker(&self, selection: &Selection) -> Result<Option<Masker>, MaskError> {
        match selection {
            Selection::None => Ok(None),
            Selection::All => Ok(Some(self.everything.clone())),
            _ => Ok(Some(self.compiled(selection)?.whole).filter(|masker| !masker.is_noop())),
        }
    }

    fn compiled(&self, selection: &Selection) -> Result<Compiled, MaskError> {
        let mut maskers = self.maskers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = maskers.iter().find(|(known, _)| known == selection) {
            return Ok(compiled.clone());
        }
        let keyed = |selection: &Selection| Masker::keyed(selection, &self.exact, self.surrogates.clone());
        let compiled = Compiled { whole: keyed(selection)?, exact: keyed(&selection.exact_part())? };
        if maskers.len() >= MASKERS {
            maskers.remove(0);
        }
        maskers.push((selection.clone(), compiled.clone()));
        Ok(compiled)
    }
}

/// What a selection was compiled to.
#[derive(Clone)]
struct Compiled {
    whole: Masker,
    /// Of the known values alone.
    exact: Masker,
}

/// How long a workload may be tagged and not known.
const SOON: Duration = Duration::from_secs(1);

/// All workloads that may speak now.
#[derive(Default)]
pub struct Subjects {
    by_tag: RwLock<HashMap<u64, Arc<Subject>>>,
    added: Notify,
}

impl Subjects {
    pub fn insert(&self, subject: Arc<Subject>) -> Option<Arc<Subject>> {
        let mut map = self.by_tag.write().unwrap_or_else(PoisonError::into_inner);
        let earlier = map.insert(subject.workload.tag, subject);
        self.added.notify_waiters();
        earlier
    }

    /// The same as `get`, but it waits a moment: a cgroup of somebody else is tagged
    /// first, and then we are told of it.
    pub async fn get_soon(&self, tag: u64) -> Option<Arc<Subject>> {
        let until = Instant::now() + SOON;
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            // From here on nothing that is added is missed.
            added.as_mut().enable();
            if let Some(subject) = self.get(tag) {
                return Some(subject);
            }
            if tokio::time::timeout_at(until, added).await.is_err() {
                return None;
            }
        }
    }

    pub fn get(&self, tag: u64) -> Option<Arc<Subject>> {
        self.by_tag.read().unwrap_or_else(PoisonError::into_inner).get(&tag).cloned()
    }

    pub fn remove(&self, tag: u64) -> Option<Arc<Subject>> {
        self.by_tag.write().unwrap_or_else(PoisonError::into_inner).remove(&tag)
    }

    pub fn len(&self) -> usize {
        self.by_tag.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
