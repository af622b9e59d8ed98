//! The terminal while `top` draws on it, and what ends `top`: a key or a signal.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd;

/// Hides the cursor, cuts long lines off, clears.
const BEGIN: &str = "\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";
/// Undoes the first two.
const END: &str = "\x1b[?7h\x1b[?25h";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Rows of a terminal that does not tell.
const ROWS: usize = 24;
const CONTROL_C: u8 = 3;
const CONTROL_D: u8 = 4;

/// Standard input and output as a screen. Dropped, they are as they were.
#[derive(Debug)]
pub(super) struct Screen {
    before: Termios,
}

/// The signals that end `top`, blocked for this thread and those it starts.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// Why a pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Its time has passed.
    Due,
    /// A signal or a key asks to end.
    Quit,
}

impl Screen {
    /// Takes the terminal: keys come at once and unseen.
    ///
    /// # Errors
    /// When standard input is no terminal, or standard output fails.
    pub(super) fn open() -> io::Result<Screen> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut settings = before.clone();
        // Without ISIG, Ctrl-Z does not leave a terminal behind that is still as it is here.
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(&stdin, SetArg::TCSANOW, &settings)?;
        let screen = Screen { before };
        write_out(BEGIN)?;
        Ok(screen)
    }

    /// Replaces what is there by these lines, as many as there is room for.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut text = HOME.to_owned();
        // The last row stays free, or the end of its line would scroll the screen.
        let room = rows().saturating_sub(1);
        let (shown, more) = match lines.len().checked_sub(room) {
            None | Some(0) => (lines, None),
            Some(_) => {
                let shown = room.saturating_sub(1).min(lines.len());
                (&lines[..shown], Some(format!("and {} more", lines.len() - shown)))
            }
        };
        for line in shown.iter().chain(&more) {
            text.extend([line, CLEAR_LINE, "\n"]);
        }
        text.push_str(CLEAR_BELOW);
        write_out(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = write_out(END);
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

impl Signals {
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn block() -> Result<Signals, Errno> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&signals, flags)?))
    }

    /// Waits until `due`, for a signal, or with a screen for a key that ends `top`.
    ///
    /// # Errors
    /// What poll(2) says.
    pub(super) fn pause(&self, due: Instant, screen: Option<&Screen>) -> Result<Wake, Errno> {
        let stdin = io::stdin();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Wake::Due);
            }
            // Rounded up, so that the last millisecond is not spent in turns of this loop.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999));
            let mut descriptors = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if screen.is_some() { 2 } else { 1 };
            match poll(&mut descriptors[..watched], timeout.unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let [signals, keys] = descriptors.map(|descriptor| descriptor.any() == Some(true));
            if signals || (keys && is_quit()) {
                return Ok(Wake::Quit);
            }
        }
    }
}

/// Reads the keys that were pressed. A terminal that is gone has pressed the one that ends.
fn is_quit() -> bool {
    let mut keys = [0; 64];
    match unistd::read(io::stdin(), &mut keys) {
        Ok(0) => true,
        Ok(size) => {
            keys[..size].iter().any(|key| matches!(key, b'q' | b'Q' | &CONTROL_C | &CONTROL_D))
        }
        Err(error) => !matches!(error, Errno::EINTR | Errno::EAGAIN),
    }
}

fn rows() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let stdout = io::stdout().as_raw_fd();
    // SAFETY: the descriptor is open for as long as the process is, and for this request the kernel
    // writes one `winsize` to the address, which is that of a live and writable one.
    let result = unsafe { libc::ioctl(stdout, libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_row > 0 { size.ws_row.into() } else { ROWS }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
