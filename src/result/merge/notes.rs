//! What a merged report says about its shards: the verdict of the whole, a summary of each, and what is remarkable.

use super::windows::Windows;
use super::{labels, machines};
use crate::result::{Reason, Report, ShardSummary, Verdict, VerdictState};
use crate::units::format_duration;

/// A shard whose median differs from the others' by more than this sees something that they do not.
const DIFFERS_PERCENT: u64 = 10;
/// Medians of fewer values differ by chance.
const ENOUGH: u64 = 100;

/// As bad as the worst shard's. Reasons keep their codes, and say whose they are; of those with one code the first is
/// told.
pub(super) fn verdict(shards: &[&Report], windows: &Windows) -> Verdict {
    let of = |state: VerdictState| shards.iter().any(|shard| shard.verdict.state == state);
    let apart = apart(shards, windows);
    let state = match (of(VerdictState::Invalid) || apart.is_some(), of(VerdictState::Overloaded)) {
        (true, _) => VerdictState::Invalid,
        (false, true) => VerdictState::Overloaded,
        (false, false) => VerdictState::Valid,
    };
    let mut reasons: Vec<(Reason, Vec<u64>)> = Vec::new();
    for shard in shards {
        for reason in &shard.verdict.reasons {
            match reasons.iter_mut().find(|(known, _)| known.code == reason.code) {
                Some((_, of)) => of.push(index(shard)),
                None => reasons.push((reason.clone(), vec![index(shard)])),
            }
        }
    }
    let whose = |(reason, of): (Reason, Vec<u64>)| {
        let also = if of.len() > 1 { format!(" (also {})", named(&of[1..])) } else { String::new() };
        Reason { detail: format!("shard {}{also}: {}", of[0], reason.detail), ..reason }
    };
    Verdict { state, reasons: apart.into_iter().chain(reasons.into_iter().map(whose)).collect() }
}

/// The load was not on as a whole.
fn apart(shards: &[&Report], windows: &Windows) -> Option<Reason> {
    if windows.together() || shards.len() < 2 {
        return None;
    }
    let [apart, common, longest] =
        [windows.apart_ns.unwrap_or(0), windows.common_ns, windows.longest_ns].map(format_duration);
    Some(Reason {
        code: "shards_apart".to_owned(),
        detail: format!(
            "the shards' windows opened up to {apart} apart, and have {common} of {longest} in common: the whole load \
             was on for a part of the time only, and its latencies are of less. Start the shards together (--start-at)"
        ),
    })
}

pub(super) fn summary(shard: &Report) -> Option<ShardSummary> {
    let described = shard.shard.as_ref()?;
    let quantile = |name: &str| shard.latency.response.as_ref()?.quantiles_ns.get(name).copied();
    Some(ShardSummary {
        index: described.index,
        started_at: shard.started_at.clone(),
        window_started_unix_us: shard.phases.window_started_unix_us,
        window_ns: shard.throughput.window_ns,
        requests_per_s: shard.throughput.requests_per_s,
        response_p50_ns: quantile("0.5"),
        response_p99_ns: quantile("0.99"),
        machine: described.machine.clone(),
        partial: shard.partial,
        state: shard.verdict.state,
    })
}

/// What a reader should know, a sentence each.
pub(super) fn notes(shards: &[&Report], windows: &Windows, clipped: bool) -> Vec<String> {
    let which = |is: &dyn Fn(&Report) -> bool| -> Vec<u64> {
        shards.iter().filter(|shard| is(shard)).map(|shard| index(shard)).collect()
    };
    let mut notes = Vec::new();
    let partial = which(&|shard| shard.partial);
    if !partial.is_empty() {
        notes.push(format!("{} ended early: the load was not whole from then on", named(&partial)));
    }
    notes.extend(window_note(windows, clipped));
    notes.extend(differing(shards));
    if shards.iter().any(|shard| shard.confidence.is_some()) {
        notes.push("there are no intervals: those of single shards cannot be added up".to_owned());
    }
    let machines = machines(shards).len();
    if machines > 1 {
        notes.push(format!("{machines} machines took part; `environment` is that of shard {}", index(shards[0])));
    }
    if shards.iter().any(|shard| shard.labels != labels(shards)) {
        notes.push("labels that differ among the shards are left out".to_owned());
    }
    if shards.iter().any(|shard| shard.tool != shards[0].tool) {
        notes.push("the shards ran different versions of the program".to_owned());
    }
    notes
}

fn window_note(windows: &Windows, clipped: bool) -> Option<String> {
    let apart = match windows.apart_ns {
        None => return Some("when each window opened is not known: nothing says that they coincide".to_owned()),
        Some(_) if windows.coincide() => return None,
        Some(apart_ns) => format_duration(apart_ns),
    };
    let [common, longest] = [windows.common_ns, windows.longest_ns].map(format_duration);
    let of = if clipped {
        "throughput is of the whole seconds in it; ledger and latencies are of each shard's own window"
    } else {
        "that holds no whole second of the series, so that all figures are of each shard's own window"
    };
    Some(format!("the windows opened up to {apart} apart, and have {common} of {longest} in common: {of}"))
}

/// A generator whose median is not the others' is a bad one, or stands elsewhere.
fn differing(shards: &[&Report]) -> Option<String> {
    let median = |shard: &&Report| {
        let response = shard.latency.response.as_ref().filter(|response| response.count >= ENOUGH)?;
        Some((index(shard), *response.quantiles_ns.get("0.5")?))
    };
    let medians: Vec<(u64, u64)> = shards.iter().filter_map(median).collect();
    let far = |(shard, ns): &&(u64, u64)| {
        let mut others: Vec<u64> = medians.iter().filter(|(other, _)| other != shard).map(|(_, ns)| *ns).collect();
        others.sort_unstable();
        others.get(others.len() / 2).is_some_and(|other| {
            u128::from(ns.abs_diff(*other)) * 100 > u128::from(*other) * u128::from(DIFFERS_PERCENT)
        })
    };
    let differ: Vec<(u64, u64)> = medians.iter().filter(far).copied().collect();
    let medians_that_differ: Vec<String> =
        differ.iter().map(|(shard, ns)| format!("shard {shard} {}", format_duration(*ns))).collect();
    (!medians_that_differ.is_empty()).then(|| {
        format!(
            "median response times differ by more than {DIFFERS_PERCENT} %: {}; look at those generators before you \
             blame the target",
            medians_that_differ.join(", ")
        )
    })
}

fn index(report: &Report) -> u64 {
    report.shard.as_ref().map_or(0, |shard| shard.index)
}

/// `shard 3`, `shards 1, 3`.
fn named(indices: &[u64]) -> String {
    let listed: Vec<String> = indices.iter().map(u64::to_string).collect();
    format!("shard{} {}", if indices.len() == 1 { "" } else { "s" }, listed.join(", "))
}
