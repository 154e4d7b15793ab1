//! Texts of others in the YAML that this program writes.

/// A JSON string is a YAML string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A comment ends with its line, whatever a file is called.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
