//! The table of clients.

use std::path::Path;

use enforcer_tests::origin::token;

use super::world::{NAME, Outcome, World};

/// A client: what runs, what is to be seen, and whether the mounts alone are enough.
struct Client {
    name: &'static str,
    /// Prints its version, for whoever reads the test's output.
    version: &'static str,
    script: &'static str,
    seen: &'static str,
    mount_alone: bool,
}

const MASKED: &str = "the token is [MASKED:GITHUB_TOKEN]";

const fn client(
    name: &'static str,
    version: &'static str,
    script: &'static str,
    seen: &'static str,
    mount_alone: bool,
) -> Client {
    Client { name, version, script, seen, mount_alone }
}

const CLIENTS: &[Client] = &[
    client("curl, HTTP/1.1", "curl --version", "curl -sS --http1.1 $URL/chunked", MASKED, true),
    client("curl, HTTP/2", "curl --version", "curl -sS --http2 -w '%{http_version}' $URL/text", ".\n2", true),
    client("wget", "wget --version", "wget -nv -O- $URL/text", MASKED, true),
    client(
        "git clone, fetch and push",
        "git --version",
        "git clone -q $URL/git/app.git && cd app && echo more >> README && \
         git -c user.name=t -c user.email=t@t.test commit -qam more && git push -q && git fetch && \
         git ls-remote && cat README && wc -c < noise",
        "3145728",
        true,
    ),
    client(
        "pip install",
        "$PYTHON -m pip --version",
        "$PYTHON -m pip install -q --disable-pip-version-check --no-cache-dir --index-url $URL/files/simple/ --target site probe-pkg && \
         PYTHONPATH=site $PYTHON -c 'import probe_pkg; print(probe_pkg.text)'",
        "hello from the index",
        true,
    ),
    client(
        "uv pip install",
        "$PYTHON -m uv --version",
        "$PYTHON -m uv pip install -q --no-cache --python $PYTHON --index-url $URL/files/simple/ --target site probe-pkg && \
         PYTHONPATH=site $PYTHON -c 'import probe_pkg; print(probe_pkg.text)'",
        "hello from the index",
        false,
    ),
    client(
        "npm install",
        "npm --version",
        "echo '{}' > package.json && npm install --no-audit --no-fund --registry $URL/files/npm/ probe-pkg && \
         node -p 'require(\"probe-pkg\")'",
        "hello from the registry",
        true,
    ),
    client(
        "cargo build",
        "cargo --version",
        "mkdir -p src .cargo && echo 'fn main() { println!(\"{}\", probe_crate::TEXT) }' > src/main.rs && \
         printf '[registries.local]\\nindex = \"sparse+%s/files/cargo/index/\"\\n' $URL > .cargo/config.toml && \
         printf '[package]\\nname = \"p\"\\nedition = \"2021\"\\n[dependencies]\\nprobe-crate = { version = \"1\", registry = \"local\" }\\n' > Cargo.toml && \
         cargo run -q",
        "hello from the crate",
        true,
    ),
    client("Go net/http", "go version", "$GO/probe", MASKED, true),
    client("Rust rustls, the host's roots", "rustc --version", "$RUST native $URL/text", MASKED, true),
    client("Java HttpClient", "java --version", "java $CLIENTS/java/Probe.java", MASKED, true),
    client("Python urllib", "$PYTHON --version", "$PYTHON $CLIENTS/python/get.py urllib", MASKED, true),
    client(
        "Python requests",
        "$PYTHON -m pip show requests",
        "$PYTHON $CLIENTS/python/get.py requests",
        MASKED,
        false,
    ),
    client(
        "Python httpx",
        "$PYTHON -m pip show httpx",
        "$PYTHON $CLIENTS/python/get.py httpx",
        MASKED,
        false,
    ),
    client(
        "Python aiohttp",
        "$PYTHON -m pip show aiohttp",
        "$PYTHON $CLIENTS/python/get.py aiohttp",
        MASKED,
        true,
    ),
    client(
        "Python openai, streaming",
        "$PYTHON -m pip show openai",
        "$PYTHON $CLIENTS/python/llm.py openai",
        MASKED,
        true,
    ),
    client(
        "Python anthropic, streaming",
        "$PYTHON -m pip show anthropic",
        "$PYTHON $CLIENTS/python/llm.py anthropic",
        MASKED,
        true,
    ),
    client(
        "Python websockets",
        "$PYTHON -m pip show websockets",
        "$PYTHON $CLIENTS/python/websocket.py",
        MASKED,
        true,
    ),
    client(
        "Python grpcio",
        "$PYTHON -m pip show grpcio",
        "$PYTHON $CLIENTS/python/grpc_probe.py",
        "grpc: OK",
        false,
    ),
    client("Node fetch", "$NODEJS --version", "$NODEJS $NODE/probe.mjs fetch", MASKED, false),
    client("Node https", "$NODEJS --version", "$NODEJS $NODE/probe.mjs https", MASKED, false),
    client("Node openai, streaming", "$NODEJS --version", "$NODEJS $NODE/probe.mjs openai", MASKED, false),
    client(
        "Node anthropic, streaming",
        "$NODEJS --version",
        "$NODEJS $NODE/probe.mjs anthropic",
        MASKED,
        false,
    ),
    client("Node ws", "$NODEJS --version", "$NODEJS $NODE/probe.mjs ws", MASKED, false),
];

