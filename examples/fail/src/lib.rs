//! Always fails. The input becomes the message.

use nightcore::Error;

#[nightcore::function]
fn fail(input: &str) -> Result<(), Error> {
    Err(Error::failed(if input.is_empty() { "this function always fails" } else { input }))
}
