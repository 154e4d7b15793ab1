//! Tagged cgroups and what is known about them.
