//! Which engine gets a call: the power of two choices (Mitzenmacher, 2001), made by what this shard
//! knows without asking. Pure: no clock, no descriptor, no link; so years of traffic can be simulated.
//!
//! A *seat* is one function at one link to an engine. Of two seats drawn at random
//! - the one with fewer calls takes it if both answer about equally fast (latencies within
//!   `EQUAL_RATIO`); the one that got fewer before, if they have equally many;
//! - else the one from which the answer is expected first: (calls + 1) x weight, where the weight is
//!   what a call has cost there lately, mean latency / (mean calls + 1); but never sooner than that mean.
//!
//! Where one of the two was passed over as slow, a third is looked at: two choices among equals are the
//! point, and among three engines of which one is slow, two would often be no choice at all.
//!
//! Calls are those in flight from here and, by the engine's reports, those from elsewhere. A seat that
//! is passed over as slow is tried with one call now and then, rarely enough (1 in
//! `PROBE_SPACING`) that no percentile up to the 99th notices.
//!
//! Invariant: `Function::candidates` holds the seats that may take a call now, each once, and
//! `Seat::position` says where. What changes a seat's state keeps that up by `swap_remove`, so a
//! decision looks at two or three seats whether there are one or a thousand.

use std::time::Duration;

use reactor::clock::Nanos;
use slab::Slab;

use super::random::Random;

/// Latencies whose ratio is at most this are equal: less is noise, and equal engines shall share
/// evenly.
const EQUAL_RATIO: f64 = 1.5;
/// How fast a mean follows: a sample after this time counts half of what is bounded below.
const MEMORY: Duration = Duration::from_millis(500);
/// What a sample counts at least. 18 samples that are three times slower make an engine count as
/// slow; the mean of exponentially distributed times stays within 1.5x in 99.9% of all looks.
const SAMPLE_MIN: f64 = 1.0 / 64.0;
/// What a sample counts at most: a single lucky call does not clear a slow engine.
const SAMPLE_MAX: f64 = 1.0 / 4.0;
/// A seat that was passed over is tried again this long after its last answer.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Decisions of a function between two such trials: 0.4% of the calls.
const PROBE_SPACING: u64 = 256;
/// A trial that took less than this part of the mean is followed by another one at once.
const PROBE_GOOD: f64 = 1.0 / EQUAL_RATIO;
/// How many calls a seat that was away or passed over may be behind in ties: it gets its share again,
/// not all that it has missed.
const LAG_MAX: u64 = 8;
/// Calls of others that count at least: engines do not report every single call, so fewer may be none.
const ELSEWHERE_MIN: u32 = 2;

/// A function, as this shard numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionIndex(pub u32);

/// A function at a link. Valid until it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeatId(u32);

/// Whether a seat takes calls, its window apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does.
    Open,
    /// It refused a call a moment ago, for another reason than being full.
    Paused,
    /// The engine says that the function is broken there.
    Broken,
    /// The engine takes nothing more, and will not come back.
    Draining,
}

/// What an engine reports of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Calls that it has: queued, running and waiting, from everywhere.
    pub calls: u32,
    /// Calls that it would take beyond those.
    pub room: u32,
    /// `Open` or `Broken`.
    pub condition: Condition,
}

/// How a call at a seat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer, this long after it was sent.
    Answered(Duration),
    /// Not within this time: tells something only of a seat that seemed faster.
    Overdue(Duration),
    /// Refused or cancelled: says nothing about the time that calls take.
    Unanswered,
}

/// What a call of a function has to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// A seat would take it now.
    Room,
    /// There are seats that take calls, but none has room at the moment.
    Full,
    /// The function is broken wherever it is.
    Broken,
    /// No engine has it, or those that have it are draining.
    Nobody,
}

/// The engines' seats, by function.
pub struct Balance {
    functions: Vec<Function>,
    seats: Slab<Seat>,
    random: Random,
}

#[derive(Default)]
struct Function {
    candidates: Vec<SeatId>,
    /// Seats that take calls, now or as soon as they have room.
    serving: u32,
    /// Seats where the function is broken.
    broken: u32,
    decisions: u64,
    /// The decision that was the last trial.
    probed: u64,
    /// The most calls that a seat has been given: where ties are for one that joins.
    calls: u64,
}

