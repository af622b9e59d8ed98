//! Where the runtime enters Rust. Nothing unwinds past here: panics and errors become the failure
//! of this one call.

use core::any::Any;
use core::cell::Cell;
use core::ffi::c_int;
use core::fmt::Write;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::abi::{Host, INVALID, OK, Raw, RawContext, bytes};
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::request::Request;
use crate::response::Output;

static LOGS_PANICS: Once = Once::new();

thread_local! {
    /// The call that runs on this thread, set by `enter` and for no longer than it runs.
    static RUNNING: Cell<Option<Raw<'static>>> = const { Cell::new(None) };
}

/// Runs `body` as one call; what `#[nightcore::function]` exports does nothing else.
///
/// # Safety
/// Called as `nightcore.h` describes `nightcore_call`: `context` and `host` belong together, the
/// table is never freed, the context is this thread's until this returns, and `input` is valid for
/// `input_length` bytes that do not change until then.
pub unsafe fn enter<F>(
    context: *mut RawContext,
    host: *const Host,
    input: *const u8,
    input_length: usize,
    body: F,
) -> c_int
where
    F: for<'c> FnOnce(&'c mut Context, Request<'c>, Output<'c>) -> Result<(), Error>,
{
    // SAFETY: the caller passes the runtime's table, which is static, or null.
    let Some(host) = (unsafe { host.as_ref() }) else { return INVALID };
    if host.size < size_of::<Host>() {
        return INVALID;
    }
    // SAFETY: context and table belong together and are this thread's until we return; nothing
    // made of `raw` leaves this function, because `body` takes it for any 'c.
    let raw = unsafe { Raw::new(context, host) };
    // SAFETY: valid for `input_length` bytes until we return.
    let input = unsafe { bytes(input, input_length) };
    let mut context = Context::new(raw);
    LOGS_PANICS.call_once(log_panics);
    RUNNING.set(Some(raw));
    let run = || body(&mut context, Request::new(raw, input), Output::new(raw));
    // The closure's state is not looked at after a panic, except for the raw context, which is the
    // runtime's and holds no invariant of the function.
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    RUNNING.set(None);
    match result {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => raw.fail(error.kind(), error.message()),
        Err(payload) => raw.fail(ErrorKind::FunctionPanic, panic_message(&*payload)),
    }
}

/// Has a panic in a call logged as of that call's request. A function may put its own hook in place of
/// this one at any time; other threads' panics are told as before.
fn log_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let Some(raw) = RUNNING.get() else { return before(info) };
        let message = panic_message(info.payload());
        let mut text = match info.location() {
            Some(location) => format!("panicked at {location}: {message}"),
            None => format!("panicked: {message}"),
        };
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = write!(text, "\n{backtrace}");
        }
        raw.log(&text);
    }));
}

/// The text of a panic, as far as it has one.
fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "the function panicked with something that is no text"
    }
}
