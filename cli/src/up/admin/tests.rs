//! The socket and its client, each against the other and the server against bytes of any kind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;

use engine::logs::Logs;
use tempfile::TempDir;

use super::*;
use crate::admin::{About, AdminError, Place, REQUEST_SIZE_MAX, Report, Request, Standing};
use crate::config::{Config, Overrides, Role};
use crate::up::deploy::Deployer;
use crate::up::entrance::Entrance;
use crate::up::handover::{HandOver, UnderWay};
use crate::up::plan::Plan;
use crate::up::tls::Identities;

const ADDRESS: SocketAddr = crate::config::LISTEN_DEFAULT;

/// A directory for engines.
fn parent() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// An engine's socket as if its process had this id.
fn start(parent: &TempDir, pid: u32) -> Admin {
    start_as(parent, pid, Role::Host, Standing::Serving)
}

fn start_as(parent: &TempDir, pid: u32, role: Role, standing: Standing) -> Admin {
    let directory = parent.path().join(format!("nightcore-{pid}"));
    std::fs::create_dir(&directory).unwrap();
    let config = Config::read("", "nightcore.toml".as_ref(), Overrides::default()).unwrap();
    let (supervisor, _) = engine::mailbox::mailbox().unwrap();
    let plan = Plan::new(&config, 1, 1);
    let (entrance, identities) = (Entrance::default(), Identities::default());
    let deployer = Deployer::new(&config, plan, entrance, identities, supervisor.clone());
    let handover = HandOver {
        supervisor,
        listeners: Arc::default(),
        shards: Vec::new(),
        engines: None,
        standing: Arc::default(),
        under_way: UnderWay::default(),
    };
    handover.standing.set(standing);
    let (address, logs, deployer) = (Some(ADDRESS), Logs::default(), Arc::new(deployer));
    Admin::start(&directory, Engine { address, role, logs, deployer, handover }).unwrap()
}

fn place(parent: &TempDir, pid: Option<u32>) -> Place {
    Place { runtime_dir: Some(parent.path().to_owned()), config: None, pid }
}

fn about(place: &Place) -> Result<About, AdminError> {
    place.ask(&Request::About {})?.read().map(|about| about.expect("a line"))
}

fn connect(parent: &TempDir) -> UnixStream {
    UnixStream::connect(socket_in(&parent.path().join("nightcore-1"))).unwrap()
}

