//! `demo`: an ordinary visitor and four attackers, a real web server, real bans, in a world of its own.
//!
//! `f2b-pipe demo` starts itself again through unshare(1), in new user, network, mount, process and IPC namespaces; so
//! nothing needs root, nothing is seen by the host, and all of it is gone when that process ends. There it starts httpd
//! with f2b-pipe as its piped log, lets the actors come from a second network namespace, and looks into the kernel's sets
//! every half millisecond. Where namespaces are forbidden, a stand-in server writes the lines and bans are only told.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::actors::{Part, Play, Role};
use self::board::{Board, Row, lock};
use self::stage::{House, Stage};
use self::view::View;
use super::{DemoArgs, Done, Failure, Outcome};

mod actors;
mod board;
mod stage;
mod stand_in;
mod view;
mod watcher;

/// unshare(1): the own user becomes "nobody" with all rights inside and none outside. Not root, because httpd as root
/// wants to become somebody else, and there is nobody else in there.
const UNSHARE: [&str; 11] = [
    "--user",
    "--map-user=65534",
    "--map-group=65534",
    "--keep-caps", // util-linux 2.36
    "--net",
    "--ipc",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];
/// What one line of shell must be able to do in there.
const PROBE: &str = "mount -t tmpfs demo /run && ip link set lo up";
/// An ordinary user's PATH has no sbin in Debian.
const SBIN: &str = ":/usr/local/sbin:/usr/sbin:/sbin";
/// The longest that the play takes.
const CURTAIN: Duration = Duration::from_secs(16);

/// `f2b-pipe demo`.
///
/// # Errors
/// When the demo cannot be started, or was interrupted.
pub fn demo(args: &DemoArgs, out: &mut dyn Write) -> Done {
    let path = search_path();
    match obstacle(&path) {
        None => {
            let mut command = Command::new("unshare");
            command.args(UNSHARE).arg("--");
            command.arg(own_program()?).arg("demo-stage");
            if args.quick {
                command.arg("--quick");
            }
            out.flush()?;
            let error = command.env("PATH", path).exec();
            Err(Failure::Usage(format!(
                "demo: cannot start unshare: {error}"
            )))
        }
        Some(why) => {
            writeln!(
                out,
                "No private network here: {why}\nSo this is a dry run: what would be banned is told, and nobody is.\n"
            )?;
            dry_run(args, out)
        }
    }
}

fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()) + SBIN
}

fn own_program() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|e| Failure::Usage(format!("demo: where is my own program? {e}")))
}

