//! `enforcer reload`, and SIGHUP: what an operator has changed is in force, or nothing of
//! it is and he is told why.
//!
//! The configuration comes first: one that cannot be read leaves policy and scopes as they
//! are. Then the policy: a broken one leaves the scopes as well, since they may rely on it.
//! What was done about a change of what is attached comes last, and only when an operator
//! says so: a signal may come of a terminal that is closed.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, ensure};

use crate::workload::wire::ToProxy;

use super::config::Config;
use super::daemon::{ANSWER, Daemon, lock};
use super::scopes::{CONFIGURATION, Scope};

/// One at a time: of two the later has read the newer configuration.
static TURN: Mutex<()> = Mutex::new(());

impl Daemon {
    /// As an operator says it: what came of it, in words.
    pub(super) fn reload(&self) -> Result<String> {
        let _turn = lock(&TURN);
        let message = self.read_again()?;
        let also = self.forgive()?.map(|what| format!("; {what}")).unwrap_or_default();
        Ok(message + &also)
    }

    /// Reads configuration and policy again.
    fn read_again(&self) -> Result<String> {
        let config = Config::load(&self.config.path);
        let config = config.map_err(|error| {
            anyhow!("policy and scopes stay as they were: {:?}", miette::Report::new(error))
        })?;
        let scopes: Vec<Scope> = config.scope.iter().map(|scope| scope.as_ref().clone()).collect();
        self.may_configure(&scopes).context("policy and scopes stay as they were")?;
        // Its absence at the start is no configuration; now it is somebody's mistake.
        let configured = self.list_scopes().iter().any(|scope| scope.from == CONFIGURATION);
        ensure!(
            config.path.exists() || !configured,
            "policy and scopes stay as they were: {} is gone; write it again, without [[scope]] if none is meant",
            config.path.display()
        );
        let answer = self.ask(ANSWER, |id| ToProxy::Reload { id });
        let answer = answer.context("the last good policy stays, and scopes as they were")?;
        let policy = answer["policy"].as_str().unwrap_or("?");
        let problem = answer["problem"].as_str().map(|why| format!(", but {why}")).unwrap_or_default();
        let scopes = config.scope.iter().map(|scope| scope.as_ref().clone()).collect();
        let scopes =
            self.configure_scopes(scopes).context("the policy is in force; scopes stay as they were")?;
        let rest = if config.lasting == self.config.lasting {
            ""
        } else {
            "; other settings were changed, too: they are read when the service is started again"
        };
        Ok(format!("the policy is in force: {policy}{problem}; {scopes}{rest}"))
    }

    /// By a signal: nobody waits for what comes of it but the log.
    pub(super) fn reload_and_log(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        std::thread::spawn(move || {
            let _turn = lock(&TURN);
            match daemon.read_again() {
                Ok(message) => tracing::info!("{message}"),
                Err(error) => tracing::error!("{error:#}"),
            }
        });
    }
}
