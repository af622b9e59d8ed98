//! What it costs to have gateway and engine apart, and what TLS costs at the door.
//!
//! The same function behind one embedded process, behind a gateway with an engine of its own (link with
//! a key over TCP and over a unix socket, link with TLS), and behind TLS for clients; all of them stand at once and are measured in
//! turns, with `wrk`, which speaks both HTTP and HTTPS.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde::Serialize;
use serde_json::Value;

use crate::suite::process::nth_core;
use crate::suite::programs::Programs;
use crate::suite::targets::{Instance, Starter};
use crate::suite::{self, Error, environment};

/// The function that answers nothing.
const FUNCTION: &str = "[[function]]\nname = \"nop\"\nlibrary = \"libnop.so\"\n";
const SCRIPT: &str = "scripts/wrk/nop.lua";
const LOADS: [Load; 2] = [Load::Lone, Load::Many];
const NEAR: &str = "c1_near_p50_us";
const FAR: &str = "c1_far_p50_us";
const RATE: &str = "c64_per_s";
const MEASURES: [&str; 3] = [NEAR, FAR, RATE];

/// A run to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds in which each kind is measured once.
    pub rounds: u32,
    /// Seconds of each load.
    pub seconds: u32,
    /// Where the results go; `bench/results/<date>-<host>/apart` otherwise.
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// A client that runs on one core, and then on the other: with it on the core of the shard that serves
    /// it a request takes a third of what it takes otherwise. Which core that is the balance of
    /// connections decides, so the lower median is of the near one.
    Lone,
    /// A client that runs on either.
    Many,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure<'a> {
    measure: &'static str,
    kind: &'a str,
    round: u32,
    value: f64,
}

/// Where a kind takes requests.
struct Kind {
    name: &'static str,
    url: String,
}

/// Makes a run; gives the directory of its results and the table.
///
/// # Errors
/// When a stack does not start or `wrk` is missing.
pub fn run(options: &Options) -> Result<(PathBuf, String), Error> {
    let programs = Programs::find();
    let scratch = suite::scratch()?;
    let out = options.out.clone();
    let out =
        out.unwrap_or_else(|| suite::fresh_directory(Path::new("bench/results")).join("apart"));
    let path = out.join("figures.jsonl");
    let raw = fs::create_dir_all(&out).and_then(|()| File::create(&path));
    let mut raw = raw.map_err(|source| Error::Write { path: path.clone(), source })?;
    let environment = Value::Object(environment::describe(&programs));
    suite::write(&out.join("environment.json"), &format!("{environment:#}\n"))?;
    write_secrets(scratch.path())?;
    let mut starter = Starter::new(&programs, scratch.path());
    let (instances, kinds) = start(&mut starter, scratch.path())?;
    let mut figures = Vec::new();
    // The first round warms them up.
    for round in 0..=options.rounds {
        for load in LOADS {
            for index in 0..kinds.len() {
                // Forwards and backwards by turns.
                let index = if round % 2 == 0 { index } else { kinds.len() - 1 - index };
                let Kind { name, url } = &kinds[index];
                for (measure, value) in load.run(url, options.seconds)? {
                    if round == 0 {
                        continue;
                    }
                    let figure = Figure { measure, kind: name, round, value };
                    let line = serde_json::to_string(&figure).unwrap_or_default();
                    writeln!(raw, "{line}")
                        .map_err(|source| Error::Write { path: path.clone(), source })?;
                    figures.push((measure, *name, value));
                }
            }
        }
    }
    instances.into_iter().try_for_each(Instance::stop)?;
    let table = table(&figures);
    suite::write(&out.join("summary.md"), &table)?;
    Ok((out, table))
}

/// Starts all that is compared.
fn start(starter: &mut Starter<'_>, scratch: &Path) -> Result<(Vec<Instance>, Vec<Kind>), Error> {
    let tls = starter.address()?;
    let host = format!(
        "[gateway.tls]\nlisten = \"{tls}\"\ncertificate = \"end.pem\"\nkey = \"end.key\"\n{FUNCTION}"
    );
    let host = starter.nightcore_with(&host, None)?;
    let mut kinds = vec![
        Kind { name: "up", url: format!("http://{}", host.address) },
        Kind { name: "up, TLS at the door", url: format!("https://{tls}") },
    ];
    let mut instances = vec![host];
    let key = "key_file = \"link.key\"\n";
    let certificates =
        "certificate = \"end.pem\"\nkey = \"end.key\"\nauthorities = \"authority.pem\"\n";
    let path = scratch.join("engines.sock").display().to_string();
    let (port, tls_port) = (starter.address()?.to_string(), starter.address()?.to_string());
    for (name, link, place, engines) in [
        ("apart, key", key, "listen", port),
        ("apart, unix", key, "path", format!("unix:{path}")),
        ("apart, TLS on the link", certificates, "listen", tls_port),
    ] {
        let at = engines.trim_start_matches("unix:");
        let gateway = format!("[gateway.engines]\n{place} = \"{at}\"\n{link}");
        let engine =
            format!("[engine]\ngateways = [\"{engines}\"]\n[engine.link]\n{link}{FUNCTION}");
        let apart = starter.apart(&gateway, &engine, "nop")?;
        kinds.push(Kind { name, url: format!("http://{}", apart.address) });
        instances.push(apart);
    }
    Ok((instances, kinds))
}

