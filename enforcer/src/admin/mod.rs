//! What is said on the service's own sockets: `run.sock` starts jobs,
//! `admin.sock` is for root alone. Both refuse every process in a tagged cgroup.

pub mod request;
