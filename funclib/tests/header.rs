//! `nightcore.h` compiles as C and C++ without a warning and has the shapes of `nightcore::abi`;
//! the manual's examples in C compile with it.

#![allow(clippy::unwrap_used)]

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use nightcore::abi::{Host, RawAnswer};

fn compile(compiler: &str, flags: &[&str], extension: &str, source: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(format!("check.{extension}"));
    std::fs::write(&file, source).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
        .arg(include)
        .args(flags)
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_compiles_as_c_and_as_cpp() {
    let source = "#include <nightcore.h>\n#include <nightcore.h>\nint main(void) { return 0; }\n";
    compile("cc", &["-std=c99"], "c", source);
    compile("c++", &["-std=c++11", "-xc++"], "cc", source);
}

#[test]
fn the_manuals_examples_in_c_compile() {
    let manual = include_str!("../../docs/functions.md");
    let blocks = manual.split("```c\n").skip(1).filter_map(|rest| rest.split("```").next());
    let count = blocks.inspect(|source| compile("cc", &["-std=c99"], "c", source)).count();
    assert_eq!(count, 2);
}

#[test]
fn the_header_and_the_sdk_agree_on_every_shape() {
    let mut source = String::from("#include <nightcore.h>\n");
    let mut same = |expression: &str, value: usize| {
        source += &format!("_Static_assert({expression} == {value}, \"{expression}\");\n");
    };
    same("sizeof(nightcore_host)", size_of::<Host>());
    same("sizeof(nightcore_answer)", size_of::<RawAnswer>());
    macro_rules! offsets {
        ($rust:ty, $c:literal: $($member:ident)*) => {$(
            same(
                concat!("offsetof(", $c, ", ", stringify!($member), ")"),
                offset_of!($rust, $member),
            );
        )*};
    }
    offsets!(Host, "nightcore_host": size output_append output_reserve set_status set_content_type
        add_header fail get header_count header_at time_remaining_ns depth is_cancelled call_start
        call_wait call_release call_prepare log);
    offsets!(RawAnswer, "nightcore_answer": outcome status data length content_type
        content_type_length);
    same("NIGHTCORE_ABI_VERSION", nightcore::abi::VERSION as usize);
    same("NIGHTCORE_INVALID", usize::try_from(nightcore::abi::INVALID).unwrap());
    same("NIGHTCORE_DEADLOCK", nightcore::ErrorKind::Deadlock as usize);
    same("NIGHTCORE_BREAKER_OPEN", nightcore::ErrorKind::BreakerOpen as usize);
    same("NIGHTCORE_HOST_LOST", nightcore::ErrorKind::HostLost as usize);
    same("NIGHTCORE_TRACEPARENT", nightcore::abi::Field::Traceparent as usize);
    compile("cc", &["-std=c11"], "c", &source);
}
