//! How many blocks it takes to see a change: from a few pilot blocks, which are then thrown away. To use them twice
//! would be to stop when one likes what one sees.

use super::blocks::BlockRunner;
use super::{BLOCKS_MOST, roughly};
use crate::failure::{Exit, Failure};
use crate::progress::tell;
use loadgen_core::compare::power::{Shape, blocks_needed, cautious_spread, smallest_visible};
use loadgen_core::compare::sense::RESOLUTION_MOST;
use loadgen_core::compare::{Options, gates, rows};
use loadgen_core::metric::Unit;
use loadgen_core::result::{BlockPlan, Bundle, Report, VerdictState};

/// Fewer say too little about how much the figures scatter.
const PILOT_BLOCKS: u64 = 4;

/// Sets `bundle.blocks_planned` so that a change of `detect` is seen in every gate, and says how long that takes.
/// Returns an exit status where there is to be no comparison.
pub fn plan(
    runner: &mut BlockRunner<'_>,
    bundle: &mut Bundle,
    options: &Options,
    detect: f64,
) -> Result<Option<Exit>, Failure> {
    let runs = match runner.pilot(bundle, PILOT_BLOCKS)? {
        Ok(runs) => runs,
        Err(stop) => {
            tell("interrupted in the pilot: there is nothing to keep");
            return Ok(Some(stop.exit()));
        }
    };
    let runs: Vec<&Report> = runs.iter().collect();
    let gates: Vec<_> = gates::gates(&runs, &options.gates, &options.margins, [].into_iter())
        .into_iter()
        .filter(|gate| gate.gated)
        .collect();
    let misrate = options.misrate(gates.len());
    let of_arm = |name: &str| runs.iter().filter(|run| run.is_of_arm(name)).copied().collect::<Vec<_>>();
    let (base, candidate) = (of_arm("A"), of_arm("B"));
    let mut plan = BlockPlan {
        detect_ppm: (detect * 1e6).round() as u64,
        pilot_blocks: PILOT_BLOCKS,
        spread_ppm: std::collections::BTreeMap::new(),
        blocks: 0,
    };
    // A share of errors is no relative change: `--detect 2%` is not about it.
    for gate in gates.iter().filter(|gate| gate.metric.unit != Unit::Share) {
        let name = gate.metric.name;
        let Some(differences) = rows::block_differences(gate.metric, &base, &candidate) else {
            return Err(unknown(name, &runs));
        };
        let noise = cautious_spread(&differences);
        plan.spread_ppm.insert(name.to_owned(), (noise * 1e6).round() as u64);
        let most = BLOCKS_MOST as usize;
        let Some(blocks) = blocks_needed(noise, misrate, gate.margin, detect, most) else {
            let cause = if detect <= gate.margin {
                format!("its margin of {}% hides them (--margin {name}=…)", gate.margin * 100.0)
            } else {
                let sees = smallest_visible(Shape::Paired { blocks: most }, noise, misrate, gate.margin);
                // The figure of a pilot whose runs scatter by factors is none.
                let sees = sees.filter(|sees| *sees <= RESOLUTION_MOST);
                sees.map_or_else(
                    || format!("it is not measurable here, as {most} blocks would see no change at all"),
                    |sees| format!("{most} blocks would see {:.1}%", sees * 100.0),
                )
            };
            let asked = detect * 100.0;
            let message = format!("changes of {asked}% in {name} cannot be seen here: {cause}");
            return Err(Failure::new(Exit::Inconclusive, message)
                .help("ask for less, make slots longer (--duration), or quieten the machine (`loadgen doctor`)"));
        };
        plan.blocks = plan.blocks.max(blocks as u64);
    }
    let slots = plan.blocks * bundle.arms.len() as u64 * 2;
    let time = roughly(runner.slot_ns() * slots);
    tell(format_args!("plan: {} blocks, {slots} slots, {time}, to see changes of {}%", plan.blocks, detect * 100.0));
    bundle.blocks_planned = plan.blocks;
    bundle.plan = Some(plan);
    Ok(None)
}

/// A pilot run has no such figure. Where the generator was the limit, nothing is said against the target.
fn unknown(name: &str, runs: &[&Report]) -> Failure {
    let invalid: Vec<_> = runs.iter().filter(|run| run.verdict.state == VerdictState::Invalid).collect();
    if invalid.is_empty() {
        return Failure::new(Exit::Failures, format!("the pilot runs have no {name}: nothing was answered"));
    }
    let mut codes: Vec<&str> =
        invalid.iter().flat_map(|run| &run.verdict.reasons).map(|reason| reason.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    let (count, of, codes) = (invalid.len(), runs.len(), codes.join(", "));
    let message = format!("not every pilot run has a {name}, and {count} of {of} are invalid: {codes}");
    Failure::new(Exit::Invalid, message)
        .help("make slots longer (--duration), or leave the machine to them (`loadgen doctor`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::result::{Reason, Verdict};

    #[test]
    fn the_machine_is_not_the_targets_fault() {
        let golden = include_str!("../../../../tests/golden/result-1.json");
        let mut report: Report = serde_json::from_str(golden).unwrap();
        report.verdict = Verdict { state: VerdictState::Valid, reasons: Vec::new() };
        assert_eq!(unknown("p50", &[&report]).exit, Exit::Failures);
        let stalled = Reason { code: "generator_stalled".to_owned(), detail: String::new() };
        let spoilt =
            Report { verdict: Verdict { state: VerdictState::Invalid, reasons: vec![stalled] }, ..report.clone() };
        let failure = unknown("p50", &[&report, &spoilt]);
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(format!("{failure:?}").contains("1 of 2 are invalid: generator_stalled"), "{failure:?}");
    }
}
