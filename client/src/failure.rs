//! How a command ends when it does not end well: one clear line, a remedy, and the exit status of DESIGN's table.

use loadgen_core::secrets;
use loadgen_core::sys::signals;
use std::fmt;

/// Exit status, one table for all commands (README, "Exit status").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// A regression, or a limit of `--fail-if` broken.
    Worse = 1,
    Usage = 2,
    Unreachable = 3,
    Failures = 4,
    Invalid = 5,
    NotWritten = 6,
    Machine = 7,
    Inconclusive = 8,
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// Of a command that a signal ended.
    pub fn of_signal(signal: i32) -> Self {
        match signal {
            signals::TERMINATE => Self::Terminated,
            signals::HANGUP => Self::HungUp,
            _ => Self::Interrupted,
        }
    }
}

/// A command that could not do its work. Nothing secret is in what it says.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
    help: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: secrets::text(&message.into()), help: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// What went wrong, in one line.
    pub fn cause(&self) -> &str {
        &self.message
    }

    pub fn remedy(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Says what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(secrets::text(&help.into()));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}
