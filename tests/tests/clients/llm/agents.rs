//! Coding agents, each of which runs a command that the model asks for.

use super::MASKED;
use super::world::{Outcome, World, arrives, prompt, script, typed_token};

pub struct Agent {
    pub name: &'static str,
    pub command: &'static str,
    /// Whether its provider takes WebSockets.
    websockets: bool,
    /// Questions to the model: one for each turn, and what the agent asks beside them.
    asked: usize,
}

const fn agent(name: &'static str, command: &'static str, websockets: bool, asked: usize) -> Agent {
    Agent { name, command, websockets, asked }
}

/// Agents of three providers.
pub const AGENTS: &[Agent] = &[
    agent(
        "claude-code",
        "$AGENTS/.bin/claude -p --output-format stream-json --include-partial-messages --verbose \
         --allowedTools Bash -- \"$PROMPT\"",
        true,
        2,
    ),
    // The first opens the connection and asks for nothing.
    agent("codex-websocket", CODEX, true, 3),
    agent("codex-sse", CODEX, false, 2),
    agent(
        "gemini-cli",
        "$NODEJS $AGENTS/.bin/gemini --skip-trust --yolo -m gemini-2.5-flash --output-format json -p \"$PROMPT\"",
        true,
        2,
    ),
    // It asks for a title, too.
    agent(
        "opencode",
        "$AGENTS/.bin/opencode run --format json -m anthropic/claude-sonnet-4-5 -- \"$PROMPT\"",
        true,
        3,
    ),
];

const CODEX: &str = "git init -q . && $AGENTS/.bin/codex exec --json --skip-git-repo-check \
    --dangerously-bypass-approvals-and-sandbox -- \"$PROMPT\"";

#[test]
fn agents_run_what_the_model_says_without_its_secrets() {
    let world = World::start(MASKED);
    for agent in AGENTS {
        world.fake.take_websockets(agent.websockets);
        let outcome = world.run(agent.name, agent.command, &[("PROMPT", &prompt())]);
        println!("{}", agent.name);
        assert_eq!(outcome.code, Some(0), "{}: {outcome}", agent.name);
        world.holds_no_secret(&outcome);
        said(agent, &outcome);
        asked(agent, &outcome);
    }
}

/// It did what the model said, and says what the model said last.
fn said(agent: &Agent, outcome: &Outcome) {
    let script = script();
    let noted = std::fs::read_to_string(outcome.home.join("noted.txt"));
    let noted = noted.unwrap_or_else(|error| panic!("{error}: {}: {outcome}", agent.name));
    let (_, command) = script.command.split_once("'%s' '").unwrap();
    let (wanted, _) = command.split_once('\'').unwrap();
    assert_eq!(noted, arrives(wanted), "{}", agent.name);
    let last = serde_json::to_string(&arrives(&script.last)).unwrap();
    assert!(outcome.out.contains(last.trim_matches('"')), "{}: {outcome}", agent.name);
}

/// The model was asked by what was typed, once for each turn.
fn asked(agent: &Agent, outcome: &Outcome) {
    let asked = outcome.asked();
    assert_eq!(asked.len(), agent.asked, "{}: {outcome}", agent.name);
    let typed = arrives(&format!("token is {} and ", typed_token()));
    assert!(asked.iter().any(|it| it.to_string().contains(&typed)), "{}: {typed}: {asked:?}", agent.name);
    let websocket = outcome.calls.iter().any(|call| call.websocket && !call.body.is_empty());
    assert_eq!(websocket, agent.name == "codex-websocket", "{}: {outcome}", agent.name);
}
