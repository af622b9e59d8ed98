//! Functions that exist for the tests alone: C sources, built with `cc` when a test wants them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::in_tree;

/// Builds `tests/functions/<name>.c` as a shared library in `directory`.
///
/// # Panics
/// If there is no C compiler, or the source is wrong.
#[must_use]
pub fn build(name: &str, directory: &Path) -> PathBuf {
    let library = directory.join(format!("lib{name}.so"));
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I"])
        .arg(in_tree("funclib/include"))
        .arg("-o")
        .arg(&library)
        .arg(in_tree("tests/functions").join(format!("{name}.c")))
        .output()
        .expect("a C compiler can be run as `cc`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc failed on {name}.c: {errors}");
    library
}
