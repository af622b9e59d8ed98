//! What is printed once all stands.

use std::io::{self, Write};

use engine::container::Supervisor;

use super::doors::Addresses;
use crate::config::{Config, Placement, Priority};

/// What is known before the containers are.
pub(super) struct Summary<'a> {
    pub(super) config: &'a Config,
    pub(super) addresses: Addresses,
}

impl Summary<'_> {
    /// Prints it. Nobody may be reading; that is no reason to stop.
    pub(super) fn print(&self, shards: usize, raised: bool, supervisor: &Supervisor) {
        let text = self.text(shards, raised, supervisor);
        let _ = io::stdout().write_all(text.as_bytes());
    }

    fn text(&self, shards: usize, raised: bool, supervisor: &Supervisor) -> String {
        let Summary { config, addresses } = self;
        let version = env!("CARGO_PKG_VERSION");
        let Addresses { public, admin, http2, strangers } = addresses;
        let mut text = match public {
            Some(address) => format!("nightcore {version} serves on http://{address}\n"),
            None => format!("nightcore {version} serves gateways\n"),
        };
        if let Some(address) = http2.plain {
            text.push_str(&format!("  HTTP/2 and gRPC on http://{address}\n"));
        }
        if let Some(address) = http2.tls {
            text.push_str(&format!("  HTTP/2 and gRPC on https://{address}\n"));
        }
        if let Some(address) = strangers.clients {
            text.push_str(&format!("  TLS on https://{address}\n"));
        }
        if let Some(address) = strangers.engines {
            text.push_str(&format!("  engines join at {address}\n"));
        }
        let engines = config.gateway.engines.as_ref().filter(|_| config.overrides.role.has_door());
        if let Some(path) = engines.and_then(|engines| engines.path.as_ref()) {
            text.push_str(&format!("  engines join at unix:{}\n", path.display()));
        }
        if let Some(admin) = admin {
            text.push_str(&format!("  state and metrics on http://{admin}\n"));
        }
        let priority = match (config.engine.priority, raised) {
            (Priority::Normal, _) => "same priority as functions",
            (Priority::Groups, _) => "above functions, which have CPU groups of minimum weight",
            (Priority::Adaptive, true) => "above functions unless many calls are in flight",
            (Priority::High, true) => "above functions",
            (Priority::Adaptive | Priority::High, false) => {
                "above functions, which run at lower priority"
            }
        };
        text.push_str(&format!("  {shards} shards pinned to cores, {priority}\n"));
        if config.overrides.role.has_functions() {
            text.push_str(&format!(
                "  {:<20} {:>8} {:>9} {:>9}  library\n",
                "function", "pid", "workers", "timeout"
            ));
        }
        for (function, (name, pid)) in config.functions.iter().zip(supervisor.containers()) {
            let workers = format!("{}..{}", function.min_workers, function.max_workers);
            let place = if function.placement == Placement::Free { " (any core)" } else { "" };
            let library = function.library.display();
            let timeout = format!("{:?}", function.timeout);
            text.push_str(&format!(
                "  {name:<20} {pid:>8} {workers:>9} {timeout:>9}  {library}{place}\n"
            ));
        }
        text.push_str("  stop with Ctrl-C or SIGTERM\n");
        text
    }
}
