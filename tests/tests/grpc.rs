//! gRPC at the door: unary calls by `tonic`'s client and by raw frames.

use nightcore_tests::functions::build;
use nightcore_tests::http2::framed;
use nightcore_tests::{Http2, Random, Stack, config, functions, wait_until};
use prost::Message;
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

const SECTION: &str = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\n";

const OK: u16 = 0;
const UNKNOWN: u16 = 2;
const INVALID_ARGUMENT: u16 = 3;
const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

/// As `examples/greeter` describes it.
#[derive(Clone, PartialEq, Message)]
struct HelloRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct HelloReply {
    #[prost(string, tag = "1")]
    message: String,
}

fn start(names: &[&str]) -> Stack {
    Stack::start(&format!("{SECTION}{}", functions(names)))
}

fn greeter() -> String {
    config::function("greeter.Greeter", &nightcore_tests::binaries::built("libgreeter.so"))
}

/// A call by a client that `tonic` would have generated: its generic part, without the names.
fn say_hello(stack: &Stack, request: Request<HelloRequest>) -> Result<String, Status> {
    let address = stack.http2_address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        let channel = endpoint.connect().await.expect("it listens");
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("it is ready");
        let codec = tonic_prost::ProstCodec::<HelloRequest, HelloReply>::default();
        let path = http::uri::PathAndQuery::from_static("/greeter.Greeter/SayHello");
        let answer = client.unary(request, path, codec).await?;
        assert!(answer.metadata().get("x-request-id").is_some());
        Ok(answer.into_inner().message)
    })
}

#[test]
fn a_client_of_tonic_calls_a_service() {
    let stack = Stack::start(&format!("{SECTION}{}", greeter()));
    let request = || Request::new(HelloRequest { name: "world".to_owned() });
    assert_eq!(say_hello(&stack, request()).expect("an answer"), "Hello, world!");

    let nobody = Request::new(HelloRequest::default());
    let status = say_hello(&stack, nobody).expect_err("a name is missing");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "a name is missing"));
}

#[test]
fn a_client_of_tonic_is_told_when_its_time_is_over() {
    let sleep = config::function("Greeter", &nightcore_tests::binaries::built("libsleep.so"));
    let stack = Stack::start(&format!("{SECTION}{sleep}"));
    let mut client = Http2::connect(stack.http2_address());
    let answer =
        client.grpc("/greeter.Greeter/Wait", &[("grpc-timeout", "50m")], b"{\"ms\":60000}");
    assert_eq!(answer.grpc_status(), DEADLINE_EXCEEDED, "{answer:?}");
    assert_eq!(answer.status, 200);
    let answer = client.grpc("/greeter.Greeter/Wait", &[("grpc-timeout", "20S")], b"{\"ms\":1}");
    assert_eq!(answer.grpc_status(), OK, "{answer:?}");
}

