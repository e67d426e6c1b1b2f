//! Whether two sets of runs may be compared: the same load, the same machine, and runs that say something.

use super::schema::Difference;
use crate::result::{Machine, Report, Scenario, VerdictState, differences, differing_fields};

/// What an arm of `loadgen ab` may differ in: how the load is served and made. What is asked for must be the same.
pub const TREATMENTS: &[&str] =
    &["engine", "engine_options", "server_engine", "server_engine_options", "server_injected", "threads"];

/// Of a machine: what changes from run to run, or cannot make anything slower.
const VOLATILE: &[&str] = &["load_1m_percent", "memory_bytes", "descriptor_limit", "descriptor_hard_limit"];

/// Fields of the scenario that differ, but for where the target is.
pub fn scenario_differences(base: &Scenario, candidate: &Scenario) -> Vec<Difference> {
    differing_fields(base, candidate).into_iter().map(difference).collect()
}

fn difference((field, base, candidate): (String, String, String)) -> Difference {
    Difference { field, base, candidate }
}

/// What differs between the machines, and between the versions of loadgen.
pub fn environment_differences(base: &Report, candidate: &Report) -> Vec<Difference> {
    let named = |prefix: &str, fields: Vec<(String, String, String)>| {
        let lasting = fields.into_iter().filter(|(name, ..)| !VOLATILE.contains(&name.as_str()));
        let named = lasting.map(|(name, base, candidate)| difference((format!("{prefix}{name}"), base, candidate)));
        named.collect::<Vec<_>>()
    };
    let mut all = named("tool.", differences(&base.tool, &candidate.tool));
    let sides = [
        ("client.", Some(&base.environment.client), Some(&candidate.environment.client)),
        ("server.", base.environment.server.as_ref(), candidate.environment.server.as_ref()),
    ];
    for (prefix, base, candidate) in sides {
        // Where one server was ours and the other was not, its machine is not known.
        let (Some(base), Some(candidate)) = (base, candidate) else { continue };
        all.extend(named(prefix, differences(&lasting(base), &lasting(candidate))));
    }
    all
}

/// Without the counter in it.
fn lasting(machine: &Machine) -> Machine {
    let mut machine = machine.clone();
    if let Some(cgroup) = &mut machine.cgroup {
        cgroup.throttled_periods = None;
    }
    machine
}

/// Reasons of an invalid run that come and go with whatever else a machine does, and what follows from those.
const DISTURBANCES: &[&str] = &["cpu_contention", "generator_stalled", "not_steady"];
const CONSEQUENCES: &[&str] = &["generator_lag", "rate_missed"];
/// Reasons that are the target's doing. To leave such runs out would be to leave out the worst of it.
const OF_THE_TARGET: &[&str] = &["nothing_measured", "server_lost", "connections_short", "longer_than_window"];

/// Whether the machine did something else during a run. Its figures do not say what they were to say, but in a block
/// whose order was drawn by lot that is noise, which meets both arms alike: it makes intervals wider, not wrong.
pub fn disturbed(run: &Report) -> bool {
    run.verdict.state == VerdictState::Invalid && any(run, DISTURBANCES)
}

fn any(run: &Report, list: &[&str]) -> bool {
    run.verdict.reasons.iter().any(|reason| list.contains(&reason.code.as_str()))
}

/// Whether an invalid run can be an observation in a block.
fn is_observation(run: &Report) -> bool {
    let excused = |code: &str| {
        DISTURBANCES.contains(&code)
            || OF_THE_TARGET.contains(&code)
            || CONSEQUENCES.contains(&code) && any(run, DISTURBANCES)
    };
    run.verdict.reasons.iter().all(|reason| excused(&reason.code))
}

/// Whether a run got no reply at all in its window, or gave its target up before that.
pub fn unanswered(run: &Report) -> bool {
    let asked = run.ledger.scheduled > 0 || run.ledger.whole_run.as_ref().is_some_and(|whole| whole.sent > 0);
    run.throughput.replies == 0 && asked
}

/// Why a run cannot be an observation; None: it can.
pub fn unusable(run: &Report) -> Option<String> {
    if let Some(shard) = run.shard.as_ref().filter(|shard| shard.count > 1) {
        return Some(format!("it is shard {} of {}, and no whole run (`loadgen merge`)", shard.index, shard.count));
    }
    // `ab` keeps no interrupted runs: one that is partial gave its target up.
    if run.partial && run.ab.is_none() {
        return Some("it is partial: it was interrupted, or its target was given up".to_owned());
    }
    if run.verdict.state != VerdictState::Invalid || run.ab.is_some() && is_observation(run) {
        return None;
    }
    Some(format!("it is invalid: {}", run.verdict.codes()))
}
