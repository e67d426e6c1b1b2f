//! What must hold within every report and every bundle, faults included. Errors name the field.

use super::bundle::Bundle;
use super::schema::{AbSlot, Report, SCHEMA, Scenario, Throughput};
use crate::histogram::Recorder;
use std::collections::BTreeSet;

/// # Errors
/// One line, beginning with the field.
pub(super) fn report(report: &Report) -> Result<(), String> {
    if !report.ledger.closes() {
        let identities = "scheduled = sent + unsent, sent = ok + errors + in flight";
        return Err(format!("ledger: the ledger does not close ({identities})"));
    }
    let columns = report.series.columns.len();
    if let Some(row) = report.series.rows.iter().position(|row| row.len() != columns) {
        return Err(format!("series.rows[{row}] has {} values for {columns} columns", report.series.rows[row].len()));
    }
    rate(&report.throughput)?;
    let injected = report.server.as_ref().and_then(|server| server.injected.as_ref());
    let histograms = [
        ("latency.response", report.latency.response.as_ref()),
        ("latency.service", report.latency.service.as_ref()),
        ("latency.connect", report.latency.connect.as_ref()),
        ("latency.handshake", report.latency.handshake.as_ref()),
        ("latency.backlog_wait", report.latency.backlog_wait.as_ref()),
        ("latency.generator_lag", report.latency.generator_lag.as_ref()),
        ("server.injected.overrun", injected.and_then(|injected| injected.overrun.as_ref())),
    ];
    let groups = report.breakdown.iter().map(|group| ("breakdown.response", group.response.as_ref()));
    for (field, histogram) in histograms.into_iter().chain(groups) {
        if let Some(histogram) = histogram {
            Recorder::from_report(histogram).map_err(|what| format!("{field}: {what}"))?;
        }
    }
    Ok(())
}

/// The rate is replies / window; rounded, and of several shards perhaps each for itself.
fn rate(throughput: &Throughput) -> Result<(), String> {
    let Throughput { requests_per_s, replies, window_ns, .. } = *throughput;
    let Some(exact) = (u128::from(replies) * 1_000_000_000).checked_div(u128::from(window_ns)) else { return Ok(()) };
    if exact.abs_diff(u128::from(requests_per_s)) <= exact / 100 + 100 {
        return Ok(());
    }
    Err(format!(
        "throughput.requests_per_s is {requests_per_s}, but {replies} replies in {window_ns} ns are {exact} a second"
    ))
}

/// Only for reports without a checksum: of a newer version's scenario we do not know all fields.
///
/// # Errors
/// One line.
pub(super) fn scenario_hash(scenario: &Scenario) -> Result<(), String> {
    let digest = scenario.digest();
    if scenario.hash == digest {
        return Ok(());
    }
    Err(format!("scenario.hash is {:?}, but the scenario's fields give {digest:?}", scenario.hash))
}

/// # Errors
/// One line, beginning with the field.
pub(super) fn bundle(bundle: &Bundle) -> Result<(), String> {
    let arms: BTreeSet<&str> = bundle.arms.iter().map(|arm| arm.name.as_str()).collect();
    if arms.len() != bundle.arms.len() {
        return Err("arms: two have the same name".to_owned());
    }
    if !["A", "B"].iter().all(|arm| arms.contains(arm)) {
        return Err("arms: there must be A (base) and B (candidate)".to_owned());
    }
    for (block, order) in bundle.order.iter().enumerate() {
        let named: BTreeSet<&str> = order.iter().map(String::as_str).collect();
        if named != arms {
            return Err(format!("order[{block}] names {named:?}, the bundle's arms are {arms:?}"));
        }
    }
    let blocks = runs(bundle)?;
    // There may be more, in place of blocks with invalid runs.
    if !bundle.partial && blocks < bundle.blocks_planned {
        return Err(format!(
            "runs: {blocks} of {} blocks are there, and the bundle is not marked partial",
            bundle.blocks_planned
        ));
    }
    Ok(())
}

/// Holds the runs against the order: they are its first blocks, each whole. Says how many blocks.
fn runs(bundle: &Bundle) -> Result<u64, String> {
    let mut left = bundle.runs.iter().enumerate().peekable();
    let mut blocks = 0;
    for order in &bundle.order {
        if left.peek().is_none() {
            break;
        }
        for (slot, arm) in (0..).zip(order) {
            let Some((index, run)) = left.next() else {
                return Err(format!("runs: block {blocks} has {slot} of its {} runs", order.len()));
            };
            let wanted = AbSlot { session: bundle.session.clone(), block: blocks, slot, arm: arm.clone() };
            if run.schema != SCHEMA {
                return Err(format!("runs[{index}].schema is {:?}, not {SCHEMA:?}", run.schema));
            }
            match &run.ab {
                Some(ab) if *ab == wanted => {}
                Some(ab) => {
                    return Err(format!("runs[{index}].ab is {}, its place is {}", described(ab), described(&wanted)));
                }
                None => return Err(format!("runs[{index}].ab: it does not say its place ({})", described(&wanted))),
            }
            report(run).map_err(|what| format!("runs[{index}]: {what}"))?;
        }
        blocks += 1;
    }
    match left.next() {
        Some((index, _)) => Err(format!("runs[{index}]: the order ends before it")),
        None => Ok(blocks),
    }
}

fn described(ab: &AbSlot) -> String {
    format!("block {} slot {} arm {:?} of session {:?}", ab.block, ab.slot, ab.arm, ab.session)
}
