//! Interface v1 as a library sees it: its two callbacks. The caller context is the session.

use std::ffi::{CStr, c_char, c_int, c_void};

use ipc::Outcome;

use super::session::{Departure, Session};
use crate::abi::{OK, bytes};

/// What `invoke` answers for a call that failed.
const FAILED: c_int = -1;
/// Answers kept warm from call to call are this large at most, in bytes.
const KEPT_CAPACITY_MAX: usize = 64 * 1024;

/// # Safety
/// As for interface v2: the thread's own caller context, during a call.
unsafe fn session<'a>(caller_context: *mut c_void) -> &'a mut Session<'a> {
    // SAFETY: the worker passes its session, keeps no reference across the call, and the function
    // makes one callback at a time.
    unsafe { &mut *caller_context.cast::<Session<'a>>() }
}

/// `append_output_fn`. It cannot fail, so what does not fit fails the call when it ends.
pub(crate) unsafe extern "C" fn append_output(
    caller_context: *mut c_void,
    data: *const c_char,
    length: usize,
) {
    // SAFETY: the interface's promise.
    let session = unsafe { session(caller_context) };
    // SAFETY: the interface's promise: `length` bytes.
    let data = unsafe { bytes(data.cast(), length) };
    // The session remembers an output that did not fit.
    let _ = session.append(data);
}

/// `invoke_fn`. The answer must stay until the function returns, whatever number of them there
/// is, so it is copied out of the channel.
pub(crate) unsafe extern "C" fn invoke(
    caller_context: *mut c_void,
    function: *const c_char,
    input: *const c_char,
    input_length: usize,
    output: *mut *const c_char,
    output_length: *mut usize,
) -> c_int {
    if function.is_null() || output.is_null() || output_length.is_null() {
        return FAILED;
    }
    // SAFETY: the interface's promise.
    let session = unsafe { session(caller_context) };
    // SAFETY: not null, and the interface's promise: a terminated string.
    let function = unsafe { CStr::from_ptr(function) };
    // SAFETY: the interface's promise: `input_length` bytes.
    let input = unsafe { bytes(input.cast(), input_length) };
    let Ok(handle) = session.start(function.to_bytes(), input, Departure::Now) else {
        return FAILED;
    };
    let Some(answer) = session.wait_for(handle) else { return FAILED };
    if answer.outcome != Outcome::Ok {
        session.release(handle);
        return FAILED;
    }
    // SAFETY: valid until the handle is released, below.
    let answer = unsafe { &*answer.payload };
    let kept = keep(session, answer);
    let (data, length) = (kept.as_ptr(), kept.len());
    session.release(handle);
    // SAFETY: not null, and the interface's promise: a place for the result.
    unsafe { output.write(data.cast()) };
    // SAFETY: the same.
    unsafe { output_length.write(length) };
    OK
}

/// Copies an answer to where it stays until the call ends. A `Vec` in use is not touched again, so
/// the list may grow around it.
fn keep<'s>(session: &'s mut Session<'_>, answer: &[u8]) -> &'s [u8] {
    let place = session.kept_count;
    session.kept_count += 1;
    if place == session.kept.len() {
        session.kept.push(Vec::new());
    }
    let kept = &mut session.kept[place];
    kept.clear();
    kept.shrink_to(KEPT_CAPACITY_MAX);
    kept.extend_from_slice(answer);
    kept
}
