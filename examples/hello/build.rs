//! Compiles `hello.c` to `libhello.so` in the profile's directory, where cargo puts the functions
//! that are written in Rust.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let include = variable("CARGO_MANIFEST_DIR").join("../../funclib/include");
    // OUT_DIR is target/<profile>/build/hello-<hash>/out.
    let out = variable("OUT_DIR");
    let library = out.ancestors().nth(3).expect("four levels deep").join("libhello.so");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-std=c99", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"])
        .arg("-I")
        .arg(&include)
        .arg("-o")
        .arg(&library)
        .arg("hello.c")
        .status();
    match status {
        Ok(status) if status.success() => {}
        outcome => panic!("{} could not compile hello.c: {outcome:?}", compiler.to_string_lossy()),
    }
    println!("cargo::rerun-if-changed=hello.c");
    println!("cargo::rerun-if-changed={}", include.join("nightcore.h").display());
    println!("cargo::rerun-if-env-changed=CC");
}
