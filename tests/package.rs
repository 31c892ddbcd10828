//! The packages that `conf/package` makes, on a clean Debian: installed, a first ban by real httpd, a newer one over it while
//! the ban stands and lines come, taken away, purged.
//!
//! The Debian is fetched once, into cargo's target folder; each test works on an overlay over it, entered with chroot, with a
//! network, a process table and a `/run` of its own, and a client in a second network. The RPM is tried there too, by rpm
//! itself, with httpd told to read `/etc/httpd/conf.d`.
//!
//! What is expected stands in shell beside what is done; a transcript is shown if it is not so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What is on the clean Debian.
const DEBIAN_HAS: &str = "apache2,ipset,iptables,iproute2,curl,logrotate,rpm";

/// Makes the copy in `$1` over `$4`, with the packages of `$3` in /packages, then runs `$2` in it.
const ENTER: &str = r#"
set -eu
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/new"
mount -t overlay none -o "lowerdir=$4,upperdir=$1/up,workdir=$1/work" "$1/new"
mount --bind /dev "$1/new/dev"
mount -t proc proc "$1/new/proc"
mount -t tmpfs none "$1/new/run"
mount -t tmpfs none "$1/new/tmp"
mkdir -p "$1/new/packages"
mount --bind "$3" "$1/new/packages"
ip link set lo up
exec chroot "$1/new" sh -eu -c "$2"
"#;

/// Words for the scripts, and the two networks.
const WORDS: &str = r#"
exec 2>&1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
no() { echo "NOT SO: $*"; exit 1; }
there() { for f in "$@"; do [ -e "$f" ] || [ -L "$f" ] || no "$f is there"; done; }
gone() { for f in "$@"; do { [ ! -e "$f" ] && [ ! -L "$f" ]; } || no "$f is gone"; done; }
holds() { grep -qF -- "$2" "$1" || { cat "$1"; no "$1 holds $2"; }; }
does() { echo "+ $*"; "$@" >/tmp/out 2>&1 || { cat /tmp/out; no "$* succeeds"; }; cat /tmp/out; }
refuses() { echo "+ $*"; ! "$@" >/tmp/out 2>&1 || { cat /tmp/out; no "$* refuses"; }; cat /tmp/out; }
comes_true() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 100 ] || no "$* comes true"; sleep 0.1; done; }
# Every file, link and folder, and what is in those of /etc. Not what others write: logs, rpm's own books, and the folder in
# which apache2 notes what was switched off.
state() {
    find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /packages -o -path '/var/log/*' -o -path '/var/lib/rpm' -o -path '/root/.rpmdb' -o -path '/var/lib/apache2/conf/disabled_by_*[a-z]' \) -prune -o -print | sort
    find /run -mindepth 1 -maxdepth 1 | sort
    find /etc -type f -exec md5sum {} + | sort -k2
    ls -d /var/log/f2b* 2>/dev/null || :
}

mkdir -p /run/lock /run/apache2
echo 'ServerName www.example.org' >>/etc/apache2/apache2.conf
ip netns add client
ip link add eth0 type veth peer name eth0 netns client
ip addr add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip -n client addr add 192.0.2.9/24 dev eth0
ip -n client addr add 192.0.2.8/24 dev eth0
ip -n client link set eth0 up
ip -n client link set lo up
# curl from an address, and whether it was answered.
asks() { from=$1; shift; ip netns exec client curl -s -g -o /dev/null --max-time 2 --interface "$from" "$@"; }
attacks() { asks 192.0.2.9 -A '() { :; }; echo x' http://192.0.2.1/; }
banned() { ipset list f2bp-apache-exploit-agent 2>/dev/null | grep -q '^192.0.2.9 '; }
# Processes of the program, by what they execute: any, one with --tee, and all of those that run have the newest.
programs() { for exe in /proc/[0-9]*/exe; do case $(readlink "$exe") in /usr/bin/f2b-pipe*) echo "${exe%/exe}" ;; esac; done; }
pgrep_any() { [ -n "$(programs)" ]; }
pgrep_tee() { for p in $(programs); do grep -qa tee.log "$p/cmdline" && return 0; done; return 1; }
newer_reads() { pgrep_any && ! for p in $(programs); do readlink "$p/exe"; done | grep -q deleted; }
kept_out() { ! asks 192.0.2.9 http://192.0.2.1/; }
"#;

/// The clean Debian, made once.
static DEBIAN: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    if !root.exists() {
        let new = root.with_extension(format!("{}", std::process::id()));
        let (mirror, release) = mirror();
        done(
            Command::new("mmdebstrap")
                .args(["--quiet", "--mode=root", "--variant=essential"])
                .arg(format!("--include={DEBIAN_HAS}"))
                .arg(release)
                .arg(&new)
                .arg(mirror),
        );
        fs::rename(new, &root).unwrap();
    }
    root
});

