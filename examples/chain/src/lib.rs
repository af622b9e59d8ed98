//! Calls a function again and again, one call after the other, and answers how long each took:
//! `{"n": 10, "size": 1024, "function": "echo", "input": null}`.

use std::time::Instant;

use measure::{Arguments, Summary};
use nightcore::{Context, Error, Response};

#[nightcore::function]
fn chain(context: &Context, input: &[u8]) -> Result<Response, Error> {
    let mut arguments = Arguments::parse(input).map_err(Error::bad_request)?;
    let payload = arguments.payload();
    let mut times = Vec::with_capacity(arguments.n as usize);
    for _ in 0..arguments.n {
        let start = Instant::now();
        let answer = context.call(&arguments.function, &payload)?;
        times.push(start.elapsed());
        drop(answer);
    }
    Ok(Response::json(Summary::of(&arguments, payload.len(), times).to_json()?))
}
