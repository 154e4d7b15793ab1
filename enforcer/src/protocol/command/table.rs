//! What programs do that change what others use: by their names, verbs and options, from their
//! manuals.

use super::{Effect, Risk};

use Effect::{
    Delete, Disclose, Infrastructure, Privilege, Publish, RemoteShell, RewriteHistory, RunDownload,
};

/// Parts of the names of files that hold credentials.
const SECRET_FILES: [&str; 24] = [
    "/.ssh/",
    "/.aws/",
    "/.kube/config",
    "/.netrc",
    "/.git-credentials",
    "/.npmrc",
    "/.pypirc",
    "/.docker/config",
    "/.config/gcloud",
    "/.azure/",
    "/.config/gh/",
    "/.gnupg/",
    "/.vault-token",
    "/.cargo/credentials",
    "/etc/shadow",
    "/etc/ssh/ssh_host",
    "/environ",
    "/run/secrets",
    "/.pgpass",
    "/.my.cnf",
    "id_rsa",
    "id_ed25519",
    "credentials.json",
    "/.terraform.d/credentials",
];
/// Files that give rights to who writes to them, or are run by others.
const TRUSTED_FILES: [&str; 22] = [
    "authorized_keys",
    "/etc/sudoers",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/cron",
    "/var/spool/cron",
    "/etc/systemd/",
    "/.config/systemd/",
    "/etc/profile",
    "/.bashrc",
    "/.bash_profile",
    "/.profile",
    "/.zshrc",
    "/etc/ld.so.preload",
    "/etc/hosts",
    "/etc/pam.d",
    "/etc/ssh/",
    "/.ssh/config",
    "/.gitconfig",
    "/.git/hooks",
    "/proc/sys/",
];

fn risk(effect: Effect, what: &'static str) -> Option<Risk> {
    Some(Risk { effect, what })
}

/// Whether a file is known to hold credentials.
pub(super) fn is_secret_file(path: &str) -> bool {
    let path = rooted(path);
    let env = path.rsplit('/').next().is_some_and(|name| name == ".env" || name.starts_with(".env."));
    env || SECRET_FILES.iter().any(|part| path.contains(part))
}

/// `.ssh/id` and `~/.ssh/id` are told alike.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches(['@', '<']))
}

/// What a redirection to or from a file means.
pub(super) fn file(path: &str) -> Option<Risk> {
    if path.contains("/dev/tcp/") || path.contains("/dev/udp/") {
        return risk(RemoteShell, "a connection made by the shell");
    }
    let disk = ["/dev/sd", "/dev/nvme", "/dev/vd", "/dev/mapper/"];
    if disk.iter().any(|part| path.starts_with(part)) {
        return risk(Delete, "writing to a disk");
    }
    trusted(path)
}

fn trusted(path: &str) -> Option<Risk> {
    let path = rooted(path);
    let known = TRUSTED_FILES.iter().any(|part| path.contains(part));
    if known { risk(Privilege, "a file that gives rights or is run by others") } else { None }
}

/// The arguments of a program.
struct Arguments<'a>(&'a [&'a str]);

impl<'a> Arguments<'a> {
    fn has(&self, any: &[&str]) -> bool {
        self.0.iter().any(|word| any.contains(word))
    }

    /// Whether an option of one letter is given, alone or among others (`-rf`).
    fn short(&self, letters: &[char]) -> bool {
        let options = self.0.iter().take_while(|word| **word != "--");
        let short = |word: &&&str| word.starts_with('-') && !word.starts_with("--");
        options.filter(short).any(|word| word.contains(letters))
    }

    fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|word| test(word))
    }

    /// The words that are no options. The value of an option may be among them.
    fn verbs(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.0.iter().copied().filter(|word| !word.starts_with('-'))
    }

    /// Whether these words stand among the first so, in their order.
    fn verb(&self, wanted: &[&str]) -> bool {
        /// Words that are looked at: values of options may stand before a verb.
        const FIRST: usize = 8;
        let mut wanted = wanted.iter().peekable();
        for word in self.verbs().take(FIRST) {
            if wanted.peek().is_some_and(|next| **next == word) {
                wanted.next();
            }
        }
        wanted.peek().is_none()
    }

    fn one_of(&self, verbs: &[&str]) -> bool {
        verbs.iter().any(|verb| self.verb(&[verb]))
    }

    /// Whether one of the first words begins so.
    fn verb_begins(&self, beginnings: &[&str]) -> bool {
        self.verbs().take(4).any(|word| beginnings.iter().any(|begin| word.starts_with(begin)))
    }
}

