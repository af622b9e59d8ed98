//! What `/proc` tells of a process.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that cannot be mistaken for a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// In clock ticks since the machine started.
    start_time: u64,
}

/// The fields of a process's or thread's `stat` that are used here.
struct Stat {
    state: char,
    parent: u32,
    /// Clock ticks in user and kernel mode.
    cpu_ticks: u64,
    start_time: u64,
}

impl Process {
    /// The living process of this id.
    #[must_use]
    pub fn find(pid: u32) -> Option<Process> {
        let stat = Stat::read(pid)?;
        is_living(&stat).then_some(Process { pid, start_time: stat.start_time })
    }

    /// A child that has not been waited for, so that its entry is there.
    ///
    /// # Panics
    /// If it has been.
    #[must_use]
    pub fn of_child(child: &Child) -> Process {
        let pid = child.id();
        let stat = Stat::read(pid).expect("the child has not been waited for");
        Process { pid, start_time: stat.start_time }
    }

    /// Its living children.
    #[must_use]
    pub fn children(self) -> Vec<Process> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let child = |pid| {
            let stat = Stat::read(pid)?;
            let is_child = stat.parent == self.pid && is_living(&stat);
            is_child.then_some(Process { pid, start_time: stat.start_time })
        };
        pids.filter_map(child).collect()
    }

    /// Its command line, empty if it has ended.
    pub fn arguments(self) -> impl Iterator<Item = String> {
        let text = fs::read_to_string(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let arguments: Vec<String> = text.split('\0').map(str::to_owned).collect();
        arguments.into_iter()
    }

    /// Whether it has not ended. One that ended and was not waited for has ended.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Process::find(self.pid) == Some(self)
    }

    /// Its open descriptors.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn descriptors(self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid));
        entries.expect("the process is there").count()
    }

    /// Whether every one of its threads is held by SIGSTOP.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        self.is_every_thread('T')
    }

    /// Whether every one of its threads waits for something.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn is_asleep(self) -> bool {
        self.is_every_thread('S')
    }

    fn is_every_thread(self, state: char) -> bool {
        let threads =
            fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the process is there");
        let mut states = threads.map(|thread| {
            let path = thread.expect("an entry").path().join("stat");
            Stat::read_from(&path).map(|stat| stat.state)
        });
        states.all(|of_thread| of_thread == Some(state))
    }

    /// CPU time it has used, in clock ticks of 10 ms.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn cpu_ticks(self) -> u64 {
        self.stat().cpu_ticks
    }

    /// Bytes of memory that are its own alone.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn private_memory(self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(path).expect("the process is there");
        let kibibytes = |line: &str| {
            let value =
                line.strip_prefix("Private_Clean:").or(line.strip_prefix("Private_Dirty:"))?;
            value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        text.lines().filter_map(kibibytes).sum::<u64>() * 1024
    }

    /// How many descriptors its table has room for.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn room_for_descriptors(self) -> u64 {
        self.status("FDSize:").parse().expect("a number")
    }

    /// Sets a limit of its own, as `prlimit` takes it: `nofile=64:` leaves what it may be raised to.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn limit(self, limit: &str) {
        let mut command = Command::new("prlimit");
        command.arg("--pid").arg(self.pid.to_string()).arg(format!("--{limit}"));
        assert!(command.status().expect("util-linux is installed").success(), "{limit}");
    }

    /// Bytes of address space that it has mapped.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn address_space(self) -> u64 {
        let size = self.status("VmSize:");
        size.strip_suffix(" kB").expect("the unit").parse::<u64>().expect("a number") * 1024
    }

    /// What `/proc` says of it under this name.
    fn status(self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(path).expect("the process is there");
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.expect("the kernel tells it").trim().to_owned()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).expect("the kernel's ids are this small");
        kill(Pid::from_raw(pid), signal).expect("the process is there");
    }

    fn stat(self) -> Stat {
        Stat::read(self.pid)
            .filter(|stat| stat.start_time == self.start_time)
            .unwrap_or_else(|| panic!("process {} has ended", self.pid))
    }
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        Stat::read_from(Path::new(&format!("/proc/{pid}/stat")))
    }

    fn read_from(path: &Path) -> Option<Stat> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // ESRCH: it ended between the opening and the reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        // The name, in parentheses, may hold anything. proc(5) counts from 1; `state` is field 3.
        let (_, behind_name) = text.rsplit_once(") ").expect("the name is in parentheses");
        let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
        let number = |field: usize| fields[field - 3].parse::<u64>().expect("a number");
        Some(Stat {
            state: fields[0].chars().next().expect("not empty"),
            parent: u32::try_from(number(4)).expect("a pid"),
            cpu_ticks: number(14) + number(15),
            start_time: number(22),
        })
    }
}

fn is_living(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X')
}
