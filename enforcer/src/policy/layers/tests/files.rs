//! Layers in folders: what is found, what is broken, and what stays.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::super::{PolicyError, PolicyFrom, PolicyStore};
use super::super::{
    Kept, LayersFrom, MAX_LAYER_BYTES, MAX_LAYER_FILES, MAX_LAYER_RULES, MAX_LAYER_VALUES, MAX_LAYERS,
    MAX_LAYERS_BYTES, MAX_ORGANIZATION_BYTES, MAX_ORGANIZATION_LAYERS,
};
use super::*;

const ALLOW: &str = "  - {id: yes, when: {host: a.test}, allow: true}\n";
const BROKEN: &str = "version: 1\nname: p\nrules:\n  - {id: yes, alow: true}\n";

struct Folders(TempDir);

impl Folders {
    /// Of a host that leaves everything to repositories.
    fn new() -> Self {
        let folders = Self(TempDir::new().unwrap());
        folders.write(
            "host/h.yaml",
            &text("h", "  - {id: leave, when: {host: a.test}, delegate: repository}\n"),
        );
        fs::create_dir(folders.path().join("layers")).unwrap();
        folders
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn layer(&self, name: &str, rules: &str) {
        self.write(&format!("layers/{name}/p.yaml"), &text("p", rules));
    }

    fn from(&self) -> PolicyFrom {
        let mut issuers = issuers();
        issuers.insert("azure".to_owned(), "https://azure.test".to_owned());
        let layers = LayersFrom {
            dir: self.path().join("layers"),
            assurance: Assurance::Oidc,
            issuers,
            nameless: BTreeSet::from(["azure".to_owned()]),
        };
        PolicyFrom { dir: self.path().join("host"), layers: Some(layers) }
    }

    fn open(&self, kept: Option<&Kept>) -> (PolicyStore, Result<(), PolicyError>) {
        PolicyStore::open_all(self.from(), kept)
    }

    fn kept(&self, store: &PolicyStore, before: Option<&Kept>) -> Kept {
        let layers = self.path().join("layers");
        let kept = Kept::read(&self.path().join("host"), Some(&layers), &store.broken(), before).unwrap();
        // What the next proxy obeys is what this one does.
        assert_eq!(kept.hash(), *store.current().hash());
        kept
    }
}

fn verdict(store: &PolicyStore, repository: &str) -> Verdict {
    decide(&store.current(), Stage::Http, repository).verdict
}

#[test]
fn a_layer_that_is_broken_is_the_last_good_one_and_others_go_on() {
    let folders = Folders::new();
    folders.layer("hub/repo/acme/app", ALLOW);
    folders.layer("hub/repo/acme/web", ALLOW);
    let (store, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!(
        (store.problem(), verdict(&store, "acme/app"), verdict(&store, "acme/new")),
        (None, Verdict::Allow, Verdict::Deny)
    );
    let kept = folders.kept(&store, None);
    folders.write("layers/hub/repo/acme/app/p.yaml", BROKEN);
    folders.layer("hub/repo/acme/web", "");
    folders.layer("hub/repo/acme/new", ALLOW);
    store.reload().unwrap();
    let problem = store.problem().unwrap();
    assert!(
        problem.contains("the last good layer of hub/repo/acme/app stays") && problem.contains("alow"),
        "{problem}"
    );
    assert!(store.is_whole() && store.broken() == ["hub/repo/acme/app"]);
    let verdicts =
        |store: &PolicyStore| ["acme/app", "acme/web", "acme/new"].map(|name| verdict(store, name));
    assert_eq!(verdicts(&store), [Verdict::Allow, Verdict::Deny, Verdict::Allow]);
    // Also for a proxy that begins then.
    let kept = folders.kept(&store, Some(&kept));
    let (next, opened) = folders.open(Some(&kept));
    opened.unwrap();
    assert_eq!(
        (verdicts(&next), next.current().hash().clone()),
        (verdicts(&store), store.current().hash().clone())
    );
    assert_eq!(next.problem(), store.problem());
    // And if the host's has an error, too.
    folders.write("host/h.yaml", BROKEN);
    let (next, opened) = folders.open(Some(&kept));
    assert!(opened.is_err() && !next.is_whole());
    assert_eq!(
        (verdicts(&next), next.current().hash().clone()),
        (verdicts(&store), store.current().hash().clone())
    );
    store.reload().unwrap_err();
    assert_eq!(verdicts(&store), [Verdict::Allow, Verdict::Deny, Verdict::Allow]);
    assert!(store.problem().unwrap().contains("the last good policy stays"));
}

#[test]
fn a_layer_that_never_was_good_denies_to_its_own_jobs() {
    let folders = Folders::new();
    folders.write("host/h.yaml", &text("h", "  - {id: all, allow: true}\n"));
    folders.write("layers/hub/repo/acme/app/p.yaml", BROKEN);
    folders.layer("hub/repo/acme/web", "");
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let problem = store.problem().unwrap();
    assert!(problem.contains("nothing is allowed for the jobs of hub/repo/acme/app"), "{problem}");
    let denied = decide(&store.current(), Stage::Http, "acme/app");
    assert_eq!((denied.verdict, denied.reason), (Verdict::Deny, Reason::NoPolicy));
    assert!(denied.message.unwrap().contains("hub/repo/acme/app"));
    let (workload, claims) = (WorkloadFacts::default(), of("acme/app"));
    assert!(
        !store.current().feasible(&facts(&workload, Stage::Dns, verified(&claims), "a.test")).is_possible()
    );
    assert_eq!(verdict(&store, "acme/web"), Verdict::Allow);
    let kept = folders.kept(&store, None);
    let (next, _) = folders.open(Some(&kept));
    assert_eq!(verdict(&next, "acme/app"), Verdict::Deny);
    // Mended.
    let before = store.generation();
    folders.layer("hub/repo/acme/app", "");
    store.reload().unwrap();
    assert_eq!(
        (store.problem(), verdict(&store, "acme/app"), store.generation()),
        (None, Verdict::Allow, before + 1)
    );
    // Gone, it says nothing any more.
    fs::remove_dir_all(folders.path().join("layers/hub/repo/acme/app")).unwrap();
    store.reload().unwrap();
    assert_eq!((store.generation(), verdict(&store, "acme/app")), (before + 2, Verdict::Allow));
    store.reload().unwrap();
    assert_eq!(store.generation(), before + 2);
}

#[test]
fn without_the_folder_of_layers_nothing_changes_and_nothing_begins() {
    let folders = Folders::new();
    folders.layer("hub/repo/acme/app", ALLOW);
    let (store, _) = folders.open(None);
    let kept = folders.kept(&store, None);
    fs::remove_dir_all(folders.path().join("layers")).unwrap();
    store.reload().unwrap_err();
    assert_eq!(verdict(&store, "acme/app"), Verdict::Allow);
    let (next, opened) = folders.open(None);
    assert!(opened.is_err() && next.current().is_missing());
    let (next, opened) = folders.open(Some(&kept));
    assert!(opened.is_err() && verdict(&next, "acme/app") == Verdict::Allow);
}

#[test]
fn what_is_no_layer_is_told() {
    let folders = Folders::new();
    folders.layer("hub/repo/acme", ALLOW);
    folders.layer("hub/org/acme/deep", ALLOW);
    folders.layer("gitlab/org/acme", ALLOW);
    folders.layer("azure/org/acme", ALLOW);
    folders.write("layers/p.yaml", &text("p", ALLOW));
    folders.write("layers/hub/repo/acme/app/p.test.yaml", "tests: []\n");
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let problem = store.problem().unwrap();
    for told in [
        "hub/repo/acme: this is",
        "hub/org/acme/deep: this is",
        "layers: this is",
        "[[identity.issuer]] of the name `gitlab`",
        "azure/org/acme: tokens of the issuer `azure` do not say",
    ] {
        assert!(problem.contains(told), "{told}: {problem}");
    }
    assert!(store.broken().is_empty());
    folders.kept(&store, None);
    assert_eq!(verdict(&store, "acme/app"), Verdict::Deny);
}

fn allowed_in(store: &PolicyStore, name: &str) -> bool {
    verdict(store, &format!("acme/{name}")) == Verdict::Allow
}

#[test]
fn a_layer_has_so_many_files_and_rules_and_no_more() {
    let folders = Folders::new();
    let rules = |count: usize| -> String {
        (0..count).map(|n| format!("  - {{id: r{n}, when: {{host: a.test}}, allow: true}}\n")).collect()
    };
    folders.layer("hub/repo/acme/app", &rules(MAX_LAYER_RULES));
    folders.layer("hub/repo/acme/web", &rules(MAX_LAYER_RULES + 1));
    for (name, files) in [("full", MAX_LAYER_FILES), ("over", MAX_LAYER_FILES + 1)] {
        for n in 0..files {
            let rules = if n == 0 { ALLOW } else { "" };
            folders
                .write(&format!("layers/hub/repo/acme/{name}/{n:03}.yaml"), &text(&format!("p{n}"), rules));
        }
    }
    // Rules of two files count together, and what comes behind the first too many is not read.
    folders.layer("hub/repo/acme/sum", &rules(MAX_LAYER_RULES));
    folders.write("layers/hub/repo/acme/sum/q.yaml", &text("q", ALLOW));
    folders.write("layers/hub/repo/acme/sum/r.yaml", BROKEN);
    let values = |count: usize| -> String {
        let hosts =
            |from: usize, to: usize| (from..to).map(|n| format!("h{n}.test")).collect::<Vec<_>>().join(", ");
        let rule = |n: usize| {
            format!("  - {{id: v{n}, when: {{host: [{}]}}, allow: true}}\n", hosts(n, count.min(n + 1_000)))
        };
        (0..count).step_by(1_000).map(rule).collect()
    };
    folders.layer("hub/repo/acme/values", &format!("{}{ALLOW}", values(MAX_LAYER_VALUES - 1)));
    folders.layer("hub/repo/acme/valued", &format!("{}{ALLOW}", values(MAX_LAYER_VALUES)));
    let (store, opened) = folders.open(None);
    opened.unwrap();
    assert!(allowed_in(&store, "values") && !allowed_in(&store, "valued"), "{:?}", store.problem());
    let problem = store.problem().unwrap();
    assert!(problem.contains("more than 20000 values") && !problem.contains("alow"), "{problem}");
    assert!(!allowed_in(&store, "sum"));
    let allowed = |name: &str| allowed_in(&store, name);
    assert!(
        allowed("app") && !allowed("web") && allowed("full") && !allowed("over"),
        "{:?}",
        store.problem()
    );
    assert_eq!(store.broken(), ["over", "sum", "valued", "web"].map(|name| format!("hub/repo/acme/{name}")));
}

#[test]
fn so_many_layers_load_and_one_more_changes_nothing() {
    let folders = Folders::new();
    for n in 0..MAX_LAYERS {
        folders.layer(&format!("hub/repo/{}/r{n}", ["acme", "beta"][n % 2]), ALLOW);
    }
    let (store, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!((store.problem(), verdict(&store, "beta/r999")), (None, Verdict::Allow));
    folders.layer("hub/repo/zeta/zzz", ALLOW);
    let error = store.reload().unwrap_err().to_string();
    assert!(error.contains("more than 1000 layers"), "{error}");
    assert_eq!((verdict(&store, "beta/r999"), verdict(&store, "zeta/zzz")), (Verdict::Allow, Verdict::Deny));
}

#[test]
fn one_organization_does_not_take_the_room_of_all() {
    let folders = Folders::new();
    for n in 0..MAX_ORGANIZATION_LAYERS {
        folders.layer(&format!("hub/repo/acme/r{n}"), ALLOW);
    }
    folders.layer("hub/repo/beta/app", ALLOW);
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let all = ["acme/r499", "acme/zzz", "beta/app"];
    let verdicts = |store: &PolicyStore| all.map(|name| verdict(store, name));
    let (no, yes) = (Verdict::Deny, Verdict::Allow);
    assert_eq!((store.problem(), verdicts(&store)), (None, [yes, no, yes]));
    let kept = folders.kept(&store, None);
    folders.layer("hub/repo/acme/zzz", ALLOW);
    folders.layer("hub/repo/beta/app", NO);
    store.reload().unwrap();
    // What was there stays, nobody can say what is new, and others go on.
    assert_eq!(verdicts(&store), [yes, no, no], "{:?}", store.problem());
    let problem = store.problem().unwrap();
    assert!(problem.contains("hub/repo/acme: ") && problem.contains("more than 500 layers"), "{problem}");
    let kept = folders.kept(&store, Some(&kept));
    let (next, opened) = folders.open(Some(&kept));
    opened.unwrap();
    assert_eq!(
        (verdicts(&next), next.current().hash().clone()),
        (verdicts(&store), store.current().hash().clone())
    );
    folders.write("host/h.yaml", &text("h", "  - {id: all, allow: true}\n"));
    let (fresh, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!(verdicts(&fresh), [no, no, no]);
    fs::remove_dir_all(folders.path().join("layers/hub/repo/acme/zzz")).unwrap();
    fresh.reload().unwrap();
    assert_eq!((fresh.problem(), verdicts(&fresh)), (None, [yes, yes, no]));
}

#[test]
fn the_files_of_one_organization_have_so_many_bytes() {
    let folders = narrowed();
    let most = usize::try_from(MAX_LAYER_BYTES).unwrap();
    let file = "%".repeat(most);
    for n in 0..MAX_ORGANIZATION_BYTES / most {
        folders.write(&format!("layers/hub/repo/acme/o{n}/p.yaml"), &file);
    }
    folders.layer("hub/repo/beta/app", NO);
    let (store, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!((verdict(&store, "acme/new"), verdict(&store, "beta/app")), (Verdict::Allow, Verdict::Deny));
    folders.write("layers/hub/repo/acme/one/p.yaml", "%");
    fs::remove_dir_all(folders.path().join("layers/hub/repo/beta/app")).unwrap();
    store.reload().unwrap();
    assert!(store.broken().contains(&"hub/repo/acme".to_owned()), "{:?}", store.problem());
    assert_eq!((verdict(&store, "acme/new"), verdict(&store, "beta/app")), (Verdict::Deny, Verdict::Allow));
}

#[test]
fn all_files_together_have_so_many_bytes_and_those_of_a_layer() {
    let folders = Folders::new();
    let most = usize::try_from(MAX_LAYER_BYTES).unwrap();
    // No policies, which is seen at once.
    let file = "%".repeat(most);
    for n in 0..MAX_LAYERS_BYTES / most {
        folders.write(&format!("layers/hub/org/o{n}/p.yaml"), &file);
    }
    // What is too large for a layer is not even read.
    folders.write("layers/hub/repo/acme/app/p.yaml", &file);
    folders.write("layers/hub/repo/acme/app/q.yaml", "%");
    let (store, opened) = folders.open(None);
    assert!(opened.is_ok() && store.broken().len() == MAX_LAYERS_BYTES / most + 1, "{:?}", store.problem());
    folders.write("layers/hub/org/more/p.yaml", "%");
    let error = store.reload().unwrap_err().to_string();
    assert!(error.contains("bytes in the files of layers"), "{error}");
}

#[test]
fn a_layer_of_so_many_bytes_loads() {
    let folders = Folders::new();
    let text = text("p", ALLOW);
    let padding = |bytes: usize| format!("{text}#{}\n", "x".repeat(bytes - text.len() - 2));
    let most = usize::try_from(MAX_LAYER_BYTES).unwrap();
    folders.write("layers/hub/repo/acme/app/p.yaml", &padding(most));
    folders.write("layers/hub/repo/acme/web/p.yaml", &padding(most + 1));
    let (store, _) = folders.open(None);
    assert_eq!(store.broken(), ["hub/repo/acme/web"]);
    assert_eq!((verdict(&store, "acme/app"), verdict(&store, "acme/web")), (Verdict::Allow, Verdict::Deny));
}

#[test]
fn who_fills_a_layer_has_no_say_about_others_and_says_little() {
    let folders = Folders::new();
    folders.layer("hub/repo/acme/web", ALLOW);
    folders.layer("hub/repo/acme/app", ALLOW);
    let app = folders.path().join("layers/hub/repo/acme/app");
    std::os::unix::fs::symlink("../..", app.join("loop")).unwrap();
    folders.write("layers/hub/repo/acme/app/q.yaml", &format!("{}: \u{1b}[2J", "x".repeat(100_000)));
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let problem = store.problem().unwrap();
    assert!(problem.contains("hub/repo/acme/app/loop: a folder below"), "{problem}");
    assert!(problem.len() < MAX_LAYERS * 10 && !problem.contains(char::is_control), "{problem}");
    assert_eq!((verdict(&store, "acme/web"), verdict(&store, "acme/app")), (Verdict::Allow, Verdict::Deny));
    // Names of all that is broken fit into a message.
    let long = "x".repeat(200);
    for n in 0..400 {
        folders.write(&format!("layers/hub/org/{long}{n}/p.yaml"), BROKEN);
    }
    store.reload().unwrap();
    let names: usize = store.broken().iter().map(String::len).sum();
    assert!((30_000..33_000).contains(&names), "{names}");
}

#[test]
fn one_that_has_not_changed_keeps_its_counts() {
    let folders = Folders::new();
    folders.layer("hub/repo/acme/app", ALLOW);
    let (store, _) = folders.open(None);
    assert_eq!(verdict(&store, "acme/app"), Verdict::Allow);
    folders.layer("hub/repo/acme/web", ALLOW);
    store.reload().unwrap();
    let hits = store.current().hits(10);
    let of = |rule: &str| hits.rules.iter().find(|hit| hit.rule == rule).map(|hit| hit.hits);
    assert_eq!(of("hub/repo/acme/app:p/yes"), Some(1));
    assert_eq!((of("hub/repo/acme/web:p/yes"), of("h/leave"), hits.rules.len()), (Some(0), Some(0), 3));
    assert_eq!((store.current().hits(1).rules.len(), store.current().hits(1).more), (1, 2));
    assert_eq!(hits.policy, store.current().hash().as_str());
}

fn link(folders: &Folders, to: &str, name: &str) {
    let path = folders.path().join("layers").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(to, path).unwrap();
}

/// A host that allows everything, which layers narrow.
fn narrowed() -> Folders {
    let folders = Folders::new();
    folders.write("host/h.yaml", &text("h", "  - {id: all, allow: true}\n"));
    folders
}

const NO: &str = "  - {id: no, when: {host: a.test}, deny: no}\n";

#[test]
fn a_folder_that_nobody_can_look_into_does_not_vanish() {
    let folders = narrowed();
    for name in ["acme/app", "acme/infra/web", "acme/.github", "acme/far"] {
        folders.layer(&format!("hub/repo/{name}"), NO);
    }
    folders.layer(".git/repo/acme/app", NO);
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let all = ["acme/app", "acme/infra/web", "acme/infra/new", "acme/.github", "acme/far", "acme/other"];
    let verdicts = |store: &PolicyStore| all.map(|name| verdict(store, name));
    let (no, yes) = (Verdict::Deny, Verdict::Allow);
    assert_eq!((store.problem(), verdicts(&store)), (None, [no, no, yes, no, no, yes]));
    let kept = folders.kept(&store, None);
    // They lead nowhere, or to themselves, which is seen without knowing what they were.
    let layers = folders.path().join("layers/hub/repo/acme");
    for (name, to) in [("app", "gone"), ("infra", "infra")] {
        fs::remove_dir_all(layers.join(name)).unwrap();
        link(&folders, to, &format!("hub/repo/acme/{name}"));
    }
    fs::remove_dir_all(layers.join("far")).unwrap();
    store.reload().unwrap();
    assert_eq!(verdicts(&store), [no, no, no, no, yes, yes], "{:?}", store.problem());
    let problem = store.problem().unwrap();
    for told in [
        "the last good layer of hub/repo/acme/app stays: cannot read",
        "nothing is allowed for the jobs of hub/repo/acme/infra: cannot read",
        "the last good layer of hub/repo/acme/infra/web stays: nobody can say what is in hub/repo/acme/infra",
    ] {
        assert!(problem.contains(told), "{told}: {problem}");
    }
    let kept = folders.kept(&store, Some(&kept));
    let (next, opened) = folders.open(Some(&kept));
    opened.unwrap();
    assert_eq!(
        (verdicts(&next), next.current().hash().clone()),
        (verdicts(&store), store.current().hash().clone())
    );
    let (fresh, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!(verdicts(&fresh), [no, no, no, no, yes, yes]);
    // Above layers nothing changes.
    link(&folders, "gone", "hub/repo/beta");
    let before = store.generation();
    assert!(store.reload().unwrap_err().to_string().contains("hub/repo/beta"));
    assert_eq!((verdicts(&store), store.generation()), ([no, no, no, no, yes, yes], before));
}

#[test]
fn what_is_no_file_is_not_read() {
    let folders = narrowed();
    link(&folders, "/dev/zero", "hub/repo/acme/zero/p.yaml");
    let pipe = |name: &str| {
        let path = folders.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe("layers/hub/repo/acme/pipe/p.yaml");
    let (store, opened) = folders.open(None);
    opened.unwrap();
    assert_eq!(store.broken(), ["hub/repo/acme/pipe", "hub/repo/acme/zero"]);
    assert_eq!(
        ["zero", "pipe", "app"].map(|name| verdict(&store, &format!("acme/{name}"))),
        [Verdict::Deny, Verdict::Deny, Verdict::Allow]
    );
    pipe("host/p.yaml");
    let told = |error: PolicyError| std::error::Error::source(&error).unwrap().to_string();
    assert!(told(store.reload().unwrap_err()).contains("no regular file"));
    fs::remove_file(folders.path().join("host/p.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folders.path().join("host/z.yaml")).unwrap();
    assert!(told(store.reload().unwrap_err()).contains("no regular file"));
}

#[test]
fn what_is_too_much_in_one_folder_is_its_own_problem() {
    let folders = narrowed();
    for name in ["acme/app", "acme/web", "acme/infra/db", "zeta/app"] {
        folders.layer(&format!("hub/repo/{name}"), NO);
    }
    let (store, opened) = folders.open(None);
    opened.unwrap();
    let all = ["acme/app", "acme/web", "acme/infra/db", "zeta/app", "acme/other", "acme/infra/new"];
    let verdicts = |store: &PolicyStore| all.map(|name| verdict(store, name));
    let (no, yes) = (Verdict::Deny, Verdict::Allow);
    assert_eq!(verdicts(&store), [no, no, no, no, yes, yes]);
    // Its files are gone, and all of the others' would be its own.
    let app = folders.path().join("layers/hub/repo/acme/app");
    fs::remove_file(app.join("p.yaml")).unwrap();
    link(&folders, "../..", "hub/repo/acme/app/loop");
    store.reload().unwrap();
    assert_eq!(store.broken(), ["hub/repo/acme/app/loop"]);
    assert_eq!(verdicts(&store), [yes, no, no, no, yes, yes]);
    fs::remove_file(app.join("loop")).unwrap();
    folders.layer("hub/repo/acme/app", NO);
    store.reload().unwrap();
    // So many folders are looked into, and one more is not.
    for n in 1..super::super::read::MAX_OWN_FOLDERS {
        fs::create_dir(app.join(n.to_string())).unwrap();
    }
    store.reload().unwrap();
    assert_eq!((store.problem(), verdicts(&store)), (None, [no, no, no, no, yes, yes]));
    fs::create_dir(app.join("more")).unwrap();
    store.reload().unwrap();
    let problem = store.problem().unwrap();
    assert!(
        problem.contains("the last good layer of hub/repo/acme/app stays: more than 250 folders"),
        "{problem}"
    );
    assert_eq!(verdicts(&store), [no, no, no, no, yes, yes]);
    // A policy in the folder of a group is no layer of theirs, and takes away none.
    folders.layer("hub/repo/acme/infra", "");
    store.reload().unwrap();
    assert_eq!(verdicts(&store), [no, no, no, no, yes, yes]);
    assert_eq!(verdicts(&folders.open(None).0), [no, no, no, no, yes, yes]);
}