/// Where this host's packages come from, and of which release.
fn mirror() -> (String, String) {
    let lists = Command::new("sh")
        .args([
            "-c",
            "cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null; cat /etc/os-release",
        ])
        .output()
        .unwrap();
    let lists = String::from_utf8(lists.stdout).unwrap();
    let release = lists
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .expect("a release of Debian");
    let mirror = lists
        .lines()
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http"))
        .expect("a mirror in apt's lists");
    (mirror.to_owned(), release.to_owned())
}

/// Runs a command to its end, which must be a good one; its output.
fn done(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{errors}");
    said
}

/// Packages `1.deb` and `2.deb` of the program under test, the second a newer one.
static DEB: LazyLock<PathBuf> = LazyLock::new(|| packages("deb"));
/// The same as RPMs.
static RPM: LazyLock<PathBuf> = LazyLock::new(|| packages("rpm"));

/// The folder they are in.
fn packages(kind: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(kind);
    for (number, version) in [("1", "0.1.0"), ("2", "99.1")] {
        let file = done(
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/package"))
                .arg(kind)
                .args(["--program", env!("CARGO_BIN_EXE_f2b-pipe")])
                .args(["--version", version])
                .arg("--out")
                .arg(&dir),
        );
        fs::rename(file.trim_end(), dir.join(format!("{number}.{kind}"))).unwrap();
    }
    dir
}

/// Runs `script` on the clean Debian, with the packages at hand.
fn on_debian(name: &str, packages: &Path, script: &str) {
    let copy = std::env::temp_dir().join(format!("f2b-pipe-package-{}-{name}", std::process::id()));
    fs::create_dir_all(&copy).unwrap();
    let said = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(&copy)
        .arg(format!("{WORDS}{script}"))
        .arg(packages)
        .arg(&*DEBIAN)
        .output()
        .unwrap();
    fs::remove_dir(&copy).unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}{errors}");
}

