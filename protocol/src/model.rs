//! The outbox against the reader: whatever is said, in whatever order, and however the bytes are cut on
//! their way, arrives whole and once, and nothing small waits for more than one batch.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ipc::Outcome;
use ipc::engine_side::{SharedBlock, SharedSlice};
use proptest::prelude::*;

use crate::frame::{FRAME_MAX, HEAD_SIZE, Kind};
use crate::lane::{BEGUN_MAX, FRAME_SIZE_MAX, Given};
use crate::message::{AnswerHead, CallHead, FIXED_MAX, Function, Message, Repeat, Started};
use crate::message::{encode_functions, parse_functions};
use crate::outbox::{BATCH_MAX, Bodies, Body, Outbox};
use crate::reader::{Limits, PARTIAL_MAX, Reader};
use crate::side::Side;

/// Payloads of the models.
const PAYLOAD_MAX: u32 = 4 << 20;

/// What happens to an outbox.
#[derive(Clone, Debug)]
enum Step {
    /// A call or an answer with a body of that size.
    Say(usize),
    /// A list of so many functions; none to an engine.
    Functions(usize),
    /// One of the streams that were said is taken back.
    Cancel(prop::sample::Index),
    /// A batch leaves, and arrives in pieces of at most so many bytes.
    Give(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        4 => 0..200_usize,
        2 => FRAME_MAX - FIXED_MAX - 2..FRAME_MAX + 2,
        3 => 0..200_000_usize,
        1 => (1 << 20) - 2..3_usize << 20,
    ];
    prop_oneof![
        5 => size.prop_map(Step::Say),
        1 => prop_oneof![0..10_usize, 300..500_usize].prop_map(Step::Functions),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        4 => prop_oneof![1..100_usize, 1..40_000_usize].prop_map(Step::Give),
    ]
}

/// Bytes that differ by stream and by place.
fn body(stream: u64, size: usize) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut word = 1_u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[0]
        };
        (0..PAYLOAD_MAX).map(|_| next()).collect()
    });
    let from = usize::try_from(stream).unwrap() * 7_919 % (NOISE.len() - size);
    NOISE[from..from + size].to_vec()
}

fn slice(bytes: Vec<u8>) -> SharedSlice {
    SharedBlock::from_bytes(bytes, 0).whole()
}

fn call_head(size: usize) -> CallHead {
    let payload_size = u32::try_from(size).unwrap();
    CallHead { function: 7, timeout_ns: 1, envelope_size: 0, payload_size }
}

fn answer_head(size: usize) -> AnswerHead {
    AnswerHead {
        outcome: Outcome::Ok,
        started: Started::Perhaps,
        retry_after_s: None,
        queued_ns: 1,
        ran_ns: 2,
        envelope_size: 0,
        payload_size: u32::try_from(size).unwrap(),
    }
}

fn functions(version: u32, count: usize) -> Vec<u8> {
    let function = |number: usize| Function {
        number: u32::try_from(number).unwrap(),
        name: format!("function-{number}-{}", "x".repeat(40)),
        version,
        timeout_ns: 1,
        repeat: Repeat::Never,
        capacity: 1,
    };
    let mut encoded = Vec::new();
    encode_functions(&(0..count).map(function).collect::<Vec<_>>(), &mut encoded).unwrap();
    encoded
}

/// Both ends, and what is to arrive.
struct Model {
    to: Side,
    bodies: Bodies,
    outbox: Outbox,
    reader: Reader,
    /// Sizes by stream, of what may still arrive.
    said: HashMap<u64, usize>,
    /// Of those, what must arrive with the next batch.
    small: HashSet<u64>,
    streams: Vec<u64>,
    /// Versions of the lists that were said, and the last one that arrived.
    versions: u32,
    newest: Option<u32>,
    arrived: usize,
}

impl Model {
    fn new(to: Side, bodies: Bodies) -> Model {
        Model {
            to,
            bodies,
            outbox: Outbox::new(),
            reader: Reader::new(to, Limits::for_payloads(PAYLOAD_MAX)),
            said: HashMap::new(),
            small: HashSet::new(),
            streams: Vec::new(),
            versions: 0,
            newest: None,
            arrived: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Say(size) => self.say(*size),
            Step::Functions(count) if self.to == Side::Gateway => {
                self.versions += 1;
                self.outbox.push_functions(functions(self.versions, *count));
            }
            Step::Functions(_) => {}
            Step::Cancel(index) if !self.streams.is_empty() => {
                let stream = *index.get(&self.streams);
                self.cancel(stream);
            }
            Step::Cancel(_) => {}
            Step::Give(cut) => self.give(*cut),
        }
    }

