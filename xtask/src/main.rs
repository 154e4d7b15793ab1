//! Set-up, build and test tasks: `cargo xtask --help`.

mod bench;
mod check;
mod clients;
mod containers;
mod corpus;
mod dist;
mod ebpf;
mod escapes;
mod run;
mod setup;
mod soak;
mod systemd;
mod test;
mod tidy;
mod toolchain;
mod vm;

use std::num::NonZeroUsize;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build and test tasks", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing needs (Debian; idempotent)
    Setup,
    /// Build the kernel half into target/bpf/enforcer.bpf.o
    Ebpf {
        /// Into target/bpf/enforcer.debug.bpf.o, with programs that log what they decide
        /// (docs/operations.md says how to read it; not for hosts)
        #[arg(long)]
        debug: bool,
    },
    /// Set up, build and show what enforcer does, step by step (as root)
    Demo,
    /// Set up, build and run all tests (as root)
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
    },
    /// Formatting, lints, layers, lengths, and licences of dependencies
    Check,
    /// Layers and lengths of the sources
    Tidy,
    /// Build the Debian package into target/dist
    Dist {
        /// With the program as tests build it
        #[arg(long, env = "ENFORCER_DIST_DEBUG")]
        debug: bool,
    },
    /// Measure the enforcer beside other proxies, in release (as root)
    Bench(bench::Args),
    /// A thousand deaths under traffic, a hundred thousand connections, ten million secrets, in
    /// release (as root)
    Soak(soak::Args),
    /// Try every known way out here and in the guests, and write ESCAPES.md (as root)
    Escapes(escapes::Args),
    /// Run the kernel tests at the true cgroup root of a Debian kernel in qemu
    Vm {
        /// The kernel series: 6.1 or 6.12
        #[arg(long, default_value = "6.1")]
        kernel: String,
        /// Run only the tests whose name contains this
        filter: Option<String>,
        /// The suite: kernel or escapes
        #[arg(long, default_value = "kernel")]
        suite: String,
        /// Install, use and remove the Debian package under systemd instead
        #[arg(long, conflicts_with_all = ["kernel", "filter"])]
        systemd: bool,
        /// Boot it without `bpf` among its security modules
        #[arg(long, conflicts_with = "systemd")]
        no_lsm: bool,
    },
    /// The kernel tests in 6.1, what is new in 6.12, and the escapes there, two guests at a time
    Guests {
        /// Of the kernel tests in 6.1 only one in so many, others with each commit
        #[arg(long, default_value = "1", env = "ENFORCER_GUESTS_SHARE")]
        share: NonZeroUsize,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Setup => setup::for_tests(),
        Task::Ebpf { debug } => {
            let object = if debug { ebpf::build_debug() } else { ebpf::build() }?;
            println!("built {}", object.display());
            Ok(())
        }
        Task::Demo => test::demo(),
        Task::Test { filter } => test::all(filter.as_deref()),
        Task::Check => check::all(),
        Task::Tidy => tidy::all(),
        Task::Dist { debug } => dist::all(!debug).map(drop),
        Task::Bench(args) => bench::all(&args),
        Task::Soak(args) => soak::all(&args),
        Task::Guests { share } => vm::beside(share),
        Task::Vm { systemd: true, .. } => systemd::all(),
        Task::Escapes(args) => escapes::all(&args),
        Task::Vm { kernel, filter, suite, no_lsm, .. } => {
            let filter = filter.as_deref();
            let wanted = vm::Guest { series: &kernel, suite: &suite, filter, environment: "", lsm: !no_lsm };
            vm::all(&wanted)
        }
    }
}