#[test]
#[ignore = "needs root and a Debian mirror"]
fn the_debian_package_installs_bans_upgrades_and_leaves_nothing_behind() {
    let list = done(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(DEB.join("1.deb")),
    );
    for file in [
        "man1/f2b-pipe.1.gz",
        "man1/f2b-pipe-status.1.gz",
        "doc/f2b-pipe/README.md",
    ] {
        assert!(list.contains(file), "{file}: {list}");
    }
    on_debian(
        "deb",
        &DEB,
        r#"
        does apache2ctl start
        comes_true asks 192.0.2.8 http://192.0.2.1/
        state >/tmp/before

        does dpkg -i /packages/1.deb
        there /etc/apache2/conf-enabled/f2b-pipe.conf /run/f2b-pipe /var/lib/f2b-pipe /etc/f2b-pipe/filter.d/sshd.conf
        there /etc/systemd/system/multi-user.target.wants/f2b-pipe.service /etc/logrotate.d/f2b-pipe
        there /usr/share/bash-completion/completions/f2b-pipe /usr/share/zsh/vendor-completions/_f2b-pipe
        [ "$(stat -c %a /run/f2b-pipe)" = 700 ] || no "what names clients is for root only"
        does logrotate -d /etc/logrotate.d/f2b-pipe

        # The first ban, by real httpd.
        comes_true iptables -t raw -S f2b-pipe
        does f2b-pipe check
        asks 192.0.2.9 http://192.0.2.1/ || no "an ordinary request is answered"
        attacks || :
        comes_true banned
        comes_true kept_out
        asks 192.0.2.8 http://192.0.2.1/ || no "others are answered"

        # The administrator has edited a conffile, and writes an access log through a line of his own.
        echo '# mine' >>/etc/f2b-pipe/f2b-pipe.toml
        echo 'GlobalLog "|/usr/bin/f2b-pipe --tee /var/log/apache2/tee.log" combined' >/etc/apache2/conf-enabled/own.conf
        does apache2ctl graceful
        comes_true pgrep_tee

        # A newer one while requests come, slower than apache-dos allows: the ban stands at every moment, and no line is lost.
        ( n=0; while [ ! -e /tmp/enough ]; do asks 192.0.2.8 "http://192.0.2.1/?$n" || echo "$n" >>/tmp/unanswered; n=$((n + 1)); sleep 0.02; done; echo $n >/tmp/asked ) &
        client=$!
        ( while [ ! -e /tmp/enough ]; do banned || echo lifted >>/tmp/lifted; sleep 0.05; done ) &
        watcher=$!
        sleep 1
        does dpkg -i --force-confold /packages/2.deb
        sleep 2
        touch /tmp/enough
        wait $client $watcher
        gone /tmp/unanswered /tmp/lifted
        [ "$(dpkg-query -f '${Version}' -W f2b-pipe)" = 99.1 ] || no "the newer one is installed"
        holds /etc/f2b-pipe/f2b-pipe.toml '# mine'
        kept_out || no "he is kept out"
        comes_true newer_reads
        asked=$(cat /tmp/asked)
        [ "$asked" -gt 20 ] || no "requests came: $asked"
        all_there() { [ "$(grep -c 'GET /?[0-9]* ' /var/log/apache2/tee.log)" = "$asked" ]; }
        comes_true all_there
        [ "$(grep -o 'GET /?[0-9]* ' /var/log/apache2/tee.log | sort -u | wc -l)" = "$asked" ] || no "each line is there once"

        # While that line names it, it cannot go: httpd would not start.
        refuses dpkg -r f2b-pipe
        holds /tmp/out '/etc/apache2/conf-enabled/own.conf:1:'
        there /usr/bin/f2b-pipe /etc/apache2/conf-enabled/f2b-pipe.conf
        banned || no "the ban stands"
        rm /etc/apache2/conf-enabled/own.conf
        does apache2ctl graceful

        does dpkg -r f2b-pipe
        gone /usr/bin/f2b-pipe /etc/apache2/conf-enabled/f2b-pipe.conf /run/f2b-pipe
        asks 192.0.2.9 http://192.0.2.1/ || no "nobody is banned any more"
        [ -z "$(ipset list -n)" ] || no "no set is left"
        ! iptables -t raw -S f2b-pipe || no "no chain is left"
        holds /etc/f2b-pipe/f2b-pipe.toml '# mine'
        does apache2ctl configtest
        does apache2ctl restart
        comes_true asks 192.0.2.8 http://192.0.2.1/

        # And back: it bans at once.
        does dpkg -i --force-confold /packages/2.deb
        comes_true iptables -t raw -S f2b-pipe
        attacks || :
        comes_true banned
        does dpkg -P f2b-pipe
        ! pgrep_any || no "no process is left"
        rm -f /var/log/apache2/tee.log
        state >/tmp/after
        diff /tmp/before /tmp/after || no "nothing is left behind"
        [ -z "$(find /var/lib/apache2 /var/lib/dpkg/info /var/lib/systemd -name '*f2b*')" ] || no "nor in anybody's books"
        does apache2ctl stop
        "#,
    );
}

#[test]
#[ignore = "needs root and a Debian mirror"]
fn the_debian_package_installs_without_httpd_and_says_so() {
    on_debian(
        "alone",
        &DEB,
        r#"
        rm -rf /usr/share/apache2 /usr/sbin/apache2ctl /usr/sbin/apachectl /etc/apache2
        does dpkg -i /packages/1.deb
        holds /tmp/out 'no httpd here, so only other logs are watched'
        there /usr/bin/f2b-pipe /etc/systemd/system/multi-user.target.wants/f2b-pipe.service
        does dpkg -P f2b-pipe
        gone /usr/bin/f2b-pipe /etc/f2b-pipe /etc/systemd/system/multi-user.target.wants/f2b-pipe.service
        "#,
    );
}

