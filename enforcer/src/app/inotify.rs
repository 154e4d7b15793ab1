//! What to do where the kernel does not tell which cgroups come and go: root has no
//! instance or no watch of inotify(7) left, since others have them all.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags};
use rustix::io::Errno;

/// How often is looked for what nobody tells, in place of waiting for it.
pub const BLIND: Duration = Duration::from_millis(50);
/// A look that takes long is followed by a pause of so many times its length.
const REST: u32 = 4;

/// An instance, which does not wait.
pub fn open() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// How long to wait for the next look after one that took this long.
pub fn pause_after(look: Duration) -> Duration {
    BLIND.max(look * REST)
}

/// Why there is no instance, and what helps.
pub fn no_instance(error: &io::Error) -> String {
    let kernel = match error.raw_os_error() {
        Some(nix::libc::EMFILE) => {
            "root has no inotify instance left: sysctl -w fs.inotify.max_user_instances=1024"
        }
        _ => "inotify cannot be had",
    };
    format!("{kernel} ({error}); cgroups are looked for every {} ms meanwhile", BLIND.as_millis())
}

/// Why there is no further watch, and what helps.
pub fn no_watch(error: Errno) -> String {
    let kernel = match error {
        Errno::NOSPC => "root has no inotify watch left: sysctl -w fs.inotify.max_user_watches=1048576",
        _ => "a cgroup cannot be watched by inotify",
    };
    format!("{kernel} ({error}); cgroups are looked for every {} ms meanwhile", BLIND.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_none_left_is_told_what_to_set() {
        let error = io::Error::from_raw_os_error(nix::libc::EMFILE);
        assert!(no_instance(&error).contains("max_user_instances=1024"));
        assert!(no_watch(Errno::NOSPC).contains("max_user_watches=1048576"));
        assert!(!no_watch(Errno::ACCESS).contains("sysctl"));
    }

    #[test]
    fn looking_takes_a_fifth_of_the_time_at_most() {
        assert_eq!(pause_after(Duration::from_millis(1)), BLIND);
        assert_eq!(pause_after(Duration::from_millis(100)), Duration::from_millis(400));
    }
}
