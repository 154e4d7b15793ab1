//! What the model of the fake says, and which of it answers a request.

use serde_json::{Value, json};

/// What is said. Secrets may stand in all of it but the thinking, which is signed.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Said before the tool is called.
    pub text: String,
    /// The reasoning, by the providers that show it.
    pub reasoning: String,
    /// Thought where thoughts are signed.
    pub thinking: String,
    /// Stands in the arguments of the tool `lookup`.
    pub note: String,
    /// What tools that run commands are to run.
    pub command: String,
    /// Said when the tool has answered.
    pub last: String,
}

/// One answer of the model.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    pub reasoning: String,
    pub thinking: String,
    pub text: String,
    pub tool: Option<Tool>,
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub struct Tool {
    pub name: String,
    /// An object, or the text of a tool that takes one.
    pub arguments: Value,
}

impl Script {
    /// The answer to a request that offers these tools; `answered` says whether one of
    /// them was called already.
    pub(super) fn turn(&self, tools: &[&str], answered: bool) -> Turn {
        let said = |text: &str| Turn {
            reasoning: self.reasoning.clone(),
            thinking: self.thinking.clone(),
            text: text.to_owned(),
            tool: None,
        };
        if answered {
            return said(&self.last);
        }
        Turn { tool: tools.iter().find_map(|name| self.call(name)), ..said(&self.text) }
    }

    /// The tools of the suites and of agents; another tool is not called.
    fn call(&self, name: &str) -> Option<Tool> {
        let (command, description) = (&self.command, "notes it");
        let arguments = match name {
            "lookup" => json!({ "note": self.note, "count": 3 }),
            "Bash" | "bash" | "run_shell_command" => {
                json!({ "command": command, "description": description })
            }
            "shell_command" => json!({ "command": command }),
            "exec_command" => json!({ "cmd": command }),
            "shell" => json!({ "command": ["sh", "-c", command] }),
            // A program and not JSON.
            "exec" => {
                let call = json!({ "cmd": command });
                json!(format!("const done = await tools.exec_command({call});\ntext(done.output);"))
            }
            _ => return None,
        };
        Some(Tool { name: name.to_owned(), arguments })
    }
}

/// One character at a time.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = String> {
    text.chars().map(String::from)
}

/// The strings at `key` of the members of a list, or of the object at `inner` in each.
pub(super) fn names<'a>(list: &'a Value, inner: &str, key: &str) -> Vec<&'a str> {
    let members = list.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|member| member.get(inner).unwrap_or(member).get(key)?.as_str()).collect()
}