/// What a program does with these arguments.
pub(super) fn program(name: &str, arguments: &[&str]) -> Vec<Risk> {
    let given = Arguments(arguments);
    let mut risks: Vec<Risk> =
        [files(name, &given), host(name, &given), rights(name, &given), network(name, &given)]
            .into_iter()
            .flatten()
            .collect();
    risks.extend(repository(name, &given));
    risks.extend(cloud(name, &given));
    risks.extend(database(name, &given));
    if matches!(name, "tee" | "cp" | "mv" | "install" | "ln" | "sed" | "dd" | "truncate") {
        risks.extend(given.0.iter().find_map(|word| trusted(word.trim_start_matches("of="))));
    }
    if matches!(name, "cat" | "cp" | "tar" | "zip" | "less" | "head" | "tail" | "grep" | "strings" | "base64")
    {
        let secret = given.any(is_secret_file);
        risks.extend(
            secret.then_some(Risk { effect: Disclose, what: "reading a file that holds credentials" }),
        );
    }
    risks
}

fn files(name: &str, given: &Arguments<'_>) -> Option<Risk> {
    let found = match name {
        "rm" => given.short(&['r', 'R']) || given.has(&["--recursive"]),
        "find" => given.has(&["-delete"]),
        "shred" | "wipefs" | "blkdiscard" => !given.0.is_empty(),
        "dd" => given.any(|word| word.starts_with("of=/dev/") && word != "of=/dev/null"),
        "rsync" => given.any(|word| word.starts_with("--delete")),
        "lvremove" | "vgremove" | "zfs" | "zpool" => given.one_of(&["destroy"]) || name.ends_with("remove"),
        name => name == "mkfs" || name.starts_with("mkfs."),
    };
    if found { risk(Delete, "deleting a tree or a disk") } else { None }
}

fn host(name: &str, given: &Arguments<'_>) -> Option<Risk> {
    let found = match name {
        "systemctl" | "service" => given.one_of(&[
            "start",
            "stop",
            "restart",
            "reload",
            "enable",
            "disable",
            "mask",
            "unmask",
            "edit",
            "kill",
            "isolate",
            "set-property",
            "poweroff",
            "reboot",
            "halt",
        ]),
        "crontab" => !given.has(&["-l"]),
        "at" | "batch" | "reboot" | "shutdown" | "halt" | "poweroff" | "init" | "telinit" => true,
        "iptables" | "ip6tables" | "iptables-restore" | "ufw" | "firewall-cmd" => {
            !given.has(&["-L", "-S", "--list", "status"])
        }
        "nft" => !given.one_of(&["list"]),
        "sysctl" => given.has(&["-w", "-p", "--write"]) || given.any(|word| word.contains('=')),
        "insmod" | "modprobe" | "rmmod" | "mount" | "umount" | "swapoff" => !given.0.is_empty(),
        _ => false,
    };
    if found { risk(Infrastructure, "a change of the host") } else { None }
}

