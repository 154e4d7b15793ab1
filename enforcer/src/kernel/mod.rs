//! Loading, attaching and pinning the kernel half: the only user of aya, in a process of its own.
