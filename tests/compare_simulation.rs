//! Do comparisons keep their word? Twenty thousand experiments each of several kinds of noise, with fixed seeds, and
//! every possible experiment where there are few. The figures of docs/compare.md come from here:
//! `cargo test --release --test compare_simulation -- --include-ignored --nocapture --test-threads 1`.

use std::f64::consts::TAU;

use loadgen_core::compare::decision::{Verdict, decide};
use loadgen_core::compare::estimate::{Estimate, TooFew, one_sample, paired, unpaired};
use loadgen_core::compare::power::{Shape, blocks_needed, cautious_spread, multiple, smallest_visible, spread};
use loadgen_core::rng::Rng;

const EXPERIMENTS: u64 = 20_000;
/// 1 % over four gates.
const MISRATE: f64 = 0.01 / 4.0;
const MARGIN: f64 = 0.02;
/// What the candidate is slower by where it is, as a logarithm.
const EFFECT: f64 = 0.05;
/// The deviation of the noise that all kinds have.
const SIGMA: f64 = 0.01;

/// What differs from run to run, as logarithms, beside normal noise of deviation [`SIGMA`].
#[derive(Clone, Copy, Debug)]
enum Noise {
    LogNormal,
    /// Three runs of ten are 5 % slower: a thread or a page landed badly.
    Bimodal,
    /// Each run is drawn towards the one before it (correlation 0.8).
    Autocorrelated,
    /// 30 % from the first run to the last.
    Drift,
    /// The first run of a block is 3 % slower than the second, the others between them.
    SlotBias,
    /// One run of a hundred takes five times as long.
    Outliers,
    /// From some run on, everything is 5 % slower.
    LevelShift,
}

const KINDS: [Noise; 7] = [
    Noise::LogNormal,
    Noise::Bimodal,
    Noise::Autocorrelated,
    Noise::Drift,
    Noise::SlotBias,
    Noise::Outliers,
    Noise::LevelShift,
];

/// By Box and Muller (1958).
fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * rng.unit().ln()).sqrt() * (TAU * rng.unit()).cos()
}

impl Noise {
    /// The logarithms of so many runs of one version, in the order of time.
    fn runs(self, rng: &mut Rng, runs: usize) -> Vec<f64> {
        let (mut state, shift_at) = (normal(rng), rng.below(runs as u64) as usize);
        let mut run = |at: usize| {
            let noise = normal(rng);
            let more = match self {
                Self::LogNormal => 0.0,
                Self::Bimodal => f64::from(u8::from(rng.unit() < 0.3)) * 0.05,
                Self::Autocorrelated => {
                    state = 0.8 * state + 0.6 * normal(rng);
                    2.0 * SIGMA * state
                }
                Self::Drift => 0.3 * at as f64 / runs as f64,
                Self::SlotBias => [0.03, 0.0, 0.01, 0.02][at % 4],
                Self::Outliers => f64::from(u8::from(rng.unit() < 0.01)) * 5.0_f64.ln(),
                Self::LevelShift => f64::from(u8::from(at >= shift_at)) * 0.05,
            };
            SIGMA * noise + more
        };
        (0..runs).map(&mut run).collect()
    }
}

/// Whether the candidate ran, by slot.
type Order = [bool; 4];
const ABBA: Order = [false, true, true, false];
const BAAB: Order = [true, false, false, true];
const ABAB: Order = [false, true, false, true];

fn coins(rng: &mut Rng) -> Order {
    if rng.below(2) == 0 { ABBA } else { BAAB }
}

/// The difference of each block, candidate - base, if the candidate is slower by `effect`.
fn differences(runs: &[f64], orders: &[Order], effect: f64) -> Vec<f64> {
    let block = |(runs, order): (&[f64], &Order)| {
        let signed = |(value, candidate): (&f64, &bool)| if *candidate { value + effect } else { -value };
        runs.iter().zip(order).map(signed).sum::<f64>() / 2.0
    };
    runs.chunks(4).zip(orders).map(block).collect()
}

/// An experiment as `ab` makes it.
fn experiment(noise: Noise, rng: &mut Rng, blocks: usize, effect: f64) -> Vec<f64> {
    let runs = noise.runs(rng, 4 * blocks);
    let orders: Vec<Order> = (0..blocks).map(|_| coins(rng)).collect();
    differences(&runs, &orders, effect)
}

