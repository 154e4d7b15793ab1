//! The kernel half: cgroup programs that redirect or refuse what a tagged
//! process sends.
//!
//! The socket hooks are attached at the root and decide by the cgroup of the
//! *current task*, then by what was noted in the socket's storage: a socket that
//! was made before its process was tagged, or that came from elsewhere, is
//! caught too. The packet hooks are the backstop behind them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(unsafe_code, reason = "every helper of the kernel is an unsafe function")]

#[cfg(target_arch = "bpf")]
mod kernel {
    /// One line in the log of a debug build; in any other nothing at all, not even
    /// the arguments.
    macro_rules! decided {
        ($hook:expr, $word:expr, $who:expr, $addr:expr, $port:expr) => {
            #[cfg(feature = "log")]
            super::log::decided($hook as u8, $word as u8, $who, $addr, $port)
        };
    }

    mod addr;
    mod connect;
    mod create;
    mod event;
    mod interface;
    #[cfg(feature = "log")]
    mod log;
    mod lsm;
    mod maps;
    mod option;
    mod packet;
    mod restore;
    mod tag;

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // SAFETY: the verifier refuses a program in which this can be reached.
        unsafe { core::hint::unreachable_unchecked() }
    }

    /// Some helpers are reserved for programs under a licence that the kernel accepts.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program runs in the kernel: build it with `cargo xtask ebpf`");
}
