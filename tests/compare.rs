//! Comparisons of made-up runs: what is refused, what caps a verdict, what is left out and said.

use loadgen_core::compare::page::FORMATS;
use loadgen_core::compare::{Comparison, Design, Options, Question, Refusal, Set, Verdict, compare, schema_json};
use loadgen_core::histogram::Recorder;
use loadgen_core::limit::Limit;
use loadgen_core::result::{AbSlot, ErrorRow, LimitState, Reason, Report, Shard, VerdictState, read};
use loadgen_core::rng::Rng;
use std::path::Path;

const SCHEMA_FILE: &str = "schema/loadgen.comparison-1.json";

fn in_repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A valid run whose rate and response times are `factor` times as good as others, a second after the one before.
fn run(index: usize, factor: f64) -> Report {
    let mut run = read::read(&in_repository("tests/golden/result-1.json")).unwrap();
    run.partial = false;
    run.ab = None;
    run.verdict.state = VerdictState::Valid;
    run.verdict.reasons.clear();
    run.errors.clear();
    run.ledger.errors.clear();
    run.connections.failed.clear();
    if let Some(whole) = &mut run.ledger.whole_run {
        whole.errors.clear();
    }
    run.scenario.mode = "closed".to_owned();
    run.scenario.rate_per_s = None;
    run.started_at = format!("2026-11-23T13:{:02}:{:02}.000Z", index / 60, index % 60);
    run.throughput.requests_per_s = (10_000.0 * factor) as u64;
    run.latency.response = {
        let mut recorder = Recorder::new();
        (0..10_000_u64).for_each(|i| recorder.record(((1_000_000 + 200 * i) as f64 / factor) as u64));
        recorder.report()
    };
    run
}

/// Blocks in an order that is drawn, with noise of `noise`; the candidate is `factor` times as good.
fn blocks(count: u64, factor: f64, noise: f64, arms: &[&str]) -> Vec<Report> {
    let mut rng = Rng::new(5);
    let mut runs = Vec::new();
    for block in 0..count {
        let mut order: Vec<&str> = arms.to_vec();
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last as u64 + 1) as usize);
        }
        let backwards: Vec<&str> = order.iter().rev().copied().collect();
        for (slot, arm) in order.into_iter().chain(backwards).enumerate() {
            let wobble = 1.0 + noise * (rng.unit() - 0.5);
            let mut run = run(runs.len(), wobble * if arm == "B" { factor } else { 1.0 });
            run.ab = Some(AbSlot { session: "s".to_owned(), block, slot: slot as u64, arm: arm.to_owned() });
            runs.push(run);
        }
    }
    runs
}

fn set<'a>(name: &str, runs: &'a [Report], arm: &str) -> Set<'a> {
    let of_arm = runs.iter().filter(|run| run.ab.as_ref().is_none_or(|ab| ab.arm == arm));
    Set { from: name.to_owned(), runs: of_arm.map(|run| (run.started_at.clone(), run)).collect() }
}

fn arms(runs: &[Report], options: Options) -> Result<Comparison, Refusal> {
    let [base, candidate, null] = ["A", "B", "N"].map(|arm| set(arm, runs, arm));
    compare(&Question { base, candidate, null, interrupted: None, options })
}

fn sides(base: &[Report], candidate: &[Report], options: Options) -> Result<Comparison, Refusal> {
    let (base, candidate) = (set("base", base, ""), set("candidate", candidate, ""));
    compare(&Question { base, candidate, null: Set::default(), interrupted: None, options })
}

fn caps(comparison: &Comparison) -> Vec<&str> {
    comparison.caps.iter().map(|cap| cap.code.as_str()).collect()
}

fn invalid(run: &mut Report, code: &str) {
    run.verdict.state = VerdictState::Invalid;
    run.verdict.reasons = vec![Reason { code: code.to_owned(), detail: "made up".to_owned() }];
}

