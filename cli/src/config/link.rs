//! `[engine] node, gateways, resolver` and `[engine.link]`: which gateways an engine dials, and what it
//! and they have to prove.

use std::net::SocketAddr;
use std::path::Path;

use dialer::Name;
use rustls::pki_types::ServerName;

use super::engines::{Trust, read_trust};
use super::error::{ConfigError, Problem};
use super::table::{Table, Value};

const _: () = assert!(NODE_SIZE_MAX == protocol::message::NAME_MAX);

/// More names than anybody has gateways.
const GATEWAYS_MAX: usize = 64;
/// Of a host, as the protocol has it.
const NODE_SIZE_MAX: usize = 64;
const NODE: &str = "a name of 1 to 64 letters, digits, \"_\", \".\" or \"-\"";
const GATEWAY: &str = "a gateway such as \"10.0.0.1:8090\", \"gw.example:8090\", \"srv:_nightcore._tcp.example\" \
                       or \"unix:/run/nightcore/engines.sock\"";
const GATEWAYS: &str = "an array of 1 to 64 gateways";
const LINK: &str = "a table [engine.link], by which gateways and this engine prove themselves";

/// Which gateways this engine dials, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of this host.
    pub node: String,
    /// The gateways, at least one.
    pub gateways: Vec<Name>,
    /// Who is asked for names; `None`: whoever the system asks.
    pub resolver: Option<SocketAddr>,
    /// What is proved.
    pub trust: Trust,
    /// The name in the gateways' certificates; `None`: the one by which each is dialled.
    pub server_name: Option<ServerName<'static>>,
}

/// The keys of `[engine]` that are read here.
pub(super) fn read_link(engine: &Table<'_>, directory: &Path) -> Result<Option<Link>, ConfigError> {
    let mut node = host_name();
    engine.read("node", &mut node, |value| match value.text(NODE)? {
        text if is_node(text) => Ok(text.to_owned()),
        _ => Err(value.unexpected(NODE)),
    })?;
    let mut resolver = None;
    engine.read("resolver", &mut resolver, |value| {
        value.parsed("an address and port such as \"127.0.0.1:53\"").map(Some)
    })?;
    let section = engine.get("link");
    let Some(gateways) = engine.get("gateways") else {
        if section.is_some() {
            engine.require("gateways", GATEWAYS)?;
        }
        return Ok(None);
    };
    let names = read_gateways(&gateways)?;
    let section = engine.require("link", LINK)?;
    let (trust, server_name) = read_section(&section, directory)?;
    if trust == Trust::Insecure
        && let Some(name) = names.iter().find(|name| !name.is_loopback())
    {
        return Err(gateways.refused(Problem::InsecureDial(name.to_string())));
    }
    Ok(Some(Link { node, gateways: names, resolver, trust, server_name }))
}

fn read_gateways(value: &Value<'_>) -> Result<Vec<Name>, ConfigError> {
    let elements = value.elements(GATEWAYS)?;
    if !(1..=GATEWAYS_MAX).contains(&elements.len()) {
        let got = elements.len().to_string();
        return Err(value.refused(Problem::Unexpected { expected: GATEWAYS.to_owned(), got }));
    }
    let mut names = Vec::with_capacity(elements.len());
    for element in elements {
        let name: Name = element.parsed(GATEWAY)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn read_section(
    section: &Value<'_>,
    directory: &Path,
) -> Result<(Trust, Option<ServerName<'static>>), ConfigError> {
    let known = &["key_file", "certificate", "key", "authorities", "insecure", "server_name"];
    let table = section.table(known)?;
    let trust = read_trust(section, &table, directory)?;
    let Some(value) = table.get("server_name") else { return Ok((trust, None)) };
    if !matches!(trust, Trust::Certificates { .. }) {
        return Err(value.refused(Problem::NoCertificates));
    }
    let expected = "a host's name or address";
    let name = ServerName::try_from(value.text(expected)?.to_owned());
    Ok((trust, Some(name.map_err(|_| value.unexpected(expected))?)))
}

fn is_node(text: &str) -> bool {
    (1..=NODE_SIZE_MAX).contains(&text.len()) && text.bytes().all(is_part)
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

/// The host's name, with what no node's name may have replaced.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let fit = |byte: u8| if is_part(byte) { char::from(byte) } else { '-' };
    let name: String =
        name.as_encoded_bytes().iter().take(NODE_SIZE_MAX).map(|byte| fit(*byte)).collect();
    if name.is_empty() { "engine".to_owned() } else { name }
}
