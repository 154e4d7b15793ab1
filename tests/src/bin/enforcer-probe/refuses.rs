//! A kernel that has run out of something: one call fails for a program and all that it
//! starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs a command for which this call fails with this number. Returns if it cannot.
pub fn run(call: &str, errno: &str, command: &[String]) -> io::Error {
    let number = match call {
        "inotify_init1" => libc::SYS_inotify_init1,
        "inotify_add_watch" => libc::SYS_inotify_add_watch,
        _ => return io::Error::new(io::ErrorKind::InvalidInput, "this call is not known here"),
    };
    let errno: u32 = errno.parse().unwrap();
    match filter(u32::try_from(number).unwrap(), errno) {
        Ok(()) => Command::new(&command[0]).args(&command[1..]).exec(),
        Err(error) => error,
    }
}

/// Of all calls this one fails.
fn filter(call: u32, errno: u32) -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let mut steps = [
        // The number stands first in `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: u16::try_from(steps.len()).unwrap(), filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live until the call returns, which copies them.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
