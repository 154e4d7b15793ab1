//! The world, a state of it, and the judgement of attempts.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use enforcer::kernel::{LsmMode, TierState};
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::kernel::{PAYLOAD, TAG, TCP_PORT, World, answer, probe};
use enforcer_tests::sniffer::{Packet, contains};

use crate::outcome::{Level, Outcome};
use crate::reload::Reload;
use crate::scene::Scene;
use crate::table::{TECHNIQUES, Technique};
use crate::{committed, reload, unit};

/// Of every state but the first, this many techniques at each level.
const SAMPLE: usize = 6;
/// Chooses the sample where nothing else is asked for: the same one each time, so that
/// what fails was changed.
const SEED: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Enforcing,
    /// Nobody listens where tagged processes are redirected to.
    Down,
    /// A loader adopts what an earlier one left, again and again.
    Reload,
}

pub struct Arena {
    pub world: World,
    pub probe: PathBuf,
    place: tempfile::TempDir,
    /// Where the sockets of daemons are.
    sockets: tempfile::TempDir,
    state: State,
    /// Whether the second tier, of programs at the security hooks, is at work.
    lsm: bool,
    reload: Option<Reload>,
    /// Somebody who could has damaged it.
    damaged: bool,
}

/// Whether a technique works for root outside, and what was said: of each this is seen once,
/// for it is the same at all levels.
static WORKS: Mutex<BTreeMap<&str, (bool, String)>> = Mutex::new(BTreeMap::new());

/// What one attempt came to.
struct Seen {
    outcome: Outcome,
    said: String,
}

impl Arena {
    fn new(state: State) -> Self {
        let tier =
            if std::env::var_os("ENFORCER_ESCAPES_LSM").is_some() { LsmMode::Auto } else { LsmMode::Off };
        let mut world = World::in_mode(tier);
        let tiers = world.kernel.as_ref().unwrap().tiers();
        let lsm = tiers.iter().any(|tier| tier.name == "lsm" && tier.state == TierState::Active);
        assert_eq!(lsm, tier == LsmMode::Auto, "{tiers:?}");
        let place = tempfile::tempdir().unwrap();
        let open: std::fs::Permissions = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(place.path(), open.clone()).unwrap();
        // Where cargo builds, not everybody may look.
        let copy = place.path().join("enforcer-probe");
        std::fs::copy(probe(), &copy).unwrap();
        unit::write(&place.path().join("unit"));
        // Below a folder that the settings of units hide.
        std::fs::create_dir_all(unit::HIDDEN).unwrap();
        let sockets = tempfile::tempdir_in(unit::HIDDEN).unwrap();
        std::fs::set_permissions(sockets.path(), open).unwrap();
        let mut reload = None;
        match state {
            State::Enforcing => world.serve(),
            State::Down => reload::listeners_that_close(&mut world),
            State::Reload => {
                world.serve();
                reload = Some(Reload::start(&mut world));
            }
        }
        world.sniffer.clear().unwrap();
        Self { world, probe: copy, place, sockets, state, lsm, reload, damaged: false }
    }

    /// Every technique at this level; the results are printed, and compared.
    pub fn all(state: State, level: Level) {
        let all = TECHNIQUES.iter().flat_map(|group| group.iter());
        if let Ok(names) = std::env::var("ENFORCER_ESCAPES_ONLY") {
            let named = all.filter(|technique| names.split(',').any(|name| name == technique.name));
            Self::each(state, level, named.collect());
            return;
        }
        let (lsm, results) = Self::each(state, level, all.collect());
        committed::compare(level, lsm, &results);
    }