fn rights(name: &str, given: &Arguments<'_>) -> Option<Risk> {
    let found = match name {
        "sudo" | "doas" | "pkexec" | "su" | "runuser" | "visudo" | "nsenter" => true,
        "useradd" | "adduser" | "usermod" | "groupadd" | "gpasswd" | "userdel" | "passwd" | "chpasswd" => {
            true
        }
        "chmod" => given.any(|word| {
            let sets = word.contains("+s") || word.contains("=s") || word == "777" || word == "a+rwx";
            let special = word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit()) && word > "1777";
            sets || special || word == "0777"
        }),
        "setcap" | "setfacl" | "ssh-copy-id" | "capsh" => true,
        "docker" | "podman" => {
            let root = |word: &str| {
                word.starts_with("/:") || word.contains("source=/,") || word.contains("docker.sock")
            };
            given.has(&["--privileged", "--pid=host", "--cap-add=ALL", "--cap-add=SYS_ADMIN"])
                || given.any(root)
        }
        _ => false,
    };
    if found { risk(Privilege, "rights for somebody, or those of another") } else { None }
}

fn network(name: &str, given: &Arguments<'_>) -> Option<Risk> {
    match name {
        "curl" | "wget" | "http" | "https" => request(name, given),
        "nc" | "ncat" | "netcat" => {
            let runs = given.short(&['e', 'c']) || given.has(&["--exec", "--sh-exec"]);
            if runs { risk(RemoteShell, "a shell to somewhere else") } else { None }
        }
        "socat" => {
            let runs = given.any(|word| {
                let word = word.to_ascii_lowercase();
                word.starts_with("exec:") || word.starts_with("system:")
            });
            if runs { risk(RemoteShell, "a shell to somewhere else") } else { None }
        }
        "scp" | "rsync" | "sftp" | "rclone" => {
            let remote = |word: &str| word.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
            let sends = given.verbs().last().is_some_and(remote) || name == "sftp";
            if sends { risk(Disclose, "sending files away") } else { None }
        }
        _ => None,
    }
}

fn request(name: &str, given: &Arguments<'_>) -> Option<Risk> {
    let glued = |word: &str| ["-XDELETE", "--request=DELETE", "--method=DELETE"].contains(&word);
    let deletes = given.0.windows(2).any(|pair| {
        matches!(pair[0], "-X" | "--request" | "--method") && pair[1].eq_ignore_ascii_case("DELETE")
    });
    if deletes || given.any(glued) {
        return risk(Delete, "a request that deletes");
    }
    // `@file` in data or a form, and files that are uploaded.
    let uploads = match name {
        "wget" => given.any(|word| word.starts_with("--post-file") || word.starts_with("--body-file")),
        _ => {
            let file = |word: &str| word.starts_with('@') || word.contains("=@") || word.contains("=<");
            given.has(&["-T", "--upload-file"])
                || given.any(file)
                || given.any(|word| word.starts_with("-d@") || word.starts_with("-T") && word.len() > 2)
        }
    };
    if uploads { risk(Disclose, "sending files away") } else { None }
}

fn repository(name: &str, given: &Arguments<'_>) -> Vec<Risk> {
    let found = match name {
        "git" => return git(given),
        "gh" | "glab" => return forge(given),
        "npm" | "yarn" | "pnpm" | "cargo" | "poetry" | "uv" | "hatch" | "flit" | "vsce" | "lerna" => {
            given.one_of(&["publish", "unpublish", "yank", "deprecate", "dist-tag", "owner"])
        }
        "twine" => given.one_of(&["upload"]),
        "gem" => given.one_of(&["push", "yank", "owner"]),
        "mvn" | "gradle" | "gradlew" | "mvnw" => given.one_of(&["deploy", "publish", "release:perform"]),
        "dotnet" | "nuget" => given.one_of(&["push"]),
        "docker" | "podman" | "buildah" | "nerdctl" => given.one_of(&["push"]) || given.has(&["--push"]),
        "skopeo" | "crane" | "oras" => given.one_of(&["copy", "push", "sync", "delete", "cp", "tag"]),
        _ => false,
    };
    if found { vec![Risk { effect: Publish, what: "publishing a package or an image" }] } else { Vec::new() }
}

