//! Leaves restartable sequences (rseq) on threads that mostly switch.
//!
//! glibc registers every thread with the kernel, which then writes the thread's core into user memory
//! after each switch to it: about 0.2 us, four times in every internal call. Shards and workers do not
//! use the value. `docs/adr/0005-no-rseq.md` has the figures.

use std::arch::asm;

use nix::libc;

/// `RSEQ_FLAG_UNREGISTER` of the kernel's `rseq.h`.
const UNREGISTER: libc::c_int = 1;
/// `RSEQ_SIG` of this architecture, by which glibc registered.
#[cfg(target_arch = "x86_64")]
const SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
const SIGNATURE: u32 = 0xd428_bc00;
/// Sizes by which glibc registers: 32 bytes from the beginning, more where the kernel offers more.
const SIZES: [u32; 3] = [32, 64, 96];

/// Ends the calling thread's registration, if glibc has made one. Without one, or where that is not
/// understood, nothing happens: it costs time, not correctness. `sched_getcpu` asks the kernel then.
pub fn leave() {
    // SAFETY: the name is a C string; the symbol is only looked up.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) };
    if offset.is_null() {
        return;
    }
    // SAFETY: glibc documents the symbol as a `const ptrdiff_t`, constant once the program runs.
    let offset = unsafe { offset.cast::<isize>().read() };
    let area = thread_pointer().wrapping_byte_offset(offset);
    for size in SIZES {
        // SAFETY: the kernel takes numbers and compares them with what glibc registered; on a match it
        // forgets the area and marks it as unused, which glibc's own readers check for.
        let result = unsafe { libc::syscall(libc::SYS_rseq, area, size, UNREGISTER, SIGNATURE) };
        if result == 0 {
            return;
        }
    }
}

/// What `__rseq_offset` counts from.
fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: reads the thread pointer's own address, which the ABI keeps at offset 0; touches no flag.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: reads a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_leave_more_than_once_and_still_knows_its_core() {
        leave();
        leave();
        // SAFETY: takes nothing.
        assert!(unsafe { libc::sched_getcpu() } >= 0);
    }
}
