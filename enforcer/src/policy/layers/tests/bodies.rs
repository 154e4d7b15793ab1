//! What several layers need to know of a body: enough for the verdict, and nothing beyond that.

use super::super::super::{Awaits, BodyFacts, Told};
use super::*;

const CONDITIONS: [&str; 6] = [
    "",
    "when: {host: other.test}, ",
    "when: {cel: '\"A\" in findings'}, ",
    "when: {cel: '!(\"A\" in findings)'}, ",
    "when: {cel: 'llm.model == \"m\"'}, ",
    "when: {cel: 'has(llm.model) && size(findings) == 0'}, ",
];
const EFFECTS: [&str; 5] =
    ["allow: true", "deny: no", NEEDS, "mask: {request: [pii]}", "delegate: repository"];

/// Each is a condition, an effect, and whether it is only tried.
type Picks = Vec<(usize, usize, bool)>;

fn picks() -> impl Strategy<Value = Picks> {
    proptest::collection::vec((0..CONDITIONS.len(), 0..EFFECTS.len(), proptest::bool::ANY), 0..4)
}

fn written(picks: &Picks, host: bool) -> String {
    let rule = |(at, (condition, effect, audit)): (usize, &(usize, usize, bool))| {
        let effect = EFFECTS.get(*effect).filter(|effect| host || !effect.starts_with("delegate"));
        let mode = if *audit { "mode: audit, " } else { "" };
        format!("  - {{id: r{at}, {mode}{}{}}}\n", CONDITIONS[*condition], effect.unwrap_or(&"observe: true"))
    };
    picks.iter().enumerate().map(rule).collect()
}

proptest! {
    #[test]
    fn what_is_not_asked_for_makes_no_difference(
        host in picks(), organization in proptest::option::of(picks()), repository in proptest::option::of(picks())
    ) {
        let below = |picks: Option<Picks>| picks.map(|picks| written(&picks, false));
        let (organization, repository) = (below(organization), below(repository));
        let policy = layered(&written(&host, true), organization.as_deref(), repository.as_deref());
        let (workload, claims) = (WorkloadFacts::default(), of("acme/app"));
        let asked = facts(&workload, Stage::Http, verified(&claims), "a.test");
        let [a, m, none] = [vec!["A".to_owned()], vec!["m".to_owned()], Vec::new()];
        let models = [Fact::Absent, Fact::Known(Told::These(&m)), Fact::Known(Told::These(&a)), Fact::Known(Told::Unclear)];
        let findings = [Fact::Known(Told::These(&none)), Fact::Known(Told::These(&a)), Fact::Known(Told::Unclear)];
        let decide = |models, findings| policy.decide(&Facts { body: BodyFacts { models, findings }, ..asked.clone() });
        let first = policy.awaits(&asked);
        for models in models {
            for findings in findings {
                let known = decide(models, findings);
                prop_assert!(!known.awaits.any());
                let Some(awaits) = first else {
                    prop_assert_eq!(known.verdict, Verdict::Deny);
                    continue;
                };
                let Awaits { models: some_models, findings: some_findings } = awaits;
                let models = if some_models { models } else { Fact::Unknown };
                let findings = if some_findings { findings } else { Fact::Unknown };
                prop_assert_eq!(&decide(models, findings), &known, "{:?}", awaits);
            }
        }
    }
}

#[test]
fn a_layer_below_is_asked_unless_the_host_denies() {
    let mail = "  - {id: mail, when: {cel: '\"EMAIL\" in findings'}, deny: no}\n";
    let awaits = |host: &str| {
        let policy = layered(host, None, Some(mail));
        let (workload, claims) = (WorkloadFacts::default(), of("acme/app"));
        policy.awaits(&facts(&workload, Stage::Http, verified(&claims), "a.test"))
    };
    assert_eq!(awaits("  - {id: all, allow: true}\n"), Some(Awaits { models: false, findings: true }));
    assert_eq!(awaits("  - {id: all, deny: no}\n"), None);
}
