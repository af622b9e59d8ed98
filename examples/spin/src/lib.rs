//! Burns the CPU time asked for: `{"us": 1000}`. Stops early when nobody waits any more.

use std::hint;
use std::mem::MaybeUninit;

use nightcore::{Context, Error, ErrorKind, Response};
use serde::Deserialize;

const US_MAX: u64 = 60 * 1_000_000;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    us: u64,
}

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments { us: 1000 }
    }
}

#[nightcore::function]
fn spin(context: &Context, input: &[u8]) -> Result<Response, Error> {
    let Arguments { us } = arguments(input)?;
    let start = cpu_time_us();
    let mut spent = 0;
    while spent < us {
        if context.is_cancelled() {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "nobody waits any more"));
        }
        (0..1000).for_each(|n| {
            hint::black_box(n);
        });
        spent = cpu_time_us() - start;
    }
    Ok(Response::json(format!("{{\"us\":{spent}}}\n")))
}

/// An empty input stands for the defaults.
fn arguments(input: &[u8]) -> Result<Arguments, Error> {
    if input.is_empty() {
        return Ok(Arguments::default());
    }
    let arguments: Arguments =
        serde_json::from_slice(input).map_err(|error| Error::bad_request(error.to_string()))?;
    if arguments.us > US_MAX {
        return Err(Error::bad_request(format!("`us` is at most {US_MAX}")));
    }
    Ok(arguments)
}

/// CPU time of this thread: unlike the time on the wall it stands still while others run.
fn cpu_time_us() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is to a timespec of our own; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: zeroed, which is a valid timespec, and perhaps overwritten by the kernel.
    let time = unsafe { time.assume_init() };
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}