#[test]
#[ignore = "needs root and a Debian mirror"]
fn the_rpm_is_what_it_says_and_its_scripts_do_the_same() {
    let rpm = RPM.join("1.rpm");
    let asked = |option: &[&str]| done(Command::new("rpm").arg("-qp").args(option).arg(&rpm));
    let list = asked(&["--list"]);
    for file in [
        "/usr/bin/f2b-pipe",
        "/etc/f2b-pipe/f2b-pipe.toml",
        "/etc/f2b-pipe/filter.d/sshd.conf",
        "/etc/httpd/conf.d/f2b-pipe.conf",
        "/etc/logrotate.d/f2b-pipe",
        "/usr/lib/systemd/system/f2b-pipe.service",
        "/usr/lib/tmpfiles.d/f2b-pipe.conf",
        "/usr/share/man/man1/f2b-pipe.1.gz",
        "/usr/share/man/man1/f2b-pipe-status.1.gz",
        "/usr/share/bash-completion/completions/f2b-pipe",
        "/usr/share/zsh/site-functions/_f2b-pipe",
        "/usr/share/fish/vendor_completions.d/f2b-pipe.fish",
    ] {
        assert!(list.lines().any(|line| line == file), "{file}: {list}");
    }
    let config = asked(&["--configfiles"]);
    assert!(config.lines().all(|line| line.starts_with("/etc/")));
    assert!(config.contains("/etc/httpd/conf.d/f2b-pipe.conf"));
    let requires = asked(&["--requires"]);
    for word in ["libc.so.6(", "/bin/sh"] {
        assert!(requires.contains(word), "{word}: {requires}");
    }
    assert_eq!(asked(&["--recommends"]), "ipset\niptables\n");
    let owners = asked(&["--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]"]);
    assert!(owners.lines().all(|owner| owner == "root:root"), "{owners}");
    for script in ["POSTIN", "PREUN", "POSTUN"] {
        let text = asked(&["--queryformat", &format!("%{{{script}}}")]);
        let file = RPM.join(script);
        fs::write(&file, text).unwrap();
        done(Command::new("sh").arg("-n").arg(&file));
    }
    done(Command::new("rpm").args(["-K", "--nosignature"]).arg(&rpm));
    on_debian(
        "rpm",
        &RPM,
        r#"
        # Debian's httpd as Red Hat's: its folder, its process id.
        mkdir -p /etc/httpd/conf.d /run/httpd
        echo 'IncludeOptional /etc/httpd/conf.d/*.conf' >>/etc/apache2/apache2.conf
        does apache2ctl start
        comes_true asks 192.0.2.8 http://192.0.2.1/
        ln -s /run/apache2/apache2.pid /run/httpd/httpd.pid
        rpm --initdb
        # What Debian's own packages have is not in RPM's books.
        options='--nodeps --nosignature'
        does rpm -i $options --test /packages/1.rpm
        gone /usr/bin/f2b-pipe
        state >/tmp/before

        does rpm -i $options /packages/1.rpm
        does rpm -V --nodeps f2b-pipe
        there /run/f2b-pipe /var/lib/f2b-pipe
        comes_true iptables -t raw -S f2b-pipe
        attacks || :
        comes_true banned
        comes_true kept_out
        echo '# mine' >>/etc/f2b-pipe/f2b-pipe.toml
        does rpm -U $options /packages/2.rpm
        banned || no "the ban stands"
        kept_out || no "he is kept out"
        holds /etc/f2b-pipe/f2b-pipe.toml '# mine'
        there /etc/httpd/conf.d/f2b-pipe.conf
        comes_true newer_reads

        echo 'CustomLog "|/usr/bin/f2b-pipe --tee /var/log/apache2/tee.log" combined' >/etc/httpd/conf.d/own.conf
        refuses rpm -e f2b-pipe
        holds /tmp/out '/etc/httpd/conf.d/own.conf:1:'
        there /usr/bin/f2b-pipe
        rm /etc/httpd/conf.d/own.conf
        does rpm -e f2b-pipe
        gone /usr/bin/f2b-pipe /etc/httpd/conf.d/f2b-pipe.conf /run/f2b-pipe /var/lib/f2b-pipe
        there /etc/f2b-pipe/f2b-pipe.toml.rpmsave
        asks 192.0.2.9 http://192.0.2.1/ || no "nobody is banned any more"
        [ -z "$(ipset list -n)" ] || no "no set is left"
        ! pgrep_any || no "no process is left"
        rm -r /etc/f2b-pipe
        state >/tmp/after
        diff /tmp/before /tmp/after || no "nothing is left behind"
        does apache2ctl restart
        comes_true asks 192.0.2.8 http://192.0.2.1/
        does apache2ctl stop
        "#,
    );
}
