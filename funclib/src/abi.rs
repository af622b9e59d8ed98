//! Interface v2 as the C compiler sees it: the same shapes as `include/nightcore.h`, which is the
//! documentation of record. A test compares sizes and offsets of the two.
//!
//! `Raw` is the one place where the SDK calls through the host's table; everything above it is
//! safe code.

use core::ffi::c_int;
use core::marker::{PhantomData, PhantomPinned};
use core::ptr;

use crate::error::ErrorKind;

/// The interface version that `nightcore_abi_version` answers.
pub const VERSION: u32 = 2;
/// Success, in every function of the interface.
pub const OK: c_int = 0;
/// The caller broke the interface: an unknown handle, an index out of range, text that may not be.
pub const INVALID: c_int = 255;

/// What [`Host::get`] can be asked for.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The name of the function being called.
    Function = 0,
    /// The HTTP method; empty for an internal call.
    Method = 1,
    /// What followed the function's name in the path; empty or beginning with a slash.
    Suffix = 2,
    /// The query string without its question mark.
    Query = 3,
    /// The request id, the same along a chain of internal calls.
    RequestId = 4,
    /// The W3C trace context.
    Traceparent = 5,
}

/// The runtime's state of one call; opaque. Valid until the function returns.
#[repr(C)]
pub struct RawContext {
    _opaque: [u8; 0],
    _not_send: PhantomData<(*mut u8, PhantomPinned)>,
}

/// The answer of an internal call; filled by [`Host::call_wait`].
#[repr(C)]
pub struct RawAnswer {
    /// 0, or the kind of the failure: then `data` is a message for people.
    pub outcome: c_int,
    /// Status the callee gave; 200 if it gave none.
    pub status: u16,
    /// The answer, in memory of the runtime until `call_release`.
    pub data: *const u8,
    /// Size of `data` in bytes.
    pub length: usize,
    /// Content type the callee gave (not terminated); null if it gave none.
    pub content_type: *const u8,
    /// Size of `content_type` in bytes.
    pub content_type_length: usize,
}

/// Starts a call: function, input, and where its handle goes.
pub type StartCall =
    unsafe extern "C" fn(*mut RawContext, *const u8, usize, *const u8, usize, *mut u64) -> c_int;

/// What the runtime offers a function. One static table per process; later versions only append.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs)] // documented in nightcore.h, member by member
pub struct Host {
    /// Size of this table in bytes, as the runtime knows it.
    pub size: usize,
    pub output_append: unsafe extern "C" fn(*mut RawContext, *const u8, usize) -> c_int,
    pub output_reserve: unsafe extern "C" fn(*mut RawContext, usize) -> *mut u8,
    pub set_status: unsafe extern "C" fn(*mut RawContext, c_int) -> c_int,
    pub set_content_type: unsafe extern "C" fn(*mut RawContext, *const u8, usize) -> c_int,
    pub add_header:
        unsafe extern "C" fn(*mut RawContext, *const u8, usize, *const u8, usize) -> c_int,
    pub fail: unsafe extern "C" fn(*mut RawContext, c_int, *const u8, usize) -> c_int,
    pub get: unsafe extern "C" fn(*mut RawContext, c_int, *mut *const u8, *mut usize) -> c_int,
    pub header_count: unsafe extern "C" fn(*mut RawContext) -> usize,
    pub header_at: unsafe extern "C" fn(
        *mut RawContext,
        usize,
        *mut *const u8,
        *mut usize,
        *mut *const u8,
        *mut usize,
    ) -> c_int,
    pub time_remaining_ns: unsafe extern "C" fn(*mut RawContext) -> u64,
    pub depth: unsafe extern "C" fn(*mut RawContext) -> u32,
    pub is_cancelled: unsafe extern "C" fn(*mut RawContext) -> c_int,
    pub call_start: StartCall,
    pub call_wait: unsafe extern "C" fn(*mut RawContext, u64, *mut RawAnswer) -> c_int,
    pub call_release: unsafe extern "C" fn(*mut RawContext, u64),
    /// Absent from runtimes whose `size` ends before it.
    pub call_prepare: StartCall,
    /// The same.
    pub log: unsafe extern "C" fn(*mut RawContext, *const u8, usize) -> c_int,
}

/// A call's context together with the table to use it with, for as long as the call runs.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'c> {
    context: *mut RawContext,
    host: &'static Host,
    _call: PhantomData<&'c RawContext>,
}

/// Calls one member of the table with this context.
macro_rules! ask {
    ($raw:expr, $member:ident $(, $argument:expr)*) => {{
        let member = $raw.host.$member;
        // SAFETY: `Raw::new` requires a context that belongs to this table and to a call that
        // runs on this thread for 'c; every pointer passed beside it comes from a reference or a
        // slice that lives across the call, with the length it has.
        unsafe { member($raw.context $(, $argument)*) }
    }};
}

