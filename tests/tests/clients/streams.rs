//! Answers that come in pieces: nothing of them is held back, lost or reordered.

use enforcer_tests::origin::token;
use enforcer_tests::sniffer::contains;

use super::world::World;

/// Prints each event of a stream and asks for the next; a stream of which an event
/// is held back ends at curl's time limit, without the rest.
const FOLLOW: &str = "while read -r line; do case \"$line\" in data:*) \
    echo \"$line\"; curl -sS $URL/live/next;; esac; done";

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let world = World::start();
    let want: String =
        (0..5).map(|number| format!("data: {number} the token is [MASKED:GITHUB_TOKEN]\n")).collect();
    for (version, query) in [("--http1.1", ""), ("--http2", ""), ("--http1.1", "?gzip"), ("--http2", "?gzip")]
    {
        let script =
            format!("curl -sSN --max-time 20 --compressed {version} \"$URL/live{query}\" | {FOLLOW}");
        let outcome = world.run("live", &script, true);
        assert_eq!(outcome.text, want, "{version} {query}");
    }
    for client in ["$PYTHON $CLIENTS/python/live.py", "$NODEJS $NODE/probe.mjs live"] {
        let outcome = world.run("live", client, true);
        assert_eq!(outcome.text, want, "{client}");
    }
}

#[test]
fn trailers_and_answers_without_a_body_arrive() {
    let world = World::start();
    for version in ["--http1.1", "--http2"] {
        let script = format!("curl -sS {version} -H 'TE: trailers' -D - $URL/trailers");
        let outcome = world.run("trailers", &script, true);
        assert!(outcome.text.contains("x-sum: whole"), "{version}: {}", outcome.text);
        assert!(outcome.text.contains("x-note: [MASKED:GITHUB_TOKEN]"), "{version}: {}", outcome.text);
        let script = format!(
            "curl -sS {version} -o one --etag-save tag $URL/files/big.bin && \
             curl -sS {version} -o two --etag-compare tag -w '%{{http_code}} %{{size_download}}' $URL/files/big.bin"
        );
        assert_eq!(world.run("etag", &script, true).text, "304 0", "{version}");
    }
}

/// A message stands behind its length, so it is masked by nobody.
#[test]
fn a_secret_in_a_message_of_grpc_ends_the_call_with_a_status() {
    let world = World::start();
    let script = format!("SECRET={} $PYTHON $CLIENTS/python/grpc_probe.py secrets", token());
    let outcome = world.run("grpc", &script, true);
    // The last line is that of `enforcer run`: what was refused.
    let lines: Vec<&str> = outcome.text.lines().filter(|line| !line.starts_with("enforcer: ")).collect();
    let [answer, request, coded, denied] = lines[..] else { panic!("{}", outcome.text) };
    let known = "PERMISSION_DENIED enforcer: a secret stands in a message of gRPC";
    assert!(answer.starts_with(&format!("answer {known}")), "{answer}");
    assert!(request.starts_with(&format!("request {known}")), "{request}");
    assert!(coded.starts_with("coded PERMISSION_DENIED enforcer: the body cannot be read"), "{coded}");
    assert!(denied.starts_with("denied PERMISSION_DENIED enforcer: ask for the other host"), "{denied}");
    assert!(!outcome.text.contains(&token()), "{}", outcome.text);
    let written = world.service.written().unwrap();
    assert!(!contains(&written, token().as_bytes()));
}