#[test]
fn the_direction_of_each_metric_is_known() {
    for (factor, verdict) in [(0.9, Verdict::Regressed), (1.1, Verdict::Improved), (1.0, Verdict::Equivalent)] {
        let comparison = arms(&blocks(12, factor, 0.01, &["A", "B"]), Options::default()).unwrap();
        assert_eq!(comparison.verdict, verdict);
        assert_eq!((comparison.design, comparison.blocks), (Design::PairedBlocks, 12));
        let gated: Vec<&str> = comparison.rows.iter().filter(|row| row.gated).map(|row| row.metric.as_str()).collect();
        assert_eq!(gated, ["rate", "p50", "p99", "error_share"]);
        for row in comparison.rows.iter().filter(|row| row.metric == "rate" || row.metric == "p50") {
            let truth = 1e6 * if row.metric == "rate" { factor - 1.0 } else { 1.0 / factor - 1.0 };
            let (low, high) = (row.low_ppm.unwrap() as f64, row.high_ppm.unwrap() as f64);
            assert!(low <= truth && truth <= high, "{row:?}: {truth}");
            assert_eq!(row.differences_ppm.len(), 12);
        }
    }
}

#[test]
fn errors_alone_are_a_regression() {
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
    for run in runs.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == "B") {
        let whole = run.ledger.whole_run.as_mut().unwrap();
        let failed = whole.ok / 100;
        whole.ok -= failed;
        whole.errors.insert("reset".to_owned(), failed);
        let row = ErrorRow {
            kind: "reset".to_owned(),
            phase: "reply".to_owned(),
            count: failed,
            first_at_ns: 1,
            first: String::new(),
        };
        run.errors.push(row);
    }
    let comparison = arms(&runs, Options::default()).unwrap();
    assert_eq!(comparison.verdict, Verdict::Regressed);
    let row = comparison.rows.iter().find(|row| row.metric == "error_share").unwrap();
    assert_eq!(row.verdict, Verdict::Regressed);
    assert!((5_000..=10_000).contains(&row.change_ppm.unwrap()), "{row:?}");
    assert!(comparison.notes.iter().any(|note| note.contains("only the candidate has errors of kind reset")));
}

#[test]
fn too_few_blocks_prove_nothing_and_say_how_many_it_takes() {
    let comparison = arms(&blocks(9, 0.5, 0.01, &["A", "B"]), Options::default()).unwrap();
    assert_eq!(comparison.verdict, Verdict::Inconclusive);
    let row = &comparison.rows[0];
    assert_eq!(row.reason.as_deref(), Some("10 blocks are needed"));
    assert!(row.change_ppm.is_some() && row.low_ppm.is_none());
}

#[test]
fn other_loads_are_refused_by_name_and_other_machines_cap_the_verdict() {
    let base: Vec<Report> = (0..8).map(|index| run(2 * index, 1.0)).collect();
    let turns = |change: fn(&mut Report)| -> Vec<Report> {
        let runs = (0..8).map(|index| run(2 * index + 1, 0.5));
        runs.map(|mut run| {
            change(&mut run);
            run
        })
        .collect()
    };
    // The order is somebody's own: that is no draw.
    let comparison = sides(&base, &turns(|_| {}), Options::default()).unwrap();
    assert_eq!((comparison.verdict, comparison.design), (Verdict::Inconclusive, Design::Interleaved));
    assert_eq!(caps(&comparison), ["not_drawn"]);
    let asked = || Options { accept_sequential: true, ..Options::default() };
    assert_eq!(sides(&base, &turns(|_| {}), asked()).unwrap().verdict, Verdict::Regressed);

    let other = turns(|run| run.scenario.pipeline = 7);
    let Err(Refusal::Scenarios(fields)) = sides(&base, &other, Options::default()) else { panic!("not refused") };
    assert_eq!((fields.len(), fields[0].field.as_str(), fields[0].candidate.as_str()), (1, "pipeline", "7"));
    let permitted = Options { may_differ: vec!["pipeline".to_owned()], ..asked() };
    assert_eq!(sides(&base, &other, permitted.clone()).unwrap().varied[0].field, "pipeline");
    // Within a side nothing may differ, permitted or not: its runs are repetitions.
    let mixed: Vec<Report> = base.iter().cloned().chain([other[0].clone()]).collect();
    assert!(matches!(sides(&mixed, &other, permitted), Err(Refusal::Scenarios(_))));

    let machine = turns(|run| run.environment.client.cpu_model = "another".to_owned());
    let comparison = sides(&base, &machine, asked()).unwrap();
    assert_eq!((comparison.verdict, caps(&comparison)), (Verdict::Inconclusive, vec!["environment"]));
    assert_eq!(comparison.uncapped(), Verdict::Regressed);
    let accepted = Options { accept_environment: true, ..asked() };
    assert_eq!(sides(&base, &machine, accepted).unwrap().verdict, Verdict::Regressed);
    // What changes from run to run is no other machine.
    let busy = turns(|run| run.environment.client.load_1m_percent = 999);
    assert_eq!(sides(&base, &busy, asked()).unwrap().caps, []);
    // The same run on both sides is a mistake in the command line.
    assert!(matches!(sides(&base, &base[7..], Options::default()), Err(Refusal::Same(_))));
}

