//! How often what was found, since the service began.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::mask::Findings;
use crate::session::Direction;

/// Entities that are counted by themselves: jobs name values of their own. Others are
/// counted together.
pub const COUNTED_MAX: usize = 1000;
/// The entity that others are counted as.
const OTHERS: &str = "OTHERS";

/// Counters of findings.
#[derive(Debug, Default)]
pub struct Found(Mutex<BTreeMap<String, Both>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Both {
    requests: u64,
    responses: u64,
}

/// How often one entity was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    entity: String,
    #[serde(flatten)]
    both: Both,
}

impl Found {
    pub fn add(&self, direction: Direction, findings: &Findings) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in findings.iter() {
            let entity = finding.entity.as_str();
            let own = all.contains_key(entity) || all.len() < COUNTED_MAX;
            let both = all.entry(if own { entity } else { OTHERS }.to_owned()).or_default();
            let count = match direction {
                Direction::Request => &mut both.requests,
                Direction::Response => &mut both.responses,
            };
            *count = count.saturating_add(finding.count.into());
        }
    }

    /// All that was found, by entity.
    pub fn counts(&self) -> Vec<Count> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(entity, both)| Count { entity: entity.clone(), both: *both }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{ExactValue, Masker, Selection};
    use crate::secret::SecretBytes;

    fn of(names: &[String]) -> Findings {
        let value = |name: &String| ExactValue::new(name, &SecretBytes::from("obviously fake")).unwrap();
        let mut all = Findings::default();
        for name in names {
            let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &[value(name)]).unwrap();
            all.merge(&masker.mask(b"obviously fake").1);
        }
        all
    }

    #[test]
    fn what_is_found_is_counted_by_entity_and_direction_up_to_a_limit() {
        let found = Found::default();
        found.add(Direction::Request, &of(&["a".to_owned(), "a".to_owned()]));
        found.add(Direction::Response, &of(&["a".to_owned()]));
        let counts = serde_json::to_value(found.counts()).unwrap();
        assert_eq!(counts, serde_json::json!([{"entity": "A", "requests": 2, "responses": 1}]));
        for index in 0..COUNTED_MAX + 10 {
            found.add(Direction::Request, &of(&[format!("b{index}")]));
        }
        let counts = found.counts();
        assert_eq!(counts.len(), COUNTED_MAX + 1);
        let others = counts.iter().find(|count| count.entity == OTHERS).unwrap();
        assert_eq!(others.both.requests, 11);
    }
}