    /// Some of them, or all if that is asked for.
    pub fn sample(state: State, level: Level) {
        let all: Vec<_> = TECHNIQUES.iter().flat_map(|group| group.iter()).collect();
        if std::env::var_os("ENFORCER_ESCAPES_ALL").is_some() {
            // The next loader repairs what is damaged, sooner or later.
            let stays = |technique: &&Technique| state != State::Reload || technique.scene != Scene::Damage;
            Self::each(state, level, all.into_iter().filter(stays).collect());
            return;
        }
        let seed = std::env::var("ENFORCER_ESCAPES_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = seed.unwrap_or(SEED);
        println!("{state:?}, {}: ENFORCER_ESCAPES_SEED={seed}", level.name());
        // What stays of it after the table's damage is not of interest here.
        let mut left: Vec<_> = all.into_iter().filter(|it| it.scene != Scene::Damage).collect();
        let (mut chosen, mut random) = (Vec::new(), seed.wrapping_add(level as u64));
        while chosen.len() < SAMPLE {
            // Knuth's constants for 64 bits.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(random >> 33).unwrap() % left.len();
            chosen.push(left.swap_remove(place));
        }
        Self::each(state, level, chosen);
    }

    fn each(
        state: State,
        level: Level,
        techniques: Vec<&'static Technique>,
    ) -> (bool, BTreeMap<&'static str, String>) {
        let kernel = committed::kernel();
        settings(level);
        let mut arena = Self::new(state);
        let lsm = arena.lsm;
        let (mut results, mut wrong) = (BTreeMap::new(), Vec::new());
        for technique in techniques {
            let begun = Instant::now();
            let expected = technique.expected(&kernel, lsm, level, state);
            let seen = if expected == Outcome::Untried {
                Seen { outcome: Outcome::Untried, said: String::new() }
            } else {
                arena.judge(technique, level)
            };
            if arena.damaged {
                drop(arena);
                arena = Self::new(state);
            }
            if seen.outcome != expected {
                wrong.push(format!(
                    "{}: {} instead of {expected}: {}",
                    technique.name, seen.outcome, seen.said
                ));
            }
            let shown = match seen.outcome {
                Outcome::Absent => format!("n/a: {}", committed::plain(&seen.said)),
                outcome => outcome.to_string(),
            };
            // For whoever waits, and wants to know for what.
            println!("{} {}: {shown} ({} ms)", level.name(), technique.name, begun.elapsed().as_millis());
            results.insert(technique.name, shown);
        }
        if let Some(reload) = arena.reload.take() {
            let times = reload.stop(&mut arena.world);
            assert!(times > 0, "no loader came to its end");
        }
        committed::print(state, level, &kernel, lsm, wrong.len(), &results);
        assert!(wrong.is_empty(), "{state:?}, {}, {kernel}:\n{}", level.name(), wrong.join("\n"));
        (lsm, results)
    }

    /// First the tagged process, since what an untagged one sends may come late.
    fn judge(&mut self, technique: &'static Technique, level: Level) -> Seen {
        self.taken();
        self.world.sniffer.clear().unwrap();
        let said = technique.scene.play(self, &self.world.job, level, technique);
        let is_damage = technique.scene == Scene::Damage;
        // Also where nothing gets out by it.
        self.damaged |= is_damage && level == Level::Root;
        let leaked = self.leaked(technique);
        let gone = technique.scene == Scene::Said && said.starts_with("ok");
        if !leaked.is_empty() || gone {
            self.damaged |= is_damage;
            return Seen { outcome: Outcome::NotStopped, said: format!("{said} {leaked:?}") };
        }
        let taken = self.taken();
        if taken.iter().any(|to| to.port() == TCP_PORT && to.ip().is_loopback()) {
            return Seen { outcome: Outcome::OnlyProxy, said };
        }
        if !taken.is_empty() || said.contains(&format!(" {TAG} |")) {
            return Seen { outcome: Outcome::Redirected, said: format!("{said} {taken:?}") };
        }
        if technique.scene == Scene::Proxy {
            return Seen { outcome: Outcome::Refused, said };
        }
        let (worked, control) =
            if level == Level::Root { self.works(technique) } else { self.control(technique, level) };
        self.damaged |= is_damage && worked && level != Level::Root;
        if worked {
            // ECONNABORTED: somebody has ended it.
            let closed = technique.scene == Scene::Late && level.is_swept() && said.starts_with("error 103 ");
            return Seen { outcome: if closed { Outcome::Closed } else { Outcome::Refused }, said };
        }
        if level == Level::Root {
            return Seen { outcome: Outcome::Absent, said: control };
        }
        match self.works(technique) {
            (true, _) => Seen { outcome: Outcome::NoRight, said: format!("{said}; untagged: {control}") },
            (false, said) => Seen { outcome: Outcome::Absent, said },
        }
    }

    /// Whether an untagged process gets out by it.
    fn control(&self, technique: &Technique, level: Level) -> (bool, String) {
        self.world.sniffer.clear().unwrap();
        let said = technique.scene.play(self, &self.world.outside, level, technique);
        let worked = match technique.scene {
            Scene::Said => said.starts_with("ok"),
            _ => !self.leaked(technique).is_empty(),
        };
        (worked, said)
    }

    /// The same with every right there is.
    fn works(&mut self, technique: &'static Technique) -> (bool, String) {
        if let Some(known) = WORKS.lock().unwrap().get(technique.name) {
            return known.clone();
        }
        let found = self.control(technique, Level::Root);
        self.damaged |= technique.scene == Scene::Damage;
        WORKS.lock().unwrap().insert(technique.name, found.clone());
        found
    }

    fn leaked(&self, technique: &Technique) -> Vec<Packet> {
        let mut packets = self.world.sniffer.packets().unwrap();
        self.world.sniffer.clear().unwrap();
        packets.retain(|packet| counts(packet, technique));
        packets
    }

    /// Where those wanted to go who came to the proxy since the last time.
    fn taken(&self) -> Vec<SocketAddr> {
        let strays = if self.state == State::Down { Vec::new() } else { self.wait_for_the_proxy() };
        let mut records = self.world.records.lock().unwrap();
        for stray in strays {
            let at = records.iter().rposition(|record| answer(record) == stray);
            records.remove(at.expect("the proxy answers of a record that it has"));
        }
        records.drain(..).filter(|record| record.tag == TAG).map(|record| record.orig_dst.0).collect()
    }

    /// It takes one connection after the other: when it has closed this one, which is
    /// nobody's, it has looked at all before.
    ///
    /// A connection that was over before it was taken leaves its record behind, until its port
    /// is somebody's again. If it is this one's, the proxy takes it for that: what it says then.
    fn wait_for_the_proxy(&self) -> Vec<String> {
        let ask = |ip: IpAddr| {
            let mut stream = TcpStream::connect(SocketAddr::new(ip, TCP_PORT)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut said = String::new();
            // A reset is as good as an end.
            drop(stream.write_all(b"?").and_then(|()| stream.read_to_string(&mut said)));
            said
        };
        let both = move || [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(ask);
        let said = self.world.cable.work.run(both).unwrap();
        said.into_iter().filter(|said| !said.is_empty()).collect()
    }

    /// Where somebody outside hands out sockets.
    pub fn gifts(&self) -> PathBuf {
        self.hidden().join("gifts")
    }

    /// Where the sockets of daemons are.
    pub fn hidden(&self) -> PathBuf {
        self.sockets.path().to_owned()
    }

    /// What the probe needs to be in a unit.
    pub fn unit(&self) -> PathBuf {
        self.place.path().join("unit")
    }

    /// The words of the table, with what they stand for.
    pub fn words(&self, words: &[&str], cgroup: &Cgroup, helper: &[String]) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let one = |word: &str| match word.strip_prefix('$') {
            Some("unix") => shown(&self.hidden().join("relay")),
            Some("abstract") => format!("enforcer-escapes-{}", std::process::id()),
            Some("outside") => shown(self.world.outside.path()),
            Some("cgroup") => shown(cgroup.path()),
            Some("attach") => shown(&self.world.config.attach),
            Some("gift") => shown(&self.gifts()),
            Some("pins") => shown(&self.world.config.pins),
            Some("tags") => shown(&self.world.config.pins.join("map_TAGS")),
            Some("attached") => enforcer::kernel::cgroup_id(&self.world.config.attach).unwrap().to_string(),
            Some("jobs") => enforcer::kernel::cgroup_id(&self.world.config.jobs).unwrap().to_string(),
            Some(number) => helper[number.parse::<usize>().unwrap()].clone(),
            None => word.to_owned(),
        };
        words.iter().map(|word| one(word)).collect()
    }
}

/// What the level asks of the machine, if that is the suite's own.
fn settings(level: Level) {
    if committed::is_guest() {
        let value = if level.wants_ptrace_scope() { "1" } else { "0" };
        std::fs::write("/proc/sys/kernel/yama/ptrace_scope", value).unwrap();
    }
}

/// Whether a packet is the work of an attempt, and not the end of one before.
fn counts(packet: &Packet, technique: &Technique) -> bool {
    const IGMP: u8 = 2;
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    const SCTP: u8 = 132;
    const INIT: u8 = 1;
    if contains(&packet.bytes, PAYLOAD) {
        return true;
    }
    let header = if packet.source.is_ipv4() { usize::from(packet.bytes[0] & 0xf) * 4 } else { 40 };
    let byte = |offset: usize| packet.bytes.get(header + offset).copied().unwrap_or(0);
    match packet.protocol {
        // Reports to a group are repeated for a while.
        IGMP => technique.name == "igmp",
        TCP => byte(13) & SYN != 0,
        SCTP => byte(12) == INIT,
        _ => true,
    }
}