#[test]
fn one_side_after_the_other_caps_the_verdict() {
    let base: Vec<Report> = (0..8).map(|index| run(index, 1.0)).collect();
    let candidate: Vec<Report> = (8..16).map(|index| run(index, 0.5)).collect();
    let comparison = sides(&base, &candidate, Options::default()).unwrap();
    assert_eq!((comparison.design, comparison.verdict), (Design::Sequential, Verdict::Inconclusive));
    assert_eq!(caps(&comparison), ["sequential"]);
    let accepted = Options { accept_sequential: true, ..Options::default() };
    assert_eq!(sides(&base, &candidate, accepted).unwrap().verdict, Verdict::Regressed);
}

#[test]
fn an_invalid_run_takes_its_block_with_it_and_many_take_the_verdict() {
    let mut runs = blocks(12, 0.9, 0.01, &["A", "B"]);
    invalid(&mut runs[5], "client_saturated");
    let comparison = arms(&runs, Options::default()).unwrap();
    assert_eq!((comparison.blocks, comparison.blocks_left_out), (11, 1));
    assert_eq!(comparison.base.invalid.len() + comparison.candidate.invalid.len(), 1);
    assert_eq!(comparison.verdict, Verdict::Regressed);
    runs.iter_mut().step_by(4).for_each(|run| invalid(run, "client_saturated"));
    let comparison = arms(&runs, Options::default()).unwrap();
    assert!(comparison.is_invalid() && caps(&comparison).contains(&"invalid_runs"));
    assert_ne!(comparison.verdict, Verdict::Regressed);
    runs.iter_mut().for_each(|run| invalid(run, "client_saturated"));
    assert!(matches!(arms(&runs, Options::default()), Err(Refusal::NoRuns(_))));
    // Noise in a drawn order is only noise. By itself, or with a cause that stays, it is not.
    runs.iter_mut().for_each(|run| invalid(run, "cpu_contention"));
    let comparison = arms(&runs, Options::default()).unwrap();
    assert_eq!((comparison.verdict, comparison.blocks), (Verdict::Regressed, 12));
    assert!(
        comparison.notes.iter().any(|note| note.contains("48 of 48 runs were disturbed")),
        "{:?}",
        comparison.notes
    );
    runs.iter_mut().for_each(|run| run.ab = None);
    assert!(matches!(sides(&runs[..24], &runs[24..], Options::default()), Err(Refusal::NoRuns(_))));
}

#[test]
fn a_base_that_differs_from_itself_is_no_base() {
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B", "N"]);
    let comparison = arms(&runs, Options::default()).unwrap();
    assert_eq!((comparison.null.len(), caps(&comparison)), (4, vec![]));
    for run in runs.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == "N") {
        run.throughput.requests_per_s = run.throughput.requests_per_s * 98 / 100;
    }
    let comparison = arms(&runs, Options::default()).unwrap();
    assert_eq!(caps(&comparison), ["contaminated"]);
    assert!(comparison.is_invalid());
}

