//! A function's library: finds out which interface it speaks, checks that all of it is there, and
//! makes the two look the same to the worker.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use super::callbacks::HOST;
use super::callbacks_v1::{append_output, invoke};
use crate::abi::{Host, OK, RawContext, VERSION};

type InvokeFn = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *const c_char,
    usize,
    *mut *const c_char,
    *mut usize,
) -> c_int;
type AppendOutputFn = unsafe extern "C" fn(*mut c_void, *const c_char, usize);
type V1Init = unsafe extern "C" fn() -> c_int;
type V1Create =
    unsafe extern "C" fn(*mut c_void, InvokeFn, AppendOutputFn, *mut *mut c_void) -> c_int;
type V1Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;
type V1Call = unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> c_int;
type V2Version = unsafe extern "C" fn() -> u32;
type V2Init = unsafe extern "C" fn(*const Host) -> c_int;
type V2Create = unsafe extern "C" fn(*const Host, *mut *mut c_void) -> c_int;
type V2Destroy = unsafe extern "C" fn(*mut c_void);

/// `nightcore_call`.
pub type V2Call =
    unsafe extern "C" fn(*mut c_void, *mut RawContext, *const Host, *const u8, usize) -> c_int;

/// A function, ready to run on any number of threads.
#[derive(Debug)]
pub struct Function {
    /// The name it was deployed under.
    pub name: String,
    interface: Interface,
}

#[derive(Clone, Copy, Debug)]
enum Interface {
    V1 { create: V1Create, destroy: V1Destroy, call: V1Call },
    V2 { lifecycle: Option<(V2Create, V2Destroy)>, call: V2Call },
}

/// Why a library cannot be used. One line each: it is what a person sees at start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No such file, or no such right.
    #[error("cannot open library {}: {source}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The dynamic linker refuses it.
    #[error("cannot load library {}: {reason}", path.display())]
    Linker {
        /// As given.
        path: PathBuf,
        /// What the linker says.
        reason: String,
    },
    /// Neither interface begins.
    #[error(
        "library {} is no function: it exports neither nightcore_abi_version (interface v2) nor \
         faas_init (interface v1)", path.display()
    )]
    NoFunction {
        /// As given.
        path: PathBuf,
    },
    /// One interface begins, and then something is missing.
    #[error("library {} lacks {symbol}, which interface v{interface} requires", path.display())]
    Missing {
        /// As given.
        path: PathBuf,
        /// The symbol.
        symbol: &'static str,
        /// 1 or 2.
        interface: u8,
    },
    /// Made for another runtime.
    #[error(
        "library {} speaks version {got} of the interface, this runtime version {VERSION}",
        path.display()
    )]
    Version {
        /// As given.
        path: PathBuf,
        /// What it answered.
        got: u32,
    },
    /// Its own initialisation failed.
    #[error("{symbol} of library {} returned {code}", path.display())]
    Init {
        /// As given.
        path: PathBuf,
        /// The symbol.
        symbol: &'static str,
        /// What it returned.
        code: c_int,
    },
}

/// The library's own handle of one worker, and what to call with it. Belongs to one thread.
pub(crate) struct Instance<'f> {
    interface: &'f Interface,
    handle: *mut c_void,
    context: *mut RawContext,
}

impl Function {
    /// Loads the library, which stays loaded until the process ends, and initialises it.
    ///
    /// # Safety
    /// Loading runs the library's code, and its symbols are taken to have the types that
    /// `nightcore.h` gives them: it must be one that a person meant to run here.
    pub unsafe fn load(path: &Path, name: &str) -> Result<Function, LoadError> {
        // With a slash the linker searches nowhere else, and a missing file says what it is.
        let full = path
            .canonicalize()
            .map_err(|source| LoadError::Path { path: path.to_owned(), source })?;
        // SAFETY: the caller vouches for the library's initialisers.
        let library = unsafe { Library::open(Some(&full), RTLD_NOW | RTLD_LOCAL) };
        let library = library
            .map_err(|error| LoadError::Linker { path: path.to_owned(), reason: reason(&error) })?;
        // Never unloaded: its code may run on any thread until the process ends.
        let loading = Loading { path, library: Box::leak(Box::new(library)) };
        // SAFETY: the caller vouches for the types of its symbols.
        let interface = unsafe { loading.interface() }?;
        Ok(Function { name: name.to_owned(), interface })
    }

