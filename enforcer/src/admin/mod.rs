//! What is said on the service's own sockets: `run.sock` starts jobs,
//! `admin.sock` is for root alone. Both refuse every process in a tagged cgroup. People have
//! a web page beside it, and log in at the command line.

pub mod device;
pub mod request;
pub mod web;
