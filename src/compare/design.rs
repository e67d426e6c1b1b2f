//! How the runs of a comparison were taken, as their own records tell.

use super::schema::Design;
use crate::result::Report;

/// Paired blocks only if all are of one comparison by `ab`; else by the times at which they began.
pub fn design(base: &[&Report], candidate: &[&Report]) -> Design {
    let comparison = |run: &&Report| run.ab.as_ref().map(|ab| ab.session.clone());
    let mut comparisons = base.iter().chain(candidate).map(comparison);
    if let Some(Some(first)) = comparisons.next()
        && comparisons.all(|other| other.as_ref() == Some(&first))
    {
        return Design::PairedBlocks;
    }
    let mut times: Vec<(&str, bool)> = base.iter().map(|run| (run.started_at.as_str(), false)).collect();
    times.extend(candidate.iter().map(|run| (run.started_at.as_str(), true)));
    // RFC 3339 in UTC with a fixed number of digits sorts as text does.
    times.sort_unstable();
    let switches = times.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    // `A B B A` and `A B A B` switch at least as often as the smaller side has runs.
    if switches > 1 && switches >= base.len().min(candidate.len()) { Design::Interleaved } else { Design::Sequential }
}

/// The runs of one block of both arms: (base, candidate).
pub type Block<'a> = (Vec<&'a Report>, Vec<&'a Report>);

/// Blocks in their order; those that have runs of both sides.
pub fn blocks<'a>(base: &[&'a Report], candidate: &[&'a Report]) -> Vec<Block<'a>> {
    let mut blocks: std::collections::BTreeMap<u64, Block<'a>> = std::collections::BTreeMap::new();
    for run in base {
        let Some(ab) = &run.ab else { continue };
        blocks.entry(ab.block).or_default().0.push(run);
    }
    for run in candidate {
        let Some(ab) = &run.ab else { continue };
        blocks.entry(ab.block).or_default().1.push(run);
    }
    blocks.into_values().filter(|(base, candidate)| !base.is_empty() && !candidate.is_empty()).collect()
}
