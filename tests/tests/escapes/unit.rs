//! The drop-in of a unit, as `enforcer scope harden` writes it, for the probe to apply.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use enforcer::app::config::Config;
use enforcer::app::doctor::harden::{Plan, Wishes};
use enforcer::app::doctor::{Host, Probes, Service};

/// A folder with sockets of daemons that the drop-in hides.
pub const HIDDEN: &str = "/run/user";

/// Writes into this new folder what the probe needs: the drop-in, and a file that nobody
/// may open, with which files are hidden.
pub fn write(folder: &Path) {
    let host = folder.join("host");
    let units = host.join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    // A unit that says nothing but who runs it.
    std::fs::write(units.join("job.service"), "[Service]\nUser=job\nExecStart=/bin/true\n").unwrap();
    let service = Service::Unknown("there is none".to_owned());
    let probes = Probes { service, landlock: None, systemd: false };
    let host = Host::at(&host, Config::default(), probes);
    let wishes = Wishes { own_network: true, ..Wishes::default() };
    let text = Plan::of(&host, "job", &wishes).unwrap().after.expect("a unit that says nothing needs all");
    assert!(text.contains(&format!("=-{HIDDEN}\n")), "{HIDDEN} is not hidden:\n{text}");
    std::fs::write(folder.join("unit.conf"), text).unwrap();
    std::fs::write(folder.join("nothing"), "").unwrap();
    std::fs::set_permissions(folder.join("nothing"), PermissionsExt::from_mode(0o000)).unwrap();
}
