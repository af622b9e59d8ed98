//! What a running function may ask of the runtime: calls to other functions above all.

use core::fmt;
use core::ops::Deref;
use core::str;
use core::time::Duration;

use crate::abi::{Field, INVALID, Raw, bytes};
use crate::error::{CallError, ErrorKind};

/// The running call. Belongs to the thread that runs it and ends with it.
pub struct Context {
    // 'static stands for "as long as this value": `edge::enter` makes it on its stack and lends it.
    raw: Raw<'static>,
}

impl Context {
    pub(crate) fn new(raw: Raw<'static>) -> Context {
        Context { raw }
    }

    fn raw(&self) -> Raw<'_> {
        self.raw
    }

    /// Calls another function and waits for its answer.
    pub fn call(&self, function: &str, input: &[u8]) -> Result<Answer<'_>, CallError> {
        self.start(function, input)?.wait()
    }

    /// Starts a call to another function and goes on; many may be in flight at once. The input is
    /// copied before this returns. When the runtime's limit of calls in flight is reached, or the
    /// memory for inputs is full, it waits for an answer first.
    pub fn start(&self, function: &str, input: &[u8]) -> Result<Call<'_>, CallError> {
        let raw = self.raw();
        let started = raw.call_start(function, input);
        started.map(|handle| Call { pending: Pending { raw, handle } }).map_err(refused)
    }

    /// As [`Context::start`], but the call leaves with the next one that is started, or when the
    /// function waits for any: several calls that leave together cost one wake-up of the runtime.
    pub fn prepare(&self, function: &str, input: &[u8]) -> Result<Call<'_>, CallError> {
        let raw = self.raw();
        let prepared = raw.call_prepare(function, input);
        prepared.map(|handle| Call { pending: Pending { raw, handle } }).map_err(refused)
    }

    /// Calls several functions at once and waits for all of their answers, which come in the order of
    /// the calls: pairs of a function and its input.
    pub fn call_all<'i>(
        &self,
        calls: impl IntoIterator<Item = (&'i str, &'i [u8])>,
    ) -> Vec<Result<Answer<'_>, CallError>> {
        let prepare = |(function, input)| self.prepare(function, input);
        let prepared: Vec<_> = calls.into_iter().map(prepare).collect();
        prepared.into_iter().map(|call| call?.wait()).collect()
    }

    /// Waits for the answer of `call`. Calls may be waited for in any order.
    pub fn wait<'c>(&'c self, call: Call<'c>) -> Result<Answer<'c>, CallError> {
        call.wait()
    }

    /// Time left until the caller stops waiting.
    #[must_use]
    pub fn time_remaining(&self) -> Duration {
        Duration::from_nanos(self.raw.time_remaining_ns())
    }

    /// Whether nobody wants the answer any more. Long functions ask now and then, and give up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.raw.is_cancelled()
    }

    /// How many functions called each other to get here: 0 for a call from outside.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.raw.depth()
    }

    /// Writes a line, or several, to the log, where it shows to which request it belongs. Lines of up to
    /// 4 KiB in all stay together, whatever other threads print.
    pub fn log(&self, text: impl fmt::Display) {
        self.raw().log(&text.to_string());
    }

    /// The id of the request that led here, the same in every function it reaches.
    #[must_use]
    pub fn request_id(&self) -> &str {
        text(self.raw().get(Field::RequestId))
    }

    /// The W3C trace context; empty if the request brought none.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        text(self.raw().get(Field::Traceparent))
    }

    /// The name this function was deployed under.
    #[must_use]
    pub fn function(&self) -> &str {
        text(self.raw().get(Field::Function))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("function", &self.function()).finish_non_exhaustive()
    }
}

/// The handle of a started call; gives it back to the runtime when dropped, answered or not.
struct Pending<'c> {
    raw: Raw<'c>,
    handle: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.raw.call_release(self.handle);
    }
}

/// A call in flight. Dropped without `wait`, its answer is thrown away when it comes; the
/// function's own answer leaves only after that.
#[must_use = "the answer comes out of `wait`"]
pub struct Call<'c> {
    pending: Pending<'c>,
}

impl<'c> Call<'c> {
    /// Waits for the answer.
    pub fn wait(self) -> Result<Answer<'c>, CallError> {
        let pending = self.pending;
        let answer = pending.raw.call_wait(pending.handle).map_err(refused)?;
        // SAFETY: the runtime names bytes that stay as they are until the handle is released,
        // which `pending` does when the `Answer` beside it is dropped.
        let data = unsafe { bytes::<'c>(answer.data, answer.length) };
        if answer.outcome != 0 {
            let kind = ErrorKind::from_code(answer.outcome);
            return Err(CallError::new(kind, String::from_utf8_lossy(data)));
        }
        // SAFETY: the same for the content type.
        let content_type = unsafe { bytes::<'c>(answer.content_type, answer.content_type_length) };
        Ok(Answer { _pending: pending, data, status: answer.status, content_type })
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("handle", &self.pending.handle).finish_non_exhaustive()
    }
}

/// What a called function answered: derefs to its bytes, straight in shared memory.
pub struct Answer<'c> {
    // The slices are valid while this lives; they leave only by methods that borrow the `Answer`.
    _pending: Pending<'c>,
    data: &'c [u8],
    status: u16,
    content_type: &'c [u8],
}

impl Answer<'_> {
    /// The status the callee gave; 200 if it gave none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The content type the callee gave; empty if it gave none.
    #[must_use]
    pub fn content_type(&self) -> &str {
        text(self.content_type)
    }
}

impl Deref for Answer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data
    }
}

impl AsRef<[u8]> for Answer<'_> {
    fn as_ref(&self) -> &[u8] {
        self.data
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.data.len();
        f.debug_struct("Answer").field("status", &self.status).field("size", &size).finish()
    }
}

/// Text of the envelope: the runtime lets only ASCII pass, anything else reads as empty.
pub(crate) fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// The error for a call that could not even start.
fn refused(code: i32) -> CallError {
    let (kind, message) = match code {
        INVALID => (ErrorKind::BadRequest, "a function's name is 1 to 255 bytes"),
        code => match ErrorKind::from_code(code) {
            kind @ ErrorKind::TooLarge => (kind, "the input exceeds the limit of a payload"),
            kind @ ErrorKind::NoSpace => (kind, "no room for the input in shared memory"),
            kind => (kind, "the runtime refused the call"),
        },
    };
    CallError::new(kind, message)
}
