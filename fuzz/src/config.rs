//! Text that should be a configuration. What is accepted lies in its ranges, and what is refused is
//! refused in one line that shows nothing but text.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use crate::command::config::{
    Config, FUNCTIONS_MAX, Overrides, SHARDS_MAX, WORKERS_MAX, is_function_name, parse_duration,
};

/// Bytes of a refusal at most, for a text without long names and paths: those are repeated, escaped,
/// a path once for each place where it was looked for.
const REFUSAL_MAX: usize = 2048;
const REFUSAL_PER_BYTE: usize = 32;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Takes the bytes for a file, and for a duration.
pub fn run(data: &[u8]) {
    // The reader of the file says no to other bytes.
    let Ok(text) = str::from_utf8(data) else { return };
    duration(text);
    match Config::read(text, Path::new("/proc/nightcore.toml"), Overrides::default()) {
        Ok(config) => check(&config),
        Err(error) => {
            let refusal = error.to_string();
            assert!(!refusal.chars().any(char::is_control), "one line of text: {refusal:?}");
            let size_max = REFUSAL_MAX + REFUSAL_PER_BYTE * text.len();
            assert!(refusal.len() <= size_max, "{} bytes", refusal.len());
        }
    }
}

/// A number with its unit and nothing else.
fn duration(text: &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let factor = factor.into_iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    let expected = number.parse::<u64>().ok().zip(factor);
    let expected = expected.and_then(|(number, factor)| number.checked_mul(factor));
    assert_eq!(parse_duration(text), expected.map(Duration::from_millis));
}

fn check(config: &Config) {
    let gateway = &config.gateway;
    assert!((1..=256 << 20).contains(&gateway.body_max) && gateway.connections_max > 0);
    for time in
        [gateway.head_timeout, gateway.body_timeout, gateway.idle_timeout, gateway.write_timeout]
    {
        assert!((MILLISECOND..=DAY).contains(&time));
    }
    let engine = &config.engine;
    assert!(engine.shards.is_none_or(|shards| (1..=SHARDS_MAX).contains(&shards)));
    assert!(engine.drain_timeout <= DAY && (1..=WORKERS_MAX).contains(&engine.depth_max));
    let directories = engine.runtime_dir.iter().chain(&engine.oci_rootfs);
    assert!(directories.into_iter().all(|path| path.is_absolute()));

    let functions = &config.functions;
    assert!(functions.len() <= FUNCTIONS_MAX);
    let names: HashSet<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names.len(), functions.len(), "names are unique");
    for function in functions {
        assert!(is_function_name(&function.name));
        assert!(function.library.is_absolute() && function.library.is_file());
        assert!(function.min_workers <= function.max_workers);
        assert!((1..=WORKERS_MAX).contains(&function.max_workers));
        assert!(function.memory.is_none_or(|bytes| (1 << 20..=1 << 50).contains(&bytes)));
        assert!(function.pids.is_none_or(|pids| pids > 0));
        assert!(function.cpu_quota.is_none_or(|quota| (10..=1_024_000).contains(&quota)));
        assert!(function.read_only.iter().all(|path| path.is_absolute()));
        let times = [Some(function.timeout), Some(function.grace)];
        let optional = [function.queue_wait_max, function.idle_timeout];
        let mut times = times.into_iter().chain(optional).flatten();
        assert!(times.all(|time| (MILLISECOND..=DAY).contains(&time)));
        for (name, value) in &function.env {
            assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
            assert!(!name.starts_with("NIGHTCORE_"));
        }
    }
}
