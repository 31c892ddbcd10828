//! The few system calls and instructions that need `unsafe`, each behind a safe function.
#![allow(unsafe_code, reason = "this room is where it is allowed")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
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

/// Device and number of the file at `path`, not followed; `None`: there is none. Tells whether what was put there still
/// stands.
#[must_use]
pub fn file_at(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Makes the calling thread yield to those that have a line in hand. On a small machine a ban would otherwise wait until
/// this thread's share of the processor is used up, some milliseconds.
pub fn stand_back() {
    // SAFETY: setpriority(2) takes three numbers; PRIO_PROCESS with 0 is the calling thread alone on Linux (pthreads(7),
    // "Linux implementation").
    unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, 10) };
}

/// One heap for all threads, for a process whose threads but one allocate little: else that one, if it is not the first,
/// asks the kernel for every few pages of a heap of its own (mallopt(3), M_ARENA_MAX; a hundredth of all its time), and each
/// of the others keeps what it freed to itself. To be called before there are threads.
pub fn share_heap() {
    // SAFETY: mallopt(3) takes two numbers.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

/// Gives memory back that is not needed at rest: what was freed and kept for later, and [`forget_programs`].
pub fn rest() {
    // SAFETY: malloc_trim(3) takes a number, and locks what it looks at.
    unsafe { nix::libc::malloc_trim(0) };
    forget_programs();
}

/// Gives back the pages of programs and libraries that only something rare needed (reading the configuration, building
/// the searches: some megabytes). Whatever is needed again comes back by itself, from the page cache. Locks nothing.
pub fn forget_programs() {
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

/// Puts a filter of system calls on all threads of this process. `told`: what it refuses the audit log names, where the kernel
/// can (Linux 4.14).
///
/// # Errors
/// `ENOSYS`, `EINVAL`: this kernel has no such filters. `EACCES`: without no_new_privs.
pub fn filter_calls(program: &[seccompiler::sock_filter], told: bool) -> io::Result<()> {
    let fprog = nix::libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let set = |flags: nix::libc::c_ulong| {
        // SAFETY: the kernel reads `len` instructions at `filter` and writes nothing (seccomp(2)); both crates lay struct
        // sock_filter out as the kernel does (repr(C), linux/filter.h).
        let done = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_seccomp,
                nix::libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const fprog,
            )
        };
        match done {
            0 => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            thread => Err(io::Error::other(format!(
                "thread {thread} has another filter"
            ))),
        }
    };
    let all = nix::libc::SECCOMP_FILTER_FLAG_TSYNC;
    match told {
        true => set(all | nix::libc::SECCOMP_FILTER_FLAG_LOG).or_else(|_| set(all)),
        false => set(all),
    }
}

/// The number of the child process; `None` in the child, which has one thread and all that was open.
///
/// # Errors
/// There are other threads: locks that they hold would be held for ever in the child. Or no process can be had.
pub fn fork_alone() -> io::Result<Option<nix::unistd::Pid>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads run already")));
    }
    // SAFETY: this process has one thread, so the child finds no lock held and no structure half changed (fork(2)); /proc
    // was asked by that very thread, and nobody else could have started one since.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Makes a process that was just forked one of its own: no signal that is meant for its parent reaches or ends it, it goes
/// when `parent` goes, and of the open files it has only stderr and `kept`, which is returned under its new number.
///
/// # Errors
/// The parent has gone meanwhile, or /dev/null cannot be opened.
pub fn part_from(
    parent: nix::unistd::Pid,
    name: &std::ffi::CStr,
    kept: std::os::fd::OwnedFd,
) -> io::Result<std::os::fd::OwnedFd> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use std::os::fd::{FromRawFd, IntoRawFd};
    extern "C" fn deaf(_: nix::libc::c_int) {}
    /// The first number behind stderr.
    const FIRST: std::os::fd::RawFd = 3;
    // A handler, as what is executed begins with the default then; what is ignored would stay so.
    let action = SigAction::new(
        SigHandler::Handler(deaf),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGUSR1,
    ] {
        // SAFETY: the handler does nothing, which is safe at any time (signal-safety(7)).
        unsafe { sigaction(signal, &action) }?;
    }
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(name)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != parent {
        return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
    }
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into_raw_fd();
    let kept = kept.into_raw_fd();
    // SAFETY: these take numbers. The program goes on with 0 to 3 only: whoever owned one of the other numbers is never
    // dropped, since this process ends by `leave`.
    unsafe {
        nix::libc::dup2(null, 0);
        nix::libc::dup2(null, 1);
        if kept != FIRST {
            nix::libc::dup2(kept, FIRST);
        }
        nix::libc::fcntl(FIRST, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC);
        if nix::libc::syscall(
            nix::libc::SYS_close_range,
            FIRST + 1,
            nix::libc::c_uint::MAX,
            0,
        ) != 0
        {
            // Linux before 5.9.
            let most = nix::libc::sysconf(nix::libc::_SC_OPEN_MAX).clamp(256, 65_536);
            for fd in FIRST + 1..i32::try_from(most).unwrap_or(256) {
                nix::libc::close(fd);
            }
        }
        Ok(std::os::fd::OwnedFd::from_raw_fd(FIRST))
    }
}

/// Ends this process at once, and drops nothing: for one that [`part_from`] took all files from.
pub fn leave(code: u8) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { nix::libc::_exit(i32::from(code)) }
}

/// Readable when the process `pid`, a child that was not waited for, has ended (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// The kernel is older, or no file descriptor is left.
pub fn end_of(pid: u32) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let pid = nix::libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes two numbers, and returns a new file descriptor, which is nobody else's.
    unsafe {
        let fd = nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0);
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(std::os::fd::OwnedFd::from_raw_fd(fd)),
            Ok(_) => Err(io::Error::last_os_error()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// One message of a socket that keeps them apart, with the open files that came with it; no bytes: the other side has ended.
///
/// # Errors
/// Of recvmsg(2); a message that is longer than `buffer` is one, too.
pub fn receive(
    socket: std::os::fd::BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<std::os::fd::OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::FromRawFd;
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 8]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            got => break got?,
        }
    };
    let mut files = Vec::new();
    for part in got.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            for fd in fds {
                // SAFETY: the kernel made it for this message (unix(7)), and nobody else knows it.
                files.push(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if got.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((got.bytes, files))
}