struct Seat {
    function: FunctionIndex,
    condition: Condition,
    window: u32,
    in_flight: u32,
    /// Where in the function's candidates; `None`: not among them.
    position: Option<u32>,
    /// Given to it, as far as ties are concerned.
    calls: u64,
    /// The most in flight at once since the last report, and between that one and the one before.
    peaks: [u32; 2],
    /// Calls of others, by the last report.
    elsewhere: u32,
    pace: Option<Pace>,
    /// The last trial was good: another one is due at once.
    recovering: bool,
}

/// How fast a seat answers.
#[derive(Clone, Copy)]
struct Pace {
    latency_ns: f64,
    /// Mean of the calls in flight beside the one that was answered.
    beside: f64,
    sampled: Nanos,
}

impl Balance {
    /// Without functions. `seed`: of the draws; shards of a process should not draw alike.
    #[must_use]
    pub fn new(seed: u64) -> Balance {
        Balance { functions: Vec::new(), seats: Slab::new(), random: Random::new(seed) }
    }

    /// Another function, without seats.
    pub fn add_function(&mut self) -> FunctionIndex {
        let index = u32::try_from(self.functions.len()).expect("the owner bounds the functions");
        self.functions.push(Function::default());
        FunctionIndex(index)
    }

    /// A link offers `function` and takes up to `window` calls at once until it reports otherwise.
    pub fn join(&mut self, function: FunctionIndex, window: u32) -> SeatId {
        let owner = &mut self.functions[function.0 as usize];
        owner.serving += 1;
        let seat = Seat {
            function,
            condition: Condition::Open,
            window,
            in_flight: 0,
            position: None,
            calls: owner.calls,
            peaks: [0, 0],
            elsewhere: 0,
            pace: None,
            recovering: false,
        };
        let index = u32::try_from(self.seats.insert(seat)).expect("the owner bounds the seats");
        self.settle(SeatId(index));
        SeatId(index)
    }

    /// The link is gone, or does not offer the function any more. Calls in flight are the owner's to
    /// deal with, and do not `end` here.
    pub fn leave(&mut self, seat: SeatId) {
        self.set_condition(seat, Condition::Draining);
        self.seats.remove(seat.0 as usize);
    }

    /// Takes an engine's report.
    pub fn report(&mut self, id: SeatId, load: &Load) {
        let seat = &mut self.seats[id.0 as usize];
        // What was counted there has crossed what was sent and answered since. So what has been in flight
        // lately is ours, and only what is beyond it comes from elsewhere for sure.
        let [now, before] = seat.peaks;
        let beyond = load.calls.saturating_sub(now.max(before));
        seat.elsewhere = if beyond >= ELSEWHERE_MIN { beyond } else { 0 };
        seat.peaks = [seat.in_flight, now];
        // Not what is in flight and the room: a part of what is in flight takes up room that was
        // reported before it arrived.
        let all = load.calls.saturating_add(load.room);
        seat.window = all.saturating_sub(seat.elsewhere);
        self.set_condition(id, load.condition);
    }

    /// Lets a seat take calls or keeps it from doing so. Draining is final.
    pub fn set_condition(&mut self, id: SeatId, condition: Condition) {
        let seat = &mut self.seats[id.0 as usize];
        if seat.condition != Condition::Draining {
            let function = &mut self.functions[seat.function.0 as usize];
            if let Some(count) = function.count_of(seat.condition) {
                *count -= 1;
            }
            seat.condition = condition;
            if let Some(count) = function.count_of(condition) {
                *count += 1;
            }
        }
        self.settle(id);
    }

    /// What a seat takes.
    #[must_use]
    pub fn condition(&self, id: SeatId) -> Condition {
        self.seats[id.0 as usize].condition
    }

