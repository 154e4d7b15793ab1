//! The harness: cgroups, network namespaces and a sniffer, for suites that drive a real kernel.

pub mod bpf;
pub mod cgroup;
pub mod chance;
pub mod fake;
pub mod forms;
pub mod frame;
pub mod fuzz;
pub mod issuer;
pub mod kernel;
pub mod llm;
pub mod netns;
pub mod search;
pub mod service;
pub mod signals;
pub mod sink;
pub mod sniffer;
pub mod split;
pub mod traffic;
pub mod origin;
pub mod store;
pub mod tamper;
pub mod wait;
