//! What figures depend on, and nothing that names this machine's owner.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::programs::{Programs, version};

/// Describes machine and versions; keys are stable, those that do not apply are absent.
#[must_use]
pub fn describe(programs: &Programs) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            map.insert(key.to_owned(), Value::String(value));
        }
    };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let sys = |path: &str| line(format!("/sys/devices/system/cpu/{path}"));
    put("date", output("date", &["-u", "+%FT%TZ"]));
    put("commit", commit());
    put("kernel", output("uname", &["-srm"]));
    put("cpu", field(&cpuinfo, "model name"));
    put("virtual_machine", cpuinfo.contains(" hypervisor").then(|| "yes".to_owned()));
    put("governor", sys("cpu0/cpufreq/scaling_governor"));
    put("smt", sys("smt/control"));
    put("isolated_cores", sys("isolated"));
    put("idle_driver", sys("cpuidle/current_driver"));
    put("sched_autogroup", line("/proc/sys/kernel/sched_autogroup_enabled"));
    put(
        "load_average",
        line("/proc/loadavg").map(|line| line.split(' ').next().unwrap_or_default().to_owned()),
    );
    put("rustc", output("rustc", &["--version"]));
    put("nginx", programs.nginx.as_deref().and_then(|path| version(path, "-v")));
    put("workerd", programs.workerd.as_deref().and_then(|path| version(path, "--version")));
    put("strace", programs.strace.as_deref().and_then(|path| version(path, "-V")));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    map.insert("cores".to_owned(), cores.into());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(kib) =
        field(&memory, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
    {
        map.insert("memory_mib".to_owned(), (kib / 1024).into());
    }
    map
}

/// The day, in UTC, as in `2026-01-31`.
#[must_use]
pub fn today() -> String {
    output("date", &["-u", "+%F"]).unwrap_or_else(|| "undated".to_owned())
}

/// This machine's name.
#[must_use]
pub fn host() -> String {
    output("uname", &["-n"]).unwrap_or_else(|| "host".to_owned())
}

/// Ticks of all cores since the machine started: all of them, idle, stolen by the hypervisor.
#[derive(Clone, Copy)]
pub struct MachineTicks {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl MachineTicks {
    /// Up to now.
    #[must_use]
    pub fn now() -> MachineTicks {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .map(|word| word.parse().unwrap_or(0))
            .collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        // Guests' time, the last two, is in the user's already.
        MachineTicks { all: ticks.iter().take(8).sum(), idle: at(3) + at(4), stolen: at(7) }
    }

    /// Percent of all cores since then: busy, stolen.
    #[must_use]
    pub fn percent(self) -> (f64, f64) {
        let now = MachineTicks::now();
        let all = now.all.saturating_sub(self.all).max(1) as f64;
        let idle = now.idle.saturating_sub(self.idle) as f64;
        let stolen = now.stolen.saturating_sub(self.stolen) as f64;
        (100.0 * (all - idle) / all, 100.0 * stolen / all)
    }
}

fn commit() -> Option<String> {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = output("git", &["status", "--porcelain", "--", ".", ":!bench/results"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}, with changes") })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