#[test]
fn messages_of_every_size_come_back_byte_for_byte() {
    let stack = start(&["echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let mut random = Random::new(11);
    for size in [0, 1, 16_000, 16_384, 16_385, 1 << 20, 5 << 20] {
        let message = random.bytes(size);
        let answer = client.grpc("/some.package.echo/Any", &[], &message);
        assert_eq!((answer.status, answer.grpc_status()), (200, OK));
        assert!(answer.message() == message, "{size}");
        assert_eq!(answer.header("content-type"), "application/grpc");
        assert!(answer.trailers.is_some());
    }
}

#[test]
fn metadata_and_method_reach_the_function_and_what_belongs_to_the_protocol_does_not() {
    let directory = TempDir::new().expect("a directory");
    let inspect = config::function("inspect", &build("inspect", directory.path()));
    let stack = Stack::start(&format!("{SECTION}{inspect}"));
    let mut client = Http2::connect(stack.http2_address());
    let fields = [
        ("grpc-timeout", "10S"),
        ("grpc-accept-encoding", "gzip"),
        ("x-mine", "1"),
        ("x-bytes-bin", "AAEC"),
        ("x-request-id", "mine"),
    ];
    let answer = client.grpc("/a.b.inspect/Look", &fields, b"in");
    assert_eq!(answer.grpc_status(), OK);
    assert_eq!(answer.header("x-inspected"), "yes");
    assert_eq!(answer.header("x-request-id"), "mine");
    let text = String::from_utf8(answer.message().to_vec()).expect("text");
    for line in [
        "method=POST",
        "suffix=/Look",
        "request_id=mine",
        "input=in",
        "header x-mine=1",
        "header x-bytes-bin=AAEC",
        "header content-type=application/grpc",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
    }
    assert!(!text.contains("header grpc-"), "{text}");
}

#[test]
fn the_whole_service_is_preferred_to_its_last_part() {
    let whole = config::function("my.echo", &nightcore_tests::binaries::built("libfail.so"));
    let stack = Stack::start(&format!("{SECTION}{whole}{}", functions(&["echo"])));
    let mut client = Http2::connect(stack.http2_address());
    assert_eq!(client.grpc("/my.echo/X", &[], b"a").grpc_status(), UNKNOWN);
    assert_eq!(client.grpc("/other.echo/X", &[], b"a").grpc_status(), OK);
}

#[test]
fn every_failure_has_a_status_and_no_body() {
    let body_max = "[gateway]\nbody_max = 1000\n";
    let names = functions(&["echo", "fail", "panic", "crash"]);
    let stack = Stack::start(&format!("{body_max}{SECTION}{names}{}", greeter()));
    let mut client = Http2::connect(stack.http2_address());
    for (path, fields, body, status) in [
        ("/none/X", &[][..], framed(b"x"), UNIMPLEMENTED),
        ("/a/b/c", &[], framed(b"x"), UNIMPLEMENTED),
        ("/echo/X", &[], framed(&[1; 1_001]), RESOURCE_EXHAUSTED),
        ("/fail/X", &[], framed("100% of é".as_bytes()), UNKNOWN),
        ("/panic/X", &[], framed(b""), INTERNAL),
        ("/crash/X", &[], framed(b""), INTERNAL),
        ("/echo/X", &[("grpc-timeout", "1")], framed(b""), INTERNAL),
        ("/echo/X", &[("grpc-timeout", "0n")], framed(b""), DEADLINE_EXCEEDED),
        ("/echo/X", &[("grpc-timeout", "1n")], framed(b""), DEADLINE_EXCEEDED),
        ("/echo/X", &[("grpc-encoding", "gzip")], framed(b""), UNIMPLEMENTED),
        ("/echo/X", &[], vec![1, 0, 0, 0, 0], INTERNAL),
        ("/echo/X", &[], vec![], UNIMPLEMENTED),
        ("/echo/X", &[], vec![0, 0, 0], INTERNAL),
        ("/echo/X", &[], vec![0, 0, 0, 0, 9, 1], INTERNAL),
        ("/echo/X", &[], [framed(b"a"), framed(b"b")].concat(), UNIMPLEMENTED),
        ("/greeter.Greeter/Sing", &[], framed(b""), UNIMPLEMENTED),
        ("/greeter.Greeter/SayHello", &[], framed(&[0xff]), INVALID_ARGUMENT),
    ] {
        let answer = client.grpc_raw(path, fields, &body);
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, status),
            "{path} {fields:?} {answer:?}"
        );
        assert!(answer.body.is_empty() && answer.trailers.is_none(), "{answer:?}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    let answer = client.grpc("/fail/X", &[], "100% of é".as_bytes());
    assert_eq!(answer.grpc_field("grpc-message"), "100%25 of %C3%A9");
    assert_eq!(
        client.grpc("/echo/X", &[], &[1; 1_000]).grpc_status(),
        OK,
        "the limit is the message's"
    );
}

#[test]
fn a_call_that_never_began_may_be_repeated() {
    let config = format!("{SECTION}{}max_workers = 1\nqueue_max = 1\n", functions(&["sleep"]));
    let stack = Stack::start(&format!("{config}[engine]\nshards = 1\n"));
    // The worker may not have started yet, and calls wait for it in the same queue.
    stack.call("sleep", b"{\"ms\": 0}").ok();
    let mut client = Http2::connect(stack.http2_address());
    let fields = [("content-type", "application/grpc")];
    let taken = [0, 1].map(|_| client.send("POST", "/sleep/X", &fields, &framed(b"{\"ms\":1500}")));
    wait_until("one call runs and one waits", || {
        (stack.count("sleep", "running"), stack.count("sleep", "queued")) == (1, 1)
    });
    let refused = client.grpc("/sleep/X", &[], b"{\"ms\":1}");
    assert_eq!(refused.grpc_status(), UNAVAILABLE, "{refused:?}");
    assert_eq!(refused.grpc_field("grpc-retry-pushback-ms"), "1000");
    for taken in taken {
        assert_eq!(client.answer(taken).expect("an answer").grpc_status(), OK);
    }
}

#[test]
fn a_stream_of_messages_is_refused_before_it_ends() {
    let stack = start(&["echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let fields = [("content-type", "application/grpc+proto")];
    let mut stream = client.begin("POST", "/echo/Chat", &fields);
    stream.push(&[framed(b"one"), framed(b"two")].concat());
    let answer = client.answer(stream).expect("an answer");
    assert_eq!(answer.grpc_status(), UNIMPLEMENTED, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/grpc+proto");
    assert_eq!(client.grpc("/echo/X", &[], b"a").message(), b"a");
}

#[test]
fn what_only_looks_like_grpc_is_plain_http() {
    let stack = start(&["echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let web = [("content-type", "application/grpc-web")];
    assert_eq!(client.request("POST", "/echo/X", &web, b"a").status, 404);
    let grpc = [("content-type", "application/grpc")];
    assert_eq!(client.request("POST", "/function/echo", &grpc, b"a").body, b"a");
    assert_eq!(client.request("GET", "/echo/X", &grpc, b"").status, 405);
}
