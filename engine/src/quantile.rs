//! Quantiles of what was counted in buckets: an estimate, no finer than the buckets are.

/// The duration, in ns, that the given part of all counted durations does not exceed; `None` if nothing
/// was counted.
///
/// `counts` has one more element than `bounds_ns`, the counts of each bucket for itself. Inside a
/// bucket the durations are taken to be spread evenly, as Prometheus' `histogram_quantile` does it, and
/// those above all bounds to be as long as the last bound.
#[must_use]
pub fn estimate_ns(counts: &[u64], bounds_ns: &[u64], part: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = part.clamp(0.0, 1.0) * total as f64;
    let mut below = 0;
    let mut lower = 0;
    for (&count, &upper) in counts.iter().zip(bounds_ns) {
        if count > 0 && (below + count) as f64 >= rank {
            let inside = (rank - below as f64) / count as f64;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to width"
            )]
            let offset = (inside * (upper - lower) as f64) as u64;
            return Some(lower + offset);
        }
        below += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = [100, 200, 1_000];

    #[test]
    fn of_nothing_there_is_no_quantile() {
        assert_eq!(estimate_ns(&[0; 4], &BOUNDS, 0.5), None);
    }

    #[test]
    fn a_bucket_is_taken_to_be_filled_evenly() {
        assert_eq!(estimate_ns(&[4, 0, 0, 0], &BOUNDS, 0.5), Some(50));
        assert_eq!(estimate_ns(&[2, 2, 0, 0], &BOUNDS, 0.75), Some(150));
        assert_eq!(estimate_ns(&[50, 0, 50, 0], &BOUNDS, 0.51), Some(216));
    }

    #[test]
    fn a_rank_on_the_edge_belongs_to_the_lower_bucket() {
        assert_eq!(estimate_ns(&[1, 0, 1, 0], &BOUNDS, 0.5), Some(100));
        assert_eq!(estimate_ns(&[0, 3, 0, 0], &BOUNDS, 0.0), Some(100));
        assert_eq!(estimate_ns(&[0, 3, 0, 0], &BOUNDS, 1.0), Some(200));
    }

    #[test]
    fn what_exceeds_all_bounds_is_as_long_as_the_last() {
        assert_eq!(estimate_ns(&[1, 0, 0, 9], &BOUNDS, 0.99), Some(1_000));
    }
}
