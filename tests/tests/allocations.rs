//! The shards allocate nothing in steady state: their threads are watched while the whole stack
//! runs inside this process. The only test of its file, as it changes the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nightcore_cli::config::{Config, Overrides};
use nightcore_tests::{Connection, binaries, config, functions, post, wait_until};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Connections of the warm-up; the first ones are used when it counts. Tables and buffers grow to the
/// most that was ever in flight or ready at once, so the warm-up has more of both.
const CONNECTIONS: usize = 32;
const CONNECTIONS_COUNTED: usize = 8;
/// Requests of each connection.
const WARM_UP: usize = 200;
const COUNTED: usize = 1_000;
/// Calls in flight of one fan-out, in the warm-up and when it counts.
const WIDE: usize = 48;
const NARROW: usize = 4;
/// Of each function.
const WORKERS: usize = 16;
/// Backtraces kept as evidence.
const WITNESSES_MAX: usize = 3;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Whether allocations count now.
static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static WITNESSES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Set by the shard itself as it starts.
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, with an eye on the shards.
struct Watched;

impl Watched {
    fn note(&self, size: usize) {
        // SYNC(IS_COUNTING): pairs with the stores of the test, which knows no more than that no
        // request is under way then; nothing else is published by it.
        if !IS_COUNTING.load(Ordering::Relaxed) || !IS_SHARD.get() {
            return;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        if count < WITNESSES_MAX as u64 {
            // What allocates in here must not come back to here.
            IS_SHARD.set(false);
            let witness = format!("{size} bytes at\n{}", Backtrace::force_capture());
            WITNESSES.lock().expect("nobody panics with it").push(witness);
            IS_SHARD.set(true);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came; `note` leaves the layout and
// the memory alone, and does not unwind: its lock is never poisoned.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller's promises about `layout` are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller's promises about `layout` are those that are asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note(size);
        // SAFETY: the memory came from `System` with this layout, as all memory given out here; the
        // caller vouches for the new size.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `System` with this layout, as all memory given out here.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn no_shard_allocates_on_the_dispatch_path() {
    let directory = TempDir::new().expect("a directory");
    let address = unused_address();
    let path = directory.path().join("nightcore.toml");
    // As many workers as there will ever be, all on one shard: growth is not the steady state.
    let workers = format!("min_workers = {WORKERS}\nmax_workers = {WORKERS}\n");
    let mut text = format!("[gateway]\nlisten = \"{address}\"\n[engine]\nshards = 1\n");
    for name in ["nop", "echo", "chain", "fanout"] {
        text += &(functions(&[name]) + &workers);
    }
    fs::write(&path, config::with_runtime_dir(&text, directory.path())).expect("a file");
    let config = Config::load(&path, Overrides::default()).expect("a good configuration");
    // SAFETY: the harness has this one test, and its other thread only waits for the end of it, so
    // nobody reads the environment now.
    unsafe { std::env::set_var("NIGHTCORE_WORKER", binaries::built("nightcore-worker")) };
    let stack = thread::spawn(move || {
        nightcore_cli::up::run_with_hook(&config, |_shard| IS_SHARD.set(true))
    });
    wait_until("the stack serves", || {
        assert!(!stack.is_finished(), "the stack did not start");
        Connection::open(address).is_ok()
    });

    let mut connections: Vec<Connection> = (0..CONNECTIONS)
        .map(|_| Connection::open(address).expect("the stack takes connections"))
        .collect();
    run_load(&mut connections, WARM_UP, WIDE);
    // SYNC(IS_COUNTING): no request is under way: every answer has been read.
    IS_COUNTING.store(true, Ordering::Relaxed);
    run_load(&mut connections[..CONNECTIONS_COUNTED], COUNTED, NARROW);
    IS_COUNTING.store(false, Ordering::Relaxed);
    drop(connections);

    // To its thread alone: the others do not block the signal, and would die of it.
    pthread_kill(stack.as_pthread_t(), Signal::SIGTERM).expect("the thread runs");
    let code = stack.join().expect("the stack does not panic");
    assert_eq!(code, std::process::ExitCode::SUCCESS);
    let witnesses = WITNESSES.lock().expect("nobody panicked with it");
    let count = COUNT.load(Ordering::Relaxed);
    assert_eq!(count, 0, "allocations; the first ones:\n{}", witnesses.join("\n\n"));
}

/// `requests` on each connection, all connections at once.
fn run_load(connections: &mut [Connection], requests: usize, width: usize) {
    let input = format!("{{\"n\": {width}, \"size\": 1024}}");
    let chain = post("/function/chain", input.as_bytes());
    let fanout = post("/function/fanout", input.as_bytes());
    let nop = post("/function/nop", b"some input");
    thread::scope(|scope| {
        for connection in connections {
            scope.spawn(|| {
                for number in 0..requests {
                    let request = match number % 8 {
                        0 => &chain,
                        1 => &fanout,
                        _ => &nop,
                    };
                    connection.exchange(request).ok();
                }
            });
        }
    });
}

/// The stack does not tell this process which port it took, so it is given one. The address is this
/// process's own, so that no other test comes between.
fn unused_address() -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let ip = IpAddr::V4(Ipv4Addr::new(127, a | 1, b, c.max(1)));
    let listener = TcpListener::bind((ip, 0)).expect("all of 127.0.0.0/8 is this machine");
    listener.local_addr().expect("it is bound")
}
