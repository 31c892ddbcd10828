//! Which system calls are left.
//!
//! A list of those in use, not of those that are bad: what nobody thought of is refused. Refused is ENOSYS, as by a kernel that
//! is older than the call, which libraries know how to live with, and the audit log names it (`type=SECCOMP ... comm="f2b-pipe"`).
//! Nothing is killed: a call that is missing here must not end a logger.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::Step;
use crate::sys;

/// Files, memory, threads, time, waiting, sockets, and what a process knows of itself.
const ALLOWED: &[libc::c_long] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_umask,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // httpd's pipe.
    libc::SYS_pipe2,
    libc::SYS_tee,
    libc::SYS_splice,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads; those of processes are below.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // An abort of our own; others' processes are out of landlock's reach.
    libc::SYS_tgkill,
    // The helper's end.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Time and waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Sockets; their families are below.
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Of itself.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_capget,
];

/// The same under older names, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
    libc::SYS_inotify_init,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// PR_SET_VMA, by which libc names its memory.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Puts the filter on all threads.
pub(super) fn filter() -> Step {
    let Ok(arch) = std::env::consts::ARCH.try_into() else {
        return Step::Absent(format!("not written for {}", std::env::consts::ARCH));
    };
    let refuse = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let allow = SeccompAction::Allow;
    let listed = rules().and_then(|rules| {
        SeccompFilter::new(rules, refuse.clone(), allow.clone(), arch)
            .and_then(BpfProgram::try_from)
    });
    // libc asks for each thread by clone3 first. That is no news for the audit log, so another filter refuses it, in silence.
    let quiet = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let quiet = SeccompFilter::new(quiet, allow, refuse, arch).and_then(BpfProgram::try_from);
    match (quiet, listed) {
        (Err(error), _) | (_, Err(error)) => Step::Failed(error.to_string()),
        (Ok(quiet), Ok(listed)) => {
            let done =
                sys::filter_calls(&quiet, false).and_then(|()| sys::filter_calls(&listed, true));
            match done {
                Ok(()) => Step::On,
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    Step::Absent("CONFIG_SECCOMP_FILTER".to_owned())
                }
                Err(error) => Step::Failed(error.to_string()),
            }
        }
    }
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED.iter().chain(OLDER) {
        rules.insert(*call, Vec::new());
    }
    // The other filter refuses it.
    rules.insert(libc::SYS_clone3, Vec::new());
    let mut only = |call: libc::c_long, argument, op: Op, values: &[u64]| {
        for value in values {
            let condition = SeccompCondition::new(argument, Len::Dword, op.clone(), *value)?;
            let rule = SeccompRule::new(vec![condition])?;
            rules.entry(call).or_default().push(rule);
        }
        Ok(())
    };
    // A thread, no process. clone3 hides its flags in memory, and libc falls back on clone.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    only(libc::SYS_clone, 0, Op::MaskedEq(thread), &[thread])?;
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let families = families.map(|family| u64::from(family.unsigned_abs()));
    only(libc::SYS_socket, 0, Op::Eq, &families)?;
    let names = [libc::PR_SET_NAME, libc::PR_GET_NAME].map(|name| u64::from(name.unsigned_abs()));
    only(libc::SYS_prctl, 0, Op::Eq, &names)?;
    only(libc::SYS_prctl, 0, Op::Eq, &[PR_SET_VMA])?;
    // How much waits in a pipe, is it a terminal, do not block.
    let ioctls = [libc::FIONREAD, libc::TCGETS, libc::FIONBIO, libc::FIOCLEX];
    only(libc::SYS_ioctl, 1, Op::Eq, &ioctls)?;
    Ok(rules)
}

/// For [`super::probe`]: makes a call that is not left.
pub(super) fn try_call(name: &str, argument: &str) -> io::Result<()> {
    use nix::sys::signal::kill;
    use nix::unistd::{Pid, setuid};
    let done = match name {
        "signal" => kill(Pid::from_raw(argument.parse().unwrap_or(0)), None),
        "setuid" => setuid(1.into()),
        "mount" => nix::mount::mount(
            Some("tmpfs"),
            "/mnt",
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        ),
        "unshare" => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS),
        "chroot" => nix::unistd::chroot("/"),
        _ => return Err(io::Error::other("no such attempt")),
    };
    done.map_err(io::Error::from)
}
