//! Calls a function many times in parallel and answers how long each call took, from its start
//! until its answer was taken: `{"n": 10, "size": 1024, "function": "echo", "input": null}`.

use std::time::Instant;

use measure::{Arguments, Summary};
use nightcore::{Context, Error, Response};

/// Calls in flight at most: what the runtime keeps in flight for one worker.
const WINDOW: usize = 48;

#[nightcore::function]
fn fanout(context: &Context, input: &[u8]) -> Result<Response, Error> {
    let mut arguments = Arguments::parse(input).map_err(Error::bad_request)?;
    let payload = arguments.payload();
    let n = arguments.n as usize;
    let mut times = Vec::with_capacity(n);
    let mut calls = std::collections::VecDeque::with_capacity(WINDOW);
    for started in 0.. {
        if calls.len() == WINDOW || started >= n {
            let Some((start, call)) = calls.pop_front() else { break };
            context.wait(call)?;
            times.push(Instant::elapsed(&start));
        }
        if started < n {
            calls.push_back((Instant::now(), context.prepare(&arguments.function, &payload)?));
        }
    }
    Ok(Response::json(Summary::of(&arguments, payload.len(), times).to_json()?))
}
