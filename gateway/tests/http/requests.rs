//! What a function gets to see of a request, whatever way its bytes came.

use gateway::Config;

use crate::client::Client;
use crate::server::Server;

fn connect() -> (Server, Client) {
    let server = Server::start(Config::default());
    let client = Client::connect(server.address);
    (server, client)
}

#[test]
fn a_request_arrives_however_its_bytes_are_split() {
    let (_server, mut client) = connect();
    let length = "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /function/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: t\r\n\r\n";
    for request in [length, chunked] {
        for cut in 0..request.len() {
            client.send(&request[..cut]);
            client.send(&request[cut..]);
            assert_eq!(client.response().text(), "hello", "{request:?} cut at {cut}");
        }
        for byte in request.bytes() {
            client.send([byte]);
        }
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn bodies_of_every_size_come_back_byte_for_byte() {
    let (server, mut client) = connect();
    for size in [0, 1, 1024, 16_384, 16_385, 65_536, 1 << 20, 8 << 20, 16 << 20] {
        let body: Vec<u8> = (0..size).map(crate::server::pattern).collect();
        let response = client.post("/function/echo", &body);
        assert_eq!(response.status, 200);
        assert!(response.body == body, "{size} bytes came back differently");
    }
    server.wait_for(|report| report.blocks == 0);
}

#[test]
fn a_function_sees_method_suffix_query_ids_and_headers() {
    let (_server, mut client) = connect();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client.send(format!(
        "GET /function/inspect/a/b%20?x=1&y HTTP/1.1\r\nHost: h:80\r\nX-Request-Id: me-1\r\n\
         traceparent: {trace}\r\nX-Nightcore-Timeout-Ms: 1500\r\nAccept: text/html\r\n\
         Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nTE: trailers\r\nX-Empty:\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(response.header("x-request-id"), Some("me-1"));
    assert_eq!(
        response.text(),
        format!(
            "method=GET suffix=/a/b%20 query=x=1&y id=me-1 trace={trace} timeout=Some(1.5s)\n\
             Host: h:80\nAccept: text/html\nX-Empty: \n"
        )
    );
}

#[test]
fn a_request_without_a_usable_id_is_given_one() {
    let (_server, mut client) = connect();
    client.send("GET /function/inspect HTTP/1.1\r\nHost: h\r\nX-Request-Id: a b\r\n\r\n");
    let response = client.response();
    let id = response.header("x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(response.text().contains(&format!("id={id} ")));
    assert_ne!(client.get("/healthz").header("x-request-id"), Some(id));
}

#[test]
fn a_time_limit_that_is_no_number_is_refused_and_one_of_zero_is_over() {
    let (_server, mut client) = connect();
    for (value, status, kind) in
        [("soon", 400, "bad_request"), ("1.5", 400, "bad_request"), ("0", 504, "deadline_exceeded")]
    {
        client.send(format!(
            "POST /function/hold HTTP/1.1\r\nHost: h\r\nX-Nightcore-Timeout-Ms: {value}\r\n\r\n"
        ));
        client.response().is_error(status, kind);
    }
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_client_that_expects_continue_is_told_to_go_on_only_if_its_body_is_wanted() {
    let (server, mut client) = connect();
    let ask = |path: &str, size: u64| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    client.send(ask("/function/echo", 5));
    assert_eq!(client.response().status, 100);
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    // With the body there is nothing left to ask for.
    client.send(ask("/function/echo", 5) + "hello");
    assert_eq!(client.response().text(), "hello");

    for (path, size, status) in
        [("/function/nobody", 5, 404), ("/healthz", 5, 405), ("/function/echo", u64::MAX, 413)]
    {
        let mut client = Client::connect(server.address);
        client.send(ask(path, size));
        assert_eq!(client.response().status, status);
        client.expect_close();
    }
    // HTTP/1.0 knows no expectations.
    let mut client = Client::connect(server.address);
    client.send("POST /function/echo HTTP/1.0\r\nContent-Length: 2\r\nExpect: x\r\n\r\nhi");
    assert_eq!(client.response().text(), "hi");
}

#[test]
fn paths_and_methods_that_do_not_exist_are_told_apart() {
    let (_server, mut client) = connect();
    for (method, path, status, allow) in [
        ("PUT", "/function/echo", 405, Some("GET, HEAD, POST")),
        ("POST", "/metrics", 405, Some("GET, HEAD")),
        ("GET", "/function/nobody", 404, None),
        ("GET", "/function/", 404, None),
        ("GET", "/", 404, None),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let response = client.response();
        let kind = if status == 405 { "method_not_allowed" } else { "not_found" };
        response.is_error(status, kind);
        assert_eq!(response.header("allow"), allow);
    }
    // A small body is read before the refusal, so that the connection can go on.
    assert_eq!(client.post("/function/nobody", b"hello").status, 404);
    assert_eq!(client.get("/healthz").status, 200);
}