/// How many of `experiments`, on two threads, are so.
fn count<const N: usize>(experiments: u64, seed: u64, so: impl Fn(&mut Rng) -> [bool; N] + Sync) -> [u64; N] {
    let half = |seed: u64| {
        let mut rng = Rng::new(seed);
        let mut counts = [0; N];
        for _ in 0..experiments / 2 {
            let outcome = so(&mut rng);
            counts.iter_mut().zip(outcome).for_each(|(count, so)| *count += u64::from(so));
        }
        counts
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(seed + 1_000_000));
        (half(seed), other.join().expect("no panic"))
    });
    std::array::from_fn(|i| first[i] + second[i])
}

/// The most that chance leaves of `experiments` with this rate: three standard errors more.
fn at_most(experiments: u64, rate: f64) -> u64 {
    let mean = experiments as f64 * rate;
    (mean + 3.0 * (mean * (1.0 - rate)).sqrt()) as u64
}

fn alarm(estimate: &Estimate) -> bool {
    matches!(decide(estimate, 0.0), Verdict::Regressed | Verdict::Improved)
}

fn moved(estimate: &Estimate, by: f64) -> Estimate {
    Estimate { low: estimate.low + by, high: estimate.high + by, centre: estimate.centre + by, ..*estimate }
}

fn percent(part: u64, of: u64) -> f64 {
    100.0 * part as f64 / of as f64
}

/// Rates, coverage and power of `ab` with so many blocks, under each kind of noise; a row of docs/compare.md each.
fn keeps_its_word(blocks: usize, with_effect: u64) {
    for (seed, noise) in KINDS.into_iter().enumerate() {
        let [alarms, regressed, found, found_faster] = count(EXPERIMENTS, 7 + seed as u64, |rng| {
            let same = paired(&experiment(noise, rng, blocks, 0.0), MISRATE).expect("enough blocks");
            let visible = same.smallest_visible(MARGIN).ln_1p() * (1.0 + 1e-9);
            [
                alarm(&same),
                decide(&same, MARGIN) == Verdict::Regressed,
                decide(&moved(&same, visible), MARGIN) == Verdict::Regressed,
                decide(&moved(&same, -visible), MARGIN) == Verdict::Improved,
            ]
        });
        let [missed] = count(with_effect, 27 + seed as u64, |rng| {
            let slower = paired(&experiment(noise, rng, blocks, EFFECT), MISRATE).expect("enough blocks");
            [EFFECT < slower.low || slower.high < EFFECT]
        });
        let [alarm_share, regressed_share, power, power_faster] =
            [alarms, regressed, found, found_faster].map(|n| percent(n, EXPERIMENTS));
        let coverage = 100.0 - percent(missed, with_effect);
        println!(
            "| {noise:?} | {blocks} | {alarm_share:.2} | {regressed_share:.2} | {coverage:.2} | {power:.1} | \
             {power_faster:.1} |"
        );
        assert!(alarms <= at_most(EXPERIMENTS, MISRATE), "{noise:?}: {alarms} false alarms");
        assert!(regressed <= at_most(EXPERIMENTS, MISRATE / 2.0), "{noise:?}: {regressed} called regressed");
        assert!(missed <= at_most(with_effect, MISRATE), "{noise:?}: {missed} of {with_effect} miss the effect");
        assert!(found.min(found_faster) * 10 >= EXPERIMENTS * 9, "{noise:?}: {found}, {found_faster} found");
    }
}

#[test]
fn false_alarms_coverage_and_power_under_every_kind_of_noise() {
    keeps_its_word(12, EXPERIMENTS / 10);
}

/// The table of docs/compare.md.
#[test]
#[ignore = "ten seconds, with --release"]
fn the_same_with_other_numbers_of_blocks() {
    [10, 12, 16, 20, 30].into_iter().for_each(|blocks| keeps_its_word(blocks, EXPERIMENTS));
}

