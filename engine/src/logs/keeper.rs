//! Makes lines of what was read, and says where they go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ipc::mark::find_mark;

use super::line::{Escaped, Line, Origin, Stream, decode};
use super::splitter::{RawLine, Splitter};
use super::{FunctionLog, Logs, State};

/// Between two notices of a function's dropped lines.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// One stream of one container, as far as it has been read.
#[derive(Debug)]
pub(super) struct Source {
    log: Arc<FunctionLog>,
    origin: Origin,
    splitter: Splitter,
}

/// See the module's description. Its lines are seen when they are published.
#[derive(Debug)]
pub(super) struct Keeper {
    logs: Logs,
    /// Of the last line.
    sequence: u64,
    /// Lines that are in their rings and not published.
    fresh: Vec<Arc<Line>>,
    /// Functions with dropped lines, and when to tell of them.
    untold: Vec<(Instant, Arc<FunctionLog>, Origin)>,
}

impl Source {
    pub(super) fn new(log: Arc<FunctionLog>, origin: Origin) -> Self {
        Self { log, origin, splitter: Splitter::default() }
    }

    /// Whether both are of the same function.
    pub(super) fn is_sibling_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.log, &other.log)
    }
}

impl Keeper {
    pub(super) fn new(logs: Logs) -> Self {
        Self { logs, sequence: 0, fresh: Vec::new(), untold: Vec::new() }
    }

    /// Keeps the lines that end in what was read, as many as the function may have.
    pub(super) fn take_in(&mut self, source: &mut Source, mut chunk: &[u8], now: Instant) {
        let log = Arc::clone(&source.log);
        let mut state = log.state();
        loop {
            if !state.bucket.has_token(now) {
                let skipped = source.splitter.skip(chunk);
                return self.drop_lines(source, &mut state, skipped, now);
            }
            let origin = source.origin;
            let Some(raw) = source.splitter.next(&mut chunk) else { return };
            state.bucket.take();
            log.kept.fetch_add(1, Ordering::Relaxed);
            self.keep(&log, &mut state, origin, raw);
        }
    }

    /// The stream has ended. Its last words are kept whatever the rate: those that were dropped, as few
    /// as they are, and a line that lacks its newline.
    pub(super) fn end(&mut self, mut source: Source) {
        let log = Arc::clone(&source.log);
        let mut state = log.state();
        let origin = source.origin;
        let words = source.splitter.last_words();
        if !words.is_empty() {
            state.untold = state.untold.saturating_sub(words.len() as u64);
            self.untold.retain(|(_, other, _)| !Arc::ptr_eq(other, &log));
            self.notice(&log, &mut state, origin);
        }
        for word in &words {
            self.keep(&log, &mut state, origin, RawLine { bytes: word, omitted: 0 });
        }
        if let Some(raw) = source.splitter.rest() {
            log.kept.fetch_add(1, Ordering::Relaxed);
            self.keep(&log, &mut state, origin, raw);
        }
    }

    /// When there is something to tell.
    pub(super) fn notice_at(&self) -> Option<Instant> {
        // They were put in one by one, each as long before its time.
        self.untold.first().map(|(at, ..)| *at)
    }

    /// Tells of lines that were dropped, where it is time to.
    pub(super) fn tell_dropped(&mut self, now: Instant) {
        let due = self.untold.partition_point(|(at, ..)| *at <= now);
        for (_, log, origin) in self.untold.drain(..due).collect::<Vec<_>>() {
            self.notice(&log, &mut log.state(), origin);
        }
    }

    /// The same of all functions, at the end.
    pub(super) fn tell_all_dropped(&mut self) {
        if let Some((at, ..)) = self.untold.last() {
            self.tell_dropped(*at);
        }
    }

    /// Lets everybody see the new lines, and writes them into the engine's own log.
    pub(super) fn publish(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        self.logs.publish(self.sequence);
        for line in self.fresh.drain(..) {
            tell(&line);
        }
    }