    /// A function of this process, for tests and for those who embed a worker.
    ///
    /// # Safety
    /// `call` does what `nightcore.h` asks of `nightcore_call`.
    #[must_use]
    pub unsafe fn of_this_process(name: &str, call: V2Call) -> Function {
        let interface = Interface::V2 { lifecycle: None, call };
        Function { name: name.to_owned(), interface }
    }

    /// 1 or 2.
    #[must_use]
    pub fn interface(&self) -> u8 {
        match self.interface {
            Interface::V1 { .. } => 1,
            Interface::V2 { .. } => 2,
        }
    }

    /// Prepares the calling thread to run the function.
    ///
    /// # Safety
    /// `context` points to this worker's session and stays valid until `destroy`.
    pub(crate) unsafe fn create(&self, context: *mut RawContext) -> Result<Instance<'_>, c_int> {
        let mut handle = ptr::null_mut();
        let place = &raw mut handle;
        let code = match self.interface {
            Interface::V1 { create, .. } => {
                // SAFETY: the types are the library's by `load`; the callbacks take the context
                // for the session it is.
                unsafe { create(context.cast(), invoke, append_output, place) }
            }
            Interface::V2 { lifecycle: Some((create, _)), .. } => {
                // SAFETY: the types are the library's by `load`; the table is static.
                unsafe { create(&raw const HOST, place) }
            }
            Interface::V2 { lifecycle: None, .. } => OK,
        };
        if code == OK {
            Ok(Instance { interface: &self.interface, handle, context })
        } else {
            Err(code)
        }
    }
}

impl Instance<'_> {
    /// Runs one call.
    ///
    /// # Safety
    /// `input` is valid and unchanged until this returns, the session behind the context has a
    /// running call, and nothing else refers to it until this returns.
    pub(crate) unsafe fn call(&self, input: *const [u8]) -> c_int {
        let (data, length) = (input.cast::<u8>(), input.len());
        match *self.interface {
            Interface::V1 { call, .. } => {
                // SAFETY: the handle is this thread's, from `create`; input as the caller says.
                unsafe { call(self.handle, data.cast(), length) }
            }
            Interface::V2 { call, .. } => {
                // SAFETY: the same; context and table belong together.
                unsafe { call(self.handle, self.context, &raw const HOST, data, length) }
            }
        }
    }

    /// Gives the library's handle back.
    pub(crate) fn destroy(self) {
        match *self.interface {
            Interface::V1 { destroy, .. } => {
                // SAFETY: the handle is from `create`, and this consumes it. What it returns
                // changes nothing any more.
                unsafe { destroy(self.handle) };
            }
            Interface::V2 { lifecycle: Some((_, destroy)), .. } => {
                // SAFETY: the same.
                unsafe { destroy(self.handle) };
            }
            Interface::V2 { lifecycle: None, .. } => {}
        }
    }
}

/// A library whose symbols are being looked up.
struct Loading<'p> {
    path: &'p Path,
    library: &'static Library,
}