/// The script of the client whose name begins so.
pub fn script_of(name: &str) -> &'static str {
    CLIENTS.iter().find(|client| client.name.starts_with(name)).expect("a client of that name").script
}

const BEGIN: &str = "<!-- clients: begin -->";
const END: &str = "<!-- clients: end -->";

#[test]
fn every_client_works_and_the_readme_says_which_need_variables() {
    let world = World::start();
    let mut table = String::from("| Client | `enforcer run` | the mounts alone |\n|---|---|---|\n");
    let mut wrong = Vec::new();
    for (number, client) in CLIENTS.iter().enumerate() {
        let with = world.run(&format!("c{number}"), client.script, true);
        let alone = world.run(&format!("m{number}"), client.script, false);
        let version = world.run(&format!("v{number}"), client.version, true);
        let version = version.text.lines().find(|line| line.contains('.')).unwrap_or("?").to_owned();
        let (works, works_alone) = (works(client, &with), works(client, &alone));
        println!("{:<28} {works:<5} {works_alone:<5} {version}", client.name);
        if !works {
            wrong.push(format!("{} does not work: {:?}\n{}", client.name, with.code, with.text));
        }
        if works_alone != client.mount_alone {
            wrong.push(format!("{} with mounts alone: {works_alone}: {}", client.name, alone.text));
        }
        if !works_alone {
            // A client that looks elsewhere for its roots shows itself, and is named so.
            if alone.reached > 0 || alone.refused.is_empty() {
                wrong.push(format!(
                    "{}: not refused as client-pins-roots ({} requests): {}",
                    client.name, alone.reached, alone.text
                ));
            }
        }
        let cell = if works_alone { "yes" } else { "no: brings its own roots" };
        table.push_str(&format!("| {} | {} | {cell} |\n", client.name, if works { "yes" } else { "no" }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let written = world.service.written().unwrap();
    let token = token();
    assert!(!written.windows(token.len()).any(|window| window == token.as_bytes()), "a secret is written");
    hold_readme_to(&table);
}

/// It printed what the server said, masked, and the recording has its requests.
fn works(client: &Client, outcome: &Outcome) -> bool {
    outcome.code == Some(0)
        && outcome.text.contains(client.seen)
        && outcome.recorded > 0
        && outcome.reached > 0
}

fn hold_readme_to(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the README has a place for the table");
    let (old, after) = rest.split_once(END).expect("the README's table has an end");
    if std::env::var_os("ENFORCER_WRITE_TABLE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}\n\n{table}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(old.trim(), table.trim(), "run it with ENFORCER_WRITE_TABLE=1");
    }
}

#[test]
fn roots_that_are_compiled_in_are_refused_by_name_and_nothing_is_sent() {
    let world = World::start();
    // Another CA's certificate in the place of the store: on the wire it is the same.
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out own.pem -subj /CN=own -days 2 2>/dev/null; \
                  curl -sS --cacert own.pem --capath /nonexistent $URL/text";
    let outcome = world.run("pinned", script, true);
    assert_eq!(outcome.code, Some(60), "{}", outcome.text);
    assert_eq!(outcome.reached, 0);
    assert!(!outcome.refused.is_empty(), "no session of {NAME} says client-pins-roots");
    let outcome = world.run("compiled", "$RUST compiled $URL/text", true);
    assert_eq!((outcome.code, outcome.reached), (Some(1), 0), "{}", outcome.text);
    assert!(!outcome.refused.is_empty(), "{}", outcome.text);
    // One that looks at the certificate after the handshake, and says nothing.
    for version in ["1.2", "1.3"] {
        let job = format!("node{version}");
        let outcome = world.run(&job, &format!("$NODEJS --tls-max-v{version} $NODE/probe.mjs https"), false);
        assert_eq!((outcome.code, outcome.reached), (Some(1), 0), "{}", outcome.text);
        assert!(!outcome.refused.is_empty(), "Node by TLS {version}: {}", outcome.text);
    }
}