    fn say(&mut self, size: usize) {
        let stream = self.streams.len() as u64;
        let bytes = slice(body(stream, size));
        let fixed_size = match self.to {
            Side::Gateway => {
                let head = answer_head(size).encode();
                self.outbox.push(Kind::Answer, stream, &head, Body::Slice(bytes));
                head.len()
            }
            Side::Engine => {
                let head = call_head(size).encode();
                self.outbox.push(Kind::Call, stream, &head, Body::Slice(bytes));
                head.len()
            }
        };
        if fixed_size + size <= FRAME_MAX {
            self.small.insert(stream);
        }
        self.said.insert(stream, size);
        self.streams.push(stream);
    }

    /// As [`crate::Link::cancel`] does.
    fn cancel(&mut self, stream: u64) {
        match self.outbox.withdraw(stream) {
            None => {}
            Some(given) => {
                self.said.remove(&stream).expect("what is taken back has not arrived");
                if given == Given::Something {
                    self.outbox.push_small(Kind::Cancel, stream, &[]);
                }
            }
        }
    }

    fn give(&mut self, cut: usize) {
        let (mut batch, small_size) = (Vec::new(), self.outbox_ready());
        if let Some(gather) = self.outbox.give(&mut batch, self.bodies) {
            assert_eq!(self.bodies, Bodies::Gathered);
            let from = batch.len() / 2;
            let all = gather.copy_rest(batch.clone(), 0);
            assert_eq!(gather.copy_rest(batch, from), all[from..]);
            batch = all;
        }
        assert!(batch.len() <= small_size + BATCH_MAX.max(FRAME_SIZE_MAX));
        for piece in batch.chunks(cut) {
            self.reader.push(piece);
            self.take_messages();
        }
        assert!(self.small.is_empty(), "{:?} wait behind something large", self.small);
    }

    fn outbox_ready(&self) -> usize {
        self.outbox.size() - self.outbox.large_size()
    }

    fn take_messages(&mut self) {
        while let Some(message) = self.reader.next_message().unwrap() {
            let (stream, size, block) = match message {
                Message::Call { stream, head, block } => (stream, head.payload_size, block),
                Message::Answer { stream, head, block } => (stream, head.payload_size, block),
                Message::Cancel { stream } => {
                    assert!(!self.said.contains_key(&stream));
                    continue;
                }
                Message::Functions(functions) => {
                    let version = functions.first().map(|function| function.version);
                    assert!(version.is_none() || version > self.newest, "an old list comes last");
                    self.newest = version.or(self.newest);
                    continue;
                }
                other => panic!("{other:?} was not said"),
            };
            let said = self.said.remove(&stream).expect("it was said, and arrives once");
            assert_eq!(said, size as usize);
            assert!(block.bytes() == body(stream, said), "stream {stream} arrives as it was");
            self.small.remove(&stream);
            self.arrived += 1;
        }
    }

