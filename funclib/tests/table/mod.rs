//! A host table that records: its context is a `Recorder`, its internal calls are answered at once
//! with their own input.

#![allow(clippy::unwrap_used)] // only tests use this

use std::ffi::c_int;

use nightcore::ErrorKind;
use nightcore::abi::{Field, Host, INVALID, OK, RawAnswer, RawContext};

/// What a function said to the runtime.
#[derive(Default)]
pub struct Recorder {
    pub code: c_int,
    pub output: Vec<u8>,
    pub status: Option<c_int>,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub logged: Vec<String>,
    pub failure: Option<(c_int, String)>,
    pub started: usize,
    pub released: usize,
    /// (function, input) of every call by handle.
    calls: Vec<(String, Vec<u8>)>,
}

pub static HOST: Host = Host {
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
    call_prepare: call_start,
    log,
};

const HEADERS: [(&str, &str); 2] = [("Host", "h"), ("User-Agent", "wrk")];

fn recorder<'a>(context: *mut RawContext) -> &'a mut Recorder {
    // SAFETY: `run_with` passes a `Recorder` that it does not touch meanwhile, and the SDK calls
    // one function of the table at a time.
    unsafe { &mut *context.cast::<Recorder>() }
}

fn slice<'a>(data: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: the SDK passes the parts of a slice.
    unsafe { std::slice::from_raw_parts(data, length) }
}

fn string(data: *const u8, length: usize) -> String {
    String::from_utf8(slice(data, length).to_vec()).unwrap()
}

unsafe extern "C" fn output_append(c: *mut RawContext, data: *const u8, length: usize) -> c_int {
    recorder(c).output.extend_from_slice(slice(data, length));
    OK
}

unsafe extern "C" fn output_reserve(_: *mut RawContext, _: usize) -> *mut u8 {
    std::ptr::null_mut()
}

unsafe extern "C" fn set_status(c: *mut RawContext, status: c_int) -> c_int {
    if !(200..600).contains(&status) {
        return INVALID;
    }
    recorder(c).status = Some(status);
    OK
}

unsafe extern "C" fn set_content_type(c: *mut RawContext, data: *const u8, n: usize) -> c_int {
    recorder(c).content_type = string(data, n);
    OK
}

unsafe extern "C" fn add_header(
    c: *mut RawContext,
    name: *const u8,
    name_length: usize,
    value: *const u8,
    value_length: usize,
) -> c_int {
    recorder(c).headers.push((string(name, name_length), string(value, value_length)));
    OK
}

unsafe extern "C" fn fail(c: *mut RawContext, kind: c_int, data: *const u8, n: usize) -> c_int {
    recorder(c).failure = Some((kind, string(data, n)));
    OK
}

unsafe extern "C" fn get(
    _: *mut RawContext,
    field: c_int,
    data: *mut *const u8,
    length: *mut usize,
) -> c_int {
    let value = match field {
        f if f == Field::Method as c_int => "POST",
        f if f == Field::Suffix as c_int => "/a/b",
        f if f == Field::Query as c_int => "x=1",
        f if f == Field::RequestId as c_int => "request-7",
        _ => return INVALID,
    };
    write(data, length, value.as_bytes());
    OK
}

fn write(data: *mut *const u8, length: *mut usize, value: &[u8]) {
    // SAFETY: the SDK passes pointers to its locals.
    unsafe { *data = value.as_ptr() };
    // SAFETY: the same.
    unsafe { *length = value.len() };
}

unsafe extern "C" fn header_count(_: *mut RawContext) -> usize {
    HEADERS.len()
}

unsafe extern "C" fn header_at(
    _: *mut RawContext,
    index: usize,
    name: *mut *const u8,
    name_length: *mut usize,
    value: *mut *const u8,
    value_length: *mut usize,
) -> c_int {
    let Some(header) = HEADERS.get(index) else { return INVALID };
    write(name, name_length, header.0.as_bytes());
    write(value, value_length, header.1.as_bytes());
    OK
}

unsafe extern "C" fn time_remaining_ns(_: *mut RawContext) -> u64 {
    1_000
}

unsafe extern "C" fn depth(_: *mut RawContext) -> u32 {
    3
}

unsafe extern "C" fn is_cancelled(_: *mut RawContext) -> c_int {
    0
}

unsafe extern "C" fn call_start(
    c: *mut RawContext,
    function: *const u8,
    function_length: usize,
    input: *const u8,
    input_length: usize,
    handle: *mut u64,
) -> c_int {
    let recorder = recorder(c);
    recorder.calls.push((string(function, function_length), slice(input, input_length).to_vec()));
    // SAFETY: the SDK passes a pointer to a local.
    unsafe { *handle = recorder.started as u64 };
    recorder.started += 1;
    OK
}

unsafe extern "C" fn call_wait(c: *mut RawContext, handle: u64, answer: *mut RawAnswer) -> c_int {
    const TYPE: &str = "text/plain";
    let recorder = recorder(c);
    let Some((function, input)) = recorder.calls.get(usize::try_from(handle).unwrap()) else {
        return INVALID;
    };
    let failed = function == "too_deep";
    let filled = RawAnswer {
        outcome: if failed { ErrorKind::TooDeep as c_int } else { OK },
        status: 200,
        data: input.as_ptr(),
        length: input.len(),
        content_type: TYPE.as_ptr(),
        content_type_length: TYPE.len(),
    };
    // SAFETY: the SDK passes a pointer to a local.
    unsafe { answer.write(filled) };
    OK
}

unsafe extern "C" fn call_release(c: *mut RawContext, _: u64) {
    recorder(c).released += 1;
}

unsafe extern "C" fn log(c: *mut RawContext, text: *const u8, length: usize) -> c_int {
    recorder(c).logged.push(string(text, length));
    OK
}