    fn keep(
        &mut self,
        log: &Arc<FunctionLog>,
        state: &mut State,
        origin: Origin,
        raw: RawLine<'_>,
    ) {
        let mut push = |request_id: Option<&str>, raw| {
            let (text, cut) = decode(raw);
            self.push(state, |sequence| Line {
                sequence,
                time: SystemTime::now(),
                function: Arc::clone(&log.name),
                origin,
                request_id: request_id.map(str::to_owned),
                text,
                cut,
            });
        };
        let Some(marked) = find_mark(raw.bytes) else { return push(None, raw) };
        if !marked.before.is_empty() {
            push(None, RawLine { bytes: marked.before, omitted: 0 });
        }
        push(Some(marked.request_id), RawLine { bytes: marked.text, ..raw });
    }

    /// Tells how many lines were dropped since that was last told, if any were.
    fn notice(&mut self, log: &FunctionLog, state: &mut State, origin: Origin) {
        let (count, rate) = (std::mem::take(&mut state.untold), state.bucket.rate());
        if count == 0 {
            return;
        }
        let text = format!("{count} lines were dropped: log_rate allows {rate} a second");
        self.push(state, |sequence| Line {
            sequence,
            time: SystemTime::now(),
            function: Arc::clone(&log.name),
            origin: Origin { stream: Stream::Notice, ..origin },
            request_id: None,
            text,
            cut: 0,
        });
    }

    fn push(&mut self, state: &mut State, line: impl FnOnce(u64) -> Line) {
        self.sequence += 1;
        let line = Arc::new(line(self.sequence));
        state.ring.push(Arc::clone(&line));
        self.fresh.push(line);
    }

    fn drop_lines(&mut self, source: &Source, state: &mut State, count: u64, now: Instant) {
        if count == 0 {
            return;
        }
        source.log.dropped.fetch_add(count, Ordering::Relaxed);
        if state.untold == 0 {
            self.untold.push((now + NOTICE_EVERY, Arc::clone(&source.log), source.origin));
        }
        state.untold += count;
    }
}

/// Writes a line into the engine's own log.
fn tell(line: &Line) {
    let Line { origin, ref request_id, ref text, cut, .. } = *line;
    let Origin { version, generation, stream } = origin;
    let (function, stream) = (&*line.function, stream.as_str());
    let request_id = request_id.as_deref();
    let cut = (cut > 0).then_some(cut);
    let text = Escaped(text);
    tracing::info!(target: "function", function, version, generation, stream, request_id, cut, "{text}");
}

#[cfg(test)]
mod tests {
    use super::super::Counts;
    use super::*;

    struct Bench {
        logs: Logs,
        keeper: Keeper,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let logs = Logs::default();
            Self { keeper: Keeper::new(logs.clone()), logs, start: Instant::now() }
        }

        fn source(&self, function: &str, rate: u32, stream: Stream) -> Source {
            let log = self.logs.open(function, rate, self.start);
            Source::new(log, Origin { version: 1, generation: 1, stream })
        }

        fn after(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn texts(&mut self, function: &str) -> Vec<String> {
            self.keeper.publish();
            let batch = self.logs.read(Some(function), None).unwrap();
            batch.lines.iter().map(|line| line.text.clone()).collect()
        }
    }

    #[test]
    fn what_is_beyond_the_rate_is_dropped_counted_and_told_once_a_second() {
        let mut bench = Bench::new();
        let mut source = bench.source("f", 2, Stream::Stdout);
        bench.keeper.take_in(&mut source, b"1\n2\n3\n4\n5\nrest", bench.after(0));
        bench.keeper.take_in(&mut source, b" of 6\n7\n", bench.after(10));
        assert_eq!(bench.texts("f"), ["1", "2"]);
        assert_eq!(bench.logs.counts("f"), Counts { kept: 2, dropped: 5 });
        assert_eq!(bench.keeper.notice_at(), Some(bench.after(1_000)));
        bench.keeper.tell_dropped(bench.after(999));
        assert_eq!(bench.texts("f").len(), 2);
        bench.keeper.tell_dropped(bench.after(1_000));
        bench.keeper.take_in(&mut source, b"8\n", bench.after(1_000));
        let notice = "5 lines were dropped: log_rate allows 2 a second";
        assert_eq!(bench.texts("f"), ["1", "2", notice, "8"]);
        assert_eq!(bench.keeper.notice_at(), None);
    }

