//! Rules about tool calls are asked for tool calls, and no others are.

use super::super::{Fact, Facts, Policy, Protocol, Reason, Stage, ToolFacts, Verdict, WorkloadFacts};
use crate::protocol::command::Effect;
use crate::protocol::llm::Item;

const RULES: &str = r#"
version: 1
name: p
rules:
  - {id: all, when: {host: api.test}, allow: true}
  - {id: other, when: {host: other.test}, allow: true}
  - {id: cleanup, when: {cel: 'llm.tool.name == "cleanup"'}, allow: true}
  - {id: no, when: {host: api.test, path: /v1/**, cel: '"delete" in llm.tool.effects'}, deny: nothing is deleted}
  - id: ask
    when: {host: api.test, cel: 'llm.provider == "anthropic" && llm.model.startsWith("c") && size(llm.tool.effects) > 0'}
    hold: {needs: [{people: 1, groups: [ops]}]}
  - {id: seen, mode: audit, when: {host: api.test, cel: 'llm.tool.arguments.contains("etc")'}, deny: not there}
"#;

fn policy(text: &str) -> Policy {
    Policy::from_text("p.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn facts<'a>(workload: &'a WorkloadFacts, host: &'a str, path: &'a str) -> Facts<'a> {
    Facts {
        host: Fact::Known(host),
        port: Fact::Known(443),
        protocol: Fact::Known(Protocol::Https),
        method: Fact::Known("POST"),
        path: Fact::Known(path),
        query: Fact::Known(""),
        ..Facts::new(workload, Stage::Http)
    }
}

fn call<'a>(name: &'a str, arguments: &'a str, effects: &'a [Effect]) -> Fact<ToolFacts<'a>> {
    Fact::Known(ToolFacts {
        item: Item::Tool,
        provider: "anthropic",
        model: Some("claude"),
        name,
        arguments,
        effects,
    })
}

#[test]
fn a_call_is_judged_by_the_rules_about_calls_alone_and_passes_if_none_decides() {
    let (policy, workload) = (policy(RULES), WorkloadFacts::default());
    let decide = |path, tool| policy.decide(&Facts { tool, ..facts(&workload, "api.test", path) });
    let rule = |decision: &super::super::Decision| decision.rule.as_ref().map(|rule| rule.local().to_owned());
    for (path, tool, verdict, by) in [
        ("/v1/messages", call("bash", "{}", &[]), Verdict::Allow, None),
        ("/v1/messages", call("bash", "{}", &[Effect::Delete]), Verdict::Deny, Some("no")),
        ("/v2/messages", call("bash", "{}", &[Effect::Delete]), Verdict::Hold, Some("ask")),
        ("/v1/messages", call("cleanup", "{}", &[Effect::Delete]), Verdict::Allow, Some("cleanup")),
    ] {
        let decision = decide(path, tool);
        assert_eq!((decision.verdict, rule(&decision).as_deref()), (verdict, by), "{path} {tool:?}");
        assert!(!decision.tools);
    }
    let seen = decide("/v1/messages", call("read", "/etc/x", &[]));
    assert_eq!((seen.verdict, seen.reason), (Verdict::Allow, Reason::PolicyAllow));
    assert_eq!(seen.audit.unwrap().rule.unwrap().local(), "seen");
    assert_eq!(
        Policy::deny_all()
            .decide(&Facts { tool: call("a", "", &[]), ..facts(&workload, "a.test", "/") })
            .verdict,
        Verdict::Deny
    );
}

#[test]
fn a_request_is_not_judged_by_them_but_it_is_known_that_its_answer_will_be() {
    let (policy, workload) = (policy(RULES), WorkloadFacts::default());
    let decision = policy.decide(&facts(&workload, "api.test", "/v1/messages"));
    assert_eq!((decision.verdict, decision.tools), (Verdict::Allow, true));
    let only = "version: 1\nname: p\nrules:\n  - {id: no, when: {cel: 'has(llm.tool.name)'}, deny: no}\n  - {id: a, allow: true}\n";
    let trace =
        Policy::from_text("p.yaml", only).unwrap().explain(&facts(&workload, "api.test", "/v1/messages"));
    let step = trace.steps.iter().find(|step| step.rule.local() == "no").unwrap();
    assert_eq!((step.because, trace.decision.tools), (Some("llm.tool"), true));
    assert!(!policy.feasible(&facts(&workload, "evil.test", "/")).is_possible());
    // A rule that may match, whatever the host.
    assert!(policy.decide(&facts(&workload, "other.test", "/")).tools);
    let narrow = RULES.replace("cel: 'llm.tool.name", "host: api.test, cel: 'llm.tool.name");
    let narrow = Policy::from_text("p.yaml", &narrow).unwrap();
    assert!(!narrow.decide(&facts(&workload, "other.test", "/")).tools);
    let none = "version: 1\nname: p\nrules:\n  - {id: all, allow: true}\n";
    assert!(!Policy::from_text("p.yaml", none).unwrap().decide(&facts(&workload, "a.test", "/")).tools);
}

#[test]
fn a_rule_about_calls_that_cannot_be_enforced_does_not_load() {
    let tool = r#"cel: '"delete" in llm.tool.effects'"#;
    for (rule, why) in [
        (format!("when: {{protocol: dns, {tool}}}, deny: no"), "nothing of the protocol dns has a tool call"),
        (format!("when: {{protocol: [https, opaque], {tool}}}, deny: no"), "of the protocol opaque"),
        (format!("when: {{host: a.test, {tool}}}, passthrough: true"), "cannot have `passthrough`"),
        (format!("when: {{{tool}}}, mask: {{response: [secrets]}}"), "cannot have `mask`"),
        (format!("when: {{{tool}}}, deny: no, body: inspect"), "cannot have `body`"),
        (format!("when: {{{tool}}}, deny: no, durability: fsync"), "cannot have `durability`"),
        (format!("when: {{{tool}}}, allow: true, addresses: [private]"), "cannot have `addresses`"),
        (
            "when: {cel: 'llm.tool.name == \"a\" && llm.provider == \"open\"'}, deny: no".to_owned(),
            "is never \"open\"",
        ),
        (
            "when: {cel: '\"deletes\" in llm.tool.effects'}, deny: no".to_owned(),
            "is never in `llm.tool.effects`",
        ),
        ("when: {cel: 'llm.tool.effect == \"a\"'}, deny: no".to_owned(), "did you mean `llm.tool.effects`"),
        ("when: {cel: 'llm.tool == \"a\"'}, deny: no".to_owned(), "a group of facts"),
    ] {
        let text = format!("version: 1\nname: p\nrules:\n  - {{id: r, {rule}}}\n");
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let finding = &error.findings()[0];
        let told = format!("{} {}", finding.message, finding.help.as_deref().unwrap_or_default());
        assert!(told.contains(why), "{rule}: {told}");
    }
    for rule in ["allow: true", "deny: no", "observe: true", "hold: {needs: [{people: 1, groups: [a]}]}"] {
        let text = format!("version: 1\nname: p\nrules:\n  - {{id: r, when: {{{tool}}}, {rule}}}\n");
        assert!(Policy::from_text("p.yaml", &text).is_ok(), "{rule}");
    }
}

const CODE: &str = r#"
version: 1
name: p
rules:
  - {id: all, when: {host: api.test}, allow: true}
  - {id: call, when: {host: api.test, cel: 'llm.tool.name == "bash"'}, deny: no calls}
  - {id: py, when: {host: api.test, cel: 'llm.code.language == "python"'}, allow: true}
  - {id: code, when: {host: api.test, cel: '"delete" in llm.code.effects || llm.code.text.contains("rm")'}, deny: no code}
"#;

#[test]
fn a_block_of_code_is_judged_by_the_rules_about_code_alone() {
    let (policy, workload) = (policy(CODE), WorkloadFacts::default());
    let told = |item, name, text, effects| {
        let tool = ToolFacts { item, provider: "anthropic", model: None, name, arguments: text, effects };
        let facts = Facts { tool: Fact::Known(tool), ..facts(&workload, "api.test", "/v1/messages") };
        let decision = policy.decide(&facts);
        (decision.verdict, decision.rule.map(|rule| rule.local().to_owned()))
    };
    let by = |verdict, rule: &str| (verdict, Some(rule.to_owned()));
    assert_eq!(told(Item::Code, "bash", "x", &[]), (Verdict::Allow, None));
    assert_eq!(told(Item::Tool, "bash", "x", &[]), by(Verdict::Deny, "call"));
    assert_eq!(told(Item::Tool, "python", "rm", &[Effect::Delete]), (Verdict::Allow, None));
    assert_eq!(told(Item::Code, "bash", "rm", &[]), by(Verdict::Deny, "code"));
    assert_eq!(told(Item::Code, "", "x", &[Effect::Delete]), by(Verdict::Deny, "code"));
    assert_eq!(told(Item::Code, "python", "rm", &[]), by(Verdict::Allow, "py"));
    // What a request waits for.
    let decision = policy.decide(&facts(&workload, "api.test", "/"));
    assert_eq!((decision.verdict, decision.tools, decision.code), (Verdict::Allow, true, true));
    let other = policy.decide(&facts(&workload, "other.test", "/"));
    assert_eq!((other.tools, other.code), (false, false));
    let calls = Policy::from_text("p.yaml", RULES).unwrap().decide(&facts(&workload, "api.test", "/v1/x"));
    assert_eq!((calls.tools, calls.code), (true, false));
}

#[test]
fn a_rule_about_code_that_cannot_be_enforced_does_not_load() {
    for (rule, why) in [
        ("when: {cel: 'llm.tool.name == \"a\" || llm.code.text == \"b\"'}, deny: no", "write two rules"),
        ("when: {cel: 'llm.code.language == \"Bash\"'}, deny: no", "in small letters"),
        ("when: {cel: '\"deletes\" in llm.code.effects'}, deny: no", "is never in `llm.code.effects`"),
        ("when: {cel: 'llm.code.txt == \"b\"'}, deny: no", "did you mean `llm.code.text`"),
        ("when: {protocol: dns, cel: 'has(llm.code.text)'}, deny: no", "has a block of code in it"),
        (
            "when: {cel: 'has(llm.code.text)'}, mask: {response: [secrets]}",
            "blocks of code cannot have `mask`",
        ),
        (
            "when: {cel: 'has(llm.code.text)'}, allow: true, limits: {requests: 1, window: 1m}",
            "blocks of code cannot have `limits`",
        ),
    ] {
        let text = format!("version: 1\nname: p\nrules:\n  - {{id: r, {rule}}}\n");
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let finding = &error.findings()[0];
        let told = format!("{} {}", finding.message, finding.help.as_deref().unwrap_or_default());
        assert!(told.contains(why), "{rule}: {told}");
    }
}
