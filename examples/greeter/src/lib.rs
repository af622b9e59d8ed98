//! The service `greeter.Greeter` of gRPC, with one method:
//!
//! ```proto
//! package greeter;
//! service Greeter { rpc SayHello (HelloRequest) returns (HelloReply); }
//! message HelloRequest { string name = 1; }
//! message HelloReply { string message = 1; }
//! ```
//!
//! The function gets a message without the framing of gRPC; the method is its suffix.

use nightcore::{Error, Request, Response};
use prost::Message;

/// The request.
#[derive(Clone, PartialEq, Message)]
struct HelloRequest {
    /// Who is greeted.
    #[prost(string, tag = "1")]
    name: String,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
struct HelloReply {
    /// The greeting.
    #[prost(string, tag = "1")]
    message: String,
}

#[nightcore::function]
fn greeter(request: Request<'_>) -> Result<Response, Error> {
    match request.suffix() {
        "/SayHello" => say_hello(request.body()),
        other => Ok(Response::text(format!("no method {other}")).status(501)),
    }
}

fn say_hello(message: &[u8]) -> Result<Response, Error> {
    let HelloRequest { name } =
        HelloRequest::decode(message).map_err(|error| Error::bad_request(error.to_string()))?;
    if name.is_empty() {
        // A status of gRPC's own, INVALID_ARGUMENT.
        let nothing = Response::new([]).header("grpc-status", "3");
        return Ok(nothing.header("grpc-message", "a name is missing"));
    }
    let reply = HelloReply { message: format!("Hello, {name}!") };
    Ok(Response::new(reply.encode_to_vec()))
}
