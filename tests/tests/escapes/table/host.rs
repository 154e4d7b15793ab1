//! Other hands, other cgroups, other namespaces, and the enforcer itself.

use super::{P4, Technique, tech};
use crate::scene::Scene;

const VICTIM: Scene = Scene::Helper(&["victim", P4]);
/// Of the same user as an unprivileged job.
const PEER_OF_USER: Scene = Scene::Helper(&["victim", P4, "user"]);

pub const ALL: &[Technique] = &[
    tech("given-connected", &["take-connected", P4, "$gift"], "LKKKKL")
        .on("lsm", "HKKKKH")
        .scene(Scene::Gift("donate-connected 10.77.0.2:4444")),
    tech("given-tcp", &["take-tcp", P4, "$gift"], "RKKKKR")
        .on("lsm", "HKKKKH")
        .scene(Scene::Gift("donate-tcp 10.77.0.2:4444")),
    tech("given-udp", &["take-udp", P4, "$gift"], "HKKKKH").scene(Scene::Gift("donate-udp 10.77.0.2:4444")),
    tech("given-away-tcp", &["foreign-tcp", P4], "RRRRRR").scene(Scene::Given("donate-tcp 10.77.0.2:4444")),
    tech("given-away-udp", &["foreign-udp", P4], "HHHHHH").scene(Scene::Given("donate-udp 10.77.0.2:4444")),
    tech("inherited-connected", &["inherited-send"], "LKKKKL")
        .on("lsm", "HKKKKH")
        .scene(Scene::Inherited("donate-connected 10.77.0.2:4444")),
    tech("standard-input-connected", &["foreign-send"], "LKK..L")
        .on("lsm", "HKK..H")
        .scene(Scene::Stdin("donate-connected 10.77.0.2:4444")),
    tech("standard-input-tcp", &["foreign-tcp", P4], "RKK..R")
        .scene(Scene::Stdin("donate-tcp 10.77.0.2:4444")),
    tech("late-tag-tcp", &["tcp", P4, "wait"], "R.RRRR").scene(Scene::Late),
    tech("late-tag-udp", &["udp-sendto", P4, "wait"], "H.HHHH").scene(Scene::Late),
    tech("late-tag-device", &["bindtodevice", P4, "wait"], "H.HHHH").scene(Scene::Late),
    tech("late-tag-connected", &["connected-wait", P4], "L.CLCL").on("lsm", "H.CHCH").scene(Scene::Late),
    tech("steal-connected", &["steal-connected", P4, "$0", "$1"], "KKKKKL").on("lsm", "KKKKKH").scene(VICTIM),
    tech("steal-fresh", &["steal-fresh", P4, "$0", "$2"], "KKKKKR").on("lsm", "KKKKKH").scene(VICTIM),
    tech("steal-connected-same-user", &["steal-connected", P4, "$0", "$1"], "LKKKKL")
        .on("lsm", "HKKKKH")
        .scene(PEER_OF_USER),
    tech("puppet", &["puppet", P4, "$0", "$3", "$4", "$5", "$6"], "KKKKKL").on("lsm", "KKKKKH").scene(VICTIM),
    tech("puppet-same-user", &["puppet", P4, "$0", "$3", "$4", "$5", "$6"], "LKKKKL")
        .on("lsm", "HKKKKH")
        .scene(PEER_OF_USER),
    tech("relay-unix", &["by-unix", "$unix"], "LKKKKL").on("lsm", "HKKKKH").scene(Scene::Helper(&[
        "relay-unix",
        P4,
        "$unix",
    ])),
    tech("relay-abstract", &["by-abstract", "$abstract"], "LKKLKL")
        .on("6.1", "LLKLKL")
        .on("6.1+lsm", "HHKHKH")
        .on("6.12+lsm", "HKKHKH")
        .scene(Scene::Helper(&["relay-abstract", P4, "$abstract"])),
    tech("move-out", &["move-out", P4, "$outside"], "KKKKKL").on("lsm", "KKKKKH"),
    tech("clone-out", &["clone-out", P4, "$outside"], "KKKKKL").on("lsm", "KKKKKH"),
    tech("child-cgroup", &["child-cgroup", P4, "$cgroup"], "KKKKKR"),
    tech("renamed", &["renamed", P4], "RRRRRR"),
    tech("memfd-exec", &["memfd", P4], "RRRRRR"),
    tech("namespace-and-back", &["netns-back", P4], "KKKKKR").on("lsm", "KKKKKH"),
    tech("namespace-of-own-user", &["netns-user", P4], "NNNNNN"),
    tech("request-key", &["request-key", P4], "NNNNNN"),
    tech("program-in-child-cgroup", &["program-in-child", P4, "$cgroup"], "KKKKKR").on("lsm", "KKKKKH"),
    tech("program-in-own-cgroup", &["program-here", P4, "$cgroup"], "KKKKKR").on("lsm", "KKKKKH"),
    tech("program-at-root", &["program-here", P4, "$attach"], "KKKKKH"),
    tech("detach-links", &["detach", P4, "$attached", "$jobs"], "KKKKKL")
        .on("lsm", "KKKKKH")
        .scene(Scene::Damage),
    tech("unpin", &["unpin", P4, "$pins"], "KKKKKH").scene(Scene::Damage),
    tech("edit-maps", &["untag", P4, "$tags"], "KKKKKL").on("lsm", "KKKKKH").scene(Scene::Damage),
];