#[test]
fn limits_of_the_change_and_of_the_candidate_have_three_answers() {
    let runs = blocks(12, 0.9, 0.04, &["A", "B"]);
    let judged = |runs: &[Report], texts: &[&str]| -> Vec<LimitState> {
        let limits = texts.iter().map(|text| Limit::parse(text).unwrap()).collect();
        let comparison = arms(runs, Options { limits, ..Options::default() }).unwrap();
        for format in FORMATS {
            let text = (format.render)(&comparison);
            assert!(texts.iter().all(|limit| text.contains(&limit[..2])), "{}: {text}", format.name);
        }
        comparison.limits.iter().map(|limit| limit.judgement).collect()
    };
    use LimitState::{Broken, Holds, Unresolvable};
    // The candidate is 11 % slower, its median 2.2 ms, its rate 9,000/s.
    let change = judged(&runs, &["p50>+5%", "p50>+20%", "p50>+11.11%", "rate<-5%", "rate<-20%", "p99.99>+0.1%"]);
    assert_eq!(change, [Broken, Holds, Unresolvable, Broken, Holds, Unresolvable]);
    let value = judged(&runs, &["p50>2ms", "p50>3ms", "p50>2.22ms", "rate<10k", "rate<8k", "errors>0", "errors>=0"]);
    assert_eq!(value, [Broken, Holds, Unresolvable, Broken, Holds, Holds, Broken]);
    // What is too few for a verdict is too few for a limit.
    assert_eq!(judged(&blocks(3, 0.5, 0.01, &["A", "B"]), &["p50>+5%", "p50>1ms"]), [Unresolvable, Unresolvable]);
    // A capped comparison says nothing about changes.
    let base: Vec<Report> = (0..12).map(|index| run(index, 1.0)).collect();
    let candidate: Vec<Report> = (12..24).map(|index| run(index, 0.5)).collect();
    let limits = vec![Limit::parse("p50>+5%").unwrap(), Limit::parse("p50>3ms").unwrap()];
    let comparison = sides(&base, &candidate, Options { limits, ..Options::default() }).unwrap();
    assert_eq!(comparison.limits.iter().map(|limit| limit.judgement).collect::<Vec<_>>(), [Unresolvable, Broken]);
}

/// Nothing at all came back.
fn unanswered(run: &mut Report) {
    run.partial = true;
    run.throughput.requests_per_s = 0;
    run.throughput.replies = 0;
    run.latency.response = None;
    let whole = run.ledger.whole_run.as_mut().unwrap();
    whole.errors.insert("timeout".to_owned(), whole.ok);
    whole.ok = 0;
    invalid(run, "nothing_measured");
}

#[test]
fn a_candidate_that_answers_nothing_is_worse_and_one_that_does_so_at_times_is_not_equal() {
    let candidates = |runs: &mut Vec<Report>, every: usize| {
        let of_candidate = runs.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == "B");
        of_candidate.step_by(every).for_each(unanswered);
    };
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
    candidates(&mut runs, 1);
    for gate in ["p50", "rate", "error_share", "p99"] {
        let gates = vec![loadgen_core::metric::by_name(gate).unwrap()];
        let comparison = arms(&runs, Options { gates, ..Options::default() }).unwrap();
        assert_eq!((comparison.verdict, comparison.blocks), (Verdict::Regressed, 12), "{gate}");
    }
    // Given up before the window opened: only the whole run has requests.
    runs.iter_mut().filter(|run| run.throughput.replies == 0).for_each(|run| {
        run.ledger.scheduled = 0;
        run.ledger.sent = 0;
        run.ledger.ok = 0;
    });
    for gate in ["p50", "rate"] {
        let gates = vec![loadgen_core::metric::by_name(gate).unwrap()];
        let comparison = arms(&runs, Options { gates, ..Options::default() }).unwrap();
        assert_eq!(comparison.verdict, Verdict::Regressed, "{gate}");
    }
    // Where the base says nothing either, nothing was measured.
    runs.iter_mut().filter(|run| run.throughput.replies > 0).for_each(unanswered);
    let gates = vec![loadgen_core::metric::by_name("error_share").unwrap()];
    let comparison = arms(&runs, Options { gates, ..Options::default() }).unwrap();
    assert!(comparison.is_invalid() && caps(&comparison) == ["nothing_measured"]);
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
    candidates(&mut runs, 6);
    let limits = vec![Limit::parse("errors>0").unwrap()];
    let comparison = arms(&runs, Options { limits, ..Options::default() }).unwrap();
    assert!(!matches!(comparison.verdict, Verdict::Equivalent | Verdict::Improved), "{:?}", comparison.verdict);
    assert!(comparison.notes.iter().any(|note| note.contains("the candidate answered nothing at all in 4 of 24 runs")));
    assert_eq!(comparison.limits[0].judgement, LimitState::Broken);
}

