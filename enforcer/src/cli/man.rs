//! `enforcer man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use miette::{IntoDiagnostic, WrapErr};

use super::out;

/// Print the manual page (roff); `enforcer man | man -l -` shows it
#[derive(clap::Args, Debug)]
pub struct Cmd {
    /// Write a page for each verb into this folder instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What clap does not know, after its own sections.
const REST: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done; for \fBstatus\fR, \fBdoctor\fR, \fBscope ls\fR, \fBscope harden\fR and \fBsessions verify\fR: all is well; for \fBmask test\fR: nothing would be masked.
.TP
\fB1\fR
It failed, or what was looked at is not well: enforcement is not whole, something is missing on the host, a scope is not enforced, a test of a policy failed, a recording was changed, \fBmask test\fR found something.
.TP
\fB2\fR
The arguments are wrong, or it cannot be told: the recording cannot be read, policies do not load, \fBdoctor\fR or \fBscope harden\fR failed.
.TP
\fB125\fR, \fB126\fR, \fB127\fR
Of \fBrun\fR: enforcer failed or its arguments are wrong; the command cannot be run; it was not found. Any other code is the command's, 128 and the number of a signal that ended it.
.SH FILES
.TP
\fI/etc/enforcer/config.toml\fR
Configuration; every setting has a default.
.TP
\fI/etc/enforcer/policies.d\fR
Policies.
.TP
\fI/etc/enforcer/secrets.d\fR
Values that are secret everywhere: a file's name is the entity.
.TP
\fI/var/lib/enforcer/ca\fR
This host's CA.
.TP
\fI/var/lib/enforcer/sessions\fR
Recordings.
.TP
\fI/var/lib/enforcer/scopes.d\fR
Scopes that were added by command.
.TP
\fI/run/enforcer\fR
The service's sockets, and what jobs trust.
.TP
\fI/sys/fs/bpf/enforcer\fR
Links and maps of the kernel half.
.TP
\fI$XDG_STATE_HOME/enforcer/approver-UID.json\fR, \fI~/.local/state/enforcer/approver-UID.json\fR
Who is logged in by \fBapprovals login\fR.
.SH ENVIRONMENT
.TP
\fBENFORCER_CONFIG\fR
The configuration file, as \fB\-\-config\fR names it.
.TP
\fBENFORCER_APPROVER_TOKEN\fR
The token of who decides by \fBapprovals approve\fR and \fBdeny\fR, in place of a login.
.TP
\fBRUST_LOG\fR
What the service logs: \fBinfo\fR unless it says otherwise; \fBenforcer=debug\fR shows each step.
.TP
\fBNO_COLOR\fR
If set, nothing is coloured.
"#;

impl Cmd {
    pub fn run(self) -> miette::Result<ExitCode> {
        let command = super::Cli::command();
        match self.dir {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).into_diagnostic()?;
                page.extend(REST.as_bytes());
                out::print_bytes(&page)?;
            }
            Some(dir) => {
                std::fs::create_dir_all(&dir)
                    .and_then(|()| clap_mangen::generate_to(command, &dir))
                    .and_then(|()| {
                        use std::io::Write;
                        let page = dir.join("enforcer.1");
                        std::fs::OpenOptions::new().append(true).open(page)?.write_all(REST.as_bytes())
                    })
                    .into_diagnostic()
                    .wrap_err_with(|| format!("writing to {}", dir.display()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