/// What an acceptance test sees: one effect in all comparisons, and those asked that say they would see it.
#[test]
#[ignore = "a few seconds, with --release"]
fn sessions_that_promise_to_see_an_effect_see_it() {
    for noise in KINDS {
        let mut rng = Rng::new(3);
        let estimates: Vec<Estimate> =
            (0..EXPERIMENTS).map(|_| paired(&experiment(noise, &mut rng, 12, 0.0), MISRATE).unwrap()).collect();
        let mut reaches: Vec<f64> = estimates.iter().map(|estimate| estimate.reach).collect();
        reaches.sort_unstable_by(f64::total_cmp);
        let found = [0.1, 0.25, 0.5, 0.75].map(|share| {
            let effect = reaches[(share * EXPERIMENTS as f64) as usize];
            let promised: Vec<&Estimate> = estimates.iter().filter(|estimate| estimate.reach <= effect).collect();
            let kept = promised.iter().filter(|estimate| estimate.low + effect > 0.0).count();
            percent(kept as u64, promised.len() as u64)
        });
        println!("| {noise:?} | {} |", found.map(|share| format!("{share:.1}")).join(" | "));
        assert!(found[1..].iter().all(|share| *share >= 90.0), "{noise:?}: {found:?}");
    }
}

/// Four gates at once, errors among them; the others share most of their noise, or none.
#[test]
fn four_gates_together_raise_a_false_alarm_in_one_percent_at_most() {
    for (shared, experiments) in [(0.0, EXPERIMENTS), (0.9_f64, EXPERIMENTS / 10)] {
        let own = (1.0 - shared * shared).sqrt();
        let [alarms] = count(experiments, 70, |rng| {
            let common = values(rng, 12);
            let mut gate = || -> Vec<f64> { common.iter().map(|common| shared * common + own * normal(rng)).collect() };
            let gates = [gate(), gate(), gate(), error_shares(rng, 12)];
            [gates.iter().any(|gate| alarm(&paired(gate, MISRATE).unwrap()))]
        });
        println!("four gates, {shared} shared: {:.2} %", percent(alarms, experiments));
        assert!(alarms <= at_most(experiments, 0.01), "{alarms} of {experiments}");
    }
}

/// Differences of error shares: most runs have none, some have a few.
fn error_shares(rng: &mut Rng, blocks: usize) -> Vec<f64> {
    let mut shares = || if rng.unit() < 0.4 { rng.below(4) as f64 / 1e5 } else { 0.0 };
    (0..blocks).map(|_| (shares() + shares() - shares() - shares()) / 2.0).collect()
}

#[test]
fn an_effect_as_large_as_planned_for_is_found_in_nine_of_ten() {
    for (blocks, gates) in [(8, 1), (10, 4), (12, 4), (16, 4), (20, 2), (30, 6)] {
        let misrate = 0.01 / f64::from(gates);
        let visible = smallest_visible(Shape::Paired { blocks }, SIGMA, misrate, MARGIN).unwrap().ln_1p();
        let [found] = count(4_000, 80, |rng| {
            // The spread of a block of independent runs is that of a run.
            let estimate = paired(&experiment(Noise::LogNormal, rng, blocks, visible), misrate).unwrap();
            [decide(&estimate, MARGIN) == Verdict::Regressed]
        });
        println!("{blocks} blocks, {gates} gates: {:.1} % found", percent(found, 4_000));
        assert!(percent(found, 4_000) >= 87.0 && percent(found, 4_000) <= 93.0, "{blocks} blocks: {found} of 4000");
    }
    for (base, candidate) in [(8, 8), (6, 12)] {
        let visible = multiple(Shape::Unpaired { base, candidate }, MISRATE).unwrap() * SIGMA;
        let [found, alarms] = count(4_000, 81, |rng| {
            let (base, more) = (Noise::LogNormal.runs(rng, base), Noise::LogNormal.runs(rng, candidate));
            let estimate = unpaired(&base, &more, MISRATE).unwrap();
            [moved(&estimate, visible).low > 0.0, alarm(&estimate)]
        });
        assert!(percent(found, 4_000) >= 87.0 && percent(found, 4_000) <= 93.0, "{base}, {candidate}: {found} of 4000");
        assert!(alarms <= at_most(4_000, MISRATE), "{base}, {candidate}: {alarms}");
    }
}

#[test]
fn the_table_of_the_docs_is_what_the_code_says() {
    let docs = include_str!("../docs/compare.md");
    for blocks in [10, 12, 16] {
        let row = power_row(blocks);
        assert!(docs.contains(&row), "docs/compare.md lacks the row {row}");
    }
}

#[test]
#[ignore = "a second, with --release"]
fn the_whole_table_of_power() {
    let docs = include_str!("../docs/compare.md");
    let rows = [8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 30, 40, 60, 100].map(power_row);
    println!("{}", rows.join("\n"));
    rows.iter().for_each(|row| assert!(docs.contains(row), "docs/compare.md lacks the row {row}"));
}

