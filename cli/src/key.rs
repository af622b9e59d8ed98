//! `nightcore key`: makes API keys, and hashes those that were made before. Works on no running stack and
//! writes no file.

use std::io::{self, Read, Write};

use clap::{Args, Subcommand};
use gateway::auth::{ApiKey, KeyId};

/// Bytes of standard input that are looked at: a key has about 100.
const INPUT_MAX: u64 = 4096;

/// Options of `nightcore key`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What is done.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Make a key: its lines for the file of keys go to standard output, the key itself, once and
    /// nowhere else, to standard error
    New(NewOptions),
    /// Read a key from standard input and print its hash
    Hash,
}

/// Options of `nightcore key new`.
#[derive(Clone, Debug, Args)]
pub struct NewOptions {
    /// Names the key, in logs and in the file of keys: 1 to 32 letters, digits and "-"
    #[arg(value_name = "ID", value_parser = parse_id)]
    pub id: String,
    /// Whose key it is
    #[arg(long, value_name = "NAME")]
    pub client: String,
    /// Function that it is for, a "*" at its end for all that begin like that; may be repeated.
    /// Without any: all, and the gateway's own resources
    #[arg(long = "function", value_name = "NAME")]
    pub functions: Vec<String>,
    /// Calls a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Calls that may come at once; as many as in a second by default
    #[arg(long, value_name = "N", requires = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub burst: Option<u32>,
    /// Print one line of JSON to standard output, with the key in it
    #[arg(long)]
    pub json: bool,
}

/// Why there is no key or hash.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Standard input is none.
    #[error("standard input holds no key: nck_ID_ and 64 hexadecimal digits")]
    NoKey,
    /// It cannot be read.
    #[error("standard input: {0}")]
    Input(#[source] io::Error),
    /// The system has no random numbers.
    #[error("the system's random generator failed")]
    NoRandomness,
    /// The lines would not be accepted.
    #[error("{0}")]
    Unusable(String),
    /// The result cannot be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl KeyError {
    /// Exit code of the command: 2 where the command line or the input is to blame, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            KeyError::NoKey | KeyError::Unusable(_) => 2,
            KeyError::Input(_) | KeyError::NoRandomness | KeyError::Output(_) => 1,
        }
    }
}

fn parse_id(text: &str) -> Result<String, &'static str> {
    let id = KeyId::parse(text).ok_or("an id has 1 to 32 letters, digits and \"-\"")?;
    Ok(id.as_str().to_owned())
}

/// `nightcore key`. `out` gets the result, `aside` what is for eyes only.
///
/// # Errors
/// When there is none.
pub fn run(
    options: &Options,
    input: impl Read,
    out: &mut impl Write,
    aside: &mut impl Write,
) -> Result<(), KeyError> {
    match &options.action {
        Action::New(options) => make(options, out, aside),
        Action::Hash => {
            let mut text = String::new();
            input.take(INPUT_MAX).read_to_string(&mut text).map_err(KeyError::Input)?;
            let key = ApiKey::parse(text.trim()).ok_or(KeyError::NoKey)?;
            writeln!(out, "{}", key.hash()).map_err(KeyError::Output)
        }
    }
}

fn make(
    options: &NewOptions,
    out: &mut impl Write,
    aside: &mut impl Write,
) -> Result<(), KeyError> {
    let id = KeyId::parse(&options.id).ok_or_else(|| KeyError::Unusable("no id".to_owned()))?;
    let key = ApiKey::generate(id).map_err(|_| KeyError::NoRandomness)?;
    let table = table(options, &key);
    // By the rules of the file itself, before anybody gets the key.
    gateway::auth::ApiKeys::parse(&table, None)
        .map_err(|error| KeyError::Unusable(error.to_string()))?;
    if options.json {
        let (id, hash) = (&options.id, key.hash().to_string());
        let line = serde_json::json!({ "id": id, "key": key.reveal(), "hash": hash });
        return writeln!(out, "{line}").map_err(KeyError::Output);
    }
    out.write_all(table.as_bytes()).and_then(|()| out.flush()).map_err(KeyError::Output)?;
    writeln!(aside, "{}", key.reveal()).map_err(KeyError::Output)
}

/// The lines of the file of keys.
fn table(options: &NewOptions, key: &ApiKey) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut lines = vec![
        "[[key]]".to_owned(),
        format!("id = {}", text(&options.id)),
        format!("hash = {}", text(&key.hash().to_string())),
        format!("client = {}", text(&options.client)),
    ];
    if !options.functions.is_empty() {
        lines.push(format!("functions = {}", toml::Value::from(options.functions.clone())));
    }
    lines.extend(options.rate.map(|rate| format!("rate = {rate}")));
    lines.extend(options.burst.map(|burst| format!("burst = {burst}")));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> NewOptions {
        NewOptions {
            id: "shop-1".into(),
            client: "the \"shop\"".into(),
            functions: vec!["cart".into(), "pay.*".into()],
            rate: Some(5),
            burst: Some(9),
            json: false,
        }
    }

    fn new(options: NewOptions) -> Result<(String, String), KeyError> {
        let (mut out, mut aside) = (Vec::new(), Vec::new());
        let options = Options { action: Action::New(options) };
        run(&options, io::empty(), &mut out, &mut aside)?;
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(aside).unwrap()))
    }

    fn hash(key: &str) -> Result<String, KeyError> {
        let mut out = Vec::new();
        run(&Options { action: Action::Hash }, key.as_bytes(), &mut out, &mut io::sink())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_new_key_has_lines_with_its_hash_and_never_itself() {
        let (table, key) = new(options()).unwrap();
        assert!(!table.contains(key.trim()));
        assert!(table.contains(hash(&key).unwrap().trim()));
        assert!(table.contains("functions = [\"cart\", \"pay.*\"]\nrate = 5\nburst = 9\n"));
        assert!(new(options()).unwrap().1 != key);
    }

    #[test]
    fn as_json_it_is_one_line() {
        let (line, aside) = new(NewOptions { json: true, ..options() }).unwrap();
        let made: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(aside, "");
        assert_eq!(hash(made["key"].as_str().unwrap()).unwrap().trim(), made["hash"]);
    }

    #[test]
    fn lines_that_would_not_be_accepted_are_not_made() {
        let functions = vec!["a b".to_owned()];
        let error = new(NewOptions { functions, ..options() }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = new(NewOptions { client: String::new(), ..options() }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn what_is_no_key_has_no_hash() {
        for input in ["", "nck_a_0", "x".repeat(5000).as_str()] {
            assert!(matches!(hash(input), Err(KeyError::NoKey)));
        }
    }
}
