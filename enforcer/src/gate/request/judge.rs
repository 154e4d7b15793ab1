//! What policy says of a request, in every way in which a server may read it.

use http::HeaderMap;
use http::request::Parts;

use crate::policy::{
    Awaits, BodyFacts, Decision, Fact, Facts, IdentityFacts, Policy, Protocol, Reason, Stage, Verdict,
    WorkloadFacts,
};
use crate::protocol::git;
use crate::protocol::http::request::{RequestFacts, claimed_methods};

/// A request, and whose it is.
pub struct Asked<'a> {
    pub workload: &'a WorkloadFacts,
    pub identity: Fact<IdentityFacts<'a>>,
    pub request: &'a RequestFacts,
    pub headers: Fact<&'a HeaderMap>,
    pub body: BodyFacts<'a>,
    /// Methods that a server may take in place of the request's own.
    pub claimed: Vec<String>,
}

impl<'a> Asked<'a> {
    /// By all of its head, and what is known of its body.
    pub fn new(
        workload: &'a WorkloadFacts,
        identity: Fact<IdentityFacts<'a>>,
        request: &'a RequestFacts,
        parts: &'a Parts,
        body: BodyFacts<'a>,
    ) -> Self {
        Self {
            workload,
            identity,
            request,
            headers: Fact::Known(&parts.headers),
            body,
            claimed: claimed_methods(parts),
        }
    }

    fn facts<'f>(&'f self, method: &'f str, path: &'f str) -> Facts<'f> {
        let Self { workload, identity, request, headers, body, .. } = self;
        Facts {
            workload,
            identity: *identity,
            stage: Stage::Http,
            host: Fact::Known(&request.host),
            port: Fact::Known(request.port),
            protocol: Fact::Known(if request.tls { Protocol::Https } else { Protocol::Http }),
            method: Fact::Known(method),
            path: Fact::Known(path),
            query: Fact::Known(request.query.as_deref().unwrap_or_default()),
            headers: *headers,
            body: *body,
            tool: Fact::Unknown,
        }
    }

    /// What has to be known of its body before it can be judged: nothing, if one reading of it is
    /// denied whatever that is.
    pub fn awaits(&self, policy: &Policy) -> Awaits {
        let mut all = Awaits::default();
        let methods = self.claimed.iter().map(String::as_str).chain([self.request.method.as_str()]);
        for method in methods {
            match policy.awaits(&self.facts(method, &self.request.path)) {
                None => return Awaits::default(),
                Some(awaits) => all |= awaits,
            }
        }
        all
    }

    /// The one decision over all readings.
    pub fn judge(&self, policy: &Policy) -> Decision {
        let Self { request, claimed, .. } = self;
        let decide = |method, path| policy.decide(&self.facts(method, path));
        // A push that will be denied is denied where it begins: before git has packed
        // and sent everything, and while it shows its user why.
        let begun = git::begun_push(&request.method, &request.path, request.query.as_deref());
        if let Some(path) = &begun {
            // Nothing is known yet of the body that it will have.
            let push = policy.decide(&Facts { body: BodyFacts::default(), ..self.facts("POST", path) });
            let may_be = push.reason == Reason::MissingFact && push.awaits.any();
            if push.verdict == Verdict::Deny && !may_be {
                return push;
            }
        }
        // Whichever method the server goes by, it has to be allowed.
        let mut held: Option<Decision> = None;
        let mut limits = Vec::new();
        for method in claimed {
            let claim = decide(method, &request.path);
            limits.extend(claim.limits.iter().cloned());
            match (claim.verdict, &held) {
                (Verdict::Deny, _) => return claim,
                (Verdict::Hold, Some(other)) if other.rule != claim.rule => return claim.held_by_two(),
                (Verdict::Hold, _) => held = Some(claim),
                (Verdict::Allow | Verdict::Passthrough, _) => {}
            }
        }
        let own = decide(request.method.as_str(), &request.path).limited_by(limits);
        match (held, own.verdict) {
            (Some(claim), Verdict::Allow) => own.held_by(claim),
            (Some(claim), Verdict::Hold) if claim.rule != own.rule => claim.held_by_two(),
            _ => own,
        }
    }
}
