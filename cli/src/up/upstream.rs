//! What runs the calls of a shard's gateway: the engine on the same thread where it has the function,
//! else, or when it cannot take the call, an engine on another host.

use engine::core::{Caller, FunctionId};
use engine::io::Engine;
use gateway::remote::Remote;
use gateway::{NewCall, Refusal};
use ipc::{CallId, Outcome};
use reactor::Reactor;
use reactor::clock::Nanos;

use super::balance::Loads;
use super::doorman;
use super::hosts::Hosts;
use super::http2::Annex;
use crate::config::Role;

/// In the number of a function: it is on other hosts.
const ELSEWHERE: u32 = 1 << 31;
/// In the name of a call: it went to another host. The slot of a local call is in the upper half of its
/// name then, and leaves this bit clear.
const WENT: u64 = 1 << 63;

/// Lends them to the gateway for one event.
pub(super) struct ShardUpstream<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) remote: &'a mut Remote,
    pub(super) hosts: &'a Hosts,
    pub(super) loads: &'a Loads,
    pub(super) http2: &'a Annex,
    pub(super) role: Role,
    pub(super) doorman: &'a doorman::Annex,
    pub(super) draining: bool,
}

impl gateway::Upstream for ShardUpstream<'_> {
    fn resolve(&self, name: &[u8]) -> Option<u32> {
        let here = self.engine.resolve(name).map(|function| function.0);
        here.or_else(|| self.remote.resolve(name).map(|function| function | ELSEWHERE))
    }

    fn is_incomplete(&self) -> bool {
        self.role == Role::Gateway && self.remote.links() == 0
    }

    fn submit(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        mut call: NewCall<'_>,
    ) -> Result<u64, Refusal> {
        if call.function & ELSEWHERE != 0 {
            call.function &= !ELSEWHERE;
            return self.submit_elsewhere(reactor, now, &call);
        }
        let NewCall { caller, timeout, body, .. } = call;
        let function = FunctionId(call.function);
        let request = call.request.clone();
        let here = engine::io::NewCall { function, caller: Caller(caller), timeout, request, body };
        let refusal = match self.engine.submit(reactor, now, &here) {
            Ok(id) => return Ok(id.0.rotate_left(32)),
            Err(refusal) => refusal,
        };
        // A refused call has not begun.
        let could_go = is_for_others(refusal.outcome) && !self.draining;
        let name = could_go.then(|| self.engine.name(function)).flatten();
        if let Some(there) = name.and_then(|name| self.remote.resolve(name.as_bytes()))
            && self.remote.has_room(there)
        {
            call.function = there;
            return self.submit_elsewhere(reactor, now, &call);
        }
        let engine::core::Refusal { outcome, message, retry_after_s } = refusal;
        Err(Refusal { outcome, message, retry_after_s })
    }

    fn cancel(&mut self, reactor: &mut Reactor, now: Nanos, call: u64) {
        if call & WENT != 0 {
            self.remote.cancel(reactor, now, call & !WENT);
        } else {
            self.engine.cancel(reactor, now, CallId(call.rotate_right(32)));
        }
    }

    fn write_unready(&self, out: &mut String) {
        match self.role {
            Role::Gateway if self.hosts.board.is_empty() => out.push_str("no engine has joined"),
            Role::Engine if self.hosts.stats.links() == 0 => {
                out.push_str("no gateway has been reached");
            }
            _ => self.engine.write_unready(out),
        }
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn metrics(&self, out: &mut String) {
        self.engine.write_metrics(out);
        self.loads.write_metrics(out);
        self.http2.write_metrics(out);
        self.remote.write_metrics(out);
        self.hosts.stats.write_metrics(out);
        self.doorman.write_metrics(out);
    }

    fn functions_json(&self, out: &mut String) {
        self.engine.write_functions_json(out);
    }

    fn engines_json(&self, out: &mut String) {
        self.remote.engines_json(out);
    }
}

impl ShardUpstream<'_> {
    fn submit_elsewhere(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: &NewCall<'_>,
    ) -> Result<u64, Refusal> {
        self.remote.submit(reactor, now, call).map(|call| call | WENT)
    }
}

/// Whether another host may do better.
fn is_for_others(outcome: Outcome) -> bool {
    use Outcome::{BreakerOpen, Deadlock, NoSpace, Overloaded, Unavailable};
    matches!(outcome, Overloaded | Unavailable | NoSpace | Deadlock | BreakerOpen)
}