fn git(given: &Arguments<'_>) -> Vec<Risk> {
    if given.one_of(&["send-pack"]) || given.one_of(&["push"]) {
        let flags = ["--force", "--mirror", "--delete", "--prune", "--all"];
        let replaces = given.any(|word| {
            let long = flags.contains(&word) || word.starts_with("--force");
            long || word.starts_with('+') || word.starts_with(':') && word.len() > 1
        });
        let replaces = replaces || given.short(&['f', 'd']);
        let what = "git push that replaces or deletes";
        let history = replaces.then_some(Risk { effect: RewriteHistory, what });
        return [Some(Risk { effect: Publish, what: "git push" }), history].into_iter().flatten().collect();
    }
    let cleans = given.one_of(&["clean"]) && given.short(&['f']);
    if cleans || given.one_of(&["filter-branch", "filter-repo"]) {
        return vec![Risk { effect: Delete, what: "git clean, or another history" }];
    }
    Vec::new()
}

fn forge(given: &Arguments<'_>) -> Vec<Risk> {
    let mut risks = Vec::new();
    let method = |wanted: &[&str]| {
        given.0.windows(2).any(|pair| {
            matches!(pair[0], "-X" | "--method") && wanted.iter().any(|m| pair[1].eq_ignore_ascii_case(m))
        }) || given.any(|word| word.strip_prefix("-X").is_some_and(|m| wanted.contains(&m)))
    };
    if given.one_of(&["delete", "archive"]) || given.one_of(&["api"]) && method(&["DELETE"]) {
        risks.push(Risk { effect: Delete, what: "deleting on a forge" });
    }
    let rights = ["secret", "ssh-key", "gpg-key", "auth", "deploy-key", "variable"];
    if given.one_of(&rights) && !given.one_of(&["list", "status"]) {
        risks.push(Risk { effect: Privilege, what: "keys, secrets or tokens on a forge" });
    }
    let publishes = given.one_of(&["release", "workflow", "merge", "sync", "ruleset"])
        && given.one_of(&["create", "upload", "edit", "run", "merge", "sync", "enable", "disable"]);
    let writes = given.one_of(&["api"]) && (method(&["POST", "PUT", "PATCH"]) || given.short(&['f', 'F']));
    if publishes || writes {
        risks.push(Risk { effect: Publish, what: "a change on a forge" });
    }
    risks
}

/// Verbs of the command lines of clouds, by what they begin with.
const DELETES: [&str; 12] = [
    "delete",
    "terminate",
    "destroy",
    "remove",
    "purge",
    "deregister",
    "uninstall",
    "rb",
    "rm",
    "drop",
    "revoke",
    "disable",
];
const CHANGES: [&str; 34] = [
    "create",
    "put",
    "update",
    "modify",
    "run",
    "attach",
    "detach",
    "start",
    "stop",
    "reboot",
    "associate",
    "set",
    "add",
    "register",
    "deploy",
    "apply",
    "import",
    "restore",
    "scale",
    "enable",
    "replace",
    "patch",
    "edit",
    "resize",
    "reset",
    "invoke",
    "execute",
    "send",
    "authorize",
    "tag",
    "untag",
    "mb",
    "cp",
    "sync",
];