    fn finish(&mut self) {
        while !self.outbox.is_empty() {
            self.give(FRAME_MAX);
        }
        assert_eq!(self.outbox.size(), 0);
        assert!(self.said.is_empty(), "{:?} never arrive", self.said.keys());
        assert_eq!(self.reader.unfinished(), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_arrives_whole_and_once_and_small_before_large(
        to in prop::sample::select(&[Side::Gateway, Side::Engine][..]),
        bodies in prop::sample::select(&[Bodies::Gathered, Bodies::Copied][..]),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new(to, bodies);
        for step in &steps {
            model.step(step);
        }
        model.finish();
    }
}

#[test]
fn the_newest_list_of_functions_arrives_last_however_large_the_ones_before() {
    let mut model = Model::new(Side::Gateway, Bodies::Gathered);
    model.step(&Step::Functions(4_000));
    model.step(&Step::Give(FRAME_MAX));
    for count in [4_000, 10, 3_000] {
        model.step(&Step::Functions(count));
    }
    model.finish();
    assert_eq!(model.newest, Some(4));
}

#[test]
fn a_list_that_has_not_begun_is_replaced_by_the_next() {
    let mut outbox = Outbox::new();
    outbox.push_functions(functions(1, 4_000));
    outbox.push_functions(functions(2, 3_000));
    assert_eq!(outbox.size(), functions(2, 3_000).len());
}

/// What more messages at once than any peer takes in lead to.
#[test]
fn what_has_begun_stays_within_what_the_other_side_keeps() {
    const HUGE: usize = 50 << 20;
    let mut outbox = Outbox::new();
    let limits = Limits::for_payloads(PAYLOAD_MAX);
    let limits = Limits { payload_max: u32::try_from(HUGE).unwrap(), ..limits };
    let mut reader = Reader::new(Side::Gateway, limits);
    // Never read, so never in memory either.
    let huge = slice(vec![0; HUGE]);
    for stream in 0..2_000 {
        let size = if stream % 2 == 0 { HUGE } else { 1 << 20 };
        let head = answer_head(size).encode();
        outbox.push(Kind::Answer, stream, &head, Body::Slice(huge.slice(0..size)));
    }
    // Each turn of a lane gives a frame to one more message, until as many have begun as may.
    for _ in 0..2 * BEGUN_MAX {
        let mut batch = Vec::new();
        let gather = outbox.give(&mut batch, Bodies::Gathered).unwrap();
        reader.push(&gather.copy_rest(batch, 0));
        assert!(reader.next_message().unwrap().is_none(), "none is complete so early");
    }
    let (count, bytes) = reader.unfinished();
    assert!(count > BEGUN_MAX && count <= PARTIAL_MAX, "{count} have begun");
    assert!(bytes > 2 * HUGE, "{bytes} bytes have begun");
}

#[test]
fn a_steady_stream_of_small_messages_does_not_stop_a_large_one() {
    let mut model = Model::new(Side::Gateway, Bodies::Gathered);
    model.say(10 * FRAME_MAX);
    for _ in 0..12 {
        for _ in 0..8 {
            model.say(FRAME_MAX - 100);
        }
        model.give(FRAME_MAX);
    }
    assert!(!model.said.contains_key(&0), "the large one has arrived");
}

#[test]
fn a_message_a_little_over_a_frame_overtakes_huge_ones() {
    let mut model = Model::new(Side::Gateway, Bodies::Gathered);
    for _ in 0..8 {
        model.say(3 << 20);
    }
    model.give(FRAME_MAX);
    model.say(FRAME_MAX + 1);
    model.give(FRAME_MAX);
    assert!(!model.said.contains_key(&8), "it has arrived");
    model.finish();
}

#[test]
fn a_call_is_unsent_until_its_first_byte_is_given_out() {
    let mut outbox = Outbox::new();
    for (stream, size) in [(1, 10), (2, 200_000), (3, 3 << 20)] {
        let bytes = Body::Slice(slice(vec![0; size]));
        outbox.push(Kind::Call, stream, &call_head(size).encode(), bytes);
    }
    assert_eq!(outbox.unsent_calls().collect::<Vec<_>>(), [1, 2, 3]);
    let _ = outbox.give(&mut Vec::new(), Bodies::Gathered);
    assert_eq!(outbox.unsent_calls().count(), 0);
    let late = Body::Slice(slice(vec![0; 10]));
    outbox.push(Kind::Call, 4, &call_head(10).encode(), late);
    assert_eq!(outbox.unsent_calls().collect::<Vec<_>>(), [4]);
    assert_eq!(outbox.withdraw(2), Some(Given::Something));
    assert_eq!(outbox.withdraw(9), None);
}

#[test]
fn a_function_may_be_in_a_list_once() {
    let encoded = functions(1, 2);
    assert_eq!(parse_functions(&encoded).unwrap().len(), 2);
    let twice = [&encoded[..], &encoded[..encoded.len() / 2]].concat();
    assert!(parse_functions(&twice).is_err());
    // The second's number made the first's, the names left as they are.
    let mut same_number = encoded.clone();
    same_number[encoded.len() / 2] = 0;
    assert!(parse_functions(&same_number).is_err());
}

#[test]
fn a_frame_that_is_not_the_last_is_full() {
    let mut outbox = Outbox::new();
    let head = answer_head(40_000).encode();
    outbox.push(Kind::Answer, 1, &head, Body::Slice(slice(vec![0; 40_000])));
    let mut batch = Vec::new();
    let _ = outbox.give(&mut batch, Bodies::Copied);
    let mut short = batch.clone();
    short[..4].copy_from_slice(&100_u32.to_le_bytes());
    short.drain(HEAD_SIZE + 100..HEAD_SIZE + FRAME_MAX);
    let mut reader = Reader::new(Side::Gateway, Limits::for_payloads(PAYLOAD_MAX));
    reader.push(&short);
    assert!(reader.next_message().is_err());
    let mut reader = Reader::new(Side::Gateway, Limits::for_payloads(PAYLOAD_MAX));
    reader.push(&batch);
    assert!(reader.next_message().unwrap().is_some());
}
