//! What can be known to be wrong before the first server is started.

use super::flags;
use crate::assemble;
use crate::cli::{AbArgs, Cli, Command, RunArgs};
use crate::command::compare::different_loads;
use crate::destination;
use crate::failure::Failure;
use crate::plan::Plan;
use loadgen_core::compare::comparable::{TREATMENTS, scenario_differences};
use loadgen_core::compare::estimate::{TooFew, paired};
use loadgen_core::compare::{Difference, Options};
use loadgen_core::result::{Arm, Scenario};
use std::net::SocketAddr;

/// Gates where none are named: at least these (rate or a tail, the median, the share of errors).
const USUAL_GATES: usize = 3;

/// Asks the parser and the planner of `run` about each arm, and whether all arms are of one load.
pub fn arms(args: &AbArgs, arms: &[Arm], options: &Options) -> Result<(), Failure> {
    if args.run.shard.is_some() || args.run.start_at.is_some() {
        return Err(Failure::usage("--shard and --start-at are for a single run, and `ab` makes many")
            .help("measure from one machine"));
    }
    if args.run.request_log.is_some() {
        return Err(Failure::usage("--request-log is for a single run"));
    }
    if args.run.scenario.dump_scenario {
        return Err(Failure::usage("--dump-scenario is for a single run").help("loadgen run --dump-scenario ..."));
    }
    let scenarios = arms.iter().map(|arm| scenario(args, arm)).collect::<Result<Vec<_>, _>>()?;
    let mut fields: Vec<Difference> = scenario_differences(&scenarios[0], &scenarios[1]);
    let permitted = |field: &String| TREATMENTS.contains(&field.as_str()) || options.may_differ.contains(field);
    fields.retain(|difference| !permitted(&difference.field));
    if fields.is_empty() { Ok(()) } else { Err(different_loads(&fields)) }
}

/// So few blocks that no outcome could be a verdict are not worth their time.
pub fn blocks(blocks: u64, options: &Options) -> Result<(), Failure> {
    let gates = if options.gates.is_empty() { USUAL_GATES } else { options.gates.len() };
    let Err(TooFew { needs }) = paired(&vec![0.0; blocks as usize], options.misrate(gates)) else { return Ok(()) };
    let message = format!("--blocks {blocks} can reach no verdict: over {gates} gate(s) it takes {needs}");
    Err(Failure::usage(message)
        .help("more blocks, shorter slots (--duration), fewer gates (--gate), or a higher --alpha"))
}

/// What an arm would run.
fn scenario(args: &AbArgs, arm: &Arm) -> Result<Scenario, Failure> {
    let line = ["loadgen".to_owned(), "run".to_owned()].into_iter().chain(flags(args)).chain(arm.flags.clone());
    let target = arm.target.as_ref().map(|target| ["--target".to_owned(), target.replace("{port}", "1")]);
    let line = line.chain(target.into_iter().flatten()).map(Into::into).collect();
    let wrong = |why: &str| Failure::usage(format!("arm {}: {why}", arm.name));
    match Cli::parse_args(line).map(|cli| cli.command) {
        Ok(Command::Run(run)) => {
            if let Some(flag) = of_single_runs(&run) {
                return Err(wrong(&format!("{flag} is not for one arm only")));
            }
            let plan = Plan::new(&run).map_err(|failure| wrong(failure.cause()))?;
            Ok(assemble::scenario(&plan, &destination::only(SocketAddr::from(([127, 0, 0, 1], 1))), None))
        }
        Ok(_) => Err(wrong("these are no flags of `run`")),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(wrong(first.strip_prefix("error: ").unwrap_or(first)))
        }
    }
}

/// A flag that would be lost, or do something to one arm that is no part of the comparison.
fn of_single_runs(run: &RunArgs) -> Option<&'static str> {
    [
        (run.request_log.is_some(), "--request-log"),
        (!run.fail_if.is_empty(), "--fail-if"),
        (run.output.is_some(), "--output"),
        (run.shard.is_some(), "--shard"),
        (run.start_at.is_some(), "--start-at"),
        (run.strict, "--strict"),
    ]
    .into_iter()
    .find_map(|(given, flag)| given.then_some(flag))
}
