//! The engine as the gateway's upstream, on the same thread.

use engine::core::{Caller, FunctionId};
use engine::io::Engine;
use ipc::CallId;
use reactor::Reactor;
use reactor::clock::Nanos;

use super::balance::Loads;
use super::http2::Annex;

/// Lends the engine to the gateway for one event.
pub(super) struct EngineUpstream<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) loads: &'a Loads,
    pub(super) http2: &'a Annex,
    pub(super) draining: bool,
}

impl gateway::Upstream for EngineUpstream<'_> {
    fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.engine.resolve(name).map(|function| function.0)
    }

    fn submit(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: gateway::NewCall<'_>,
    ) -> Result<u64, gateway::Refusal> {
        let call = engine::io::NewCall {
            function: FunctionId(call.function),
            caller: Caller(call.caller),
            timeout: call.timeout,
            request: call.request,
            body: call.body,
        };
        match self.engine.submit(reactor, now, &call) {
            Ok(id) => Ok(id.0),
            Err(refusal) => Err(gateway::Refusal {
                outcome: refusal.outcome,
                message: refusal.message,
                retry_after_s: refusal.retry_after_s,
            }),
        }
    }

    fn cancel(&mut self, reactor: &mut Reactor, now: Nanos, call: u64) {
        self.engine.cancel(reactor, now, CallId(call));
    }

    fn write_unready(&self, out: &mut String) {
        self.engine.write_unready(out);
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn metrics(&self, out: &mut String) {
        self.engine.write_metrics(out);
        self.loads.write_metrics(out);
        self.http2.write_metrics(out);
    }

    fn functions_json(&self, out: &mut String) {
        self.engine.write_functions_json(out);
    }
}