    #[test]
    fn both_streams_share_the_rate_and_functions_do_not() {
        let mut bench = Bench::new();
        let mut out = bench.source("f", 3, Stream::Stdout);
        let mut err = bench.source("f", 3, Stream::Stderr);
        let mut other = bench.source("g", 3, Stream::Stdout);
        bench.keeper.take_in(&mut out, b"1\n2\n", bench.start);
        bench.keeper.take_in(&mut err, b"3\n4\n", bench.start);
        bench.keeper.take_in(&mut other, b"5\n6\n", bench.start);
        assert_eq!(bench.texts("f"), ["1", "2", "3"]);
        assert_eq!(bench.texts("g"), ["5", "6"]);
        let all = bench.logs.read(None, None).unwrap();
        let sequences: Vec<_> = all.lines.iter().map(|line| line.sequence).collect();
        assert_eq!((sequences, all.last), (vec![1, 2, 3, 4, 5], 5));
    }

    #[test]
    fn the_last_words_are_kept_behind_the_word_of_those_that_were_not() {
        let mut bench = Bench::new();
        let mut source = bench.source("f", 1, Stream::Stderr);
        let lines: String = (1..=100).map(|n| format!("{n}\n")).collect();
        bench.keeper.take_in(&mut source, format!("{lines}end").as_bytes(), bench.start);
        bench.keeper.end(source);
        let texts = bench.texts("f");
        let last: Vec<_> = (81..=100).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
        assert_eq!(texts[..2], ["1", "79 lines were dropped: log_rate allows 1 a second"]);
        assert_eq!(texts[2..], last);
        assert_eq!(bench.keeper.notice_at(), None);
    }

    #[test]
    fn marks_are_taken_off_and_split_the_line_they_are_in() {
        let mut bench = Bench::new();
        let mut source = bench.source("f", 10, Stream::Stderr);
        let mut output = b"half".to_vec();
        ipc::mark::write_marked(b"id-1", b"one\ntwo", &mut output);
        bench.keeper.take_in(&mut source, &output, bench.start);
        bench.keeper.publish();
        let batch = bench.logs.read(Some("f"), None).unwrap();
        let lines = batch.lines.iter().map(|line| (line.request_id.as_deref(), &*line.text));
        let expected = [(None, "half"), (Some("id-1"), "one"), (Some("id-1"), "two")];
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn who_reads_too_late_is_told_of_the_gap() {
        let mut bench = Bench::new();
        let mut source = bench.source("f", 100_000, Stream::Stdout);
        bench.keeper.take_in(&mut source, b"0\n", bench.start);
        bench.keeper.publish();
        let seen = bench.logs.read(None, None).unwrap().last;
        let lines: String = (1..=1_500).map(|n| format!("{n}\n")).collect();
        bench.keeper.take_in(&mut source, lines.as_bytes(), bench.start);
        bench.keeper.publish();
        let batch = bench.logs.read(None, Some(seen)).unwrap();
        assert_eq!((batch.lines.len(), batch.last), (1_001, 1_501));
        assert_eq!(batch.lines[0].origin.stream, Stream::Notice);
        assert_eq!(batch.lines[1].text, "501");
        assert!(bench.logs.read(None, Some(batch.last)).unwrap().lines.is_empty());
    }

    #[test]
    fn a_function_that_is_forgotten_is_unknown_until_it_comes_again() {
        let mut bench = Bench::new();
        let mut source = bench.source("f", 10, Stream::Stdout);
        bench.keeper.take_in(&mut source, b"1\n", bench.start);
        assert_eq!(bench.texts("f"), ["1"]);
        bench.logs.forget("f");
        assert!(bench.logs.read(Some("f"), None).is_none());
        bench.keeper.take_in(&mut source, b"2\n", bench.start);
        let _next = bench.source("f", 10, Stream::Stdout);
        assert_eq!(bench.texts("f"), [] as [&str; 0]);
    }
}
