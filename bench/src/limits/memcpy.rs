//! Copies of one size between two buffers that nobody else uses: what a payload costs at least.

use std::hint::black_box;

use crate::case::{self, Case, Error, Rounds};
use crate::page_buffer::PageBuffer;
use crate::process::Placement;
use crate::sample::Sample;

/// Bytes.
const SIZES: [usize; 8] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Bytes that are copied between two looks at the clock, so that a look is nothing beside them.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a case at most.
const BYTES_MAX: usize = 2 << 30;
/// How far the destination lies behind the source, as places within their pages. Allocators put
/// large buffers there; AMD's `rep movsb` takes many times as long for it.
const SKEW: usize = 16;
const SKEW_SIZE: usize = 64 << 10;

pub(super) fn cases() -> Vec<Case> {
    let case = |size, skew, name: &str, title: &str| {
        let (name, title) =
            (format!("limits/memcpy_{size}{name}"), format!("memcpy, {size} B{title}"));
        Case::new(name, title, move |case, rounds| measure(case, rounds, size, skew))
    };
    let mut cases: Vec<Case> = SIZES.iter().map(|&size| case(size, 0, "", "")).collect();
    cases.push(case(SKEW_SIZE, SKEW, "_skewed", ", 16 B further into its page"));
    cases
}

fn measure(case: &str, rounds: Rounds, size: usize, skew: usize) -> Result<Sample, Error> {
    let [seat, _] = Placement::SameCore.seats()?;
    let _seated = seat.take()?;
    let (mut from, mut to) = (PageBuffer::new(size), PageBuffer::new(size + skew));
    from.resize(size);
    to.resize(size + skew);
    let (from, to) = (from.bytes(), &mut to.bytes_mut()[skew..]);
    let copies = BATCH_BYTES / size;
    let values_max = u32::try_from(BYTES_MAX / BATCH_BYTES).unwrap_or(u32::MAX);
    let batches = Rounds(rounds.0.min(values_max)).time(|| {
        for _ in 0..copies {
            to.copy_from_slice(black_box(from));
            black_box(&mut *to);
        }
        Ok(())
    })?;
    let mut each = case::histogram();
    for batch in batches.iter_recorded() {
        let ns = batch.value_iterated_to() / copies as u64;
        each.saturating_record_n(ns, batch.count_at_value());
    }
    let mut sample = Sample::new(case, &each);
    // The sample's times are whole nanoseconds, too coarse for the smallest; these are medians too.
    let ns = batches.value_at_quantile(0.5) as f64 / copies as f64;
    sample.extra.insert("ns".into(), ns);
    sample.extra.insert("gb_per_s".into(), size as f64 / ns);
    Ok(sample)
}
