//! Starting a command in a tagged cgroup.
