//! Who is let in, what is kept from functions, what web pages are told, and what the log says of it.

use std::sync::Arc;

use gateway::access_log::{AccessLog, Destination};
use gateway::auth::{ApiKey, AuthSource, Authorities, KeyId};
use gateway::{Config, Cors};
use tempfile::TempDir;

use crate::client::{Client, Response};
use crate::server::Server;

struct Locked {
    _server: Server,
    client: Client,
    key: ApiKey,
    authorities: Arc<Authorities>,
    directory: TempDir,
}

/// A server with one key, and a client on a connection. `rest` are further lines of the key.
fn locked(rest: &str, config: Config) -> Locked {
    let directory = tempfile::tempdir().unwrap();
    let key = ApiKey::generate(KeyId::parse("k-1").unwrap()).unwrap();
    let file = directory.path().join("keys.toml");
    let table = format!("[[key]]\nid = \"k-1\"\nhash = \"{}\"\nclient = \"c\"\n{rest}", key.hash());
    std::fs::write(&file, table).unwrap();
    let authorities = Authorities::load(AuthSource { keys_file: Some(file), jwt: None }).unwrap();
    let server = Server::start(Config { auth: Some(Arc::clone(&authorities)), ..config });
    let client = Client::connect(server.address);
    Locked { _server: server, client, key, authorities, directory }
}

impl Locked {
    /// Asks with these header lines.
    fn ask(&mut self, line: &str, headers: &str, body: &str) -> Response {
        let size = body.len();
        self.client.send(format!(
            "{line} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n{headers}\r\n{body}"
        ));
        self.client.response()
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.key.reveal())
    }
}

#[test]
fn who_shows_nothing_gets_401_whether_the_function_exists_or_not() {
    let mut door = locked("", Config::default());
    for path in ["/function/echo", "/function/nowhere", "/metrics", "/v1/functions"] {
        let response = door.ask(&format!("GET {path}"), "", "");
        response.is_error(401, "unauthorized");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"nightcore\""));
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(door.ask(&format!("GET {path}"), "", "").status, 200);
    }
    let bearer = door.bearer();
    door.ask("GET /function/nowhere", &bearer, "").is_error(404, "not_found");
    for path in ["/metrics", "/v1/functions"] {
        assert_eq!(door.ask(&format!("GET {path}"), &bearer, "").status, 200);
    }
}

#[test]
fn a_key_opens_in_either_field_and_two_are_too_many() {
    let mut door = locked("", Config::default());
    let (bearer, field) = (door.bearer(), format!("x-api-key: {}\r\n", door.key.reveal()));
    for headers in [&bearer, &field] {
        assert_eq!(door.ask("POST /function/echo", headers, "hi").text(), "hi");
    }
    let response = door.ask("POST /function/echo", &format!("{bearer}{field}"), "hi");
    response.is_error(400, "bad_request");
    assert!(response.header("www-authenticate").unwrap().contains("invalid_request"));
    let wrong = bearer.replace("nck_k-1_", "nck_k-2_");
    let response = door.ask("POST /function/echo", &wrong, "hi");
    response.is_error(401, "unauthorized");
    assert!(response.header("www-authenticate").unwrap().contains("invalid_token"));
    assert_eq!(door.ask("POST /function/echo", &bearer, "hi").text(), "hi");
}

#[test]
fn a_function_gets_to_see_no_key_while_the_door_is_locked() {
    let mut door = locked("", Config::default());
    let (bearer, key) = (door.bearer(), door.key.reveal().to_owned());
    let seen = door.ask("GET /function/inspect", &format!("{bearer}X-Other: 1\r\n"), "");
    assert!(seen.text().contains("X-Other: 1\n"), "{}", seen.text());
    assert!(!seen.text().contains(&key) && !seen.text().to_lowercase().contains("authorization"));
    let field = format!("X-API-Key: {key}\r\n");
    let seen = door.ask("GET /function/inspect", &field, "");
    assert!(!seen.text().contains(&key), "{}", seen.text());

    let server = Server::start(Config::default());
    let mut client = Client::connect(server.address);
    client.send(format!("GET /function/inspect HTTP/1.1\r\nHost: h\r\n{bearer}\r\n"));
    assert!(
        client.response().text().contains(&key),
        "an open door has no key: it is the function's"
    );
}

