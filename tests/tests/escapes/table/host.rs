//! Other hands, other cgroups, other namespaces, and the enforcer itself.

use super::{P4, Technique, tech};
use crate::scene::Scene;

const VICTIM: Scene = Scene::Helper(&["victim", P4]);
/// Of the same user as an unprivileged job.
const PEER_OF_USER: Scene = Scene::Helper(&["victim", P4, "user"]);

pub const ALL: &[Technique] = &[
    tech("given-connected", &["take-connected", P4, "$gift"], "LKKKL")
        .scene(Scene::Gift("donate-connected 10.77.0.2:4444")),
    tech("given-tcp", &["take-tcp", P4, "$gift"], "RKKKR").scene(Scene::Gift("donate-tcp 10.77.0.2:4444")),
    tech("given-udp", &["take-udp", P4, "$gift"], "HKKKH").scene(Scene::Gift("donate-udp 10.77.0.2:4444")),
    tech("given-away-tcp", &["foreign-tcp", P4], "RRRRR").scene(Scene::Given("donate-tcp 10.77.0.2:4444")),
    tech("given-away-udp", &["foreign-udp", P4], "HHHHH").scene(Scene::Given("donate-udp 10.77.0.2:4444")),
    tech("inherited-connected", &["inherited-send"], "LKKKL")
        .scene(Scene::Inherited("donate-connected 10.77.0.2:4444")),
    tech("standard-input-connected", &["foreign-send"], "LK..L")
        .scene(Scene::Stdin("donate-connected 10.77.0.2:4444")),
    tech("standard-input-tcp", &["foreign-tcp", P4], "RK..R")
        .scene(Scene::Stdin("donate-tcp 10.77.0.2:4444")),
    tech("late-tag-tcp", &["tcp", P4, "wait"], "R.RRR").scene(Scene::Late),
    tech("late-tag-udp", &["udp-sendto", P4, "wait"], "H.HHH").scene(Scene::Late),
    tech("late-tag-device", &["bindtodevice", P4, "wait"], "H.HHH").scene(Scene::Late),
    tech("late-tag-connected", &["connected-wait", P4], "L.L.L").scene(Scene::Late),
    tech("steal-connected", &["steal-connected", P4, "$0", "$1"], "KKKKL").scene(VICTIM),
    tech("steal-fresh", &["steal-fresh", P4, "$0", "$2"], "KKKKR").scene(VICTIM),
    tech("steal-connected-same-user", &["steal-connected", P4, "$0", "$1"], "LKKKL").scene(PEER_OF_USER),
    tech("puppet", &["puppet", P4, "$0", "$3", "$4", "$5", "$6"], "KKKKL").scene(VICTIM),
    tech("puppet-same-user", &["puppet", P4, "$0", "$3", "$4", "$5", "$6"], "LKKKL").scene(PEER_OF_USER),
    tech("relay-unix", &["by-unix", "$unix"], "LKKKL").scene(Scene::Helper(&["relay-unix", P4, "$unix"])),
    tech("relay-abstract", &["by-abstract", "$abstract"], "LKLKL").scene(Scene::Helper(&[
        "relay-abstract",
        P4,
        "$abstract",
    ])),
    tech("move-out", &["move-out", P4, "$outside"], "KKKKL"),
    tech("clone-out", &["clone-out", P4, "$outside"], "KKKKL"),
    tech("child-cgroup", &["child-cgroup", P4, "$cgroup"], "KKKKR"),
    tech("renamed", &["renamed", P4], "RRRRR"),
    tech("memfd-exec", &["memfd", P4], "RRRRR"),
    tech("namespace-and-back", &["netns-back", P4], "KKKKR"),
    tech("namespace-of-own-user", &["netns-user", P4], "NNNNN"),
    tech("request-key", &["request-key", P4], "NNNNN"),
    tech("program-in-child-cgroup", &["program-in-child", P4, "$cgroup"], "KKKKR"),
    tech("program-in-own-cgroup", &["program-here", P4, "$cgroup"], "KKKKR"),
    tech("program-at-root", &["program-here", P4, "$attach"], "KKKKH"),
    tech("detach-links", &["detach", P4, "$attached", "$jobs"], "KKKKL").scene(Scene::Damage),
    tech("unpin", &["unpin", P4, "$pins"], "KKKKH").scene(Scene::Damage),
    tech("edit-maps", &["untag", P4, "$tags"], "KKKKL").scene(Scene::Damage),
];
