//! Whether what happened is what had to happen.

use super::drive::Seen;
use super::vectors::{Case, Expected};
use super::wire::{self, Request};

/// What is the same on the wire and in the recording. The fields of framing are
/// written anew on the wire; the host stands in the recording's statement.
fn comparable(request: &Request, with_body: bool) -> Request {
    let mut request = request.clone();
    request.fields.retain(|(name, _)| !["content-length", "transfer-encoding"].contains(&name.as_str()));
    for (name, value) in &mut request.fields {
        // The recording never holds a credential.
        if ["authorization", "cookie"].contains(&name.as_str()) {
            *value = format!("[MASKED:{}]", name.to_ascii_uppercase());
        }
    }
    request.fields.sort();
    if !with_body {
        (request.body, request.trailers, request.complete) = Default::default();
    }
    request
}

/// The oracle: what arrived is what is recorded, whatever was sent.
pub fn compare(seen: &Seen) -> Vec<String> {
    let Seen { arrived, recorded, statuses, .. } = seen;
    let mut wrong = arrived.wrong.clone();
    let (whole, partial): (Vec<&Request>, Vec<&Request>) =
        recorded.forwarded.iter().partition(|request| request.complete);
    let on_wire: Vec<_> = arrived.whole.iter().map(|request| comparable(request, true)).collect();
    let in_recording: Vec<_> = whole.into_iter().map(|request| comparable(request, true)).collect();
    if on_wire != in_recording {
        wrong.push(format!("arrived: {on_wire:#?}\nrecorded: {in_recording:#?}"));
    }
    for request in &arrived.partial {
        let alike = |known: &&&Request| {
            let of_one = known.body.starts_with(&request.body) || request.body.starts_with(&known.body);
            comparable(known, false) == comparable(request, false) && of_one
        };
        if partial.iter().find(alike).is_none() {
            wrong.push(format!("arrived in part: {request:#?}\nrecorded: {partial:#?}"));
        }
    }
    let answered = statuses.iter().filter(|status| **status < 300).count();
    if answered > arrived.whole.len() {
        wrong.push(format!("{statuses:?}, and {} requests arrived", arrived.whole.len()));
    }
    wrong
}

/// What is wrong, for a payload of which this is expected.
pub fn judge(case: &Case, expected: Expected, seen: &Seen) -> Vec<String> {
    let mut wrong = compare(seen);
    match expected {
        Expected::Open => {}
        Expected::Forwarded => wrong.extend(forwarded(seen)),
        Expected::Refused { after } => wrong.extend(refused(case, after, seen)),
    }
    wrong
}

/// All that was sent arrived.
fn forwarded(seen: &Seen) -> Vec<String> {
    let Seen { arrived, recorded, statuses, .. } = seen;
    let read = match wire::requests(&seen.sent, wire::From::Client) {
        Ok(read) => read,
        Err(why) => return vec![format!("sent: {why}")],
    };
    // The client breaks off in the middle of a request: that one is refused.
    let unfinished = read.left > 0 || read.requests.iter().any(|request| !request.complete);
    let sent: Vec<_> = read.requests.into_iter().filter(|request| request.complete).collect();
    let same = |a: &Request, b: &Request| {
        a.method == b.method && wire::origin_form(&a.target) == b.target && a.body == b.body
    };
    let mut wrong = Vec::new();
    if sent.len() != arrived.whole.len() || !sent.iter().zip(&arrived.whole).all(|(a, b)| same(a, b)) {
        wrong.push(format!("sent: {sent:#?}\narrived: {:#?}", arrived.whole));
    }
    let (good, other) = statuses.split_at(statuses.len().min(sent.len()));
    let told = if unfinished { matches!(other, [] | [400..500]) } else { other.is_empty() };
    if good.len() < sent.len() || good.iter().any(|status| *status != 200) || !told {
        wrong.push(format!("{} requests, answers {statuses:?}", sent.len()));
    }
    let named = !recorded.reason.is_empty();
    if named != unfinished || (recorded.outcome == "completed") == unfinished {
        wrong.push(format!("{:?}, {} {}", recorded.denied, recorded.outcome, recorded.reason));
    }
    wrong
}

/// Nothing arrived but what stood before it, the client was told or cut off, and
/// the recording says why.
fn refused(case: &Case, after: usize, seen: &Seen) -> Vec<String> {
    let Seen { way, arrived, recorded, statuses, .. } = seen;
    let mut wrong = Vec::new();
    if arrived.whole.len() != after {
        wrong.push(format!("{} requests arrived: {:#?}", arrived.whole.len(), arrived.whole));
    }
    // A body that is streamed shows its fault when its head has gone out already.
    if way.held && !arrived.partial.is_empty() {
        wrong.push(format!("arrived in part: {:#?}", arrived.partial));
    }
    let told = match statuses.get(after..).unwrap_or_default() {
        [] => seen.closed,
        other => matches!(other, [400..500]),
    };
    if !told {
        wrong.push(format!("answers {statuses:?}, closed: {}", seen.closed));
    }
    if case.closes && !seen.closed {
        wrong.push("the connection stays open".to_owned());
    }
    let named = ["denied", "failed"].contains(&recorded.outcome.as_str()) && !recorded.reason.is_empty();
    let wanted = case.reason(way.tls);
    if !named || wanted.is_some_and(|reason| reason != recorded.reason) {
        wrong.push(format!(
            "recorded {:?}, {} because of {:?}; wanted {wanted:?}",
            recorded.denied, recorded.outcome, recorded.reason
        ));
    }
    wrong
}
