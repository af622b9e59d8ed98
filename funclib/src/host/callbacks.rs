//! Interface v2 as a library sees it: the table of C functions, each a few checks around one
//! method of the session. The context they are given is the session itself.

use std::ffi::c_int;
use std::ptr;

use ipc::Outcome;
use ipc::envelope::parse_reply;

use super::outgoing::Invalid;
use super::session::{Departure, Session, StartError};
use crate::abi::{Field, Host, INVALID, OK, RawAnswer, RawContext, bytes};

/// The one table of the process.
pub(crate) static HOST: Host = Host {
    size: size_of::<Host>(),
    output_append,
    output_reserve,
    set_status,
    set_content_type,
    add_header,
    fail,
    get,
    header_count,
    header_at,
    time_remaining_ns,
    depth,
    is_cancelled,
    call_start,
    call_wait,
    call_release,
    call_prepare,
    log,
};

/// # Safety
/// `context` is what `nightcore_call` was given, the call still runs, and this is its thread: then
/// it is a session to which nothing else has a reference until the callback returns.
unsafe fn session<'a>(context: *mut RawContext) -> &'a mut Session<'a> {
    // SAFETY: the worker passes its session, keeps no reference across the call, and the function
    // makes one callback at a time since the context is its thread's alone.
    unsafe { &mut *context.cast::<Session<'a>>() }
}

/// # Safety
/// `place` is null or valid for a write.
unsafe fn put<T>(place: *mut T, value: T) -> bool {
    if place.is_null() {
        return false;
    }
    // SAFETY: not null, so valid, as the caller says.
    unsafe { place.write(value) };
    true
}

/// # Safety
/// Both places are null or valid for writes.
unsafe fn put_bytes(data: *mut *const u8, length: *mut usize, value: &[u8]) -> bool {
    // SAFETY: the caller's promise.
    let has_data = unsafe { put(data, value.as_ptr()) };
    // SAFETY: the caller's promise.
    let has_length = unsafe { put(length, value.len()) };
    has_data && has_length
}

fn code<T>(result: Result<T, Outcome>) -> c_int {
    result.err().map_or(OK, |outcome| c_int::from(outcome as u8))
}

fn validity(result: Result<(), Invalid>) -> c_int {
    if result.is_ok() { OK } else { INVALID }
}

/// What a function may say of itself: that a container or a host was lost, or that shared memory is
/// full, only the runtime knows; passed on from a called function, it is the caller's failure.
fn own_failure(kind: c_int) -> Outcome {
    let outcome = u8::try_from(kind).ok().and_then(|kind| Outcome::try_from(kind).ok());
    match outcome {
        None
        | Some(Outcome::Ok | Outcome::ContainerDied | Outcome::HostLost | Outcome::NoSpace) => {
            Outcome::FunctionError
        }
        Some(outcome) => outcome,
    }
}

// Of every function below: SAFETY of `session` is the interface's promise that a context is used
// by its own thread while the call runs; SAFETY of `bytes` that a length comes with that many
// bytes; SAFETY of `put` that results go to null or to valid places.

unsafe extern "C" fn output_append(c: *mut RawContext, data: *const u8, length: usize) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    code(session.append(unsafe { bytes(data, length) }))
}

unsafe extern "C" fn output_reserve(c: *mut RawContext, length: usize) -> *mut u8 {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    session.reserve(length).unwrap_or(ptr::null_mut())
}

unsafe extern "C" fn set_status(c: *mut RawContext, status: c_int) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    validity(session.outgoing.set_status(status))
}

unsafe extern "C" fn set_content_type(c: *mut RawContext, value: *const u8, n: usize) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    validity(session.outgoing.set_content_type(unsafe { bytes(value, n) }))
}

unsafe extern "C" fn add_header(
    c: *mut RawContext,
    name: *const u8,
    name_length: usize,
    value: *const u8,
    value_length: usize,
) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    let name = unsafe { bytes(name, name_length) };
    // SAFETY: see above.
    let value = unsafe { bytes(value, value_length) };
    validity(session.outgoing.add_header(name, value))
}

unsafe extern "C" fn fail(c: *mut RawContext, kind: c_int, text: *const u8, n: usize) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    session.outgoing.fail(own_failure(kind), unsafe { bytes(text, n) });
    OK
}

