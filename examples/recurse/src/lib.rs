//! Calls itself, as deep as asked for: `{"n": 5}`. Answers the depth reached; beyond the runtime's
//! limit the call fails as too deep.

use nightcore::{Context, Error, Response};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    n: u32,
}

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments { n: 5 }
    }
}

#[derive(Deserialize, Serialize)]
struct Reached {
    depth: u32,
}

#[nightcore::function]
fn recurse(context: &Context, input: &[u8]) -> Result<Response, Error> {
    let Arguments { n } = match input {
        // An empty input stands for the defaults.
        [] => Arguments::default(),
        input => serde_json::from_slice(input).map_err(|e| Error::bad_request(e.to_string()))?,
    };
    let mut reached = Reached { depth: 0 };
    if n > 0 {
        let deeper = serde_json::to_vec(&Arguments { n: n - 1 })?;
        let answer = context.call(context.function(), &deeper)?;
        reached = serde_json::from_slice(&answer)?;
        reached.depth += 1;
    }
    Ok(Response::json(serde_json::to_vec(&reached)?))
}
