//! In which order the arms of a block run. Pure.
//!
//! A drawn permutation, and then the same backwards: with two arms `A B B A` or `B A A B`, by a fair coin. Whatever
//! drifts evenly through a block meets all arms alike. And if two arms are the same program, exchanging their names in
//! the draw only turns the sign of the block's difference: so the comparison's false alarms are bounded by the draws
//! themselves, whatever the noise is like (docs/compare.md).

use loadgen_core::rng::Rng;

/// The arms, by their place in the list, of one block.
pub fn block(arms: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..arms).collect();
    // Fisher and Yates: every permutation is as likely as any other.
    for last in (1..arms).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let backwards: Vec<usize> = order.iter().rev().copied().collect();
    order.extend(backwards);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_order_is_as_likely_as_any_other_and_reads_the_same_backwards() {
        for (arms, orders) in [(2, 2), (3, 6)] {
            let mut rng = Rng::new(4);
            let mut seen: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
            for _ in 0..6_000 {
                let order = block(arms, &mut rng);
                assert!(order.iter().eq(order.iter().rev()), "{order:?}");
                assert!((0..arms).all(|arm| order.iter().filter(|a| **a == arm).count() == 2), "{order:?}");
                *seen.entry(order).or_default() += 1;
            }
            assert_eq!(seen.len(), orders);
            let expected = 6_000.0 / orders as f64;
            // Five standard deviations.
            assert!(seen.values().all(|n| (f64::from(*n) - expected).abs() < 5.0 * expected.sqrt()), "{seen:?}");
        }
    }
}
