//! Always panics. Fails the call; its container, and the calls beside it, go on.

#[nightcore::function]
fn panic(input: &str) {
    let message = if input.is_empty() { "this function always panics" } else { input };
    panic!("{message}");
}