#[test]
fn a_body_is_not_waited_for_if_its_sender_may_not_come_in() {
    let mut door = locked("functions = [\"inspect\"]", Config::default());
    let chunked = "POST /function/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";
    door.client.send(format!("{chunked}\r\n5\r\nhello\r\n"));
    let response = door.client.response();
    response.is_error(401, "unauthorized");
    assert_eq!(response.header("connection"), Some("close"));

    let mut client = Client::connect(door._server.address);
    client.send(format!("{chunked}{}Expect: 100-continue\r\n\r\n", door.bearer()));
    let response = client.response();
    response.is_error(403, "forbidden");
    assert!(response.header("www-authenticate").unwrap().contains("insufficient_scope"));
}

#[test]
fn a_key_is_good_for_its_functions_alone() {
    let mut door = locked("functions = [\"ec*\"]", Config::default());
    let bearer = door.bearer();
    assert_eq!(door.ask("POST /function/echo", &bearer, "hi").text(), "hi");
    for line in ["POST /function/size", "POST /function/nowhere", "GET /metrics"] {
        door.ask(line, &bearer, "").is_error(403, "forbidden");
    }
}

#[test]
fn a_key_over_its_rate_gets_429_and_is_told_when_to_come_back() {
    let mut door = locked("rate = 1\nburst = 2", Config::default());
    let bearer = door.bearer();
    // A body in two parts is looked at twice, and counts once.
    let (head, body) = ("POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n", "body");
    door.client.send(format!("{head}{bearer}\r\n{}", &body[..2]));
    door.client.send(&body[2..]);
    assert_eq!(door.client.response().text(), "body");
    // However slow the machine is: a second passes between two of these at most now and then.
    let answers: Vec<_> = (0..20).map(|_| door.ask("POST /function/echo", &bearer, "hi")).collect();
    let limited = answers.iter().find(|answer| answer.status != 200).unwrap();
    limited.is_error(429, "limit_reached");
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(limited.header("www-authenticate"), None);
    assert_eq!(answers[0].status, 200, "the first of the burst went to the body in two parts");
}

#[test]
fn a_reload_takes_a_key_away_on_a_connection_that_stands() {
    let mut door = locked("", Config::default());
    let bearer = door.bearer();
    assert_eq!(door.ask("POST /function/echo", &bearer, "hi").status, 200);
    std::fs::write(door.directory.path().join("keys.toml"), "").unwrap();
    door.authorities.reload().unwrap();
    door.ask("POST /function/echo", &bearer, "hi").is_error(401, "unauthorized");
}

fn cors(origins: &[&str]) -> Config {
    let origins: Vec<_> = origins.iter().map(ToString::to_string).collect();
    Config { cors: Some(Arc::new(Cors::new(&origins))), ..Config::default() }
}

#[test]
fn pages_of_listed_origins_may_read_answers_and_others_may_not() {
    let mut door = locked("", cors(&["https://a.example", "https://b.example"]));
    let bearer = door.bearer();
    for (origin, allowed) in [
        ("Origin: https://b.example\r\n", Some("https://b.example")),
        ("Origin: https://c.example\r\n", None),
        ("Origin: null\r\n", None),
        ("Origin: https://a.example\r\nOrigin: https://b.example\r\n", None),
        ("", None),
    ] {
        // A page must be able to read why it was turned away.
        for headers in [origin.to_owned(), format!("{origin}{bearer}")] {
            let response = door.ask("POST /function/echo", &headers, "hi");
            assert_eq!(response.header("access-control-allow-origin"), allowed, "{origin}");
            assert_eq!(response.header("vary"), Some("Origin"));
            assert_eq!(response.header("access-control-allow-credentials"), None);
        }
    }
}

