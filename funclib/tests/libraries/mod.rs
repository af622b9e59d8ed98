//! Shared libraries for tests, compiled with `cc` as a user would.

#![allow(clippy::unwrap_used)] // only tests use this

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles C text to a library that lives as long as the directory.
pub fn compile(directory: &Path, name: &str, source: &str) -> PathBuf {
    let file = directory.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let library = directory.join(format!("lib{name}.so"));
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I"])
        .arg(include)
        .arg("-o")
        .args([&library, &file])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}