fn power_row(blocks: usize) -> String {
    let cell = |gates: u8| multiple(Shape::Paired { blocks }, 0.01 / f64::from(gates)).map(|c| format!("{c:.2}"));
    let cells: Vec<String> = [1, 2, 3, 4, 5, 6].map(|gates| cell(gates).unwrap_or_else(|| "-".to_owned())).into();
    format!("| {blocks} | {} |", cells.join(" | "))
}

#[test]
fn a_plan_is_enough_and_not_more_than_enough() {
    let visible = |blocks: usize| smallest_visible(Shape::Paired { blocks }, SIGMA, MISRATE, 0.01);
    let blocks = blocks_needed(SIGMA, MISRATE, 0.01, 0.025, 100).unwrap();
    assert!(visible(blocks).unwrap() <= 0.025 && visible(blocks - 1).is_none_or(|less| less > 0.025), "{blocks}");
    assert_eq!(blocks_needed(SIGMA, MISRATE, 0.01, 0.2, 100), Some(10)); // fewer cannot reach the rate
    assert_eq!(blocks_needed(SIGMA, MISRATE, 0.01, 0.011, 100), None);
    assert_eq!(blocks_needed(f64::INFINITY, MISRATE, 0.01, 0.2, 100), None);
    assert_eq!(blocks_needed(SIGMA, MISRATE, 0.02, 0.01, 1_000), None); // never: the margin is wider
    assert!(visible(200).unwrap() < visible(60).unwrap() && visible(9).is_none());
}

#[test]
fn a_cautious_spread_is_too_small_in_one_pilot_of_five() {
    for blocks in [4, 10] {
        let [optimistic, naive] = count(EXPERIMENTS, 90, |rng| {
            let pilot = experiment(Noise::LogNormal, rng, blocks, EFFECT);
            [cautious_spread(&pilot) < SIGMA, spread(&pilot) < SIGMA]
        });
        assert!((19.0..21.0).contains(&percent(optimistic, EXPERIMENTS)), "{blocks}: {optimistic}");
        assert!(percent(naive, EXPERIMENTS) > 50.0, "{blocks}: {naive}");
    }
    assert_eq!((spread(&[]), spread(&[0.1])), (f64::INFINITY, f64::INFINITY));
}

#[test]
fn ties_and_zeros_are_no_change() {
    let zero = paired(&[0.0; 12], MISRATE).unwrap();
    assert_eq!((zero.centre, zero.low, zero.high, zero.reach), (0.0, 0.0, 0.0, 0.0));
    assert_eq!((decide(&zero, 0.0), decide(&zero, MARGIN)), (Verdict::Equivalent, Verdict::Equivalent));
    // Eleven blocks without an error cannot be overruled by one with a thousand.
    let mut one = [0.0; 12];
    one[3] = 1e-3;
    assert_eq!(paired(&one, MISRATE).unwrap().low, 0.0);
    let zero = unpaired(&[0.0; 8], &[0.0; 8], MISRATE).unwrap();
    assert_eq!((zero.centre, zero.low, zero.high, zero.reach), (0.0, 0.0, 0.0, 0.0));
    assert_eq!(one_sample(&[3.5; 12], MISRATE).map(|same| (same.low, same.high)), Ok((3.5, 3.5)));
}

#[test]
fn too_few_observations_are_told_how_many_it_takes() {
    assert_eq!(paired(&[0.1; 9], MISRATE), Err(TooFew { needs: 10 }));
    assert_eq!(unpaired(&[0.1; 5], &[0.1; 5], MISRATE), Err(TooFew { needs: 6 }));
    assert_eq!(one_sample(&[0.1], 0.01), Err(TooFew { needs: 8 }));
    assert_eq!(paired(&[], MISRATE), Err(TooFew { needs: 10 }));
    assert_eq!(paired(&[0.1; 10], MISRATE).map(|estimate| estimate.misrate), Ok(1.0 / 512.0));
}

/// Values without ties, of which no sums are equal either.
fn values(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(rng)).collect()
}

