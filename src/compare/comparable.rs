//! Whether two sets of runs may be compared: the same load, the same machine, and runs that say something.

use super::schema::Difference;
use crate::result::{Machine, Report, Scenario, VerdictState};
use serde::Serialize;
use serde_json::Value;

/// What an arm of `loadgen ab` may differ in: how the load is served and made. What is asked for must be the same.
pub const TREATMENTS: &[&str] =
    &["engine", "engine_options", "server_engine", "server_engine_options", "server_injected", "threads"];

/// Of a machine: what changes from run to run, or cannot make anything slower.
const VOLATILE: &[&str] = &["load_1m_percent", "memory_bytes", "descriptor_limit", "descriptor_hard_limit"];

/// Fields of the scenario that differ, but for where the target is.
pub fn scenario_differences(base: &Scenario, candidate: &Scenario) -> Vec<Difference> {
    let bare = |scenario: &Scenario| Scenario {
        hash: String::new(),
        target: String::new(),
        resolved: Vec::new(),
        ..scenario.clone()
    };
    differences(&bare(base), &bare(candidate), &[], "")
}

/// What differs between the machines, and between the versions of loadgen.
pub fn environment_differences(base: &Report, candidate: &Report) -> Vec<Difference> {
    let mut all = differences(&base.tool, &candidate.tool, &[], "tool.");
    let sides = [
        ("client.", Some(&base.environment.client), Some(&candidate.environment.client)),
        ("server.", base.environment.server.as_ref(), candidate.environment.server.as_ref()),
    ];
    for (prefix, base, candidate) in sides {
        // Where one server was ours and the other was not, its machine is not known.
        let (Some(base), Some(candidate)) = (base, candidate) else { continue };
        all.extend(differences(&lasting(base), &lasting(candidate), VOLATILE, prefix));
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

/// Whether a run is invalid for such reasons only. Its figures do not say what they were to say, but in a block whose
/// order was drawn by lot that is noise, which meets both arms alike: it makes intervals wider, not wrong.
pub fn disturbed(run: &Report) -> bool {
    let any = |list: &[&str]| run.verdict.reasons.iter().any(|reason| list.contains(&reason.code.as_str()));
    let known = |code: &str| DISTURBANCES.contains(&code) || CONSEQUENCES.contains(&code);
    let all_known = run.verdict.reasons.iter().all(|reason| known(&reason.code));
    run.verdict.state == VerdictState::Invalid && any(DISTURBANCES) && all_known
}

/// Why a run cannot be an observation; None: it can.
pub fn unusable(run: &Report) -> Option<String> {
    if run.partial {
        return Some("it is partial: the run was interrupted".to_owned());
    }
    if run.verdict.state != VerdictState::Invalid || run.ab.is_some() && disturbed(run) {
        return None;
    }
    Some(format!("it is invalid: {}", codes(run)))
}

/// The reasons of a run's verdict.
pub fn codes(run: &Report) -> String {
    run.verdict.reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>().join(", ")
}

/// Top-level fields whose values differ, an absent one and null being the same.
fn differences<T: Serialize>(base: &T, candidate: &T, except: &[&str], prefix: &str) -> Vec<Difference> {
    let object = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        _ => serde_json::Map::new(),
    };
    let (base, candidate) = (object(base), object(candidate));
    let mut names: Vec<&String> = base.keys().chain(candidate.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let text = |value: Option<&Value>| value.map_or_else(|| in_words(&Value::Null), in_words);
    names
        .into_iter()
        .filter(|name| !except.contains(&name.as_str()))
        .map(|name| Difference {
            field: format!("{prefix}{name}"),
            base: text(base.get(name)),
            candidate: text(candidate.get(name)),
        })
        .filter(|difference| difference.base != difference.candidate)
        .collect()
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
