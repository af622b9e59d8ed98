//! Cuts a container's output into lines.
//!
//! Lines are the same however the bytes come in chunks. Of a line that is too long the beginning is
//! kept and the rest counted, so that no output takes more memory than one line.

/// Longest line in bytes, without its newline. More than two screens of text.
pub(super) const LINE_SIZE_MAX: usize = 8 << 10;
/// What is remembered of lines that were passed over, in bytes of the last of them.
const TAIL_SIZE_MAX: usize = 4 << 10;
/// Most of them that are given in the end: a message and a short backtrace.
const LAST_WORDS_MAX: usize = 20;

/// The line that has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    kept: Vec<u8>,
    omitted: u64,
    /// Whether what is kept has been given away.
    is_given: bool,
    /// The last lines that were passed over since one was given, with their newlines.
    tail: Vec<u8>,
    /// Whether the beginning of the first of them is gone.
    is_tail_cut: bool,
}

/// A line without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawLine<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes that were behind `bytes`.
    pub(super) omitted: u64,
}

impl Splitter {
    /// The next line that ends in `chunk`, which loses what belongs to it. `None`: nothing is left of
    /// the chunk.
    pub(super) fn next(&mut self, chunk: &mut &[u8]) -> Option<RawLine<'_>> {
        self.begin_if_given();
        let Some(end) = chunk.iter().position(|byte| *byte == b'\n') else {
            self.keep(std::mem::take(chunk));
            return None;
        };
        self.keep(&chunk[..end]);
        *chunk = &chunk[end + 1..];
        Some(self.give())
    }

    /// Passes over every line that ends in `chunk`, and says how many those were: much faster than
    /// line by line.
    pub(super) fn skip(&mut self, chunk: &[u8]) -> u64 {
        let Some(last) = chunk.iter().rposition(|byte| *byte == b'\n') else {
            self.begin_if_given();
            self.keep(chunk);
            return 0;
        };
        let (ended, begun) = chunk.split_at(last + 1);
        self.begin_if_given();
        let first = std::mem::take(&mut self.kept);
        self.remember(&first);
        self.remember(ended);
        self.omitted = 0;
        self.keep(begun);
        ended.iter().map(|byte| u64::from(*byte == b'\n')).sum()
    }

    /// The last lines that were passed over, if none was given after them.
    pub(super) fn last_words(&mut self) -> Vec<Vec<u8>> {
        let tail = std::mem::take(&mut self.tail);
        let mut lines: Vec<_> = tail.split_inclusive(|byte| *byte == b'\n').collect();
        if self.is_tail_cut && !lines.is_empty() {
            lines.remove(0);
        }
        let last = &lines[lines.len().saturating_sub(LAST_WORDS_MAX)..];
        last.iter().map(|line| line[..line.len() - 1].to_vec()).collect()
    }

    /// The line that never ended, if there is one.
    pub(super) fn rest(&mut self) -> Option<RawLine<'_>> {
        self.begin_if_given();
        (!self.kept.is_empty()).then(|| self.give())
    }

    fn give(&mut self) -> RawLine<'_> {
        self.is_given = true;
        self.tail.clear();
        self.is_tail_cut = false;
        RawLine { bytes: &self.kept, omitted: self.omitted }
    }

    fn begin_if_given(&mut self) {
        if std::mem::take(&mut self.is_given) {
            self.kept.clear();
            self.omitted = 0;
        }
    }

    fn remember(&mut self, skipped: &[u8]) {
        let new = &skipped[skipped.len().saturating_sub(TAIL_SIZE_MAX)..];
        let excess = (self.tail.len() + new.len()).saturating_sub(TAIL_SIZE_MAX);
        self.is_tail_cut |= excess > 0 || new.len() < skipped.len();
        self.tail.drain(..excess);
        self.tail.extend_from_slice(new);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_SIZE_MAX - self.kept.len();
        let (kept, omitted) = bytes.split_at(bytes.len().min(room));
        self.kept.extend_from_slice(kept);
        self.omitted += omitted.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Line = (Vec<u8>, u64);

    fn owned(line: RawLine<'_>) -> Line {
        (line.bytes.to_vec(), line.omitted)
    }

    /// All of it at once, the simplest way.
    fn model(output: &[u8]) -> Vec<Line> {
        let mut lines: Vec<_> = output
            .split(|byte| *byte == b'\n')
            .map(|line| {
                let kept = &line[..line.len().min(LINE_SIZE_MAX)];
                (kept.to_vec(), (line.len() - kept.len()) as u64)
            })
            .collect();
        if lines.last().is_some_and(|(line, _)| line.is_empty()) {
            lines.pop();
        }
        lines
    }

    /// Short lines, long ones, and a few newlines in a row.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b"\n".to_vec()),
            4 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => (LINE_SIZE_MAX - 2..LINE_SIZE_MAX + 3).prop_map(|size| vec![b'x'; size]),
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            output in output(),
            sizes in proptest::collection::vec(1_usize..9_000, 1..20),
        ) {
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            let mut left = &output[..];
            for size in sizes.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (mut chunk, rest) = left.split_at(left.len().min(*size));
                left = rest;
                while let Some(line) = splitter.next(&mut chunk) {
                    lines.push(owned(line));
                }
                prop_assert!(chunk.is_empty());
            }
            lines.extend(splitter.rest().map(owned));
            prop_assert_eq!(splitter.rest(), None);
            prop_assert_eq!(lines, model(&output));
        }

        #[test]
        fn lines_that_are_skipped_are_counted_and_change_no_other(
            output in output(),
            steps in proptest::collection::vec((1_usize..9_000, any::<bool>()), 1..20),
        ) {
            let mut splitter = Splitter::default();
            // In the model's order, without those that were skipped.
            let (mut lines, mut expected) = (Vec::new(), Vec::new());
            let all = model(&output);
            let (mut seen, mut given) = (0, 0);
            let mut left = &output[..];
            for (size, skips) in steps.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (mut chunk, rest) = left.split_at(left.len().min(*size));
                left = rest;
                if *skips {
                    seen += usize::try_from(splitter.skip(chunk)).unwrap();
                    continue;
                }
                while let Some(line) = splitter.next(&mut chunk) {
                    lines.push(owned(line));
                    expected.push(all[seen].clone());
                    seen += 1;
                    given = seen;
                }
            }
            let skipped = &all[given..seen];
            let words: Vec<_> = splitter.last_words().into_iter().map(|word| (word, 0)).collect();
            prop_assert_eq!(&words[..], &skipped[skipped.len() - words.len()..]);
            let last = skipped.last().map(|(line, _)| line.len());
            prop_assert_eq!(words.is_empty(), last.is_none_or(|size| size + 1 > TAIL_SIZE_MAX));
            if let Some(line) = splitter.rest() {
                lines.push(owned(line));
                expected.push(all[seen].clone());
                seen += 1;
            }
            prop_assert_eq!(seen, all.len());
            prop_assert_eq!(lines, expected);
        }
    }
}