/// Why there can be no private network, and what to do about it.
fn obstacle(path: &str) -> Option<String> {
    for (program, package) in [
        ("unshare", "util-linux"),
        ("ip", "iproute2 (Fedora, RHEL: iproute)"),
        ("iptables", "iptables (RHEL: iptables-nft)"),
    ] {
        if stage::find_program(&[program], path).is_none() {
            return Some(format!(
                "{program} is missing; install the package {package}."
            ));
        }
    }
    let probe = Command::new("unshare")
        .args(UNSHARE)
        .args(["--", "sh", "-c", PROBE])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output();
    let said = match probe {
        Ok(probe) if probe.status.success() => return None,
        Ok(probe) => String::from_utf8_lossy(&probe.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let is = |file: &str, value: &str| {
        std::fs::read_to_string(Path::new("/proc/sys").join(file))
            .is_ok_and(|text| text.trim() == value)
    };
    let remedy = if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor keeps them from ordinary users; try with sudo."
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone is 0; try with sudo."
    } else if is("user/max_user_namespaces", "0") {
        "user.max_user_namespaces is 0."
    } else {
        "containers often forbid it; try on the host itself."
    };
    Some(format!("{said}. {remedy}"))
}

/// Who plays: name, address, role, and when it begins, in milliseconds (with `--quick`: at once).
const CAST: [(&str, IpAddr, Role, u64); 6] = [
    ("ordinary visitor", v4([198, 51, 100, 20]), Role::Visitor, 0),
    (
        "shellshock agent",
        v4([203, 0, 113, 66]),
        Role::Shellshock,
        1500,
    ),
    (
        "password guesser",
        v4([203, 0, 113, 9]),
        Role::Guesser,
        3000,
    ),
    ("scanner", v4([198, 51, 100, 140]), Role::Scanner, 6000),
    ("flood", v6(0xbad, 5), Role::Flood, 9500),
    ("its neighbour", v6(0xbad, 0x77), Role::Neighbour, 9500),
];
/// With `--quick`, and time for the first page.
const QUICK_START: Duration = Duration::from_millis(300);
/// The flood where the host has no IPv6; there, nobody is its neighbour.
const FLOOD_V4: IpAddr = v4([203, 0, 113, 200]);

const fn v4(octets: [u8; 4]) -> IpAddr {
    let [a, b, c, d] = octets;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

/// Gives everybody a row and a part.
fn cast(stage: &Stage, house: &House) -> (Vec<Row>, Vec<Part>) {
    let mut rows = Vec::new();
    let mut parts = Vec::new();
    for (who, address, role, start) in CAST {
        let (shown, to) = match (address, house.v6) {
            (IpAddr::V6(_), Some(v6)) => (address, v6),
            (IpAddr::V6(_), None) if !stage.dry => (FLOOD_V4, house.v4),
            (IpAddr::V6(_), None) | (IpAddr::V4(_), _) => (address, house.v4),
        };
        if matches!(role, Role::Neighbour) && house.v6.is_none() {
            continue;
        }
        let row = rows.len();
        rows.push(Row::new(who, shown, matches!(role, Role::Visitor)));
        let start = Duration::from_millis(start);
        parts.push(Part {
            row,
            role,
            from: if stage.dry {
                stage::loopback_for(shown)
            } else {
                shown
            },
            to,
            start: if stage.quick {
                start.min(QUICK_START)
            } else {
                start
            },
        });
    }
    (rows, parts)
}

/// Inside the namespaces.
///
/// # Errors
/// When the stage cannot be set, with what could not be done.
pub fn stage(args: &DemoArgs, out: &mut dyn Write) -> Done {
    stage::private_files().map_err(usage)?;
    perform(&Stage::new(stage::DIR.into(), false, args.quick), out)
}

/// Where there are no namespaces: the same play on loopback, and bans are only told.
fn dry_run(args: &DemoArgs, out: &mut dyn Write) -> Done {
    let dir = std::env::temp_dir().join(format!("f2b-pipe-demo-{}", std::process::id()));
    let failed = |what: &str, e| usage(format!("cannot {what} {}: {e}", dir.display()));
    std::fs::create_dir(&dir).map_err(|e| failed("create", e))?;
    let done = perform(&Stage::new(dir.clone(), true, args.quick), out);
    std::fs::remove_dir_all(&dir).map_err(|e| failed("remove", e))?;
    done
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(format!("demo: {}", text.into()))
}

/// From the empty stage to the summary.
fn perform(stage: &Stage, out: &mut dyn Write) -> Done {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    stage
        .write_files()
        .map_err(|e| usage(format!("cannot write {}: {e}", stage.dir.display())))?;
    let board = Mutex::new(Board::new(Vec::new()));
    let stop = AtomicBool::new(false);
    let play = Play {
        board: &board,
        stop: &stop,
        dry: stage.dry,
    };
    thread::scope(|scope| {
        let (network, client) = mpsc::channel();
        let (hand_out, parts) = mpsc::channel();
        let play = &play;
        let actors = scope.spawn(move || client_world(stage.dry, network, parts, play));
        let shown = stage.open(client).map_err(usage).and_then(|mut house| {
            let (rows, parts) = cast(stage, &house);
            *lock(&board) = Board::new(rows);
            let bans = house.bans();
            scope.spawn(move || watcher::watch(bans, play));
            // An actor who could not come says why when he is joined.
            drop(hand_out.send(parts));
            let over = || interrupted.load(Ordering::Relaxed) || actors.is_finished();
            writeln!(out, "{}\n", house.directive)?;
            let shown = show(&house.title, stage.quick, play, &over, out);
            stop.store(true, Ordering::Relaxed);
            shown
        });
        stop.store(true, Ordering::Relaxed);
        let actors = actors
            .join()
            .unwrap_or_else(|_| Err("an actor fell over".to_owned()));
        // If the actors have no network, that is the cause of what else went wrong.
        actors.map_err(usage).and(shown)
    })?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(usage("interrupted"));
    }
    let board = lock(&board);
    epilogue(stage, &board, out)
}

/// The thread that the actors come from.
fn client_world(
    dry: bool,
    network: Sender<i32>,
    parts: Receiver<Vec<Part>>,
    play: &Play<'_>,
) -> Result<(), String> {
    if !dry {
        stage::own_network(&network)?;
    }
    // Nobody hands out parts if the house could not be opened, which is told there.
    let Ok(parts) = parts.recv() else {
        return Ok(());
    };
    if !dry {
        let addresses: Vec<_> = parts.iter().map(|part| part.from).collect();
        stage::client_side(&addresses)?;
    }
    thread::scope(|scope| {
        for part in parts {
            scope.spawn(move || actors::play(part, play));
        }
    });
    Ok(())
}

/// Shows the play until everybody has played his part.
fn show(
    title: &str,
    quick: bool,
    play: &Play<'_>,
    over: &dyn Fn() -> bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // What is redrawn is coloured, too: where that is not wanted, events are told line by line.
    let live = !quick && super::colour();
    let mut view = View::new(live, title.to_owned());
    let began = lock(play.board).began;
    let mut shown = Ok(());
    while shown.is_ok() && !over() && began.elapsed() < CURTAIN {
        let board = lock(play.board);
        shown = view.show(&board, out);
        let attackers_done = board.rows.iter().all(|row| row.friend || row.done);
        drop(board);
        if attackers_done {
            break;
        }
        thread::sleep(Duration::from_millis(70));
    }
    // The visitor looks at one more page when all is over.
    thread::sleep(Duration::from_millis(300));
    play.stop.store(true, Ordering::Relaxed);
    let shown = shown.and_then(|()| view.show(&lock(play.board), out));
    view.end(out)?;
    Ok(shown?)
}

/// What the kernel says, and the play in a few lines.
fn epilogue(stage: &Stage, board: &Board, out: &mut dyn Write) -> Done {
    if !stage.dry {
        writeln!(out, "\nThe kernel's own list\n")?;
        writeln!(out, "{}", watcher::kernel_list())?;
    }
    let (summary, fine) = view::summary(board, stage.dry);
    writeln!(
        out,
        "{}In short\n\n{summary}",
        if stage.dry { "\n" } else { "" }
    )?;
    if fine {
        if !stage.dry {
            writeln!(
                out,
                "\nAll of this was in a network of its own, and is gone."
            )?;
        }
        return Ok(Outcome::Fine);
    }
    writeln!(
        out,
        "That is not as it should be. The end of httpd's error log:\n{}",
        stage.last_lines("error.log")
    )?;
    Ok(Outcome::NotSo)
}
