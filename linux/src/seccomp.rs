//! Loads a system call filter on the calling process. The filter itself is compiled by the runtime, purely.

use crate::failure::{Doing, Failure};

/// The kernel takes no longer programs (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Puts a classic BPF program in force, each instruction packed as `code | jt << 16 | jf << 24 | k << 32`.
/// Needs no_new_privs or CAP_SYS_ADMIN.
pub fn load(program: &[u64]) -> Result<(), Failure> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Failure::new("load the seccomp filter", "the program is empty or too long"));
    }
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: *i as u16, jt: (i >> 16) as u8, jf: (i >> 24) as u8, k: (i >> 32) as u32 })
        .collect();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to `filter`, which lives through the call; the kernel copies and verifies it.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if answer < 0 { Err(std::io::Error::last_os_error()).doing("load the seccomp filter") } else { Ok(()) }
}