impl Loading<'_> {
    /// # Safety
    /// The symbols have the types of `nightcore.h`.
    unsafe fn interface(&self) -> Result<Interface, LoadError> {
        // SAFETY: the type is that of nightcore.h.
        match unsafe { self.find::<V2Version>("nightcore_abi_version") } {
            // SAFETY: the caller's promise.
            Some(version) => unsafe { self.v2(version) },
            // SAFETY: the caller's promise.
            None => unsafe { self.v1() },
        }
    }

    /// # Safety
    /// The symbols have the types of `nightcore.h`.
    unsafe fn v2(&self, version: V2Version) -> Result<Interface, LoadError> {
        // SAFETY: it takes nothing and may be called at any time.
        let got = unsafe { version() };
        if got != VERSION {
            return Err(LoadError::Version { path: self.path.to_owned(), got });
        }
        // SAFETY: the type is that of nightcore.h.
        let call = unsafe { self.need("nightcore_call", 2) }?;
        // SAFETY: the type is that of nightcore.h.
        let create = unsafe { self.find::<V2Create>("nightcore_worker_create") };
        // SAFETY: the type is that of nightcore.h.
        let destroy = unsafe { self.find::<V2Destroy>("nightcore_worker_destroy") };
        let lifecycle = match (create, destroy) {
            (Some(create), Some(destroy)) => Some((create, destroy)),
            (None, None) => None,
            (None, Some(_)) => return Err(self.missing("nightcore_worker_create", 2)),
            (Some(_), None) => return Err(self.missing("nightcore_worker_destroy", 2)),
        };
        // SAFETY: the type is that of nightcore.h.
        if let Some(init) = unsafe { self.find::<V2Init>("nightcore_init") } {
            // SAFETY: called once, before anything else, with the static table.
            self.initialised("nightcore_init", unsafe { init(&raw const HOST) })?;
        }
        Ok(Interface::V2 { lifecycle, call })
    }

    /// # Safety
    /// The symbols have the types of `nightcore.h`.
    unsafe fn v1(&self) -> Result<Interface, LoadError> {
        // SAFETY: the types here and below are those of nightcore.h.
        let init = unsafe { self.find::<V1Init>("faas_init") };
        // SAFETY: see above.
        let create = unsafe { self.find::<V1Create>("faas_create_func_worker") };
        // SAFETY: see above.
        let destroy = unsafe { self.find::<V1Destroy>("faas_destroy_func_worker") };
        // SAFETY: see above.
        let call = unsafe { self.find::<V1Call>("faas_func_call") };
        if init.is_none() && create.is_none() && destroy.is_none() && call.is_none() {
            return Err(LoadError::NoFunction { path: self.path.to_owned() });
        }
        let init = init.ok_or_else(|| self.missing("faas_init", 1))?;
        let create = create.ok_or_else(|| self.missing("faas_create_func_worker", 1))?;
        let destroy = destroy.ok_or_else(|| self.missing("faas_destroy_func_worker", 1))?;
        let call = call.ok_or_else(|| self.missing("faas_func_call", 1))?;
        // SAFETY: called once, before anything else.
        self.initialised("faas_init", unsafe { init() })?;
        Ok(Interface::V1 { create, destroy, call })
    }

    /// # Safety
    /// `T` is the type of the symbol, a function pointer.
    unsafe fn find<T: Copy>(&self, symbol: &str) -> Option<T> {
        // SAFETY: the caller names the type. The library is never unloaded, so the pointer holds.
        let found: Symbol<T> = unsafe { self.library.get(symbol.as_bytes()) }.ok()?;
        Some(*found)
    }

    /// # Safety
    /// `T` is the type of the symbol, a function pointer.
    unsafe fn need<T: Copy>(&self, symbol: &'static str, interface: u8) -> Result<T, LoadError> {
        // SAFETY: the caller's promise.
        unsafe { self.find(symbol) }.ok_or_else(|| self.missing(symbol, interface))
    }

    fn missing(&self, symbol: &'static str, interface: u8) -> LoadError {
        LoadError::Missing { path: self.path.to_owned(), symbol, interface }
    }

    fn initialised(&self, symbol: &'static str, code: c_int) -> Result<(), LoadError> {
        match code {
            OK => Ok(()),
            code => Err(LoadError::Init { path: self.path.to_owned(), symbol, code }),
        }
    }
}

/// What the linker said, which is the source of what libloading says.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