#[test]
fn every_way_that_the_coins_can_fall_gives_the_rate_exactly() {
    let mut rng = Rng::new(5);
    for n in 4..=8_usize {
        let sizes = values(&mut rng, n);
        let signed = |signs: usize| -> Vec<f64> {
            (0..n).map(|i| if signs >> i & 1 == 0 { sizes[i] } else { -sizes[i] }).collect()
        };
        for misrate in [0.3, 0.2, 0.1, 0.05, 0.02, 0.01].into_iter().filter(|rate| *rate >= 0.5_f64.powi(n as i32 - 1))
        {
            let attained = paired(&sizes, misrate).unwrap().misrate;
            let misses = (0..1 << n).filter(|signs| alarm(&paired(&signed(*signs), misrate).unwrap())).count();
            assert_eq!(misses as f64, attained * f64::from(1 << n), "{n} blocks at {misrate}");
            assert!(attained <= misrate, "{n} blocks at {misrate}: {attained}");
            second_opinion_paired(&sizes, misrate, attained);
        }
    }
}

/// The crate gives the same bounds for a rate that is attained exactly, and bounds one rank further in for others.
fn second_opinion_paired(values: &[f64], misrate: f64, attained: f64) {
    let ours = paired(values, misrate).unwrap();
    let theirs = |rate: f64| pragmastat::estimators::raw::center_bounds(values, rate, false).unwrap();
    let same = theirs(attained);
    assert!((same.lower - ours.low).abs() < 1e-12 && (same.upper - ours.high).abs() < 1e-12, "{same:?} {ours:?}");
    if attained < misrate {
        assert!(theirs(misrate).lower > ours.low && theirs(misrate).upper < ours.high, "{misrate}: {ours:?}");
    }
    let centre = pragmastat::estimators::raw::center(values, false).unwrap();
    assert!((centre - ours.centre).abs() < 1e-12, "{centre} {ours:?}");
}

#[test]
fn every_way_to_split_runs_in_two_gives_the_rate_exactly() {
    let mut rng = Rng::new(6);
    for (n, m) in [(3, 3), (3, 5), (4, 4), (5, 4), (2, 8), (5, 5), (6, 5), (6, 6)] {
        let runs = values(&mut rng, n + m);
        let splits: Vec<u32> = (0..1_u32 << (n + m)).filter(|split| split.count_ones() as usize == n).collect();
        for misrate in [0.2, 0.1, 0.05, 0.01].into_iter().filter(|rate| *rate * splits.len() as f64 >= 2.0) {
            let mut misses = 0;
            let mut attained = 0.0;
            for split in &splits {
                let side = |one: u32| (0..n + m).filter(move |i| split >> i & 1 == one).map(|i| runs[i]);
                let (base, candidate): (Vec<f64>, Vec<f64>) = (side(1).collect(), side(0).collect());
                let estimate = unpaired(&base, &candidate, misrate).unwrap();
                misses += u32::from(alarm(&estimate));
                attained = estimate.misrate;
            }
            let expected = attained * splits.len() as f64;
            assert!((f64::from(misses) - expected).abs() < 1e-6, "{n}, {m} at {misrate}: {misses}, not {expected}");
            assert!(attained <= misrate);
            second_opinion_unpaired(&runs[..n], &runs[n..], misrate, attained);
        }
    }
}

fn second_opinion_unpaired(base: &[f64], candidate: &[f64], misrate: f64, attained: f64) {
    let ours = unpaired(base, candidate, misrate).unwrap();
    let bounds = |rate: f64| pragmastat::estimators::raw::shift_bounds(candidate, base, rate, false);
    let theirs = |rate: f64| bounds(rate).unwrap();
    // A hair less, because it adds up quotients; but it refuses less than the least.
    let same = bounds(attained * (1.0 - 1e-12)).unwrap_or_else(|_| theirs(attained));
    assert!((same.lower - ours.low).abs() < 1e-12 && (same.upper - ours.high).abs() < 1e-12, "{same:?} {ours:?}");
    if attained < misrate {
        assert!(theirs(misrate).lower > ours.low && theirs(misrate).upper < ours.high, "{misrate}: {ours:?}");
    }
}

/// The truth is below the median's bounds as often as a fair coin says.
#[test]
fn a_median_of_skewed_runs_lies_within_its_bounds() {
    let [missed] = count(EXPERIMENTS, 95, |rng| {
        let runs: Vec<f64> = (0..20).map(|_| rng.exponential(1.0)).collect();
        let estimate = one_sample(&runs, 0.01).unwrap();
        [estimate.low > 2.0_f64.ln() || estimate.high < 2.0_f64.ln()]
    });
    assert!(missed <= at_most(EXPERIMENTS, 0.01) && missed > 0, "{missed} of {EXPERIMENTS}");
}