#[test]
fn what_becomes_of_the_candidate_does_not_choose_its_gates() {
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
    for run in runs.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == "B") {
        let mut recorder = Recorder::new();
        (0..9_000_u64).for_each(|i| recorder.record(if i % 40 == 0 { 30_000_000 } else { 1_000_000 + 200 * i }));
        run.latency.response = recorder.report();
    }
    let comparison = arms(&runs, Options::default()).unwrap();
    let p99 = comparison.rows.iter().find(|row| row.metric == "p99").unwrap();
    assert!(p99.gated && p99.verdict == Verdict::Regressed, "{p99:?}");
    // Runs that are too short for a tail say so.
    for run in &mut runs {
        let mut recorder = Recorder::new();
        (0..900_u64).for_each(|i| recorder.record(1_000_000 + 200 * i));
        run.latency.response = recorder.report();
    }
    let comparison = arms(&runs, Options::default()).unwrap();
    assert!(comparison.rows.iter().all(|row| row.metric != "p99" || !row.gated));
    assert!(comparison.notes.iter().any(|note| note.contains("p99 is no gate here: that takes 10000 requests")));
}

#[test]
fn a_session_that_was_cut_short_is_no_verdict() {
    let runs = blocks(12, 0.5, 0.01, &["A", "B"]);
    let [base, candidate] = ["A", "B"].map(|arm| set(arm, &runs, arm));
    let options = Options::default();
    let question = Question { base, candidate, null: Set::default(), interrupted: Some((12, 500)), options };
    let comparison = compare(&question).unwrap();
    assert_eq!((comparison.verdict, caps(&comparison)), (Verdict::Inconclusive, vec!["interrupted"]));
}

#[test]
fn a_shard_is_no_run() {
    let mut runs: Vec<Report> = (0..12).map(|index| run(index, 1.0)).collect();
    runs[3].shard = Some(Shard { index: 0, count: 4, ..Shard::default() });
    let comparison = sides(&runs[..6], &runs[6..], Options::default()).unwrap();
    assert!(comparison.base.invalid[0].why.contains("shard 0 of 4"), "{:?}", comparison.base);
}

#[test]
fn every_format_says_the_verdict_and_survives_extremes() {
    let mut comparisons = vec![arms(&blocks(12, 0.9, 0.01, &["A", "B", "N"]), Options::default()).unwrap()];
    let mut dead = blocks(12, 1.0, 0.01, &["A", "B"]);
    for run in dead.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == "B") {
        run.throughput.requests_per_s = 0;
        run.latency.response = None;
        run.errors.push(ErrorRow {
            kind: "<b>|\n`".to_owned(),
            phase: String::new(),
            count: u64::MAX,
            first_at_ns: 0,
            first: String::new(),
        });
    }
    comparisons.push(arms(&dead, Options::default()).unwrap());
    assert_eq!(comparisons[1].verdict, Verdict::Regressed, "a server that answers nothing is slower");
    for comparison in &comparisons {
        for format in FORMATS {
            let text = (format.render)(comparison);
            assert!(text.ends_with('\n') && text.to_lowercase().contains("regressed"), "{}: {text}", format.name);
        }
        let again: Comparison = serde_json::from_str(&comparison.to_json()).unwrap();
        assert_eq!(&again, comparison);
    }
    let markdown = (FORMATS.iter().find(|format| format.name == "md").unwrap().render)(&comparisons[1]);
    assert!(!markdown.contains("<b>"), "{markdown}");
}

