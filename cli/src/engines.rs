//! `/v1/engines` as a client reads it, for `ls`.

use serde::Deserialize;

use crate::client::{ClientError, Target};
use crate::table;

/// The answer. Fields that a newer gateway adds are passed over.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Engines {
    pub(crate) engines: Vec<Engine>,
}

/// An engine that is joined to the gateway.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Engine {
    node: String,
    state: String,
    address: Option<String>,
    connected_s: Option<u64>,
    links: u64,
    cores: u64,
    functions: Vec<Function>,
}

/// A function there. What concerns calls is as this gateway knows it, the load as the engine told.
#[derive(Clone, Debug, Deserialize)]
struct Function {
    name: String,
    version: u64,
    state: String,
    in_flight: u64,
    queued: u64,
    running: u64,
    waiting: u64,
    room: u64,
    latency_us: Option<u64>,
    #[serde(default)]
    ok: u64,
    #[serde(default)]
    failed: u64,
}

impl Engines {
    /// Asks a gateway. Returns its answer as it came and as it reads; `None` from one that knows nothing
    /// of engines.
    ///
    /// # Errors
    /// When there is no answer, or another one than a list.
    pub(crate) fn fetch(target: &Target) -> Result<Option<(String, Engines)>, ClientError> {
        let url = format!("{}/v1/engines", target.url);
        let (status, body) = target.get(&url)?;
        if status.as_u16() == 404 {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(ClientError::Failed { subject: url, failure: status.to_string() });
        }
        match serde_json::from_str(&body) {
            Ok(engines) => Ok(Some((body, engines))),
            Err(error) => Err(ClientError::OddAnswer { url, reason: error.to_string() }),
        }
    }

    /// The lines of a table of engines, and of one of their functions.
    pub(crate) fn tables(&self) -> [Vec<String>; 2] {
        const ENGINES: [&str; 6] = ["ENGINE", "STATE", "ADDRESS", "LINKS", "CORES", "JOINED"];
        const FUNCTIONS: [&str; 12] = [
            "FUNCTION", "ENGINE", "STATE", "VERSION", "INFLIGHT", "RUN", "WAIT", "QUEUE", "ROOM",
            "OK", "FAILED", "LATENCY",
        ];
        const COLUMNS_OF_TEXT: usize = 3;
        let engines: Vec<_> = self.engines.iter().map(Engine::row).collect();
        let mut functions: Vec<_> = self.engines.iter().flat_map(Engine::functions).collect();
        functions.sort();
        [
            table::lines(ENGINES, &engines, COLUMNS_OF_TEXT),
            table::lines(FUNCTIONS, &functions, COLUMNS_OF_TEXT),
        ]
    }
}

impl Engine {
    fn row(&self) -> [String; 6] {
        [
            self.node.clone(),
            self.state.clone(),
            self.address.clone().unwrap_or_else(|| "-".to_owned()),
            self.links.to_string(),
            self.cores.to_string(),
            table::time(self.connected_s.map(|seconds| seconds.saturating_mul(1_000_000_000))),
        ]
    }

    fn functions(&self) -> impl Iterator<Item = [String; 12]> {
        self.functions.iter().map(|function| {
            let Function { in_flight, queued, running, waiting, room, version, .. } = function;
            let (ok, failed) = (function.ok.to_string(), function.failed.to_string());
            let [version, in_flight, running, waiting, queued, room] =
                [version, in_flight, running, waiting, queued, room].map(u64::to_string);
            let latency = function.latency_us.map(|latency| latency.saturating_mul(1_000));
            let (name, state) = (function.name.clone(), function.state.clone());
            let (node, latency) = (self.node.clone(), table::time(latency));
            [
                name, node, state, version, in_flight, running, waiting, queued, room, ok, failed,
                latency,
            ]
        })
    }
}