/// Mistakes that the tests above would find: each raises far more false alarms than they allow.
mod planted {
    use super::*;

    fn excess(what: &str, alarms: u64, of: u64, rate: f64) {
        println!("{what}: {:.2} % false alarms at {:.2} %", percent(alarms, of), 100.0 * rate);
        assert!(alarms > at_most(of, rate), "{what}: {alarms} of {of} pass for {rate}");
    }

    /// Why a comparison of runs that were not interleaved is capped.
    #[test]
    fn first_all_of_one_then_all_of_the_other() {
        for noise in [Noise::Drift, Noise::Autocorrelated, Noise::LevelShift] {
            let [alarms] = count(2_000, 100, |rng| {
                let runs = noise.runs(rng, 24);
                [alarm(&unpaired(&runs[..12], &runs[12..], MISRATE).unwrap())]
            });
            assert!(percent(alarms, 2_000) > 10.0, "{noise:?}: {alarms}");
            excess(&format!("sequential, {noise:?}"), alarms, 2_000, MISRATE);
        }
    }

    #[test]
    fn a_fixed_order_without_coins() {
        for (order, noise) in [(ABAB, Noise::Drift), (ABAB, Noise::SlotBias), (ABBA, Noise::SlotBias)] {
            let [alarms] = count(2_000, 101, |rng| {
                let runs = noise.runs(rng, 4 * 12);
                [alarm(&paired(&differences(&runs, &[order; 12], 0.0), MISRATE).unwrap())]
            });
            excess(&format!("{order:?}, {noise:?}"), alarms, 2_000, MISRATE);
        }
    }

    /// Ten blocks at 0.2 %: the crate's bounds are those of 0.39 %.
    #[test]
    fn bounds_one_rank_further_in() {
        let misrate = 0.01 / 5.0;
        let [ours, theirs] = count(EXPERIMENTS, 102, |rng| {
            let values = experiment(Noise::LogNormal, rng, 10, 0.0);
            let crate_s = pragmastat::estimators::raw::center_bounds(&values, misrate, false).unwrap();
            [alarm(&paired(&values, misrate).unwrap()), crate_s.lower > 0.0 || crate_s.upper < 0.0]
        });
        assert!(ours <= at_most(EXPERIMENTS, misrate), "{ours}");
        excess("pragmastat, ten blocks", theirs, EXPERIMENTS, misrate);
    }

    /// Each gate at 1 % instead of a quarter of it.
    #[test]
    fn four_gates_without_sharing_the_rate() {
        let [alarms] = count(4_000, 103, |rng| {
            let mut gate = || alarm(&paired(&values(rng, 12), 0.01).unwrap());
            [[gate(), gate(), gate(), gate()].contains(&true)]
        });
        excess("four gates at 1 % each", alarms, 4_000, 0.01);
    }

    /// What a comparison could see, by its standard deviation: a stalled run widens the interval more than that.
    #[test]
    fn visible_by_the_standard_deviation() {
        let multiple = multiple(Shape::Paired { blocks: 16 }, MISRATE).unwrap();
        let [found, by_interval] = count(4_000, 105, |rng| {
            let values = experiment(Noise::Outliers, rng, 16, 0.0);
            let estimate = paired(&values, MISRATE).unwrap();
            let is_found = |visible: f64| moved(&estimate, visible * (1.0 + 1e-9)).low > 0.0;
            [is_found(multiple * spread(&values)), is_found(estimate.reach)]
        });
        println!("by deviation {:.1} % found, by interval {:.1} %", percent(found, 4_000), percent(by_interval, 4_000));
        assert!(percent(found, 4_000) < 80.0 && percent(by_interval, 4_000) >= 90.0, "{found}, {by_interval}");
    }

    /// The t approximation's smallest visible change for ten blocks.
    #[test]
    fn power_by_the_t_distribution() {
        let [found] = count(4_000, 104, |rng| {
            let estimate = paired(&experiment(Noise::LogNormal, rng, 10, 1.8 * SIGMA), MISRATE).unwrap();
            [estimate.low > 0.0]
        });
        assert!(percent(found, 4_000) < 80.0, "{found}");
    }
}
