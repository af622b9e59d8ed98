//! What a function does when it is called: phases, one after the other.

use std::time::Duration;

use engine::core::FunctionId;

use crate::random::Random;

/// How long something takes, from one time to the next.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// Always the same.
    Constant(Duration),
    /// Exponential, of this mean.
    Exponential(Duration),
    /// Short mostly, long now and then.
    Bimodal {
        /// Mostly.
        short: Duration,
        /// In `share` of all cases.
        long: Duration,
        /// From 0 to 1.
        share: f64,
    },
}

impl Spread {
    /// One time.
    pub fn draw(self, random: &mut Random) -> Duration {
        match self {
            Spread::Constant(time) => time,
            Spread::Exponential(mean) => random.exponential(mean),
            Spread::Bimodal { long, share, .. } if random.happens(share) => long,
            Spread::Bimodal { short, .. } => short,
        }
    }

    /// The mean of many.
    #[must_use]
    pub fn mean(self) -> Duration {
        match self {
            Spread::Constant(time) => time,
            Spread::Exponential(mean) => mean,
            Spread::Bimodal { short, long, share } => {
                short.mul_f64(1.0 - share) + long.mul_f64(share)
            }
        }
    }
}

/// A part of a function's work.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Computes for so long, on a core of its own.
    Compute(Spread),
    /// Sleeps, as one who waits for a disk or for a network does.
    Sleep(Spread),
    /// Makes `count` internal calls at once and waits for all answers.
    Call {
        /// Which function is called.
        function: FunctionId,
        /// How many times; 1 for a sequential call.
        count: u16,
        /// A call as deep as this or deeper leaves the phase out, so that recursion ends.
        below: u16,
    },
}

impl Phase {
    /// A sequential call that is always made.
    #[must_use]
    pub fn call(function: FunctionId) -> Phase {
        Phase::Call { function, count: 1, below: u16::MAX }
    }
}

/// What a function does.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// In this order.
    pub phases: Vec<Phase>,
    /// When an internal call fails the function fails too, as `?` makes it: at once, leaving the
    /// others unanswered, or once all are answered.
    pub failure: Failure,
    /// At this time since the start of the world times are multiplied: how a changed program, or a
    /// database that has become slow, looks.
    pub change: Option<Change>,
}

/// When a function that got one failure for an answer fails itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Failure {
    /// When all its calls are answered.
    #[default]
    Patient,
    /// Without waiting for the others.
    Hasty,
}

/// A change of all times of a program.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// From then on, counted from the start of the world.
    pub at: Duration,
    /// Times are multiplied by this.
    pub factor: f64,
}

impl Program {
    /// These phases, patiently, always the same.
    #[must_use]
    pub fn new(phases: impl Into<Vec<Phase>>) -> Program {
        Program { phases: phases.into(), ..Program::default() }
    }

    /// Mean CPU time of one call, its internal calls left out.
    #[must_use]
    pub fn compute_mean(&self) -> Duration {
        let mean = |phase: &Phase| match phase {
            Phase::Compute(spread) => spread.mean(),
            Phase::Sleep(_) | Phase::Call { .. } => Duration::ZERO,
        };
        self.phases.iter().map(mean).sum()
    }

    /// What times are multiplied by, at `age` of the world.
    #[must_use]
    pub fn factor(&self, age: Duration) -> f64 {
        self.change.filter(|change| change.at <= age).map_or(1.0, |change| change.factor)
    }
}