/// Blocks with the factors that `of` gives for an arm and the number of its run.
fn scattered(count: u64, of: impl Fn(&str, usize) -> f64) -> Vec<Report> {
    let mut runs = blocks(count, 1.0, 0.0, &["A", "B"]);
    let mut seen = [0, 0];
    for (index, of_session) in runs.iter_mut().enumerate() {
        let ab = of_session.ab.clone().unwrap();
        let nth = &mut seen[usize::from(ab.arm == "B")];
        *of_session = run(index, of(&ab.arm, *nth));
        of_session.ab = Some(ab);
        *nth += 1;
    }
    runs
}

/// What no page and no file may claim, however the runs scatter.
fn has_no_nonsense(comparison: &Comparison) {
    for row in &comparison.rows {
        assert!(row.sees_ppm.is_none_or(|sees| sees <= 10_000_000), "{row:?}");
        if row.not_measurable {
            let none = (row.change_ppm, row.low_ppm, row.high_ppm, row.sees_ppm);
            assert_eq!((none, row.verdict), ((None, None, None, None), Verdict::Inconclusive), "{row:?}");
            assert!(row.reason.as_ref().unwrap().starts_with("not measurable here: "), "{row:?}");
        }
        let (Some(base), Some(candidate), Some(change)) = (row.base, row.candidate, row.change_ppm) else { continue };
        let by_medians = candidate as f64 / base as f64 - 1.0;
        let apart = ((1.0 + by_medians) / (1.0 + change as f64 / 1e6)).ln().abs();
        assert!(row.unit == "ppm" || by_medians * change as f64 >= 0.0 || apart < 0.1, "{row:?}");
    }
    for format in FORMATS {
        let text = (format.render)(comparison);
        let told = comparison.rows.iter().any(|row| row.not_measurable && row.gated);
        assert!(!told || text.contains("not measurable here"), "{}: {text}", format.name);
    }
}

/// The found case: 886 us, 2.32 ms, "-42.8 %" and "sees 171516944 %".
#[test]
fn an_estimate_that_contradicts_the_medians_is_not_measurable_here() {
    // Most runs of the candidate are 2.5 times slower; some of the base are far worse.
    let runs = scattered(10, |arm, nth| match (arm, nth % 5) {
        ("A", 0 | 1) => 0.001,
        ("B", 0) => 1.0,
        ("B", _) => 0.4,
        _ => 1.0,
    });
    let limits = vec![Limit::parse("p50>+5%").unwrap()];
    let comparison = arms(&runs, Options { limits, ..Options::default() }).unwrap();
    let p50 = comparison.rows.iter().find(|row| row.metric == "p50").unwrap();
    assert!(p50.candidate > p50.base && p50.not_measurable, "{p50:?}");
    assert!(!p50.differences_ppm.is_empty() && !p50.base_values.is_empty(), "the values are kept");
    assert_eq!((comparison.verdict, comparison.limits[0].judgement), (Verdict::Inconclusive, LimitState::Unresolvable));
    assert!(comparison.limits[0].detail.contains("not measurable here"), "{:?}", comparison.limits);
    assert!(comparison.notes.iter().any(|note| note.starts_with("p50: not measurable here: ")));
    has_no_nonsense(&comparison);
}

