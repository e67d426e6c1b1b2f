//! Refusing system calls to ourselves (seccomp(2)), as container runtimes and old kernels do: for tests, and for trying
//! what happens where there are none. No defence of anything: a process of another architecture passes.

use super::check;
use std::io;

/// A system call that not every kernel, or sandbox, offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Setup,
    Enter,
    Register,
    EpollPwait2,
    TimerfdCreate,
}

impl Call {
    fn number(self) -> u32 {
        let number = match self {
            Self::Setup => libc::SYS_io_uring_setup,
            Self::Enter => libc::SYS_io_uring_enter,
            Self::Register => libc::SYS_io_uring_register,
            // As all calls since 5.1, it has one number on every architecture; not every C library knows it.
            Self::EpollPwait2 => 441,
            Self::TimerfdCreate => libc::SYS_timerfd_create,
        };
        number as u32
    }

    /// By its name in the manual.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "io_uring_setup" => Some(Self::Setup),
            "io_uring_enter" => Some(Self::Enter),
            "io_uring_register" => Some(Self::Register),
            "epoll_pwait2" => Some(Self::EpollPwait2),
            "timerfd_create" => Some(Self::TimerfdCreate),
            _ => None,
        }
    }
}

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of `<linux/audit.h>`.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

/// The largest error number (`MAX_ERRNO` of the kernel).
const ERROR_MAX: i32 = 4095;

/// From here on these calls fail with `error` (an errno), in the calling thread and in all threads and programs that it
/// starts. There is no way back, nor to more privileges: set-user-ID programs start without them (`NO_NEW_PRIVS`).
pub fn refuse(calls: &[Call], error: i32) -> io::Result<()> {
    let mut filter = filter(calls, error)?;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // The kernel refuses a call whose unused arguments are not 0, and takes all of them as words.
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, none, none, none) })?;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program and its `len` instructions, both of which live until the end of this
    // function, and keeps no pointer to them.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) })?;
    Ok(())
}

/// The filter as a program of the classic packet filter, which reads the words of `struct seccomp_data`.
fn filter(calls: &[Call], error: i32) -> io::Result<Vec<libc::sock_filter>> {
    let architecture = ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    if !(1..=ERROR_MAX).contains(&error) || calls.len() > 8 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let word = |offset: usize| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0);
    let equal = |value: u32, yes: u8, no: u8| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let end = |verdict: u32| instruction(libc::BPF_RET | libc::BPF_K, verdict, 0, 0);
    let count = calls.len() as u8;
    let mut program = vec![
        word(std::mem::offset_of!(libc::seccomp_data, arch)),
        equal(architecture, 0, count + 1), // another architecture numbers its calls otherwise
        word(std::mem::offset_of!(libc::seccomp_data, nr)),
    ];
    // A jump goes over so many instructions: those of the other calls, and the one that lets pass.
    program.extend(calls.iter().zip((1..=count).rev()).map(|(call, left)| equal(call.number(), left, 0)));
    program.push(end(libc::SECCOMP_RET_ALLOW));
    program.push(end(libc::SECCOMP_RET_ERRNO | error as u32));
    Ok(program)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says to a call, as the kernel's interpreter would run it.
    fn verdict(program: &[libc::sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            match u32::from(code) {
                0x20 => word = [number, architecture][k as usize / 4],
                0x15 => at += usize::from(if word == k { jt } else { jf }),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn the_calls_that_are_named_are_refused_and_no_others() {
        let Some(ours) = ARCHITECTURE else { return };
        for calls in [&[][..], &[Call::Setup], &[Call::Setup, Call::Enter, Call::Register]] {
            let program = filter(calls, libc::EPERM).unwrap();
            for call in [Call::Setup, Call::Enter, Call::Register] {
                let refused = if calls.contains(&call) { 0x0005_0000 | 1 } else { 0x7fff_0000 };
                assert_eq!(verdict(&program, ours, call.number()), refused, "{call:?} of {calls:?}");
                assert_eq!(verdict(&program, !ours, call.number()), 0x7fff_0000);
            }
            assert_eq!(verdict(&program, ours, libc::SYS_read as u32), 0x7fff_0000);
        }
    }

    #[test]
    fn what_is_no_error_number_is_refused() {
        for error in [0, -1, 4096] {
            assert!(filter(&[Call::Setup], error).is_err());
        }
    }
}
