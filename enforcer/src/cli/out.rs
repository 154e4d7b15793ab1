//! What verbs print. A reader that has seen enough (`| head`) is no error.

use std::io::{self, Write};

use clap::ValueEnum;
use miette::{IntoDiagnostic, WrapErr};
use serde::Serialize;

/// The exit code for what cannot be told.
pub const CANNOT_TELL: u8 = 2;

/// In which form a verb answers.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Form {
    /// Text for people, JSON for scripts
    #[arg(short, long, global = true, value_name = "FORM", default_value = "text")]
    output: Output,

    /// The same as `-o json`
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    #[value(alias = "table")]
    Text,
    Json,
}

impl Form {
    pub fn is_json(self) -> bool {
        self.json || self.output == Output::Json
    }

    /// Prints the text, or the value as JSON.
    pub fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> miette::Result<()> {
        if self.is_json() {
            let json = serde_json::to_string_pretty(value).into_diagnostic()?;
            print(&(crate::session::read::visible_json(&json) + "\n"))
        } else {
            print(&text())
        }
    }
}

/// Prints to standard output.
pub fn print(text: &str) -> miette::Result<()> {
    print_bytes(text.as_bytes())
}

/// The same for what may be no text.
pub fn print_bytes(bytes: &[u8]) -> miette::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.into_diagnostic().wrap_err("writing to standard output"),
    }
}
