//! Seeded randomness: the same seed gives the same run.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound` (`bound` > 0), by multiply-shift; the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in (0, 1], in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed, by inversion.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_values_are_those_of_the_reference_implementation() {
        let mut rng = Rng::new(1234567);
        assert_eq!(rng.next_u64(), 6457827717110365317);
        assert_eq!(rng.next_u64(), 3203168211198807973);
    }

    #[test]
    fn exponential_values_have_their_mean_and_median() {
        let mut rng = Rng::new(3);
        let mut values: Vec<f64> = (0..100_000).map(|_| rng.exponential(2.0)).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        values.sort_unstable_by(f64::total_cmp);
        // The standard errors are 2 / sqrt(1e5) = 0.0063, of the mean and of the median alike.
        assert!((mean - 2.0).abs() < 0.02 && (values[50_000] - 2.0 * 2.0_f64.ln()).abs() < 0.02, "{mean}");
        assert!(values[0] >= 0.0 && (0..1000).all(|_| (0.0..=1.0).contains(&rng.unit())));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert!(seen.iter().all(|s| *s));
    }

    #[test]
    fn unit_is_uniform_above_zero_and_up_to_one() {
        let mut rng = Rng::new(3);
        let values: Vec<f64> = (0..100_000).map(|_| rng.unit()).collect();
        assert!(values.iter().all(|u| *u > 0.0 && *u <= 1.0));
        // The standard error of the mean is 0.0009, of a tenth's share as much.
        let mean = values.iter().sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.004, "{mean}");
        for tenth in 0..10 {
            let inside = |u: &&f64| (**u * 10.0).ceil() as i32 == tenth + 1;
            let share = values.iter().filter(inside).count() as f64 / 1e5;
            assert!((share - 0.1).abs() < 0.004, "{tenth}: {share}");
        }
    }
}