#[test]
fn wildly_scattering_runs_never_make_nonsense() {
    type Factor = fn(&str, usize, f64) -> f64;
    let kinds: [(&str, Factor); 6] = [
        ("wild", |_, _, unit| (unit * 12.0 - 6.0).exp()),
        ("two modes", |_, _, unit| if unit < 0.5 { 1.0 } else { 0.3 }),
        ("two modes of one arm", |arm, _, unit| if arm == "B" && unit < 0.5 { 0.01 } else { 1.0 }),
        ("outliers of one arm", |arm, nth, _| if arm == "A" && nth % 7 == 0 { 1e-5 } else { 1.0 }),
        (
            "a mode a block",
            |arm, nth, _| if (nth / 2) % 2 == 0 { 1.0 } else { 0.1 } * if arm == "B" { 0.99 } else { 1.0 },
        ),
        ("nearly nothing", |arm, _, unit| if arm == "A" { 2e-4 * unit } else { 1.0 }),
    ];
    for (name, factor) in kinds {
        for (seed, count) in [(1, 2), (2, 10), (3, 13)] {
            let rng = std::cell::RefCell::new(Rng::new(seed));
            let runs = scattered(count, |arm, nth| factor(arm, nth, rng.borrow_mut().unit()));
            let comparison = arms(&runs, Options::default()).unwrap_or_else(|why| panic!("{name}: {why:?}"));
            has_no_nonsense(&comparison);
            let mut alone = runs.clone();
            alone.iter_mut().for_each(|run| run.ab = None);
            let (base, candidate) = alone.split_at(alone.len() / 2);
            has_no_nonsense(&sides(base, candidate, Options::default()).unwrap());
        }
    }
    // Some runs without any answer, on either side.
    for arm in ["A", "B"] {
        let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
        let of_arm = runs.iter_mut().filter(|run| run.ab.as_ref().unwrap().arm == arm);
        of_arm.step_by(3).for_each(unanswered);
        let comparison = arms(&runs, Options::default()).unwrap();
        has_no_nonsense(&comparison);
        assert_eq!(comparison.rows[0].verdict, Verdict::Inconclusive, "{:?}", comparison.rows[0]);
    }
}

/// Drift and noise as machines have them cost no verdict.
#[test]
fn ordinary_noise_and_drift_stay_measurable() {
    for (seed, factor, verdict) in
        [(1, 0.9, Verdict::Regressed), (2, 1.1, Verdict::Improved), (3, 0.9, Verdict::Regressed)]
    {
        let rng = std::cell::RefCell::new(Rng::new(seed));
        let noise =
            |_: &str, nth: usize| (1.0 + 0.3 * nth as f64 / 24.0) * (1.0 + 0.05 * (rng.borrow_mut().unit() - 0.5));
        let runs = scattered(12, |arm, nth| noise(arm, nth) * if arm == "B" { factor } else { 1.0 });
        let comparison = arms(&runs, Options::default()).unwrap();
        assert_eq!(comparison.verdict, verdict);
        assert!(comparison.rows.iter().all(|row| !row.not_measurable), "{:?}", comparison.rows);
    }
}

#[test]
fn nothing_is_a_percentage_of_nothing() {
    let mut runs = blocks(12, 1.0, 0.01, &["A", "B"]);
    for (index, run) in runs.iter_mut().enumerate() {
        run.cpu.client_ns_per_request = Some(index as u64 % 3);
    }
    let gates = vec![loadgen_core::metric::by_name("client_cpu").unwrap()];
    let comparison = arms(&runs, Options { gates, ..Options::default() }).unwrap();
    let row = &comparison.rows[0];
    assert!(row.not_measurable && row.reason.as_ref().unwrap().contains("the base is 0 in "), "{row:?}");
    assert_eq!(comparison.verdict, Verdict::Inconclusive);
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let generated = schema_json();
    if std::env::var_os("LOADGEN_BLESS").is_some() {
        std::fs::write(in_repository(SCHEMA_FILE), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(in_repository(SCHEMA_FILE)).unwrap_or_default();
    assert!(committed == generated, "{SCHEMA_FILE} is not that of the types (LOADGEN_BLESS=1 makes it anew)");
    let schema: serde_json::Value = serde_json::from_str(&generated).unwrap();
    let comparison = arms(&blocks(12, 0.9, 0.01, &["A", "B", "N"]), Options::default()).unwrap();
    let value = serde_json::to_value(&comparison).unwrap();
    assert!(jsonschema::is_valid(&schema, &value));
}
