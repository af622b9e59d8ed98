//! Refusals of `[[function]]`, and where its library is looked for.

use std::fs;

use super::tests::{FUNCTION, refusal, refused_function};
use super::*;

#[test]
fn more_workers_required_than_allowed_are_refused_where_they_are_required() {
    assert_eq!(
        refused_function("max_workers = 2\nmin_workers = 3"),
        "nightcore.toml:5: function.min_workers: \
         expected at most max_workers, which is 2, got 3"
    );
    assert_eq!(
        refused_function("min_workers = 129"),
        "nightcore.toml:4: function.min_workers: \
         expected at most max_workers, which is 128, got 129"
    );
}

#[test]
fn a_missing_name_or_library_is_refused_at_its_table() {
    assert_eq!(
        refusal("\n[[function]]\nlibrary = \"lib.so\"\n"),
        "nightcore.toml:2: function.name: expected the function's name, but the key is missing"
    );
    assert_eq!(
        refusal("[[function]]\nname = \"f\"\n"),
        "nightcore.toml:1: function.library: \
         expected the path of a shared library, but the key is missing"
    );
}

#[test]
fn a_bad_name_is_refused() {
    for name in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(65)] {
        let message = refusal(&format!("[[function]]\nname = \"{name}\"\nlibrary = \"lib.so\"\n"));
        let expected = "nightcore.toml:2: function.name: expected a name of 1 to 64 letters";
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_name_used_twice_is_refused_with_both_lines() {
    assert_eq!(
        refusal(&format!("{FUNCTION}{FUNCTION}")),
        "nightcore.toml:5: function.name: \
         expected a name of its own, but the function on line 1 is \"f\" too"
    );
}

#[test]
fn a_library_that_is_not_there_is_refused_with_the_places_looked_at() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(second.path().join("libf.so")).unwrap();
    let search = Search::of(&[first.path(), second.path()]);
    let refusal = |library: &str| {
        let text = format!("[[function]]\nname = \"f\"\nlibrary = \"{library}\"\n");
        let path = Path::new("nightcore.toml");
        Config::parse(&text, path, Overrides::default(), &search).unwrap_err().to_string()
    };
    assert_eq!(
        refusal("libf.so"),
        format!(
            "nightcore.toml:3: function.library: expected a library file, found none at \
             {}/libf.so or {}/libf.so",
            first.path().display(),
            second.path().display()
        )
    );
    assert_eq!(
        refusal("/nonexistent/libf.so"),
        "nightcore.toml:3: function.library: \
         expected a library file, found none at /nonexistent/libf.so"
    );
    assert_eq!(
        refusal(""),
        "nightcore.toml:3: function.library: expected the path of a shared library, got \"\""
    );
}

#[test]
fn a_library_beside_the_configuration_comes_before_one_beside_the_executable() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(second.path().join("lib.so"), b"").unwrap();
    let library = || {
        let search = Search::of(&[first.path(), second.path()]);
        let path = Path::new("nightcore.toml");
        let config = Config::parse(FUNCTION, path, Overrides::default(), &search).unwrap();
        config.functions[0].library.clone()
    };
    assert_eq!(library(), second.path().join("lib.so"));
    fs::write(first.path().join("lib.so"), b"").unwrap();
    assert_eq!(library(), first.path().join("lib.so"));
}

#[test]
fn a_bad_environment_is_refused() {
    assert_eq!(
        refused_function("env = \"A=1\""),
        "nightcore.toml:4: function.env: expected a table of environment variables, got \"A=1\""
    );
    assert_eq!(
        refused_function("[function.env]\nA = 1"),
        "nightcore.toml:5: function.env.A: expected a string, got 1"
    );
    assert_eq!(
        refused_function("env = { A = \"\\u0000\" }"),
        "nightcore.toml:4: function.env.A: expected a string without NUL, got \"\\0\""
    );
    for name in ["\"\"", "\"A=B\"", "NIGHTCORE_SOCKET"] {
        let message = refused_function(&format!("env = {{ {name} = \"1\" }}"));
        let end =
            "expected a variable name that is not empty, has no \"=\" and no prefix NIGHTCORE_";
        assert!(message.starts_with("nightcore.toml:4: function.env."), "{message}");
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn too_many_functions_are_refused() {
    let text = "[[function]]\n".repeat(FUNCTIONS_MAX + 1);
    assert_eq!(
        refusal(&text),
        "nightcore.toml:1: function: expected at most 1024 tables [[function]], got 1025"
    );
}