fn cloud(name: &str, given: &Arguments<'_>) -> Vec<Risk> {
    match name {
        "terraform" | "tofu" | "terragrunt" | "pulumi" | "cdk" | "cdktf" | "sls" | "serverless" | "sam"
        | "copilot" => {
            let destroys = given.one_of(&["destroy", "remove", "delete"])
                || given.has(&["-destroy", "--destroy", "run-all"]);
            let changes =
                given.one_of(&["apply", "up", "deploy", "import", "taint", "untaint", "state", "refresh"]);
            let what = "a change of infrastructure";
            one(destroys, Delete, "destroying infrastructure")
                .chain(one(changes, Infrastructure, what))
                .collect()
        }
        "kubectl" | "oc" | "k" => kubernetes(given),
        "helm" | "helmfile" | "kustomize" | "flux" | "argocd" => {
            let deletes = given.one_of(&["uninstall", "delete", "destroy", "rollback"]);
            let changes =
                given.one_of(&["install", "upgrade", "apply", "sync", "create", "reconcile", "set"]);
            one(deletes, Delete, "deleting from a cluster")
                .chain(one(changes, Infrastructure, "a change of a cluster"))
                .collect()
        }
        "aws" | "gcloud" | "az" | "gsutil" | "doctl" | "oci" | "ibmcloud" | "aliyun" | "linode-cli"
        | "hcloud" | "s3cmd" | "bq" | "heroku" | "flyctl" | "fly" | "vercel" | "netlify" | "wrangler" => {
            provider(name, given)
        }
        "vault" | "bao" => {
            let deletes = given.one_of(&["delete", "destroy", "disable", "revoke"]);
            let changes = given.one_of(&["write", "enable", "policy", "token", "operator", "put", "patch"]);
            one(deletes, Delete, "deleting from a vault")
                .chain(one(changes, Privilege, "a change of a vault"))
                .collect()
        }
        "ansible" | "ansible-playbook" | "salt" | "knife" | "chef-client" | "puppet" | "nomad" | "consul"
        | "packer" => {
            let looks = given.has(&["--check", "--syntax-check", "--list-hosts", "--version"]);
            one(!looks && !given.0.is_empty(), Infrastructure, "a change of hosts").collect()
        }
        _ => Vec::new(),
    }
}

fn one(holds: bool, effect: Effect, what: &'static str) -> impl Iterator<Item = Risk> {
    holds.then_some(Risk { effect, what }).into_iter()
}

fn kubernetes(given: &Arguments<'_>) -> Vec<Risk> {
    let deletes = given.one_of(&["delete", "drain"]) || given.has(&["--prune"]);
    let changes = given.one_of(&[
        "apply",
        "create",
        "patch",
        "replace",
        "scale",
        "edit",
        "set",
        "rollout",
        "cordon",
        "uncordon",
        "label",
        "annotate",
        "taint",
        "run",
        "expose",
        "autoscale",
        "exec",
        "cp",
        "debug",
        "attach",
        "port-forward",
    ]);
    let rights = given.one_of(&["certificate", "token"])
        || given.any(|word| word.contains("rolebinding") || word.contains("serviceaccount"))
        || given.any(|word| word.starts_with("--as"));
    let secrets = given.one_of(&["get", "describe"]) && given.verb_begins(&["secret"]);
    one(deletes, Delete, "deleting from a cluster")
        .chain(one(changes, Infrastructure, "a change of a cluster"))
        .chain(one(rights, Privilege, "rights in a cluster"))
        .chain(one(secrets, Disclose, "reading a cluster's secrets"))
        .collect()
}

fn provider(name: &str, given: &Arguments<'_>) -> Vec<Risk> {
    let rights = given.one_of(&["iam", "sts", "organizations", "sso-admin", "role", "ad", "kms"])
        || given.any(|word| word.contains("iam-policy") || word.contains("access-key"));
    let looks = given.verb_begins(&["describe", "list", "get", "show", "head", "ls", "help"]);
    let changes = given.verb_begins(&CHANGES) && !looks;
    let deletes = given.verb_begins(&DELETES) && !looks;
    let secrets = given.any(|word| word.starts_with("get-secret-value") || word == "print-access-token")
        || given.verb(&["secrets", "versions", "access"])
        || name == "az" && given.verb(&["keyvault", "secret", "show"]);
    one(deletes, Delete, "deleting in a cloud")
        .chain(one(changes, Infrastructure, "a change in a cloud"))
        .chain(one(rights && (changes || deletes || !looks), Privilege, "rights in a cloud"))
        .chain(one(secrets, Disclose, "reading a cloud's secrets"))
        .collect()
}

