//! `admin_listen` of `[gateway]` and `[engine]`: where a host's state is to be seen.

use std::net::SocketAddr;

use super::error::{ConfigError, Problem};
use super::table::Table;
use super::{Config, Role};

/// Reads the key of a section whose `insecure` is this.
pub(super) fn read_admin_listen(
    table: &Table<'_>,
    section: &'static str,
    insecure: bool,
) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(value) = table.get("admin_listen") else { return Ok(None) };
    let address: SocketAddr = value.parsed("an address and port such as \"127.0.0.1:8079\"")?;
    // Whoever reaches the port may read names, versions and load of everything that runs here.
    if !insecure && !address.ip().to_canonical().is_loopback() {
        return Err(value.refused(Problem::StateExposed { address, section }));
    }
    Ok(Some(address))
}

impl Config {
    /// Where the host's state is to be seen, apart from the public port; `None`: there, if it has one.
    /// A process without a door goes by `[engine]`, others by `[gateway]`.
    #[must_use]
    pub fn admin_listen(&self) -> Option<SocketAddr> {
        match self.overrides.role {
            Role::Host | Role::Gateway => self.gateway.admin_listen,
            Role::Engine => self.engine.admin_listen,
        }
    }
}
