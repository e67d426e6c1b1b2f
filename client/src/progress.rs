//! One line on standard error while something lasts. In a run it is drawn by the main thread from figures that the
//! workers leave lying about anyway.

use crate::worker::Published;
use loadgen_core::time::{Instant, NS_PER_S};
use loadgen_core::units::format_count;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often the line is drawn on a terminal, and how often a line is written elsewhere.
const TERMINAL_INTERVAL_NS: u64 = NS_PER_S / 4;
const LOG_INTERVAL_NS: u64 = 10 * NS_PER_S;

/// A line that is drawn again and again on a terminal, and seldom elsewhere.
#[derive(Debug)]
pub struct Line {
    quiet: bool,
    terminal: bool,
    drawn: bool,
    last: Instant,
}

impl Line {
    pub fn new(quiet: bool, now: Instant) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), drawn: false, last: now }
    }

    /// How long ago the line was drawn, if it is time to do so again.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let interval = if self.terminal { TERMINAL_INTERVAL_NS } else { LOG_INTERVAL_NS };
        let passed = now.since(self.last);
        (!self.quiet && passed >= interval).then_some(passed)
    }

    pub fn draw(&mut self, now: Instant, line: &str) {
        let mut stderr = std::io::stderr();
        // A failing standard error is no reason to spoil a run.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        // Likewise.
        let _ = stderr.flush();
        self.drawn = true;
        self.last = now;
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if self.drawn && self.terminal {
            // As for `draw`: it is only the progress.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        self.drawn = false;
    }
}

#[derive(Debug)]
pub struct Progress {
    line: Line,
    last_ok: u64,
}

impl Progress {
    pub fn new(quiet: bool, now: Instant) -> Self {
        Self { line: Line::new(quiet, now), last_ok: 0 }
    }

    /// Draws the line when it is time to.
    pub fn update(&mut self, now: Instant, workers: &[Arc<Published>], total: u64, phase: &str) {
        let Some(passed) = self.line.due(now) else { return };
        let ok = sum(workers, |p| &p.ok);
        let rate = ok.saturating_sub(self.last_ok) * NS_PER_S / passed;
        let line = format!(
            "{phase}: {} of {} connections open, {} requests/s, {} ok, {} errors",
            sum(workers, |p| &p.alive),
            total,
            format_count(rate),
            format_count(ok),
            sum(workers, |p| &p.errors) + sum(workers, |p| &p.connect_failures),
        );
        self.line.draw(now, &line);
        self.last_ok = ok;
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        self.line.clear();
    }
}

/// Says something on standard error. Where that is closed, nobody wants to hear it, and nothing else may suffer.
pub fn tell(text: impl Display) {
    // See above.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Adds one figure up over all workers.
pub fn sum(workers: &[Arc<Published>], figure: impl Fn(&Published) -> &AtomicU64) -> u64 {
    workers.iter().map(|published| figure(published).load(Ordering::Relaxed)).sum()
}
