//! Scopes of the configuration that are read again, and how many there may be.

use super::*;

/// The service's configuration with these scopes at its end.
struct Written {
    path: PathBuf,
    before: String,
}

impl Written {
    fn of(world: &World) -> Self {
        let path = world.service.dir.path().join("config.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        Self { path, before }
    }

    fn with(&self, scopes: &str) {
        std::fs::write(&self.path, format!("{}{scopes}", self.before)).unwrap();
    }
}

fn reload(world: &World) -> (bool, String) {
    let out = world.service.output(&["reload"]).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    // As it was before it was broken into lines.
    let words = text.split_whitespace().filter(|word| *word != "│");
    (out.status.success(), words.collect::<Vec<_>>().join(" "))
}

#[test]
fn scopes_of_the_configuration_are_read_again_and_a_broken_one_changes_nothing() {
    let world = World::new();
    let (one, two, three) = (world.cgroup("one"), world.cgroup("two"), world.cgroup("three"));
    let config = Written::of(&world);
    let scope = |name: &str, cgroup: &str| format!("[[scope]]\nname = '{name}'\ncgroup = '/{cgroup}'\n");
    world.scope_done(&["add", "three", "--cgroup", "/three"]);
    config.with(&(scope("one", "one") + &scope("two", "two")));
    let (done, said) = reload(&world);
    assert!(done && said.contains("2 are new, 0 gone"), "{said}");
    assert!([&one, &two, &three].iter().all(|it| !world.is_free(it.path())));
    let tag = |name: &str, cgroup: &str| world.found(name, cgroup).map(|it| it["tag"].as_u64().unwrap());
    let kept = tag("one", "/one").unwrap();
    let good = std::fs::read_to_string(&config.path).unwrap();
    for (wrong, says) in [
        ("[[scope]]\nname = 'x'\ncgroup = 'x'\n".to_owned(), "begins with"),
        (scope("three", "x"), "added by command"),
        (scope("x", "x") + &scope("x", "y"), "called `x` too"),
        ("[scopes]\n".to_owned(), "unknown field"),
    ] {
        config.with(&wrong);
        let (done, said) = reload(&world);
        assert!(!done && said.contains(says) && said.contains("as they were"), "{said}");
        std::fs::write(&config.path, &good).unwrap();
        assert_eq!(tag("one", "/one"), Some(kept), "{said}");
    }
    // Another name for what is tagged: another workload, with its own tag.
    config.with(&(scope("one", "one") + &scope("second", "two") + "[limits]\n"));
    let (done, said) = reload(&world);
    assert!(done && said.contains("1 are new, 1 gone; 0 cgroup(s) are free"), "{said}");
    assert!(said.contains("started again"), "{said}");
    assert_eq!(tag("one", "/one"), Some(kept));
    assert!(tag("second", "/two").is_some_and(|tag| tag > kept) && tag("two", "/two").is_none());
    assert!(!world.is_free(two.path()));
    // By SIGHUP: nobody is told, but what is not meant any more is free.
    config.with("");
    let daemon = nix::unistd::Pid::from_raw(world.service.daemon_pid().unwrap());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGHUP).unwrap();
    world.wait_for("the end of the scopes", || tag("one", "/one").is_none());
    assert!(world.is_free(one.path()) && world.is_free(two.path()) && !world.is_free(three.path()));
    assert!(world.service.status().unwrap()["healthy"] == true);
}

/// From one scope to another the tag of a cgroup changes, and it is never without one.
#[test]
fn what_goes_from_one_scope_to_another_is_enforced_all_the_time() {
    const CHANGES: usize = 10;
    let world = World::new();
    let ci = world.cgroup("ci");
    let config = Written::of(&world);
    let scope = |label: usize| {
        format!("[[scope]]\nname = 'ci'\ncgroup = '/ci'\nlabels = {{change = 'number{label}'}}\n")
    };
    config.with(&scope(0));
    assert!(reload(&world).0);
    world.leaked();
    let script = format!("while :; do {PROBE} tcp {PEER4}:4444; done");
    let mut busy = world.command_in_cgroup(ci.path(), &script).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(busy.stdout.take().unwrap()).lines();
    for number in 1..=CHANGES {
        config.with(&scope(number));
        let (done, text) = reload(&world);
        assert!(done && text.contains("1 are new, 1 gone; 0 cgroup(s) are free"), "{text}");
        // It has tried before, and after.
        said.next().unwrap().unwrap();
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
    let packets = world.leaked();
    assert!(!packets.iter().any(|packet| contains(&packet.bytes, PAYLOAD)), "{packets:?}");
}

#[test]
fn there_are_so_many_scopes_and_so_many_matches_are_listed_and_no_more() {
    const MAX_SCOPES: usize = 256;
    const MAX_LISTED: usize = 64;
    let world = World::new();
    let many = world.cgroup("many");
    let config = Written::of(&world);
    let scopes = |count: usize| -> String {
        (0..count).map(|n| format!("[[scope]]\nname = 's{n}'\ncgroup = '/none-{n}'\n")).collect()
    };
    config.with(&scopes(MAX_SCOPES + 1));
    let (done, said) = reload(&world);
    assert!(!done && said.contains("more than 256"), "{said}");
    config.with(&scopes(MAX_SCOPES - 1));
    assert!(reload(&world).0);
    let _children: Vec<_> = (0..MAX_LISTED).map(|n| many.child(&format!("c{n}")).unwrap()).collect();
    world.scope_done(&["add", "many", "--cgroup", "/many/c*"]);
    assert_eq!(world.scopes().as_array().unwrap().len(), MAX_SCOPES);
    let (done, said) = world.scope(&["add", "more", "--cgroup", "/more"]);
    assert!(!done && said.contains("more cannot be"), "{said}");
    let (done, said) = {
        config.with(&scopes(MAX_SCOPES));
        reload(&world)
    };
    assert!(!done && said.contains("more than 256"), "with the one by command: {said}");
    let listed = || {
        let scopes = world.scopes();
        let scope = scopes.as_array().unwrap().iter().find(|it| it["name"] == "many").unwrap().clone();
        (scope["count"].as_u64().unwrap(), scope["matches"].as_array().unwrap().len())
    };
    assert_eq!(listed(), (64, MAX_LISTED));
    assert!(!world.scope_done(&["ls"]).contains("and 1 more"));
    let _last = many.child("c-last").unwrap();
    world.wait_for("one more", || listed() == (65, MAX_LISTED));
    assert!(world.scope_done(&["ls"]).contains("and 1 more"));
}
