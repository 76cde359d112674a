//! Response times in buckets, and percentiles from them.
//!
//! Bucket k holds the times above 2^((k-1)/8) µs and up to 2^(k/8) µs; bucket 0 all below. The
//! database puts times into buckets (`response_time_bucket` in sql/006_rollups.sql).

use std::collections::BTreeMap;

/// Buckets by a factor of two.
const PER_DOUBLING: f64 = 8.0;

/// How many response times are in which bucket. Merging two is adding, so any hours, days, regions
/// and sites go together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<i16, u64>,
}

impl Histogram {
    /// Largest relative difference between a percentile from here and the exact one: half a bucket,
    /// 2^(1/16) - 1.
    pub const ERROR_MAX: f64 = 0.0443;

    /// Adds `counts` by `buckets`, as the tables have them. Negative counts count as none.
    pub fn add(&mut self, buckets: &[i16], counts: &[i32]) {
        for (bucket, count) in buckets.iter().zip(counts) {
            *self.counts.entry(*bucket).or_default() += u64::try_from(*count).unwrap_or_default();
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The time, in seconds, that the part `q` of all does not exceed: 0.95 for the 95th percentile
    /// by nearest rank. The middle of its bucket, so at most [`Histogram::ERROR_MAX`] off. Absent
    /// when there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        // A count of checks: far below 2^53.
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(bucket, _)| 1e-6 * ((f64::from(*bucket) - 0.5) / PER_DOUBLING).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_bucket_is_near_both_ends() {
        let ends = (1.0 / PER_DOUBLING).exp2();
        let middle = (0.5 / PER_DOUBLING).exp2();
        assert!(middle - 1.0 < Histogram::ERROR_MAX && 1.0 - middle / ends < Histogram::ERROR_MAX);
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        // 0.5 ms to 1 ms is between buckets 72 and 80.
        histogram.add(&[72, 80], &[1, 1]);
        histogram.add(&[80, 90], &[1, 1]);
        assert_eq!(histogram.count(), 4);
        let bucket = |q: f64| {
            let us = histogram.quantile(q).unwrap() * 1e6;
            (us.log2() * PER_DOUBLING + 0.5).round()
        };
        assert_eq!([0.0, 0.25, 0.26, 0.75, 0.76, 1.0].map(bucket), [72., 72., 80., 80., 90., 90.]);
    }
}