#[test]
fn a_preflight_needs_no_key_and_reaches_no_function() {
    let mut door = locked("", cors(&["https://a.example"]));
    let asked = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: authorization,x-trace\r\n";
    let size = "OPTIONS /function/echo HTTP/1.1\r\nHost: h\r\n";
    door.client.send(format!("{size}{asked}\r\n"));
    let response = door.client.response_without_body();
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization,x-trace"));
    assert_eq!(response.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(response.header("content-length"), None);
    let stranger = asked.replace("a.example", "c.example");
    door.ask("OPTIONS /function/echo", &stranger, "").is_error(405, "method_not_allowed");
    door.ask("OPTIONS /function/echo", "Origin: https://a.example\r\n", "")
        .is_error(405, "method_not_allowed");
}

#[test]
fn a_star_welcomes_every_page_and_a_function_cannot_say_otherwise() {
    let server = Server::start(cors(&["*"]));
    let mut client = Client::connect(server.address);
    let body = "Access-Control-Allow-Origin: https://evil.example\nX-A: b";
    client.send(format!(
        "POST /function/reply HTTP/1.1\r\nHost: h\r\nOrigin: https://x.example\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let response = client.response();
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("x-a"), Some("b"));

    let server = Server::start(Config::default());
    let response = Client::connect(server.address).post("/function/reply", body.as_bytes());
    assert_eq!(response.header("access-control-allow-origin"), Some("https://evil.example"));
    assert_eq!(response.header("vary"), None, "off: nothing is said about it");
}

#[test]
fn every_answer_has_a_line_with_the_key_s_id_and_never_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let log = AccessLog::start(Destination::File(file.clone())).unwrap();
    let config = Config { access_log: Some(log.clone()), ..Config::default() };
    let mut door = locked("functions = [\"echo\"]", config);
    let bearer = door.bearer();
    let peer = door.client.stream().local_addr().unwrap().to_string();
    let headers = format!("{bearer}X-Request-Id: one\r\n");
    let answer = door.ask("POST /function/echo/suffix?token=hidden", &headers, "hello");
    assert_eq!(answer.text(), "hello");
    door.ask("POST /function/size", &bearer, "").is_error(403, "forbidden");
    door.ask("POST /function/echo", "X-Api-Key: nonsense\r\n", "").is_error(401, "unauthorized");
    assert_eq!(door.ask("GET /healthz", "", "").status, 200);
    door.client.send("nonsense\r\n\r\n");
    door.client.response().is_error(400, "bad_request");

    let key = door.key.reveal().to_owned();
    drop(door);
    log.finish();
    let text = std::fs::read_to_string(&file).unwrap();
    for secret in [&key, "hidden", "nonsense", "suffix", "Bearer"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> =
        lines.iter().map(|line| (&line["function"], &line["status"], &line["key"])).collect();
    let expected = serde_json::json!([
        ["echo", 200, "k-1"],
        ["size", 403, "k-1"],
        ["echo", 401, null],
        [null, 200, null],
        [null, 400, null],
    ]);
    assert_eq!(serde_json::json!(seen), expected);
    let first = &lines[0];
    assert_eq!(first["request_id"], "one");
    assert_eq!((&first["method"], &first["client"]), (&"POST".into(), &"c".into()));
    assert_eq!(first["peer"], peer);
    let sent =
        "POST /function/echo/suffix?token=hidden HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
            .len()
            + headers.len()
            + 5;
    assert_eq!(first["bytes_in"], sent);
    assert!(first["bytes_out"].as_u64().unwrap() > 100);
}

#[test]
fn a_client_that_leaves_before_its_answer_has_a_line_without_a_status() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let log = AccessLog::start(Destination::File(file.clone())).unwrap();
    let server = Server::start(Config { access_log: Some(log.clone()), ..Config::default() });
    let mut client = Client::connect(server.address);
    client.send("POST /function/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    server.wait_for(|report| report.held == 1);
    nix::sys::socket::setsockopt(
        client.stream(),
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger { l_onoff: 1, l_linger: 0 },
    )
    .unwrap();
    drop(client);
    server.wait_for(|report| report.cancelled == 1 && report.is_empty);
    drop(server);
    log.finish();
    let text = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&line["function"], &line["status"]), (&"hold".into(), &serde_json::Value::Null));
}