/// A key for links, an authority and one certificate for all.
fn write_secrets(directory: &Path) -> Result<(), Error> {
    let failed = |error: rcgen::Error| unexpected(&format!("a certificate: {error}"));
    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().map_err(failed)?;
    let authority = CertifiedIssuer::self_signed(authority, authority_key).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let end = CertificateParams::new(names).and_then(|end| end.signed_by(&key, &authority));
    let end = end.map_err(failed)?;
    for (name, text) in [
        ("authority.pem", authority.pem()),
        ("end.pem", end.pem()),
        ("end.key", key.serialize_pem()),
        // As good as any other for what it costs.
        ("link.key", "0123456789abcdef0123456789abcdef\n".to_owned()),
    ] {
        let path = directory.join(name);
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

impl Load {
    /// Puts it on a kind, and gives what it measures.
    fn run(self, url: &str, seconds: u32) -> Result<Vec<(&'static str, f64)>, Error> {
        let (first, second) = (nth_core(0)?, nth_core(1)?);
        match self {
            Load::Lone => {
                let one = wrk(url, 1, seconds, &first.to_string(), "p50_us=")?;
                let other = wrk(url, 1, seconds, &second.to_string(), "p50_us=")?;
                Ok(vec![(NEAR, one.min(other)), (FAR, one.max(other))])
            }
            Load::Many => {
                let rate = wrk(url, 64, seconds, &format!("{first},{second}"), "rps=")?;
                Ok(vec![(RATE, rate)])
            }
        }
    }
}

/// A field of the report of a load by `wrk` on some cores.
fn wrk(url: &str, connections: u32, seconds: u32, cores: &str, wanted: &str) -> Result<f64, Error> {
    let (connections, duration) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let arguments = ["-c", cores, "wrk", "-t1", &connections, &duration, "-s", SCRIPT, url];
    let output = Command::new("taskset").args(arguments).output();
    let output = output.map_err(|source| Error::Start { name: "taskset".to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().find(|line| line.starts_with("report "));
    let field = |name: &str| {
        let value = report?.split_whitespace().find_map(|word| word.strip_prefix(name))?;
        value.parse::<f64>().ok()
    };
    match (field("errors="), field(wanted)) {
        (Some(0.0), Some(value)) => Ok(value),
        _ => Err(unexpected(&format!("wrk's report of {url}: {}", text.trim()))),
    }
}

fn table(figures: &[(&'static str, &'static str, f64)]) -> String {
    let mut text =
        String::from("| figure | kind | median | least | most |\n|---|---|---|---|---|\n");
    let mut rows: Vec<_> = figures.iter().map(|(measure, kind, _)| (*measure, *kind)).collect();
    rows.sort_unstable();
    rows.dedup();
    for (measure, kind) in rows {
        let [median, least, most] = spread(figures, measure, kind);
        // A String takes every write.
        let _ = writeln!(text, "| {measure} | {kind} | {median:.1} | {least:.1} | {most:.1} |");
    }
    text.push_str("\n| bar | measured | |\n|---|---|---|\n");
    let over =
        |measure, kind| spread(figures, measure, kind)[0] / spread(figures, measure, "up")[0];
    // The kind, and what at most its p50 and at least its rate may be of those of the one process.
    let kinds = [
        ("apart, key", Some(1.6), Some(0.6)),
        ("apart, unix", Some(1.6), Some(0.6)),
        ("apart, TLS on the link", None, None),
        ("up, TLS at the door", Some(1.25), None),
    ];
    for (kind, most, least) in kinds {
        for measure in MEASURES {
            let ratio = over(measure, kind);
            let (bar, bound, is_met) = match measure {
                RATE => ("at least", least, Some(ratio) >= least),
                _ => ("at most", most, most.is_some_and(|most| ratio <= most)),
            };
            let (bar, verdict) = match bound {
                Some(bound) => (format!("{bar} {bound}"), if is_met { "met" } else { "missed" }),
                None => ("no bar".to_owned(), ""),
            };
            let _ = writeln!(text, "| {measure}, {kind} over up: {bar} | {ratio:.2} | {verdict} |");
        }
    }
    text
}

/// Median, least and most; not numbers where nothing was measured.
fn spread(figures: &[(&str, &str, f64)], measure: &str, kind: &str) -> [f64; 3] {
    let of = figures.iter().filter(|figure| (figure.0, figure.1) == (measure, kind));
    let mut values: Vec<f64> = of.map(|figure| figure.2).collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    [(at(last / 2) + at(last.div_ceil(2))) / 2.0, at(0), at(last)]
}

fn unexpected(what: &str) -> Error {
    Error::Output { case: "apart".to_owned(), output: what.to_owned() }
}
