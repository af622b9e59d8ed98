//! Where the binaries under test are.

use std::path::{Path, PathBuf};

/// Directory of the binaries, if not `target/release` of this tree.
const DIRECTORY_VARIABLE: &str = "NIGHTCORE_BIN_DIR";

/// Absolute path of a built file such as `nightcore` or `libecho.so`.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let directory =
        std::env::var_os(DIRECTORY_VARIABLE).map_or_else(default_directory, PathBuf::from);
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --release` first, or set {DIRECTORY_VARIABLE}",
        path.display()
    );
    path.canonicalize().expect("the file is there")
}

/// A file of the source tree.
#[must_use]
pub fn in_tree(path: &str) -> PathBuf {
    root().join(path)
}

fn default_directory() -> PathBuf {
    root().join("target/release")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the tree")
}
