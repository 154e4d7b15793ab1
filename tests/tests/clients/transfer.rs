//! Bodies of all kinds arrive as they were sent.

use super::world::World;

#[test]
fn what_holds_no_secret_arrives_unchanged() {
    let world = World::start();
    let big = world.folder.path().join("content/files/big.bin");
    let script = format!(
        "set -e; sum() {{ sha256sum | cut -c1-64; }}; want=$(sum < {big}); \
         for v in --http1.1 --http2; do \
           test $(curl -sS $v $URL/files/big.bin | sum) = $want; \
           test $(curl -sS $v --data-binary @{big} $URL/echo | sum) = $want; \
           test $(curl -sS $v -T {big} -H 'Expect: 100-continue' $URL/echo | sum) = $want; \
           test $(curl -sS $v -T - $URL/echo < {big} | sum) = $want; \
           curl -sS $v -o /dev/null -w '%{{http_code}}\\n' $URL/nothing; \
           curl -sS $v -I $URL/files/big.bin | grep -ci '^etag'; \
         done; echo whole",
        big = big.display()
    );
    let outcome = world.run("transfer", &script, true);
    assert_eq!(outcome.text, "204\n1\n204\n1\nwhole\n");
}

#[test]
fn a_denied_push_tells_its_user_why_and_fetching_goes_on() {
    let world = World::start();
    let git = world.folder.path().join("content/git");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(git.join("app.git"))
        .arg(git.join("protected.git"))
        .status()
        .unwrap();
    assert!(copied.success());
    let script = "git clone -q $URL/git/protected.git p && cd p && echo more >> README && \
         git -c user.name=t -c user.email=t@t.test commit -qam more && git fetch && echo fetched; git push";
    let outcome = world.run("push", script, true);
    assert!(outcome.text.contains("fetched") && outcome.code != Some(0), "{}", outcome.text);
    assert!(outcome.text.contains("remote: enforcer: pushes go through review"), "{}", outcome.text);
    // Where nothing is allowed, git is told when it asks what there is.
    let outcome = world.run("clone", "git clone $URL/elsewhere/app.git e", true);
    assert!(outcome.text.contains("remote: enforcer: ask for the other host"), "{}", outcome.text);
}

#[test]
fn a_refused_upload_gets_its_answer_over_both_versions() {
    let world = World::start();
    let script = "head -c 6000000 /dev/zero > big; for v in --http1.1 --http2; do \
         curl -sS $v --data-binary @big $URL/elsewhere/x; curl -sS $v -T - $URL/elsewhere/x < big; \
         curl -sS $v -T big -H 'Expect: 100-continue' $URL/elsewhere/x; done";
    let outcome = world.run("upload", script, true);
    assert_eq!(outcome.text.matches("ask for the other host").count(), 6, "{}", outcome.text);
    assert_eq!((outcome.code, outcome.reached), (Some(0), 0), "{}", outcome.text);
}
