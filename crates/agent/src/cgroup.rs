//! The cgroup of a task.
