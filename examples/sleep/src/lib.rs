//! Waits for the time asked for: `{"ms": 10}`. Costs a worker, but no CPU.

use std::time::Duration;

use nightcore::{Error, Response};
use serde::Deserialize;

const MS_MAX: u64 = 10 * 60 * 1000;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    ms: u64,
}

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments { ms: 10 }
    }
}

#[nightcore::function]
fn sleep(input: &[u8]) -> Result<Response, Error> {
    let Arguments { ms } = arguments(input)?;
    std::thread::sleep(Duration::from_millis(ms));
    Ok(Response::json(format!("{{\"ms\":{ms}}}\n")))
}

/// An empty input stands for the defaults.
fn arguments(input: &[u8]) -> Result<Arguments, Error> {
    if input.is_empty() {
        return Ok(Arguments::default());
    }
    let arguments: Arguments =
        serde_json::from_slice(input).map_err(|error| Error::bad_request(error.to_string()))?;
    if arguments.ms > MS_MAX {
        return Err(Error::bad_request(format!("`ms` is at most {MS_MAX}")));
    }
    Ok(arguments)
}