unsafe extern "C" fn get(
    c: *mut RawContext,
    field: c_int,
    data: *mut *const u8,
    length: *mut usize,
) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    let request = &session.running().request;
    let value = match field {
        field if field == Field::Function as c_int => session.function.name.as_bytes(),
        field if field == Field::Method as c_int => request.method,
        field if field == Field::Suffix as c_int => request.suffix,
        field if field == Field::Query as c_int => request.query,
        field if field == Field::RequestId as c_int => request.request_id,
        field if field == Field::Traceparent as c_int => request.traceparent,
        _ => return INVALID,
    };
    // SAFETY: see above.
    if unsafe { put_bytes(data, length, value) } { OK } else { INVALID }
}

unsafe extern "C" fn header_count(c: *mut RawContext) -> usize {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    session.running().request.headers.clone().count()
}

unsafe extern "C" fn header_at(
    c: *mut RawContext,
    index: usize,
    name: *mut *const u8,
    name_length: *mut usize,
    value: *mut *const u8,
    value_length: *mut usize,
) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    let Some(header) = session.running().request.headers.clone().nth(index) else {
        return INVALID;
    };
    // SAFETY: see above.
    let has_name = unsafe { put_bytes(name, name_length, header.0) };
    // SAFETY: see above.
    let has_value = unsafe { put_bytes(value, value_length, header.1) };
    if has_name && has_value { OK } else { INVALID }
}

unsafe extern "C" fn time_remaining_ns(c: *mut RawContext) -> u64 {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    u64::try_from(session.time_remaining().as_nanos()).unwrap_or(u64::MAX)
}

unsafe extern "C" fn depth(c: *mut RawContext) -> u32 {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    u32::from(session.running().depth)
}

unsafe extern "C" fn is_cancelled(c: *mut RawContext) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    c_int::from(session.is_cancelled())
}

unsafe extern "C" fn call_start(
    c: *mut RawContext,
    function: *const u8,
    function_length: usize,
    input: *const u8,
    input_length: usize,
    handle: *mut u64,
) -> c_int {
    // SAFETY: see above.
    unsafe { start(c, (function, function_length), (input, input_length), handle, Departure::Now) }
}

unsafe extern "C" fn call_prepare(
    c: *mut RawContext,
    function: *const u8,
    function_length: usize,
    input: *const u8,
    input_length: usize,
    handle: *mut u64,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        start(c, (function, function_length), (input, input_length), handle, Departure::WithNext)
    }
}

/// # Safety
/// Of both functions above, as for every function of the table.
unsafe fn start(
    c: *mut RawContext,
    function: (*const u8, usize),
    input: (*const u8, usize),
    handle: *mut u64,
    departure: Departure,
) -> c_int {
    if handle.is_null() {
        return INVALID;
    }
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    let function = unsafe { bytes(function.0, function.1) };
    // SAFETY: see above.
    let input = unsafe { bytes(input.0, input.1) };
    match session.start(function, input, departure) {
        Ok(started) => {
            // SAFETY: not null, checked above; else see above.
            unsafe { handle.write(started) };
            OK
        }
        Err(StartError::Invalid) => INVALID,
        Err(StartError::Failed(outcome)) => c_int::from(outcome as u8),
    }
}

unsafe extern "C" fn call_wait(c: *mut RawContext, handle: u64, answer: *mut RawAnswer) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    let Some(delivered) = session.wait_for(handle) else { return INVALID };
    // SAFETY: valid until the handle is released, which cannot happen in this function.
    let envelope = unsafe { &*delivered.envelope };
    let reply = session.trusted(parse_reply(envelope));
    let filled = RawAnswer {
        outcome: c_int::from(delivered.outcome as u8),
        status: reply.status.unwrap_or(200),
        data: delivered.payload.cast(),
        length: delivered.payload.len(),
        content_type: match reply.content_type {
            [] => ptr::null(),
            value => value.as_ptr(),
        },
        content_type_length: reply.content_type.len(),
    };
    // SAFETY: see above.
    if unsafe { put(answer, filled) } { OK } else { INVALID }
}

unsafe extern "C" fn call_release(c: *mut RawContext, handle: u64) {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    session.release(handle);
}

unsafe extern "C" fn log(c: *mut RawContext, text: *const u8, length: usize) -> c_int {
    // SAFETY: see above.
    let session = unsafe { session(c) };
    // SAFETY: see above.
    session.log(unsafe { bytes(text, length) });
    OK
}
