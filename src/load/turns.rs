//! Whose turn it is: connections are shared out among targets by weight, and those of each target among its addresses.
//!
//! A connection has a number among those of all workers of all shards, and that says where it goes: so the shares are
//! the same however many threads and processes there are. Pure.

use std::sync::Arc;

/// Where connection n goes, for any n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Targets by turn; then it begins anew.
    order: Arc<[u16]>,
    /// How many turns its target has had before in `order`.
    before: Arc<[u32]>,
    of_targets: Arc<[Share]>,
}

/// What belongs to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Its addresses, by their numbers among those of all targets.
    addresses: Vec<u16>,
    /// Its turns in `order`.
    turns: u64,
}

impl Turns {
    /// `of`: for each address the target that it belongs to; `weights`: of each target.
    pub fn new(of: impl Iterator<Item = usize>, weights: &[u32]) -> Self {
        let mut of_targets = vec![Share::default(); weights.len().max(1)];
        of.zip(0..).for_each(|(target, address)| of_targets[target].addresses.push(address));
        let order = order(weights);
        let mut before = Vec::with_capacity(order.len());
        for target in &order {
            let turns = &mut of_targets[usize::from(*target)].turns;
            before.push(*turns as u32);
            *turns += 1;
        }
        Self { order: order.into(), before: before.into(), of_targets: of_targets.into() }
    }

    /// Targets by turn, each as often as its weight asks.
    pub fn order(&self) -> &Arc<[u16]> {
        &self.order
    }

    /// Which target a connection goes to.
    #[inline]
    pub fn target(&self, connection: u64) -> usize {
        usize::from(self.order[(connection % self.order.len() as u64) as usize])
    }

    /// Which address: those of its target take turns.
    pub fn address(&self, connection: u64) -> usize {
        let cycle = self.order.len() as u64;
        let turn = (connection % cycle) as usize;
        let share = &self.of_targets[usize::from(self.order[turn])];
        let before = connection / cycle * share.turns + u64::from(self.before[turn]);
        usize::from(share.addresses[(before % share.addresses.len() as u64) as usize])
    }

    /// How many of the first `connections` go to an address.
    pub fn share(&self, address: usize, connections: u64) -> u64 {
        let position = |share: &Share| share.addresses.iter().position(|one| usize::from(*one) == address);
        let Some((target, at)) =
            (0..).zip(&*self.of_targets).find_map(|(target, share)| Some((target, position(share)?)))
        else {
            return 0;
        };
        let (cycle, share) = (self.order.len() as u64, &self.of_targets[usize::from(target)]);
        let rest = &self.order[..(connections % cycle) as usize];
        let theirs = connections / cycle * share.turns + rest.iter().filter(|turn| **turn == target).count() as u64;
        let addresses = share.addresses.len() as u64;
        theirs / addresses + u64::from((at as u64) < theirs % addresses)
    }
}

/// Targets one after the other, so that shares are kept as well as they can be at any length (smooth weighted round
/// robin, as nginx has it since 1.3.1). After so many turns as the weights add up to, it begins anew.
fn order(weights: &[u32]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut current = vec![0; weights.len()];
    let mut turn = || {
        current.iter_mut().zip(&weights).for_each(|(current, weight)| *current += weight);
        let best = (0..current.len()).rev().max_by_key(|at| current[*at]).unwrap_or(0);
        if let Some(best) = current.get_mut(best) {
            *best -= total;
        }
        best as u16
    };
    (0..total.max(1)).map(|_| turn()).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets with so many addresses each.
    fn turns(addresses: &[usize], weights: &[u32]) -> Turns {
        let of = addresses.iter().enumerate().flat_map(|(target, count)| std::iter::repeat_n(target, *count));
        Turns::new(of, weights)
    }

    fn counts(of: impl Iterator<Item = usize>, len: usize) -> Vec<u64> {
        let mut counts = vec![0; len];
        of.for_each(|one| counts[one] += 1);
        counts
    }

    #[test]
    fn turns_are_spread_by_weight() {
        assert_eq!(order(&[1]), [0]);
        assert_eq!(order(&[7, 7]), [0, 1]);
        assert_eq!(order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[300, 100]), [0, 0, 1, 0]);
    }

    #[test]
    fn a_target_has_its_share_whatever_the_number_of_its_addresses() {
        for (addresses, weights, connections, expected) in [
            (&[4, 4][..], &[1, 1][..], 4, &[2, 2][..]),
            (&[4, 4], &[1, 3], 4, &[1, 3]),
            (&[1, 4], &[1, 3], 4, &[1, 3]),
            (&[7, 3], &[1, 1], 10, &[5, 5]),
            (&[3, 1, 2], &[1, 2, 1], 9, &[2, 5, 2]),
            (&[200, 199, 198, 197, 193], &[1; 5], 10, &[2; 5]),
            (&[64; 8], &[1; 8], 16, &[2; 8]),
        ] {
            let turns = turns(addresses, weights);
            let shares = counts((0..connections).map(|n| turns.target(n)), weights.len());
            assert_eq!(shares, expected, "{addresses:?} {weights:?}");
        }
    }

    /// At every number, also where they are counted over threads and shards: within one connection of the weight's
    /// share, and the addresses of a target within one of each other.
    #[test]
    fn shares_are_as_even_as_can_be_at_any_number() {
        for (addresses, weights) in [
            (&[4, 4][..], &[1, 1][..]),
            (&[2, 3], &[1, 3]),
            (&[5, 1, 4], &[1, 1, 1]),
            (&[7, 6], &[10, 4]),
            (&[1, 9], &[1000, 1]),
        ] {
            let (turns, total) = (turns(addresses, weights), f64::from(weights.iter().sum::<u32>()));
            for connections in 1..300_u64 {
                let targets = counts((0..connections).map(|n| turns.target(n)), weights.len());
                for (share, weight) in targets.iter().zip(weights) {
                    let exact = connections as f64 * f64::from(*weight) / total;
                    assert!(
                        (*share as f64 - exact).abs() <= 1.0,
                        "{addresses:?} {weights:?} {connections} {targets:?}"
                    );
                }
                let all = addresses.iter().sum();
                let each = counts((0..connections).map(|n| turns.address(n)), all);
                assert_eq!(each, (0..all).map(|one| turns.share(one, connections)).collect::<Vec<_>>());
                let mut first = 0;
                for (count, share) in addresses.iter().zip(&targets) {
                    let own = &each[first..first + count];
                    assert_eq!(own.iter().sum::<u64>(), *share);
                    assert!(own.iter().max().unwrap() - own.iter().min().unwrap() <= 1, "{own:?}");
                    first += count;
                }
            }
        }
    }

    /// Many targets with large weights: even the lightest has its turn.
    #[test]
    fn no_target_is_forgotten() {
        let weights: Vec<u32> = std::iter::once(1).chain(std::iter::repeat_n(1000, 30)).collect();
        let turns = turns(&[3; 31], &weights);
        let shares = counts(turns.order().iter().map(|target| usize::from(*target)), 31);
        assert_eq!(shares, weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>());
    }
}
