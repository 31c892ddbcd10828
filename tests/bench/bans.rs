//! A hundred thousand bans, in both firewalls: made, listed, lifted, lost and back.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use f2b_pipe::act::firewall::{self, Firewall};
use f2b_pipe::config;

use super::{Bench, F2B_PIPE};

const BANS: u32 = 100_000;
/// Addresses of one command: a command line has a bound.
const AT_ONCE: usize = 50_000;
/// Everything that a reload of firewalld takes away, and a reboot.
const WIPE: &str = "nft flush ruleset; ipset destroy";
const SLOW: Duration = Duration::from_secs(60);

/// Prints how long each takes.
pub fn measure(bench: &Bench) {
    println!("\nA hundred thousand bans");
    if !bench.real {
        println!("  not measured: it needs a private network namespace");
        return;
    }
    for backend in ["ipset", "nftables"] {
        let host = Host::new(bench, backend);
        let put_in = host.time(|| host.ban_all());
        let listed = host.time(|| host.run(&["banned"]));
        let lifted = host.time(|| host.run(&["unban", "--all"]));
        let again = host.time(|| host.ban_all());
        host.wipe();
        let (restored, lost) = host.reboot();
        println!(
            "  {backend:9} banned {put_in:.2?}, listed {listed:.2?}, unbanned {lifted:.2?}, banned again {again:.2?}; after a \
             reboot in force {restored:.2?} after the start; after a reload of the firewall {lost:.2?}"
        );
    }
}

struct Host {
    dir: PathBuf,
    config: PathBuf,
}

impl Host {
    fn new(bench: &Bench, backend: &str) -> Self {
        let dir = bench.dir.join(format!("bans-{backend}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory can be made");
        let config = dir.join("f2b-pipe.toml");
        let text = format!(
            "[firewall]\nbackend = '{backend}'\n[fail2ban]\nconfig = ''\n[jail.web]\nstatus = [404]\n"
        );
        fs::write(&config, text).expect("a file can be written");
        Self { dir, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(F2B_PIPE);
        command.args(words).arg("--config").arg(&self.config);
        command.arg("--runtime-dir").arg(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) {
        let done = self.command(words).status().expect("it starts");
        assert!(done.success(), "{words:?}");
    }

    fn ban_all(&self) {
        let all: Vec<String> = addresses().map(|who| who.to_string()).collect();
        for some in all.chunks(AT_ONCE) {
            let words: Vec<&str> = std::iter::once("ban")
                .chain(some.iter().map(String::as_str))
                .collect();
            self.run(&words);
        }
    }

    fn time(&self, what: impl FnOnce()) -> Duration {
        let begun = Instant::now();
        what();
        begun.elapsed()
    }

    fn wipe(&self) {
        let _ = Command::new("sh").args(["-c", WIPE]).status();
    }

    fn firewall(&self) -> Box<dyn Firewall> {
        firewall::open(&config::load(&self.config).config.firewall).expect("the kernel has it")
    }

    fn in_force(&self) -> usize {
        let mut many = 0;
        let listed = self.firewall().list("f2bp-web", &mut |_| many += 1);
        listed.expect("it can be listed");
        many
    }

    fn watch(&self) -> Child {
        let log = fs::File::create(self.log()).expect("a file can be written");
        let mut command = self.command(&["watch"]);
        command.stderr(log).spawn().expect("it starts")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("watch.log")
    }

    fn said(&self, what: &str) -> bool {
        fs::read_to_string(self.log()).is_ok_and(|log| log.contains(what))
    }

    /// From the start of `watch` until all that the ledger knows is in force; and from a loss of all rules and sets.
    fn reboot(&self) -> (Duration, Duration) {
        let mut first = self.watch();
        let ledger = self.dir.join("f2b-pipe.sqlite3");
        until(|| filled(&ledger));
        let _ = first.kill();
        let _ = first.wait();
        self.wipe();
        let begun = Instant::now();
        let mut second = self.watch();
        until(|| self.said("bans from before the restart"));
        let restored = begun.elapsed();
        assert_eq!(self.in_force(), BANS as usize);
        // The keeper has to have read the sets.
        thread::sleep(Duration::from_secs(3));
        let begun = Instant::now();
        self.wipe();
        until(|| self.said("are made again"));
        let lost = begun.elapsed();
        assert_eq!(self.in_force(), BANS as usize);
        let _ = second.kill();
        let _ = second.wait();
        self.wipe();
        (restored, lost)
    }
}

/// Whether the ledger is there, and the bans are in it.
fn filled(ledger: &Path) -> bool {
    let Ok(mut open) = rusqlite::Connection::open(ledger) else {
        return false;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("the clock is right").as_secs_f64();
    let mut fill = || -> rusqlite::Result<()> {
        let all = open.transaction()?;
        for who in addresses() {
            all.execute(
                "INSERT INTO bans (jail, key, start, bantime, number, count, failures, lines)
                 VALUES ('web', ?1, ?2, 864000, 1, 0, 0, '')",
                rusqlite::params![who.to_string(), now - 3600.0],
            )?;
        }
        all.commit()
    };
    fill().is_ok()
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..BANS).map(|n| Ipv4Addr::from_bits(0x1f00_0000 + n))
}

fn until(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < SLOW);
        thread::sleep(Duration::from_millis(5));
    }
}
