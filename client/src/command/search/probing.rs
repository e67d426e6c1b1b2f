//! Probes, one after the other, until the procedure has enough, the time is over, or somebody interrupts.

use super::check::Asked;
use crate::command::ab::slot::Bench;
use crate::failure::Failure;
use crate::progress::Line;
use crate::run;
use loadgen_core::histogram::QUANTILES;
use loadgen_core::metric;
use loadgen_core::result::{Arm, Report, integers};
use loadgen_core::search::schema::{Found, Probe, ProbeVerdict, Slow};
use loadgen_core::search::{Ending, Evidence, Observation, Search, Settings, Slo, Standing, Step};
use loadgen_core::sys::{clock, signals};
use loadgen_core::time::{Instant, NS_PER_S};
use loadgen_core::units::{format_duration, format_exact_count};

/// Of the closed loop that gives a first idea.
const GLANCE: &str = "1s";
/// The first rate is this part of what the closed loop achieves: knees lie above it, and the curve has a beginning.
const FIRST_PART: u64 = 4;
/// If the closed loop achieved nothing.
const FIRST_LEAST: u64 = 100;

/// What ended the probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Procedure(Ending),
    /// Another probe would last beyond the budget.
    Budget,
    Signal(i32),
}

/// What measures probes.
#[derive(Debug)]
pub struct Probing<'a> {
    pub bench: &'a Bench,
    pub asked: &'a Asked,
    pub slos: &'a [Slo],
    /// Where the load goes, as flags.
    targets: Vec<String>,
    pub began: Instant,
    line: Line,
}

impl<'a> Probing<'a> {
    pub fn new(bench: &'a Bench, asked: &'a Asked, slos: &'a [Slo], targets: Vec<String>) -> Result<Self, Failure> {
        run::catch_signals()?;
        let began = clock::now();
        Ok(Self { bench, asked, slos, targets, began, line: Line::new(asked.plan.quiet, began) })
    }

    /// Measures until there is an end to it. What was measured is in `found`, which `keep` is shown after each probe.
    /// Gives the search, with what it has seen, and its end.
    pub fn run(
        &mut self,
        from: Option<u64>,
        found: &mut Found,
        keep: &mut dyn FnMut(&mut Found, &Search) -> Result<(), Failure>,
    ) -> (Search, Result<End, Failure>) {
        let (precision, probes_most, slos) = (self.asked.precision, found.probes_most as usize, self.slos.len());
        let settings = |from: u64| Settings { from: from as f64, precision, probes_most, slos };
        let mut search = Search::new(settings(from.unwrap_or(FIRST_LEAST)));
        if from.is_none() {
            match self.glance(found) {
                Ok(Ok(achieved)) => search = Search::new(settings((achieved / FIRST_PART).max(1))),
                Ok(Err(end)) => return (search, Ok(end)),
                Err(failure) => return (search, Err(failure)),
            }
        }
        let end = self.probes(&mut search, found, keep);
        self.line.clear();
        (search, end)
    }

    /// What a closed loop achieves, requests a second.
    fn glance(&mut self, found: &mut Found) -> Result<Result<u64, End>, Failure> {
        let flags = vec![format!("--duration={GLANCE}")];
        let report = match self.measure("closed loop", flags, "what a closed loop achieves".to_owned())? {
            Ok(report) => report,
            Err(end) => return Ok(Err(end)),
        };
        let achieved = report.throughput.requests_per_s;
        found.probes.push(Probe { verdict: ProbeVerdict::NotJudged, ..row(None, &report, None, self.slos) });
        found.runs.push(report);
        Ok(Ok(if achieved == 0 { FIRST_LEAST * FIRST_PART } else { achieved }))
    }

    fn probes(
        &mut self,
        search: &mut Search,
        found: &mut Found,
        keep: &mut dyn FnMut(&mut Found, &Search) -> Result<(), Failure>,
    ) -> Result<End, Failure> {
        let mut longest_ns = 0;
        loop {
            let rate = match search.next() {
                Step::Probe(rate) => rate as u64,
                Step::End(ending) => return Ok(End::Procedure(ending)),
            };
            // The first is measured in any case.
            if longest_ns > 0 && clock::now().since(self.began) + longest_ns > found.budget_ns {
                return Ok(End::Budget);
            }
            let probe_began = clock::now();
            let seed = (found.seed + found.probes.len() as u64) & integers::MOST;
            let flags = vec![
                format!("--rate={rate}"),
                format!("--arrival={}", self.asked.arrival.name()),
                format!("--duration={}ns", self.asked.probe_ns),
                format!("--seed={seed}"),
            ];
            let name = format!("{}/s", format_exact_count(rate));
            let words = words(search, found, &name, self.began);
            let report = match self.measure(&name, flags, words)? {
                Ok(report) => report,
                Err(end) => return Ok(end),
            };
            let observation = Observation::of(rate as f64, &report, self.slos);
            found.probes.push(row(Some(rate), &report, Some(&observation), self.slos));
            found.runs.push(report);
            search.observe(observation);
            longest_ns = longest_ns.max(clock::now().since(probe_began));
            keep(found, search)?;
        }
    }