    /// The seat that should get a call, or `None` when none has room.
    pub fn choose(&mut self, function: FunctionIndex, now: Nanos) -> Option<SeatId> {
        let function = &mut self.functions[function.0 as usize];
        let count = u32::try_from(function.candidates.len()).unwrap_or(u32::MAX);
        let chosen = match count {
            0 => return None,
            1 => function.candidates[0],
            _ => {
                let pair = self.random.pair(count);
                let (first, second) = (function.candidate(pair.0), function.candidate(pair.1));
                match prefer(&self.seats, function, (first, second), now) {
                    Preferred::Faster(id) if count > 2 => {
                        let third = function.candidate(self.random.third(count, pair));
                        prefer(&self.seats, function, (id, third), now).seat()
                    }
                    preferred => preferred.seat(),
                }
            }
        };
        function.decisions += 1;
        Some(chosen)
    }

    /// A call was sent to a seat.
    pub fn begin(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0 as usize];
        let function = &mut self.functions[seat.function.0 as usize];
        seat.in_flight += 1;
        seat.peaks[0] = seat.peaks[0].max(seat.in_flight);
        seat.calls = seat.calls.max(function.calls.saturating_sub(LAG_MAX)) + 1;
        function.calls = function.calls.max(seat.calls);
        self.settle(id);
    }

    /// A call that was sent to a seat is over.
    pub fn end(&mut self, id: SeatId, now: Nanos, ending: Ending) {
        let seat = &mut self.seats[id.0 as usize];
        debug_assert!(seat.in_flight > 0, "more calls end than began");
        seat.in_flight = seat.in_flight.saturating_sub(1);
        match ending {
            Ending::Answered(latency) => seat.sample(latency, now),
            Ending::Overdue(time) if seat.seems_faster(time) => seat.sample(time, now),
            Ending::Overdue(_) | Ending::Unanswered => {}
        }
        self.settle(id);
    }

    /// A seat refused a call as full: it takes no more than it has until it reports, or a call ends.
    pub fn fill(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0 as usize];
        seat.window = seat.window.min(seat.in_flight);
        self.settle(id);
    }

    /// A seat that was full, and has said nothing since, is tried with one call.
    pub fn reopen(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0 as usize];
        seat.window = seat.window.max(1);
        self.settle(id);
    }

    /// Calls in flight from here.
    #[must_use]
    pub fn in_flight(&self, id: SeatId) -> u32 {
        self.seats[id.0 as usize].in_flight
    }

    /// Calls that a seat would take now.
    #[must_use]
    pub fn room(&self, id: SeatId) -> u32 {
        let seat = &self.seats[id.0 as usize];
        match seat.condition {
            Condition::Open => seat.window.saturating_sub(seat.in_flight),
            Condition::Paused | Condition::Broken | Condition::Draining => 0,
        }
    }

    /// The mean time until an answer, as it has been lately; `None` before the first one.
    #[must_use]
    pub fn latency(&self, id: SeatId) -> Option<Duration> {
        let pace = self.seats[id.0 as usize].pace?;
        Duration::try_from_secs_f64(pace.latency_ns / 1e9).ok()
    }

    /// What a call of a function has to expect.
    #[must_use]
    pub fn outlook(&self, function: FunctionIndex) -> Outlook {
        match &self.functions[function.0 as usize] {
            Function { candidates, .. } if !candidates.is_empty() => Outlook::Room,
            Function { serving: 1.., .. } => Outlook::Full,
            Function { broken: 1.., .. } => Outlook::Broken,
            _ => Outlook::Nobody,
        }
    }

    /// Seats of all functions.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// Puts a seat among the candidates, or takes it away, as its state has it.
    fn settle(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0 as usize];
        let is_candidate = seat.condition == Condition::Open && seat.in_flight < seat.window;
        match (is_candidate, seat.position) {
            (true, None) => {
                let candidates = &mut self.functions[seat.function.0 as usize].candidates;
                seat.position = u32::try_from(candidates.len()).ok();
                candidates.push(id);
            }
            (false, Some(_)) => self.withdraw(id),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn withdraw(&mut self, id: SeatId) {
        let seat = &mut self.seats[id.0 as usize];
        let Some(position) = seat.position.take() else { return };
        let candidates = &mut self.functions[seat.function.0 as usize].candidates;
        candidates.swap_remove(position as usize);
        if let Some(moved) = candidates.get(position as usize) {
            self.seats[moved.0 as usize].position = Some(position);
        }
    }
}

