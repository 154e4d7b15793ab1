//! `enforcer policy hits`.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, miette};

use crate::admin::request::{AdminRequest, ask};
use crate::app::config::Config;
use crate::cli::out::Form;
use crate::policy::{Hits, Used};

pub fn run(config: &Path, form: Form) -> miette::Result<ExitCode> {
    let config = Config::load(config)?;
    let reply = ask(&config.admin_socket(), &AdminRequest::PolicyHits).into_diagnostic()?;
    if !reply.ok {
        return Err(miette!("{}", reply.message));
    }
    let hits: Hits = serde_json::from_value(reply.status).into_diagnostic()?;
    form.print(&hits, || text(&hits))?;
    Ok(ExitCode::SUCCESS)
}

fn text(hits: &Hits) -> String {
    let mut out = format!("policy {}\n", hits.policy);
    for hit in &hits.rules {
        out.push_str(&format!("{:>10}  {}\n", hit.hits, hit.rule));
    }
    if hits.more > 0 {
        out.push_str(&format!("{:>10}  more rules had a say less often\n", hits.more));
    }
    out.push_str(&format!("{:>10}  no rule decided\n", hits.undecided));
    for used in hits.limits.iter().filter(|used| used.counted > 0) {
        let Used { rule, limit, used, counted, .. } = used;
        out.push_str(&format!("{used:>10}  used of {limit}: {rule} ({counted} counted)\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Hit;

    #[test]
    fn what_is_left_out_is_told() {
        let rules = vec![Hit { rule: "p/a".to_owned(), hits: 12 }, Hit { rule: "p/b".to_owned(), hits: 0 }];
        let mut hits = Hits { policy: "ab".to_owned(), rules, more: 0, undecided: 3, limits: vec![] };
        let all = "policy ab\n        12  p/a\n         0  p/b\n         3  no rule decided\n";
        assert_eq!(text(&hits), all);
        hits.more = 7;
        assert!(text(&hits).contains("\n         7  more rules"));
        let (rule, limit) = ("p/a".to_owned(), "9 requests in 1m for each job".to_owned());
        hits.limits.push(Used { rule, limit, most: 9, used: 4, counted: 2 });
        let told = "\n         4  used of 9 requests in 1m for each job: p/a (2 counted)\n";
        assert!(text(&hits).ends_with(told), "{}", text(&hits));
    }
}
