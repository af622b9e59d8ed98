//! What is refused, and that the client can read why.

use gateway::Config;

use crate::client::Client;
use crate::server::Server;

fn server() -> Server {
    Server::start(Config { body_max: 1 << 20, ..Config::default() })
}

#[test]
fn a_malformed_request_is_answered_and_the_connection_closed() {
    let server = server();
    let post = "POST /function/echo HTTP/1.1\r\nHost: h\r\n";
    for (request, status) in [
        (format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length : 5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5x\r\n\r\nhello"), 400),
        (format!("{post}Host: h\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello5\r\n"), 400),
        (format!("{post}X: y\n\r\n"), 400),
        ("GET /healthz HTTP/1.1\r\n\r\n".into(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}".into(), 400),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 501),
        (format!("{post}Expect: miracles\r\nContent-Length: 1\r\n\r\n"), 417),
        ("GET /healthz HTTP/3.0\r\n\r\n".into(), 505),
    ] {
        let mut client = Client::connect(server.address);
        // What follows must not be taken for another request.
        client.send(format!("{request}GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"));
        let response = client.response();
        response.is_error(status, "bad_request");
        assert_eq!(response.header("connection"), Some("close"), "{request}");
        client.expect_close();
    }
    assert_eq!(Client::connect(server.address).get("/healthz").status, 200);
}

#[test]
fn limits_have_their_own_answers() {
    let server = server();
    let chunked = "POST /function/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, status, kind) in [
        (
            "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n".into(),
            413,
            "payload_too_large",
        ),
        (format!("{chunked}100001\r\n"), 413, "payload_too_large"),
        (format!("{chunked}100000\r\n{}\r\n1\r\n", "x".repeat(1 << 20)), 413, "payload_too_large"),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(9000)), 414, "uri_too_long"),
        (format!("GET /{}", "x".repeat(9000)), 414, "uri_too_long"),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "y".repeat(17_000)),
            431,
            "header_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64)),
            431,
            "header_too_large",
        ),
    ] {
        let mut client = Client::connect(server.address);
        client.send(&request);
        let response = client.response();
        response.is_error(status, kind);
        assert_eq!(response.header("connection"), Some("close"));
        client.expect_close();
    }
}

#[test]
fn an_answer_that_closes_can_be_read_behind_a_large_upload() {
    let server = server();
    let mut client = Client::connect(server.address);
    client.send("POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 16777216\r\n\r\n");
    // The whole upload is accepted and thrown away, though the answer went out at its head.
    client.send(vec![b'x'; 16 << 20]);
    client.response().is_error(413, "payload_too_large");
    client.expect_close();
}

#[test]
fn a_request_that_ends_early_is_answered() {
    let server = server();
    for request in [
        "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel",
        "POST /function/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "POST /function/echo HTT",
    ] {
        let mut client = Client::connect(server.address);
        client.send(request);
        client.finish();
        client.response().is_error(400, "bad_request");
        client.expect_close();
    }
    let mut client = Client::connect(server.address);
    client.finish();
    client.expect_close();
    server.wait_for(|report| report.is_empty);
}

#[test]
fn random_bytes_never_stop_the_server() {
    let server = server();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let parts = [
        "GET ",
        "POST ",
        "/function/echo",
        "/healthz",
        " HTTP/1.1",
        "\r\n",
        "\r\n\r\n",
        "Host: h",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "0\r\n",
        "\n",
        "3\r\nabc\r\n",
        ": ",
        "\0",
        "Connection: close",
        "\u{e9}",
    ];
    for _ in 0..200 {
        let mut client = Client::connect(server.address);
        let bytes: String =
            (0..random() % 20).map(|_| parts[usize::try_from(random() % 18).unwrap()]).collect();
        client.send(&bytes);
        client.finish();
        client.read_to_end();
    }
    assert_eq!(Client::connect(server.address).get("/healthz").status, 200);
    server.wait_for(|report| report.is_empty && report.blocks == 0);
}

#[test]
fn an_empty_line_in_two_pieces_is_no_request() {
    let server = server();
    let mut client = Client::connect(server.address);
    client.send("\r");
    server.wait_for(|report| report.received == 1);
    client.send("\n");
    assert_eq!(client.get("/healthz").status, 200);
    client.send("\r");
    let size = "\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n\r".len() as u64;
    server.wait_for(|report| report.received == size);
    client.send("\n");
    client.finish();
    client.expect_close();
}
