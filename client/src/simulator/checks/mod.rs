//! What must hold of a run, whatever went wrong in it.

mod ledger;
mod pace;
mod schedule;
mod truth;
mod window;

use super::Outcome;
use super::draw::Drawn;
use loadgen_core::load::StopRule;
use loadgen_core::load::request_log::Row;
use loadgen_core::time::{Instant, NS_PER_MS};

/// What two looks at the clock, one after the other, may be apart: the load looks, and then acts.
const AT_ONCE_NS: u64 = 2_000;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    ledger::check(drawn, outcome);
    schedule::check(drawn, outcome);
    truth::check(drawn, outcome);
    window::check(drawn, outcome);
    pace::check(drawn, outcome);
}

/// What the workers of one run did together.
pub(super) fn check_together(parts: &[(Drawn, Outcome)]) {
    schedule::shares(parts);
    ledger::targets(parts);
}

fn is_answered(row: &Row) -> bool {
    matches!(row.outcome, "ok" | "proof") || row.outcome.starts_with("status_")
}

fn is_ok(row: &Row) -> bool {
    matches!(row.outcome, "ok" | "proof")
}

fn has_left(row: &Row) -> bool {
    row.sent != Instant(0)
}

impl Drawn {
    fn is_idle(&self, slot: u32) -> bool {
        slot as usize >= self.config.active
    }

    /// No connection and no reply goes wrong, and nothing stands still.
    fn is_calm(&self) -> bool {
        self.faults.is_calm() && !self.stalls
    }

    fn may_lose(&self) -> bool {
        self.protocol.transport.may_lose()
    }

    /// What a request has to be answered in, with what a timer and a turn may be late by.
    fn patience_ns(&self) -> u64 {
        let late_ns = if self.stalls { 600 * NS_PER_MS } else { 0 };
        self.config.timeout_ns + 3 * NS_PER_MS + late_ns
    }
}

impl Outcome {
    /// When the window opens and closes, where the clock says so and the load began.
    fn window(&self, drawn: &Drawn) -> Option<(Instant, Instant)> {
        let StopRule::After(ns) = drawn.config.stop_rule else { return None };
        let opens = (self.began != Instant::NEVER).then(|| self.began.after(drawn.config.warmup_ns))?;
        let closes = opens.after(ns);
        let early = drawn.finishes_after_ns.zip(self.told_to_finish).map(|(ns, told)| opens.after(ns).max(told));
        let closes = early.map_or(closes, |at| at.min(closes));
        Some((opens, self.stopped.map_or(closes, |at| at.min(closes))))
    }

    /// What happened before this is of a window that closes then. Who stops a run, or says that it has shown enough,
    /// does so after all that has happened.
    fn settles(&self, closes: Instant) -> Instant {
        closes.after(u64::from([self.stopped, self.told_to_finish].contains(&Some(closes))))
    }

    /// When our own thread stood still, or did not know yet that the load had begun.
    fn absences(&self) -> impl Iterator<Item = (Instant, Instant)> {
        self.stalls.iter().copied().chain([(self.began, self.going_from)])
    }

    /// Its fate came after the worker had heard that the load has begun.
    fn knows(&self, row: &Row) -> bool {
        row.ended >= self.going_from
    }

    /// Due within a window that opens then. What proved a connection before the worker heard of it is not.
    fn covers(&self, row: &Row, opens: Instant) -> bool {
        self.knows(row) && row.due >= opens
    }

    fn rows(&self) -> &[Row] {
        self.tally.log.rows()
    }

    /// By slot, in the order in which their fate was known.
    fn rows_by_slot(&self, drawn: &Drawn) -> Vec<Vec<Row>> {
        let mut slots = vec![Vec::new(); drawn.config.active + drawn.config.idle];
        self.rows().iter().for_each(|row| slots[row.slot as usize].push(*row));
        slots
    }
}
