//! The few system calls and instructions that need `unsafe`, each behind a safe function.
#![allow(unsafe_code, reason = "this room is where it is allowed")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub(crate) mod bytes; // sixteen at a time

mod raw {
    #![allow(missing_docs, reason = "made by the macro")]
    nix::ioctl_read_bad!(fionread, nix::libc::FIONREAD, nix::libc::c_int);
}

/// Bytes that wait in a pipe (FIONREAD).
///
/// # Errors
/// Not a pipe, socket or terminal.
pub fn waiting(fd: impl AsFd) -> io::Result<usize> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int to the pointer it is given, and `bytes` is one (ioctl_tty(2), pipe(7)).
    unsafe { raw::fionread(fd.as_fd().as_raw_fd(), &raw mut bytes) }?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Makes the calling thread yield to those that have a line in hand. On a small machine a ban would otherwise wait until
/// this thread's share of the processor is used up, some milliseconds.
pub fn stand_back() {
    // SAFETY: setpriority(2) takes three numbers; PRIO_PROCESS with 0 is the calling thread alone on Linux (pthreads(7),
    // "Linux implementation").
    unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, 10) };
}
