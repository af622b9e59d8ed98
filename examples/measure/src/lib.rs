//! What `chain` and `fanout` share: their arguments and their statistics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Calls at most, so that a typo does not occupy a worker for hours.
const N_MAX: u32 = 1_000_000;
/// The runtime's default limit of a payload.
const SIZE_MAX: usize = 16 << 20;

/// What to call, how often and with what.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arguments {
    /// Calls to make.
    pub n: u32,
    /// Bytes of input, unless `input` is given.
    pub size: usize,
    /// Function to call.
    pub function: String,
    /// Replaces the `size` bytes.
    pub input: Option<String>,
    /// Answer the whole distribution too.
    pub percentiles: bool,
}

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments {
            n: 10,
            size: 1024,
            function: "echo".to_owned(),
            input: None,
            percentiles: false,
        }
    }
}

impl Arguments {
    /// Reads the JSON; an empty input stands for the defaults. The error is for the caller.
    pub fn parse(input: &[u8]) -> Result<Arguments, String> {
        if input.is_empty() {
            return Ok(Arguments::default());
        }
        let arguments: Arguments =
            serde_json::from_slice(input).map_err(|error| error.to_string())?;
        if arguments.n > N_MAX {
            return Err(format!("`n` is at most {N_MAX}"));
        }
        if arguments.size > SIZE_MAX {
            return Err(format!("`size` is at most {SIZE_MAX}"));
        }
        Ok(arguments)
    }

    /// The input of every call.
    pub fn payload(&mut self) -> Vec<u8> {
        self.input.take().map_or_else(|| vec![b'x'; self.size], String::into_bytes)
    }
}

/// How long the calls took, in microseconds on the monotonic clock.
#[derive(Serialize)]
pub struct Summary {
    n: usize,
    size: usize,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// Pairs of percentile (0 to 100) and time, ascending.
    #[serde(skip_serializing_if = "Option::is_none")]
    percentiles: Option<Vec<(f64, f64)>>,
}

impl Summary {
    /// Of calls with `size` bytes of input each.
    #[must_use]
    pub fn new(size: usize, mut times: Vec<Duration>) -> Summary {
        times.sort_unstable();
        let us = |time: Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
        // The smallest time that at least `permille` of the calls did not exceed.
        let quantile = |permille: usize| {
            let rank = (times.len() * permille).div_ceil(1000);
            times.get(rank.saturating_sub(1)).copied().map_or(0.0, us)
        };
        let total: Duration = times.iter().sum();
        let calls = u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
        Summary {
            n: times.len(),
            size,
            mean_us: us(total / calls),
            p50_us: quantile(500),
            p99_us: quantile(990),
            p999_us: quantile(999),
            percentiles: None,
        }
    }

    /// The same with the distribution, where `arguments` ask for it.
    #[must_use]
    pub fn of(arguments: &Arguments, size: usize, mut times: Vec<Duration>) -> Summary {
        times.sort_unstable();
        let percentiles = arguments.percentiles.then(|| distribution(&times));
        Summary { percentiles, ..Summary::new(size, times) }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

/// Even steps up to the median, then two a halving of the rest, as far as one of the times is left.
fn distribution(ascending: &[Duration]) -> Vec<(f64, f64)> {
    let Some(greatest) = ascending.last() else { return Vec::new() };
    let us = |time: &Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
    let n = ascending.len() as f64;
    let below = [0.0, 10.0, 20.0, 30.0, 40.0].into_iter();
    let halvings = (0..32)
        .flat_map(|halving| [1.0, 0.75].map(|part| 50.0 * part / f64::from(1u32 << halving)));
    let beyond = halvings.take_while(|rest| rest / 100.0 * n >= 1.0).map(|rest| 100.0 - rest);
    below
        .chain(beyond)
        .map(|percentile| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
            let rank = (percentile / 100.0 * n).ceil() as usize;
            (percentile, us(&ascending[rank.saturating_sub(1)]))
        })
        .chain([(100.0, us(greatest))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let times = (1..=1000).rev().map(Duration::from_micros).collect();
        let summary = Summary::new(7, times);
        assert_eq!((summary.n, summary.size), (1000, 7));
        assert_eq!((summary.p50_us, summary.p99_us, summary.p999_us), (500.0, 990.0, 999.0));
        assert_eq!(summary.mean_us, 500.5);
    }

    #[test]
    fn the_distribution_ascends_from_the_least_to_the_greatest() {
        let arguments = Arguments { percentiles: true, ..Arguments::default() };
        let times = (1..=1000).rev().map(Duration::from_micros).collect();
        let pairs = Summary::of(&arguments, 0, times).percentiles.unwrap();
        assert_eq!((pairs[0], pairs[pairs.len() - 1]), ((0.0, 1.0), (100.0, 1000.0)));
        assert!(pairs.contains(&(50.0, 500.0)));
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        let none = Summary::of(&arguments, 0, Vec::new()).percentiles.unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn no_calls_take_no_time() {
        let json = String::from_utf8(Summary::new(0, Vec::new()).to_json().unwrap()).unwrap();
        let expected = r#"{"n":0,"size":0,"mean_us":0.0,"p50_us":0.0,"p99_us":0.0,"p999_us":0.0}"#;
        assert_eq!(json.trim_end(), expected);
    }

    #[test]
    fn arguments_have_defaults_and_a_string_replaces_the_bytes() {
        let mut defaults = Arguments::parse(b"").unwrap();
        assert_eq!((defaults.n, defaults.function.as_str()), (10, "echo"));
        assert_eq!(defaults.payload(), vec![b'x'; 1024]);
        let mut given = Arguments::parse(br#"{"n": 3, "input": "abc"}"#).unwrap();
        assert_eq!((given.n, given.payload()), (3, b"abc".to_vec()));
        assert!(Arguments::parse(br#"{"n": 3, "input": null}"#).is_ok());
        assert!(Arguments::parse(b"{").is_err());
        assert!(Arguments::parse(br#"{"size": 99999999999}"#).is_err());
    }
}