fn database(name: &str, given: &Arguments<'_>) -> Vec<Risk> {
    match name {
        "psql" | "mysql" | "mariadb" | "sqlite3" | "sqlcmd" | "clickhouse-client" | "cockroach" => {
            given.0.iter().flat_map(|text| sql(text)).collect()
        }
        "dropdb" | "dropuser" => vec![Risk { effect: Delete, what: "dropping a database" }],
        "createuser" => vec![Risk { effect: Privilege, what: "rights in a database" }],
        "redis-cli" => {
            let found = given.any(|word| {
                ["FLUSHALL", "FLUSHDB", "SHUTDOWN", "DEBUG"]
                    .iter()
                    .any(|verb| word.eq_ignore_ascii_case(verb))
            });
            one(found, Delete, "emptying a database").collect()
        }
        "mongo" | "mongosh" => {
            let found = given
                .any(|text| text.contains("drop") || text.contains("deleteMany") || text.contains("remove("));
            one(found, Delete, "deleting from a database").collect()
        }
        _ => Vec::new(),
    }
}

/// What stands in the arguments of a database's client. It is a look at words: what the
/// statements do is judged where they are sent.
fn sql(text: &str) -> Vec<Risk> {
    let text = text.to_ascii_uppercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    let what = "deleting from a database";
    one(has(&["DROP", "TRUNCATE", "DELETE"]), Delete, what)
        .chain(one(has(&["ALTER", "GRANT", "REVOKE"]), Privilege, "rights or tables of a database"))
        .collect()
}

/// What a program does that reads what others write.
pub(super) fn piped(name: &str, arguments: &[&str], secret: bool) -> Vec<Risk> {
    let given = Arguments(arguments);
    let sends = match name {
        "curl" => {
            given.any(|word| matches!(word, "@-" | "-T-") || word.ends_with("=@-")) || given.has(&["-T"])
        }
        "wget" => given.any(|word| word.contains("/dev/stdin")),
        "nc" | "ncat" | "netcat" | "socat" | "telnet" | "ssh" => true,
        _ => false,
    };
    let what = if secret { "sending credentials away" } else { "sending files away" };
    let mut risks: Vec<Risk> = one(sends, Disclose, what).collect();
    if matches!(name, "psql" | "mysql" | "mariadb") {
        risks.push(Risk { effect: Effect::Obscured, what: "statements that are piped into a database" });
    }
    risks
}

/// What stands in the code of another language. It is a look at names.
pub(super) fn code(text: &str) -> Vec<Risk> {
    let has = |any: &[&str]| any.iter().any(|part| text.contains(part));
    let runs =
        has(&["os.system", "subprocess", "child_process", "exec(", "eval(", "popen", "system(", "Command("]);
    let fetches =
        has(&["urlopen", "requests.get", "fetch(", "http.get", "https.get", "LWP", "Net::HTTP", "open-uri"]);
    let deletes = has(&["rmtree", "rmSync", "unlink(", "rm_rf", "fs.rm", "remove_tree"]);
    let decodes = has(&["b64decode", "atob(", "decode64", "fromhex", "'base64'", "\"base64\""]) && runs;
    let connects =
        has(&["socket.socket", "net.connect", "net.Socket"]) && (runs || has(&["dup2", "pty.spawn"]));
    one(runs && fetches, RunDownload, "code that runs what it downloads")
        .chain(one(deletes, Delete, "code that deletes a tree"))
        .chain(one(decodes, Effect::Obscured, "code that runs what it decodes"))
        .chain(one(connects, RemoteShell, "a shell to somewhere else"))
        .chain(one(runs && !fetches && !decodes, Effect::Obscured, "code that runs other commands"))
        .collect()
}