impl<'c> Raw<'c> {
    /// # Safety
    /// `context` belongs to `host` and to a call that runs on this thread throughout 'c.
    pub(crate) unsafe fn new(context: *mut RawContext, host: &'static Host) -> Raw<'c> {
        Raw { context, host, _call: PhantomData }
    }

    pub(crate) fn output_append(self, data: &[u8]) -> c_int {
        ask!(self, output_append, data.as_ptr(), data.len())
    }

    pub(crate) fn set_status(self, status: u16) -> c_int {
        ask!(self, set_status, c_int::from(status))
    }

    pub(crate) fn set_content_type(self, value: &str) -> c_int {
        ask!(self, set_content_type, value.as_ptr(), value.len())
    }

    pub(crate) fn add_header(self, name: &str, value: &str) -> c_int {
        ask!(self, add_header, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    }

    pub(crate) fn fail(self, kind: ErrorKind, message: &str) -> c_int {
        ask!(self, fail, kind as c_int, message.as_ptr(), message.len())
    }

    pub(crate) fn get(self, field: Field) -> &'c [u8] {
        let (mut data, mut length) = (ptr::null(), 0);
        if ask!(self, get, field as c_int, &raw mut data, &raw mut length) != OK {
            return &[];
        }
        // SAFETY: on success the runtime names bytes that stay as they are until the function
        // returns, which is not before 'c ends.
        unsafe { bytes(data, length) }
    }

    pub(crate) fn header_count(self) -> usize {
        ask!(self, header_count)
    }

    pub(crate) fn header_at(self, index: usize) -> Option<(&'c [u8], &'c [u8])> {
        let (mut name, mut name_length) = (ptr::null(), 0);
        let (mut value, mut value_length) = (ptr::null(), 0);
        let code = ask!(
            self,
            header_at,
            index,
            &raw mut name,
            &raw mut name_length,
            &raw mut value,
            &raw mut value_length
        );
        if code != OK {
            return None;
        }
        // SAFETY: as in `get`: valid until the function returns.
        let name = unsafe { bytes(name, name_length) };
        // SAFETY: the same.
        let value = unsafe { bytes(value, value_length) };
        Some((name, value))
    }

    pub(crate) fn time_remaining_ns(self) -> u64 {
        ask!(self, time_remaining_ns)
    }

    pub(crate) fn depth(self) -> u32 {
        ask!(self, depth)
    }

    pub(crate) fn is_cancelled(self) -> bool {
        ask!(self, is_cancelled) != 0
    }

    pub(crate) fn call_start(self, function: &str, input: &[u8]) -> Result<u64, c_int> {
        self.start(self.host.call_start, function, input)
    }

    pub(crate) fn call_prepare(self, function: &str, input: &[u8]) -> Result<u64, c_int> {
        let has_it = self.host.size > core::mem::offset_of!(Host, call_prepare);
        let member = if has_it { self.host.call_prepare } else { self.host.call_start };
        self.start(member, function, input)
    }

    fn start(self, member: StartCall, function: &str, input: &[u8]) -> Result<u64, c_int> {
        let mut handle = 0;
        // SAFETY: as in `ask`: the context belongs to this member's table, and both slices and the
        // handle live across the call.
        let code = unsafe {
            member(
                self.context,
                function.as_ptr(),
                function.len(),
                input.as_ptr(),
                input.len(),
                &raw mut handle,
            )
        };
        if code == OK { Ok(handle) } else { Err(code) }
    }

    pub(crate) fn call_wait(self, handle: u64) -> Result<RawAnswer, c_int> {
        let mut answer = RawAnswer {
            outcome: OK,
            status: 0,
            data: ptr::null(),
            length: 0,
            content_type: ptr::null(),
            content_type_length: 0,
        };
        let code = ask!(self, call_wait, handle, &raw mut answer);
        if code == OK { Ok(answer) } else { Err(code) }
    }

    /// Best effort: there is nobody to tell of a failure.
    pub(crate) fn log(self, text: &str) {
        ask!(self, log, text.as_ptr(), text.len());
    }

    pub(crate) fn call_release(self, handle: u64) {
        ask!(self, call_release, handle);
    }
}

/// The slice that a pair of the interface names: null is fine where the length is 0.
///
/// # Safety
/// `data` is valid for reads of `length` bytes that nobody writes during 'a, or `length` is 0.
pub(crate) unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for `length` bytes; a size of 0 left above.
    unsafe { core::slice::from_raw_parts(data, length) }
}
