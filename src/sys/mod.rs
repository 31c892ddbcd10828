//! The few system calls and instructions that need `unsafe`, each behind a safe function.
#![allow(unsafe_code, reason = "this room is where it is allowed")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// Gives memory back that is not needed at rest: what was freed and kept for later, and the pages of programs and libraries
/// that only the start needed (reading the configuration, building the searches: some megabytes). Whatever is needed again
/// comes back by itself, from the page cache.
pub fn rest() {
    // SAFETY: malloc_trim(3) takes a number, and locks what it looks at.
    unsafe { nix::libc::malloc_trim(0) };
    // SAFETY: the callback has the type that dl_iterate_phdr(3) asks for, and needs no data.
    unsafe { nix::libc::dl_iterate_phdr(Some(forget_pages), std::ptr::null_mut()) };
}

/// Drops the pages of one program or library that nobody can have written to.
unsafe extern "C" fn forget_pages(
    info: *mut nix::libc::dl_phdr_info,
    _size: usize,
    _data: *mut nix::libc::c_void,
) -> nix::libc::c_int {
    // SAFETY: dl_iterate_phdr(3) hands over one that is valid until this returns, with dlpi_phnum headers at dlpi_phdr.
    let (base, headers) = unsafe {
        let info = &*info;
        let many = usize::from(info.dlpi_phnum);
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, many),
        )
    };
    for header in headers {
        // A segment that was mapped without the right to write holds what the file holds, to the byte: even the relocated
        // pages (RELRO) belong to a writable one.
        if header.p_type != nix::libc::PT_LOAD || header.p_flags & nix::libc::PF_W != 0 {
            continue;
        }
        let mask = !4095;
        let (Ok(start), Ok(end)) = (
            usize::try_from((base + header.p_vaddr) & mask),
            usize::try_from((base + header.p_vaddr + header.p_memsz) & mask),
        ) else {
            continue;
        };
        // SAFETY: the range is of this object's own private file mapping, and never written; dropped pages are read from
        // the file again (madvise(2), MADV_DONTNEED). What is not mapped is refused (the vdso).
        unsafe {
            nix::libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                end.saturating_sub(start),
                nix::libc::MADV_DONTNEED,
            );
        }
    }
    0
}

/// Sets a command up to run apart from us: in a session of its own (so that no signal meant for httpd's group reaches it,
/// and the whole group can be killed), with none of our open files but 0 to 2, with umask 077 as under fail2ban's server,
/// and killed when the thread that started it is gone, so keep that thread until it has ended.
pub fn apart(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::unistd::setsid()?;
        // SAFETY: umask(2) and close_range(2) take numbers. CLOEXEC instead of closing keeps the pipe alive through which
        // std learns whether the exec succeeded. An old kernel without close_range says so and nothing happens.
        unsafe {
            nix::libc::umask(0o077);
            nix::libc::syscall(
                nix::libc::SYS_close_range,
                3,
                nix::libc::c_uint::MAX,
                nix::libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        // SAFETY: PR_SET_PDEATHSIG takes one number, which it reads as unsigned long.
        let set = unsafe {
            nix::libc::prctl(
                nix::libc::PR_SET_PDEATHSIG,
                nix::libc::c_ulong::from(nix::libc::SIGKILL.unsigned_abs()),
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // We may have been gone before the kernel was told to watch us.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(nix::libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made (signal-safety(7)): system calls on numbers, and
    // errors made of an errno, which allocate nothing.
    unsafe { command.pre_exec(prepare) };
}
