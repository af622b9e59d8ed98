//! Where a function's library is looked for.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::table::Value;

/// The directories against which a relative path is tried, in this order.
pub(super) struct Search {
    directories: Vec<PathBuf>,
}

impl Search {
    /// Beside the file `config`, beside the executable, and in the `lib` next to its directory.
    pub(super) fn from(config: &Path) -> Search {
        let mut directories = vec![config.parent().unwrap_or(Path::new("")).to_owned()];
        let executable = std::env::current_exe().unwrap_or_default();
        if let Some(directory) = executable.parent() {
            directories.push(directory.to_owned());
            directories.extend(directory.parent().map(|prefix| prefix.join("lib")));
        }
        Search { directories }
    }

    /// Absolute path of the library that `value` names.
    pub(super) fn find(&self, value: &Value<'_>) -> Result<PathBuf, ConfigError> {
        const EXPECTED: &str = "the path of a shared library";
        let text = value.text(EXPECTED)?;
        if text.is_empty() || text.contains('\0') {
            return Err(value.unexpected(EXPECTED));
        }
        let mut looked: Vec<PathBuf> = Vec::new();
        for directory in &self.directories {
            // `join` of an absolute path is that path: it is tried once.
            let joined = directory.join(text);
            let candidate = std::path::absolute(&joined).unwrap_or(joined);
            if candidate.is_file() {
                return Ok(candidate);
            }
            if !looked.contains(&candidate) {
                looked.push(candidate);
            }
        }
        Err(value.refused(Problem::NoLibrary { looked }))
    }
}

#[cfg(test)]
impl Search {
    /// Exactly these directories.
    pub(super) fn of(directories: &[&Path]) -> Search {
        Search { directories: directories.iter().map(|path| path.to_path_buf()).collect() }
    }
}
