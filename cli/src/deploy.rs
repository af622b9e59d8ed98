//! `nightcore deploy`, `rm` and `reload`: change what a running stack serves, by its admin socket.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::admin::{AdminError, Place, Report, Request};
use crate::config::{Config, ConfigError, Overrides};

/// Options of `nightcore deploy`.
#[derive(Clone, Debug, clap::Args)]
pub struct DeployOptions {
    /// Functions of the configuration file; without any, all of them
    #[arg(value_name = "FUNCTION")]
    pub functions: Vec<String>,
    /// Deploy one function that is in no file: its shared library
    #[arg(long, value_name = "PATH", requires = "functions")]
    pub library: Option<PathBuf>,
    /// With --library: a line of its configuration, such as 'max_workers = 4'
    #[arg(long = "set", value_name = "KEY = VALUE", requires = "library")]
    pub settings: Vec<String>,
    #[command(flatten)]
    /// Which engine.
    pub place: Place,
    #[command(flatten)]
    /// How it is told.
    pub output: Output,
}

/// Options of `nightcore rm`.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoveOptions {
    /// Functions to remove
    #[arg(value_name = "FUNCTION", required = true)]
    pub functions: Vec<String>,
    #[command(flatten)]
    /// Which engine.
    pub place: Place,
    #[command(flatten)]
    /// How it is told.
    pub output: Output,
}

/// Options of `nightcore reload`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReloadOptions {
    #[command(flatten)]
    /// Which engine.
    pub place: Place,
    #[command(flatten)]
    /// How it is told.
    pub output: Output,
}

/// How the outcome is told.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// Print a line of JSON for each function
    #[arg(long)]
    pub json: bool,
}

/// Why not all is as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The engine was not asked, or refused all of it.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The file of the functions cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(&'static str),
    /// Some functions are not as was asked; which and why was printed.
    #[error("{0} of {1} failed")]
    Some(usize, usize),
}

impl DeployError {
    /// Exit code of the command: 2 where the command line or the file is to blame, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            DeployError::Admin(error) => error.exit_code(),
            DeployError::Config(_) | DeployError::File { .. } | DeployError::Usage(_) => 2,
            DeployError::Some(..) => 1,
        }
    }
}

/// `nightcore deploy`.
///
/// # Errors
/// When a function is not deployed; the former version serves then.
pub fn deploy(options: &DeployOptions, out: &mut impl Write) -> Result<(), DeployError> {
    let (file, text) = match &options.library {
        Some(library) => (PathBuf::from("command line"), table(options, library)?),
        None => {
            let file = options.place.config.clone().unwrap_or_else(|| "nightcore.toml".into());
            let file = absolute(&file)?;
            let text = std::fs::read_to_string(&file);
            let text = text.map_err(|source| DeployError::File { path: file.clone(), source })?;
            (file, text)
        }
    };
    // What is wrong with it is told as `up` tells it, and nothing is asked then.
    Config::read(&text, &file, Overrides::default())?;
    let request = Request::Deploy { file, text, functions: options.functions.clone() };
    ask(&options.place, &request, options.output, out)
}

/// `nightcore rm`.
///
/// # Errors
/// When a function is not removed.
pub fn remove(options: &RemoveOptions, out: &mut impl Write) -> Result<(), DeployError> {
    let request = Request::Remove { functions: options.functions.clone() };
    ask(&options.place, &request, options.output, out)
}

/// `nightcore reload`.
///
/// # Errors
/// When the file cannot be used, or a function is not as it says.
pub fn reload(options: &ReloadOptions, out: &mut impl Write) -> Result<(), DeployError> {
    ask(&options.place, &Request::Reload {}, options.output, out)
}

/// The configuration of the one function that the command line describes.
fn table(options: &DeployOptions, library: &Path) -> Result<String, DeployError> {
    let [name] = &options.functions[..] else {
        return Err(DeployError::Usage("--library is of one function"));
    };
    let library = absolute(library)?;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let library = library.to_str().ok_or(DeployError::Usage("--library is not UTF-8"))?;
    let mut text = String::from("[[function]]\n");
    // A String takes every write.
    let _ = writeln!(text, "name = {}\nlibrary = {}", quoted(name), quoted(library));
    for setting in &options.settings {
        let _ = writeln!(text, "{setting}");
    }
    Ok(text)
}

fn absolute(path: &Path) -> Result<PathBuf, DeployError> {
    std::path::absolute(path).map_err(|source| DeployError::File { path: path.to_owned(), source })
}

fn ask(
    place: &Place,
    request: &Request,
    output: Output,
    out: &mut impl Write,
) -> Result<(), DeployError> {
    let mut answers = place.ask(request)?;
    let (mut all, mut failed) = (0, 0);
    while let Some(report) = answers.read::<Report>()? {
        all += 1;
        failed += usize::from(!report.done);
        write(&report, output, out).map_err(AdminError::Output)?;
    }
    if failed == 0 { Ok(()) } else { Err(DeployError::Some(failed, all)) }
}

fn write(report: &Report, output: Output, out: &mut impl Write) -> io::Result<()> {
    if output.json {
        serde_json::to_writer(&mut *out, report)?;
        writeln!(out)?;
    } else {
        let Report { function, done, message } = report;
        let word = if *done { "" } else { "failed: " };
        writeln!(out, "{function}: {word}{message}")?;
    }
    out.flush()
}
