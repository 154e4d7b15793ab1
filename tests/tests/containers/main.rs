//! Containers of podman and runc, with an unmodified image, below the cgroup of a job.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod hostile;
mod labels;
mod rootless;
mod served;
mod trust;
mod world;
