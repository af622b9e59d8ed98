//! Configurations as text, as a user writes them.

use std::path::Path;

use crate::binaries::built;

/// A table for each of these examples. What is written behind it belongs to the last one.
#[must_use]
pub fn functions(names: &[&str]) -> String {
    names.iter().map(|name| function(name, &built(&format!("lib{name}.so")))).collect()
}

/// A table for one function.
#[must_use]
pub fn function(name: &str, library: &Path) -> String {
    format!("[[function]]\nname = \"{name}\"\nlibrary = \"{}\"\n", library.display())
}

/// The same configuration with its sockets below `directory`; lines up to `[engine]`, or all if there
/// is none, keep their numbers. One that has such a directory keeps it.
#[must_use]
pub fn with_runtime_dir(text: &str, directory: &Path) -> String {
    if text.contains("runtime_dir = ") {
        return text.to_owned();
    }
    let setting = format!("runtime_dir = \"{}\"\n", directory.display());
    let section = text.lines().position(|line| line.trim() == "[engine]");
    let mut result = String::with_capacity(text.len() + setting.len());
    for (index, line) in text.lines().enumerate() {
        result.push_str(line);
        result.push('\n');
        if Some(index) == section {
            result.push_str(&setting);
        }
    }
    if section.is_none() {
        result.push_str("[engine]\n");
        result.push_str(&setting);
    }
    result
}