/// The better one of two, and why.
enum Preferred {
    /// The other one was passed over as slow.
    Faster(SeatId),
    /// They are equals, or the slower one is still the better one, or due for a trial.
    Better(SeatId),
}

impl SeatId {
    /// A small number: seats that left have theirs used again.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Preferred {
    fn seat(self) -> SeatId {
        match self {
            Preferred::Faster(seat) | Preferred::Better(seat) => seat,
        }
    }
}

impl Function {
    /// Where seats in a condition are counted.
    fn count_of(&mut self, condition: Condition) -> Option<&mut u32> {
        match condition {
            Condition::Open | Condition::Paused => Some(&mut self.serving),
            Condition::Broken => Some(&mut self.broken),
            Condition::Draining => None,
        }
    }

    fn candidate(&self, position: u32) -> SeatId {
        self.candidates[position as usize]
    }
}

fn prefer(
    seats: &Slab<Seat>,
    function: &mut Function,
    (first, second): (SeatId, SeatId),
    now: Nanos,
) -> Preferred {
    let (a, b) = (&seats[first.0 as usize], &seats[second.0 as usize]);
    let ((fast, fast_id), (slow, slow_id)) = match (a.pace, b.pace) {
        (Some(one), Some(other)) if one.latency_ns > other.latency_ns * EQUAL_RATIO => {
            ((b, second), (a, first))
        }
        (Some(one), Some(other)) if other.latency_ns > one.latency_ns * EQUAL_RATIO => {
            ((a, first), (b, second))
        }
        // Equal, or not known yet.
        _ => {
            let floor = function.calls.saturating_sub(LAG_MAX);
            let key = |seat: &Seat| (seat.load(), seat.calls.max(floor));
            return Preferred::Better(if key(b) < key(a) { second } else { first });
        }
    };
    if is_due(slow, function, now) {
        function.probed = function.decisions;
        return Preferred::Better(slow_id);
    }
    if slow.expected_ns() < fast.expected_ns() {
        Preferred::Better(slow_id)
    } else {
        Preferred::Faster(fast_id)
    }
}

/// Whether a slow seat should be tried again.
fn is_due(seat: &Seat, function: &Function, now: Nanos) -> bool {
    let Some(pace) = seat.pace else { return true };
    let is_spaced = function.decisions.saturating_sub(function.probed) >= PROBE_SPACING
        && now.saturating_since(pace.sampled) >= PROBE_PAUSE;
    seat.in_flight == 0 && (seat.recovering || is_spaced)
}

impl Seat {
    /// Calls there, as far as known here.
    fn load(&self) -> u64 {
        u64::from(self.in_flight) + u64::from(self.elsewhere)
    }

    /// When the answer to one more call would come.
    fn expected_ns(&self) -> f64 {
        let Some(pace) = self.pace else { return 0.0 };
        let calls = f64::from(self.in_flight) + f64::from(self.elsewhere) + 1.0;
        // Never less than the mean: an engine that runs its calls side by side is no faster empty.
        pace.latency_ns * (calls / (pace.beside + 1.0)).max(1.0)
    }

    fn seems_faster(&self, time: Duration) -> bool {
        self.pace.is_none_or(|pace| pace.latency_ns < time.as_secs_f64() * 1e9)
    }

    fn sample(&mut self, latency: Duration, now: Nanos) {
        let latency_ns = latency.as_secs_f64() * 1e9;
        let beside = f64::from(self.in_flight) + f64::from(self.elsewhere);
        let Some(pace) = &mut self.pace else {
            self.pace = Some(Pace { latency_ns, beside, sampled: now });
            return;
        };
        let silence = now.saturating_since(pace.sampled).as_secs_f64();
        let weight = (silence / (silence + MEMORY.as_secs_f64())).clamp(SAMPLE_MIN, SAMPLE_MAX);
        self.recovering = latency_ns < pace.latency_ns * PROBE_GOOD;
        pace.latency_ns += (latency_ns - pace.latency_ns) * weight;
        pace.beside += (beside - pace.beside) * weight;
        pace.sampled = now;
    }
}