    /// One run, as a process of its own.
    fn measure(&mut self, name: &str, flags: Vec<String>, words: String) -> Result<Result<Report, End>, Failure> {
        // What is about open loops only would be refused by a closed one.
        let closed = !flags.iter().any(|flag| flag.starts_with("--rate="));
        let shared = self.bench.flags.iter().filter(|flag| !closed || !flag.starts_with("--spin"));
        let bench = Bench { flags: shared.chain(&self.targets).cloned().collect(), ..self.bench.clone() };
        let arm = Arm { name: name.to_owned(), server_command: None, target: None, flags };
        let line = &mut self.line;
        let began = clock::now();
        let report = bench.run(&arm, &mut || {
            let now = clock::now();
            if line.due(now).is_some() {
                line.draw(now, &format!("{words} for {}", format_duration(now.since(began) / NS_PER_S * NS_PER_S)));
            }
            signals::first().is_some()
        });
        if let Some(signal) = signals::first() {
            line.clear();
            return Ok(Err(End::Signal(signal)));
        }
        let report = report.inspect_err(|_| line.clear())?;
        // Nobody but a signal stops a probe.
        Ok(report.ok_or(End::Signal(signals::INTERRUPT)))
    }
}

/// What the line on the terminal says.
fn words(search: &Search, found: &Found, name: &str, began: Instant) -> String {
    let left = found.budget_ns.saturating_sub(clock::now().since(began)) / NS_PER_S * NS_PER_S;
    let known = search.knee().map_or(String::new(), |knee| {
        let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), |rate| format_exact_count(rate as u64));
        let rate = format_exact_count(knee.rate as u64);
        format!("so far {rate}/s ({} to {}), ", end(knee.low), end(knee.high))
    });
    let left = format_duration(left);
    format!("{known}at most {left} left; probe {} at {name}", found.probes.len() + 1)
}

/// A probe as the result file has it.
fn row(rate: Option<u64>, report: &Report, observation: Option<&Observation>, slos: &[Slo]) -> Probe {
    let quantile = |q: f64| {
        let (name, _) = QUANTILES.iter().find(|(_, known)| *known == q)?;
        report.latency.response.as_ref()?.quantiles_ns.get(*name).copied()
    };
    let errors = metric::by_name("errors").and_then(|metric| (metric.value)(report)).unwrap_or(0.0);
    let broken = |observation: &Observation| {
        let wrong = observation.evidence.iter().zip(slos).filter(|(evidence, _)| evidence.holds() == Some(false));
        wrong.map(|(_, slo)| slo.to_string()).collect::<Vec<_>>()
    };
    let (verdict, why) = match observation {
        None => (ProbeVerdict::NotJudged, Vec::new()),
        Some(observation) => match (observation.standing, observation.holds()) {
            (Standing::Unusable | Standing::Saturated, _) => {
                let codes = report.verdict.reasons.iter().map(|reason| reason.code.clone());
                (ProbeVerdict::Unusable, codes.collect())
            }
            (Standing::Overloaded, _) => (ProbeVerdict::Overloaded, broken(observation)),
            (Standing::Steady, Some(true)) => (ProbeVerdict::Holds, Vec::new()),
            (Standing::Steady, _) => (ProbeVerdict::Broken, broken(observation)),
        },
    };
    let slow = |evidence: &Evidence| match evidence {
        Evidence::Share(share) => Some(Slow { requests: share.count as u64, beyond: share.beyond.round() as u64 }),
        Evidence::Judged(_) => None,
    };
    Probe {
        rate_per_s: rate,
        achieved_per_s: report.throughput.requests_per_s,
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        errors: errors as u64,
        verdict,
        why,
        slow: observation.map_or(Vec::new(), |observation| observation.evidence.iter().map(slow).collect()),
    }
}
