//! Blocks, one after the other, until there are enough that can be used.

use super::order;
use super::roughly;
use super::slot::Bench;
use crate::failure::{Exit, Failure};
use crate::progress::Line;
use crate::run;
use loadgen_core::compare::comparable::unusable;
use loadgen_core::result::{AbSlot, Arm, Bundle, Report};
use loadgen_core::rng::Rng;
use loadgen_core::sys::{clock, signals};
use loadgen_core::time::Instant;

/// The user wants to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stop(i32);

impl Stop {
    pub fn exit(self) -> Exit {
        Exit::of_signal(self.0)
    }
}

/// What runs blocks.
#[derive(Debug)]
pub struct BlockRunner<'a> {
    bench: &'a Bench,
    /// As they were typed; the bundle has them without what is secret.
    arms: &'a [Arm],
    line: Line,
    /// How long slots took, for the time that is left.
    slots: u64,
    slots_ns: u64,
}

/// The runs of a block in their order, and the names of their arms.
type Block = (Vec<String>, Vec<Report>);

impl<'a> BlockRunner<'a> {
    pub fn new(bench: &'a Bench, arms: &'a [Arm], quiet: bool) -> Result<Self, Failure> {
        run::catch_signals()?;
        Ok(Self { bench, arms, line: Line::new(quiet, clock::now()), slots: 0, slots_ns: 0 })
    }

    /// Runs the blocks that were planned, and up to half as many more in place of those with invalid runs. A block
    /// that is not finished is not kept. `keep` is shown the bundle after each block.
    pub fn run(
        &mut self,
        bundle: &mut Bundle,
        keep: &mut dyn FnMut(&Bundle) -> Result<(), Failure>,
    ) -> Result<Option<Stop>, Failure> {
        let mut rng = Rng::new(bundle.seed);
        let (planned, most) = (bundle.blocks_planned, bundle.blocks_planned + bundle.blocks_planned / 2);
        let (mut finished, mut good) = (0, 0);
        while good < planned && finished < most {
            let left = planned - good;
            let phase = |slot: u64| format!("block {} of {}, slot {}", finished + 1, finished + left, slot + 1);
            let (order, runs) = match self.block(bundle, finished, left, &mut rng, &phase)? {
                Ok(block) => block,
                Err(stop) => return Ok(Some(stop)),
            };
            finished += 1;
            good += u64::from(runs.iter().all(|run| unusable(run).is_none()));
            bundle.order.push(order);
            bundle.runs.extend(runs);
            keep(bundle)?;
        }
        Ok(None)
    }

    /// Blocks that are no part of the comparison: what they say is how much the figures scatter.
    pub fn pilot(&mut self, bundle: &Bundle, blocks: u64) -> Result<Result<Vec<Report>, Stop>, Failure> {
        // Other draws than those of the comparison.
        let mut rng = Rng::new(!bundle.seed);
        let mut all = Vec::new();
        for index in 0..blocks {
            let phase = |slot: u64| format!("pilot block {} of {blocks}, slot {}", index + 1, slot + 1);
            match self.block(bundle, index, blocks - index, &mut rng, &phase)? {
                Ok((_, runs)) => all.extend(runs),
                Err(stop) => return Ok(Err(stop)),
            }
        }
        Ok(Ok(all))
    }

    /// How long a slot takes, servers and all; 0 before the first.
    pub fn slot_ns(&self) -> u64 {
        self.slots_ns.checked_div(self.slots).unwrap_or(0)
    }

    fn block(
        &mut self,
        bundle: &Bundle,
        index: u64,
        blocks_left: u64,
        rng: &mut Rng,
        phase: &dyn Fn(u64) -> String,
    ) -> Result<Result<Block, Stop>, Failure> {
        let (mut order, mut runs) = (Vec::new(), Vec::new());
        let arms = order::block(self.arms.len(), rng);
        let length = arms.len() as u64;
        for (slot, index_of_arm) in arms.into_iter().enumerate() {
            let arm = &self.arms[index_of_arm];
            let slots_left = blocks_left * length - slot as u64;
            let words = format!("{} ({})", phase(slot as u64), arm.name);
            let began = clock::now();
            let Self { bench, line, .. } = self;
            let past_ns = self.slots_ns.checked_div(self.slots);
            let report = bench.run(arm, &mut || {
                draw(line, clock::now(), began, &words, past_ns.map(|ns| ns * slots_left));
                signals::first().is_some()
            });
            // A signal between two looks, or while a server was being started.
            if let Some(signal) = signals::first() {
                line.clear();
                return Ok(Err(Stop(signal)));
            }
            self.slots += 1;
            self.slots_ns += clock::now().since(began);
            let Some(mut report) = report.inspect_err(|_| self.line.clear())? else { continue };
            let session = bundle.session.clone();
            report.ab = Some(AbSlot { session, block: index, slot: slot as u64, arm: arm.name.clone() });
            order.push(arm.name.clone());
            runs.push(report);
        }
        self.line.clear();
        Ok(Ok((order, runs)))
    }
}

fn draw(line: &mut Line, now: Instant, began: Instant, words: &str, left_ns: Option<u64>) {
    if line.due(now).is_some() {
        let left = left_ns.map(|ns| format!(", {} left", roughly(ns.saturating_sub(now.since(began)))));
        line.draw(now, &format!("{words}{}", left.unwrap_or_default()));
    }
}
