//! Start-up where io_uring cannot be had.

use crate::harness::watchdog;
use reactor::{Config, Reactor, SetupError};
use std::thread;

/// Makes one system call of this thread fail with `errno`, for good.
fn forbid(call: i64, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let is_call = libc::sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(call).unwrap())
    };
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let mut filter = [
        // The number is the first word of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_call,
        statement(libc::BPF_RET | libc::BPF_K, errno),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: takes no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter live until the call returns; the kernel copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn error_with(call: i64, errno: i32) -> SetupError {
    let start = move || {
        forbid(call, errno);
        Reactor::new(&Config::default()).err().expect("a reactor without io_uring")
    };
    thread::spawn(start).join().unwrap()
}

#[test]
fn each_forbidden_call_is_named() {
    let _watchdog = watchdog();
    let calls = [
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_io_uring_register, "io_uring_register"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
    ];
    for (number, name) in calls {
        let error = error_with(number, libc::EPERM);
        assert!(matches!(&error, SetupError::Forbidden { call, .. } if *call == name), "{error}");
        let text = error.to_string();
        assert!(text.contains("seccomp") && text.contains(name), "{text}");
    }
}

#[test]
fn a_kernel_without_io_uring_is_told_which_one_brings_it() {
    let _watchdog = watchdog();
    let text = error_with(libc::SYS_io_uring_setup, libc::ENOSYS).to_string();
    assert!(text.contains("io_uring is missing: Linux 5.1 brings it, this is Linux "), "{text}");
}

#[test]
fn an_impossible_size_is_named_with_the_sizes_allowed() {
    let sizes = [
        Config { entries: 0, ..Config::default() },
        Config { entries: 4097, ..Config::default() },
        Config { receive_buffers: 0, ..Config::default() },
        Config { receive_buffers: 100, ..Config::default() },
        Config { receive_buffer_size: 0, ..Config::default() },
    ];
    for config in sizes {
        let error = Reactor::new(&config).err().expect("a reactor of impossible size");
        assert!(matches!(error, SetupError::Size { .. }), "{error}");
    }
}