/// The one failure that the engine answers.
fn failure(stream: &UnixStream) -> Failure {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn an_engine_is_found_in_its_directory_and_says_who_it_is() {
    let parent = parent();
    let _admin = start(&parent, 1);
    let expected = About {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: Some(ADDRESS),
        role: Role::Host,
        standing: Standing::Serving,
    };
    for pid in [None, Some(1)] {
        assert_eq!(about(&place(&parent, pid)).unwrap(), expected);
    }
}

#[test]
fn of_several_engines_one_must_be_chosen_and_the_dead_do_not_count() {
    let parent = parent();
    let first = start(&parent, 1);
    let second = start(&parent, 2);
    let several = about(&place(&parent, None)).unwrap_err();
    assert!(matches!(&several, AdminError::Several(engines) if engines.len() == 2), "{several}");
    assert!(several.to_string().contains("http://127.0.0.1:8080"), "{several}");
    assert_eq!(several.exit_code(), 2);
    about(&place(&parent, Some(2))).unwrap();
    // Its socket stays, as that of an engine that was killed.
    drop(second);
    assert!(socket_in(&parent.path().join("nightcore-2")).exists());
    about(&place(&parent, None)).unwrap();
    drop(first);
    for pid in [None, Some(1), Some(3)] {
        let absent = about(&place(&parent, pid)).unwrap_err();
        assert!(matches!(absent, AdminError::Absent(_)), "{absent}");
        assert_eq!(absent.exit_code(), 1);
    }
}

#[test]
fn while_one_takes_over_from_another_the_one_that_serves_is_asked() {
    use Standing::{Draining, Serving, Starting};
    for (first, second, asked) in [
        (Serving, Starting, Serving),
        (Draining, Starting, Starting),
        (Draining, Serving, Serving),
        (Serving, Draining, Serving),
    ] {
        let parent = parent();
        let _first = start_as(&parent, 1, Role::Gateway, first);
        let _second = start_as(&parent, 2, Role::Gateway, second);
        let about = about(&place(&parent, None)).unwrap();
        assert_eq!(about.standing, asked, "of {first:?} and {second:?}");
    }
    let parent = parent();
    let _first = start_as(&parent, 1, Role::Gateway, Serving);
    let _second = start_as(&parent, 2, Role::Engine, Serving);
    let several = about(&place(&parent, None)).unwrap_err().to_string();
    assert!(several.contains("(a gateway at http://127.0.0.1:8080)"), "{several}");
}

#[test]
fn a_gateway_says_that_it_has_no_functions() {
    let parent = parent();
    let _admin = start_as(&parent, 1, Role::Gateway, Standing::Serving);
    let deploy = Request::Deploy { file: "/f".into(), text: String::new(), functions: vec![] };
    let logs = Request::Logs { function: None, lines: None, follow: false };
    for request in [deploy, Request::Remove { functions: vec!["f".to_owned()] }, logs] {
        let error = place(&parent, None).ask(&request).unwrap().read::<Report>().unwrap_err();
        assert!(error.to_string().contains("a gateway, which has no functions"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn only_a_gateway_that_serves_is_taken_over() {
    for (role, standing, words) in [
        (Role::Host, Standing::Serving, "only what `nightcore gateway` started"),
        (Role::Gateway, Standing::Starting, "does not serve"),
        (Role::Gateway, Standing::Draining, "does not serve"),
    ] {
        let parent = parent();
        let _admin = start_as(&parent, 1, role, standing);
        let mut answers = place(&parent, None).ask(&Request::HandOver {}).unwrap();
        let error = answers.read::<Report>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let parent = parent();
    let _admin = start(&parent, 1);
    for bytes in [
        &b"\n"[..],
        b"\0\xff\xfe garbage\n",
        b"{\"request\":\"explode\"}\n",
        b"{\"request\":\"about\",\"more\":1}\n",
        b"[[[[[[[[\n",
        b"{}",
        b"",
    ] {
        let mut stream = connect(&parent);
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let failure = failure(&stream);
        assert_eq!(failure.error, FailureKind::BadRequest, "{bytes:?}: {}", failure.message);
        assert!(failure.message.starts_with("not a request: "), "{}", failure.message);
    }
}

#[test]
fn a_change_that_an_engine_which_ends_cannot_do_is_told() {
    let parent = parent();
    let _admin = start(&parent, 1);
    let request = Request::Remove { functions: vec!["f".to_owned()] };
    let report = place(&parent, None).ask(&request).unwrap().read::<Report>().unwrap().unwrap();
    assert_eq!((report.function.as_str(), report.done), ("f", false));
    assert!(report.message.contains("is being stopped"), "{}", report.message);
}

#[test]
fn what_cannot_be_deployed_is_refused_as_a_whole() {
    let parent = parent();
    let _admin = start(&parent, 1);
    for (text, functions, words) in
        [("x = 1", vec![], "f.toml:1: x"), ("", vec!["f".to_owned()], "no function \"f\"")]
    {
        let (file, text) = ("/f.toml".into(), text.to_owned());
        let mut answers =
            place(&parent, None).ask(&Request::Deploy { file, text, functions }).unwrap();
        let error = answers.read::<Report>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_request_without_end_is_cut_off() {
    let parent = parent();
    let _admin = start(&parent, 1);
    let stream = connect(&parent);
    // The engine closes before it has read what is beyond its limit.
    let _ = (&stream).write_all(&vec![b'x'; REQUEST_SIZE_MAX]);
    let failure = failure(&stream);
    assert!(failure.message.contains("at most 1048576 bytes"), "{}", failure.message);
}

#[test]
fn too_many_connections_are_told_so_and_one_that_leaves_makes_room() {
    let parent = parent();
    let admin = start(&parent, 1);
    let mut silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&parent)).collect();
    // They are accepted in order, so the next one comes when all places are taken.
    let busy = about(&place(&parent, None)).unwrap_err();
    assert!(
        matches!(&busy, AdminError::Failed(failure) if failure.error == FailureKind::Busy),
        "{busy}"
    );
    let mut leaving = silent.pop().unwrap();
    leaving.shutdown(Shutdown::Write).unwrap();
    // The end of the connection, which is before the place is free.
    leaving.read_to_end(&mut Vec::new()).unwrap();
    let mut taken = admin.places.taken.lock().unwrap();
    while *taken == CONNECTIONS_MAX {
        taken = admin.places.freed.wait(taken).unwrap();
    }
    drop(taken);
    about(&place(&parent, None)).unwrap();
    drop(silent);
}
