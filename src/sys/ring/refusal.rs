//! Why there is no io_uring here, and what to do about it.

use std::fmt;
use std::io;

/// One line on the cause, one on the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub cause: String,
    pub remedy: String,
    /// Memory is missing, which may change.
    pub(super) memory: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl Refusal {
    pub(super) fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into(), memory: false }
    }

    /// What `io_uring_setup(2)`, or a registration, failed with.
    pub(super) fn of(what: &str, error: &io::Error) -> Self {
        // Both only make the explanation better; where they are not known it does without.
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let locked = super::super::limits::locked_bytes().ok(); // likewise
        explain(what, error, disabled.as_deref().map(str::trim), locked)
    }

    /// Of one ring among several that are needed at once.
    pub(super) fn among(self, made: usize, needed: usize) -> Self {
        if needed == 1 {
            return self;
        }
        Self { cause: format!("{}; {needed} rings are needed at once, and {made} could be had", self.cause), ..self }
    }

    /// What `--engine auto` says that it runs another engine instead of.
    pub fn instead_of(&self) -> String {
        format!("io_uring ({})", self.cause)
    }

    /// The kernel has io_uring, but not all that we need.
    pub(super) fn too_old(what: &str) -> Self {
        Self::new(
            format!("this kernel's io_uring has no {what}"),
            "use Linux 6.11 or later, or the epoll engine (--engine auto chooses it)",
        )
    }
}

/// Pure: `disabled` is the content of the sysctl, `locked` the limit of locked memory.
fn explain(what: &str, error: &io::Error, disabled: Option<&str>, locked: Option<u64>) -> Refusal {
    const OTHERWISE: &str = "or use the epoll engine (--engine auto chooses it)";
    let of_ring = what.starts_with("io_uring");
    match error.raw_os_error() {
        // The trial's sockets, which every engine needs.
        Some(libc::ENOSYS | libc::EPERM | libc::ENOMEM | libc::EINTR) if !of_ring => {
            let cause = format!("{what}: {}: {error}", super::super::errno::name(error));
            Refusal::new(cause, "see `dmesg`, and which system calls a sandbox forbids here")
        }
        Some(libc::ENOSYS) => Refusal::new(
            format!("{what}: ENOSYS: this kernel has no io_uring (Linux 5.1 brought it), or a seccomp filter hides it"),
            format!("use Linux 6.11 or later, a container runtime with a profile that allows io_uring, {OTHERWISE}"),
        ),
        Some(libc::EPERM | libc::EACCES) => match disabled {
            Some(value @ ("1" | "2")) => Refusal::new(
                format!("{what}: EPERM: kernel.io_uring_disabled is {value}: {}", disabled_means(value)),
                format!("set it with `sysctl kernel.io_uring_disabled=0` as root, {OTHERWISE}"),
            ),
            _ => Refusal::new(
                format!("{what}: EPERM: a seccomp filter forbids it (Docker's and containerd's usual profile does)"),
                format!(
                    "start the container with a profile that allows io_uring_setup, enter and register, {OTHERWISE}"
                ),
            ),
        },
        Some(libc::EINVAL) => Refusal::new(
            format!("{what}: EINVAL: this kernel does not know what is asked of its io_uring"),
            format!("use Linux 6.11 or later, {OTHERWISE}"),
        ),
        Some(libc::ENOMEM) => {
            let limit = locked.map_or_else(|| "unknown".into(), crate::units::format_size);
            let cause = format!("{what}: ENOMEM: no memory for the ring (limit of locked memory: {limit})");
            Refusal { memory: true, ..Refusal::new(cause, format!("free memory, raise `ulimit -l`, {OTHERWISE}")) }
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            Refusal::new(format!("{what}: {error}"), "raise `ulimit -n`: each ring is a descriptor")
        }
        _ => Refusal::new(format!("{what}: {error}"), format!("see `dmesg`, {OTHERWISE}")),
    }
}

/// Documentation/admin-guide/sysctl/kernel.rst, Linux 6.6.
fn disabled_means(value: &str) -> &'static str {
    if value == "1" { "only CAP_SYS_ADMIN and the group kernel.io_uring_group may use it" } else { "nobody may use it" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(errno: i32, disabled: Option<&str>) -> String {
        let refusal = explain("io_uring_setup", &io::Error::from_raw_os_error(errno), disabled, Some(8 << 20));
        assert!(!refusal.remedy.is_empty());
        refusal.cause
    }

    #[test]
    fn each_error_names_its_likely_cause() {
        assert!(cause(libc::ENOSYS, None).contains("no io_uring"));
        assert!(cause(libc::EPERM, Some("0")).contains("seccomp"));
        assert!(cause(libc::EPERM, Some("1")).contains("kernel.io_uring_disabled is 1: only CAP_SYS_ADMIN"));
        assert!(cause(libc::EPERM, Some("2")).contains("kernel.io_uring_disabled is 2: nobody"));
        assert!(cause(libc::EINVAL, None).contains("EINVAL"));
        assert!(cause(libc::ENOMEM, None).contains("8.00 MiB"));
        assert!(cause(libc::EMFILE, None).contains("open files"));
    }

    #[test]
    fn what_fails_a_socket_is_not_put_down_to_the_ring() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
            let refusal = explain("connect", &io::Error::from_raw_os_error(errno), Some("0"), Some(8 << 20));
            assert!(refusal.cause.starts_with("connect: E"), "{refusal}");
            assert!(!refusal.cause.contains("ring") && !refusal.cause.contains("Docker"), "{refusal}");
        }
    }
}
