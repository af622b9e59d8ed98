//! The last lines of one function.

use std::collections::VecDeque;
use std::sync::Arc;

use super::line::Line;

/// Most lines that are kept.
pub(super) const LINES_MAX: usize = 1_000;
/// Most bytes of their text.
pub(super) const SIZE_MAX: usize = 256 << 10;

/// Lines in the order of their sequence; new ones push old ones out.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<Arc<Line>>,
    /// Bytes of text in `lines`.
    size: usize,
    /// Sequence of the last line that was pushed out.
    lost: u64,
}

impl Ring {
    pub(super) fn push(&mut self, line: Arc<Line>) {
        self.size += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.size > SIZE_MAX {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.size -= oldest.text.len();
            self.lost = oldest.sequence;
        }
    }

    /// Lines behind `after` and up to `last`.
    pub(super) fn between(&self, after: u64, last: u64) -> impl Iterator<Item = &Arc<Line>> {
        let begin = self.lines.partition_point(|line| line.sequence <= after);
        self.lines.range(begin..).take_while(move |line| line.sequence <= last)
    }

    /// Sequence of the last line that was pushed out; 0 if none was.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::line::{Origin, Stream};
    use super::*;

    fn line(sequence: u64, size: usize) -> Arc<Line> {
        Arc::new(Line {
            sequence,
            time: SystemTime::UNIX_EPOCH,
            function: "echo".into(),
            origin: Origin { version: 1, generation: 1, stream: Stream::Stdout },
            request_id: None,
            text: "x".repeat(size),
            cut: 0,
        })
    }

    fn sequences(ring: &Ring, after: u64, last: u64) -> Vec<u64> {
        ring.between(after, last).map(|line| line.sequence).collect()
    }

    #[test]
    fn old_lines_make_room_for_new_ones_by_number_and_by_size() {
        let mut ring = Ring::default();
        let count = LINES_MAX as u64;
        for sequence in 1..=count + 7 {
            ring.push(line(sequence, 1));
        }
        assert_eq!((ring.lines.len(), ring.lost()), (LINES_MAX, 7));
        ring.push(line(count + 8, SIZE_MAX));
        assert_eq!((sequences(&ring, 0, u64::MAX), ring.lost()), (vec![count + 8], count + 7));
        ring.push(line(count + 9, 1));
        assert_eq!(sequences(&ring, 0, u64::MAX), [count + 9]);
        assert_eq!(ring.size, 1);
    }

    #[test]
    fn lines_are_found_by_their_sequence_though_others_are_between() {
        let mut ring = Ring::default();
        for sequence in [2, 3, 7, 9] {
            ring.push(line(sequence, 10));
        }
        assert_eq!(sequences(&ring, 0, 9), [2, 3, 7, 9]);
        assert_eq!(sequences(&ring, 3, 8), [7]);
        assert_eq!(sequences(&ring, 4, 9), [7, 9]);
        assert_eq!(sequences(&ring, 9, 20), [] as [u64; 0]);
    }
}
