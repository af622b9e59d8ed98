//! Burns CPU time, then waits, as a service does that computes and asks a database:
//! `{"spin_us": 500, "sleep_us": 5000}`. How many calls at once serve it best follows from both.

use std::hint;
use std::time::Duration;

use nightcore::{Error, Response};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

/// Of either time.
const US_MAX: u64 = 60 * 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    spin_us: u64,
    sleep_us: u64,
}

#[nightcore::function]
fn mixed(input: &[u8]) -> Result<Response, Error> {
    let Arguments { spin_us, sleep_us } =
        serde_json::from_slice(input).map_err(|error| Error::bad_request(error.to_string()))?;
    if spin_us.max(sleep_us) > US_MAX {
        return Err(Error::bad_request(format!("either time is at most {US_MAX} us")));
    }
    let until = cpu_time()? + Duration::from_micros(spin_us);
    while cpu_time()? < until {
        (0..1000).for_each(|n| {
            hint::black_box(n);
        });
    }
    std::thread::sleep(Duration::from_micros(sleep_us));
    Ok(Response::json("{}\n"))
}

/// Of this thread: it stands still while others run.
fn cpu_time() -> Result<Duration, Error> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .map_err(|errno| Error::failed(errno.to_string()))
}
