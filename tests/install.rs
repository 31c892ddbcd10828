//! `httpd-snippets/install` on a copy of this very system: an overlay over `/`, entered with chroot, with a network, a
//! process table and a `/run` of its own. Nothing of the host is changed, and all of it is gone with the last process.
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

/// Makes the copy in `$1` with the sources in /src, then runs `$2` in it.
const ENTER: &str = r#"
set -eu
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/new" "$1/src"
cp -a "$3/." "$1/src"
mount -t overlay none -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/new"
mount --bind /dev "$1/new/dev"
mount -t proc proc "$1/new/proc"
mount -t sysfs sys "$1/new/sys"
mount -t tmpfs none "$1/new/run"
mkdir -p "$1/new/src"
mount --bind "$1/src" "$1/new/src"
ip link set lo up
exec chroot "$1/new" sh -eu -c "$2"
"#;

/// Words for the scripts: they say what was not so, and end.
const WORDS: &str = r#"
exec 2>&1
# A host's own configuration must not matter.
rm -rf /etc/f2b-pipe /usr/share/f2b-pipe /usr/bin/f2b-pipe /var/lib/f2b-pipe /usr/lib/systemd/system/f2b-pipe.service /etc/apache2/conf-*/f2b-pipe.conf /etc/apache2/envvars.d
mkdir -p /run/apache2 /run/lock/apache2 /var/log/apache2
no() { echo "NOT SO: $*"; exit 1; }
there() { for f in "$@"; do [ -e "$f" ] || no "$f is there"; done; }
gone() { for f in "$@"; do [ ! -e "$f" ] || no "$f is gone"; done; }
holds() { grep -qF -- "$2" "$1" || { cat "$1"; no "$1 holds $2"; }; }
state() { find /etc/apache2 /etc/f2b-pipe /usr/bin/f2b-pipe /usr/lib/tmpfiles.d /usr/lib/systemd/system/f2b-pipe.service -type f -exec md5sum {} + | sort -k2; }
installs() { echo "+ install $*"; /src/httpd-snippets/install "$@" >/tmp/out 2>&1 || { cat /tmp/out; no "install $* succeeds"; }; cat /tmp/out; }
refuses() { echo "+ install $*"; ! /src/httpd-snippets/install "$@" >/tmp/out 2>&1 || { cat /tmp/out; no "install $* refuses"; }; cat /tmp/out; }
"#;

/// Runs `script` in the copy.
fn in_a_copy(name: &str, script: &str) {
    let dir = Scratch::new(name);
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            ENTER,
            "sh",
        ])
        .args([
            &dir.0.join("copy"),
            Path::new(&format!("{WORDS}{script}")),
            &dir.0.join("src"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
}

/// A mount point, and the sources as after `cargo build --release`.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-pipe-install-{}-{name}", std::process::id()));
        let src = dir.join("src");
        fs::create_dir_all(dir.join("copy")).unwrap();
        fs::create_dir_all(src.join("target/release")).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_f2b-pipe"),
            src.join("target/release/f2b-pipe"),
        )
        .unwrap();
        for part in ["conf", "httpd-snippets"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(part);
            let copied = Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(&src)
                .status()
                .unwrap();
            assert!(copied.success());
        }
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
#[ignore = "needs root and apache2"]
fn twice_then_away() {
    in_a_copy(
        "twice",
        r#"
        export SSH_CONNECTION='203.0.113.9 5000 192.0.2.1 22'
        before=$(state)
        installs --dry-run
        [ "$(state)" = "$before" ] || no "a dry run changes nothing"

        installs --yes
        there /usr/bin/f2b-pipe /etc/f2b-pipe/f2b-pipe.toml /usr/lib/tmpfiles.d/f2b-pipe.conf /run/f2b-pipe
        there /etc/apache2/conf-available/f2b-pipe.conf /etc/apache2/conf-enabled/f2b-pipe.conf
        there /etc/f2b-pipe/filter.d/sshd.conf /usr/lib/systemd/system/f2b-pipe.service
        [ "$(stat -c %a /var/lib/f2b-pipe)" = 700 ] || no "what names clients is for root only"
        holds /tmp/out 'systemd does not run here'
        there /usr/share/man/man1/f2b-pipe.1 /usr/share/man/man1/f2b-pipe-banned.1
        there /usr/share/bash-completion/completions/f2b-pipe /usr/share/zsh/vendor-completions/_f2b-pipe
        there /usr/share/fish/vendor_completions.d/f2b-pipe.fish
        holds /etc/f2b-pipe/conf.d/10-admin.toml '"127.0.0.0/8", "::1", "203.0.113.9"'
        holds /tmp/out "every server's lines reach f2b-pipe"
        holds /tmp/out 'ok    /etc/f2b-pipe/f2b-pipe.toml'

        once=$(state)
        installs --yes
        [ "$(state)" = "$once" ] || no "a second time changes nothing"
        holds /tmp/out '/usr/bin/f2b-pipe: up to date'
        holds /tmp/out '203.0.113.9, which you are logged in from, is there already'

        installs --uninstall
        gone /usr/bin/f2b-pipe /etc/f2b-pipe/f2b-pipe.toml /usr/share/f2b-pipe /usr/lib/tmpfiles.d/f2b-pipe.conf
        gone /etc/apache2/conf-available/f2b-pipe.conf /etc/apache2/conf-enabled/f2b-pipe.conf /run/f2b-pipe
        gone /etc/f2b-pipe/filter.d /usr/lib/systemd/system/f2b-pipe.service /var/lib/f2b-pipe
        [ -z "$(find /usr/share -name '*f2b-pipe*')" ] || no "man pages and completions are gone"
        there /etc/f2b-pipe/conf.d/10-admin.toml
        apache2ctl configtest
        installs --uninstall
        "#,
    );
}

#[test]
#[ignore = "needs root and apache2"]
fn what_was_edited_is_kept() {
    in_a_copy(
        "edited",
        r#"
        installs
        holds /etc/apache2/conf-enabled/f2b-pipe.conf GlobalLog
        gone /etc/f2b-pipe/conf.d/10-admin.toml
        echo '# a new version' >>/src/conf/f2b-pipe.toml
        installs
        holds /tmp/out 'replaced by the new version (it was not edited)'
        holds /etc/f2b-pipe/f2b-pipe.toml '# a new version'

        echo '# mine' >>/etc/f2b-pipe/f2b-pipe.toml
        echo '# mine' >>/etc/f2b-pipe/filter.d/sshd.conf
        echo '[Definition]' >/etc/f2b-pipe/filter.d/own.conf
        echo '# mine' >>/etc/apache2/conf-available/f2b-pipe.conf
        echo '# a newer one' >>/src/conf/f2b-pipe.toml
        installs
        holds /etc/f2b-pipe/f2b-pipe.toml '# mine'
        holds /etc/f2b-pipe/f2b-pipe.toml.new '# a newer one'
        holds /etc/apache2/conf-available/f2b-pipe.conf '# mine'

        installs --uninstall
        holds /etc/f2b-pipe/f2b-pipe.toml '# mine'
        holds /etc/apache2/conf-available/f2b-pipe.conf '# mine'
        gone /etc/apache2/conf-enabled/f2b-pipe.conf /usr/bin/f2b-pipe /etc/f2b-pipe/filter.d/httpd-auth.conf
        there /etc/f2b-pipe/filter.d/own.conf
        holds /etc/f2b-pipe/filter.d/sshd.conf '# mine'
        "#,
    );
}

/// systemctl is one of ours here, which writes down what it is asked; a process called fail2ban-server stands for one.
#[test]
#[ignore = "needs root and apache2"]
fn the_unit_is_started_and_fail2ban_is_left_alone() {
    in_a_copy(
        "unit",
        r#"
        mkdir -p /run/systemd/system /tmp/bin
        cat >/tmp/bin/systemctl <<'SH'
#!/bin/sh
echo "$*" >>/tmp/asked
case $1 in is-active) [ -e /tmp/active ] ;; restart) touch /tmp/active ;; stop) rm /tmp/active ;; esac
SH
        chmod 755 /tmp/bin/systemctl
        PATH=/tmp/bin:$PATH
        cp /bin/sleep /tmp/bin/fail2ban-server
        /tmp/bin/fail2ban-server 300 &
        server=$!
        asked() { grep -qx -- "$1" /tmp/asked || { cat /tmp/asked; no "systemctl $1"; }; }
        holds_not() { ! grep -qF -- "$2" "$1" || { cat "$1"; no "$1 does not hold $2"; }; }

        installs
        asked daemon-reload
        asked 'enable --quiet f2b-pipe'
        asked 'restart f2b-pipe'
        holds /tmp/out 'systemctl disable --now fail2ban'
        holds_not /tmp/asked 'fail2ban'
        kill -0 $server || no "fail2ban-server goes on"
        kill $server

        # Again: nothing is new, so nothing is started anew.
        rm /tmp/asked
        installs
        holds_not /tmp/asked restart
        holds_not /tmp/out 'systemctl disable --now fail2ban'
        # Who has stopped it wants it stopped.
        rm /tmp/active
        installs
        holds_not /tmp/asked restart
        holds /tmp/out 'it was stopped, and stays so'

        touch /tmp/active
        installs --uninstall
        asked 'stop f2b-pipe'
        asked 'disable --quiet f2b-pipe'
        gone /usr/lib/systemd/system/f2b-pipe.service
        "#,
    );
}

#[test]
#[ignore = "needs root and apache2"]
fn httpds_configuration_is_never_left_broken() {
    in_a_copy(
        "broken",
        r#"
        # Broken before: nothing is touched.
        echo Nonsense >/etc/apache2/conf-enabled/zz.conf
        before=$(state)
        refuses --yes
        holds /tmp/out 'has a mistake already'
        [ "$(state)" = "$before" ] || no "nothing is changed"
        rm /etc/apache2/conf-enabled/zz.conf

        # A line that this httpd does not understand: taken back.
        echo GlobaLog >>/src/httpd-snippets/debian/f2b-pipe.conf
        refuses --yes
        holds /tmp/out 'is as it was before'
        gone /etc/apache2/conf-enabled/f2b-pipe.conf /etc/apache2/conf-available/f2b-pipe.conf
        apache2ctl configtest
        sed -i '$d' /src/httpd-snippets/debian/f2b-pipe.conf

        # The program stays while any line needs it.
        installs
        echo 'CustomLog "|/usr/bin/f2b-pipe --format combined" combined' >/etc/apache2/sites-enabled/own.conf
        refuses --uninstall
        holds /tmp/out sites-enabled/own.conf:1
        there /usr/bin/f2b-pipe /etc/apache2/conf-enabled/f2b-pipe.conf
        "#,
    );
}

#[test]
#[ignore = "needs root and apache2"]
fn a_live_httpd_gets_it_and_loses_it_without_a_stop() {
    in_a_copy(
        "live",
        r#"
        fetch() { curl -s -o /dev/null --max-time 5 http://127.0.0.1/ || no "httpd serves"; }
        # Dead ones that httpd has not buried yet (it looks once a second) are none.
        loggers() { ps -o stat= -C f2b-pipe | grep -vc Z || true; }
        soon() { for _ in 1 2 3 4 5 6 7 8 9 10; do if "$@"; then return 0; fi; sleep 0.3; done; no "$*"; }
        one() { [ "$(loggers)" = 1 ]; }
        none() { [ "$(loggers)" = 0 ]; }
        trap 'kill "$(cat /run/apache2/apache2.pid)"' EXIT
        apache2ctl start
        soon test -s /run/apache2/apache2.pid
        fetch

        installs --yes
        holds /tmp/out 'httpd: graceful reload'
        soon one
        fetch
        /usr/bin/f2b-pipe check | grep 'has started f2b-pipe (1)' || no "check sees the process"
        installs --yes
        soon one
        fetch

        installs --uninstall
        none || no "the last f2b-pipe has ended before the program goes"
        fetch
        gone /usr/bin/f2b-pipe
        if ipset list -n | grep f2bp-; then no "the sets are gone"; fi
        if iptables -t raw -S | grep f2b-pipe; then no "the chain is gone"; fi
        "#,
    );
}

#[test]
#[ignore = "needs root"]
fn without_httpd_all_but_its_line_is_installed_and_that_is_said() {
    in_a_copy(
        "alone",
        r#"
        rm -rf /etc/apache2 /etc/httpd /usr/sbin/apache2ctl /usr/sbin/apachectl
        mkdir /etc/apache2 # for the words above
        installs
        holds /tmp/out 'no httpd here'
        holds /tmp/out 'only other logs are watched'
        there /usr/bin/f2b-pipe /etc/f2b-pipe/f2b-pipe.toml /usr/lib/systemd/system/f2b-pipe.service /etc/logrotate.d/f2b-pipe /var/log/f2b-pipe
        [ -z "$(ls /etc/apache2)" ] || no "nothing is written for httpd"
        once=$(state)
        installs
        [ "$(state)" = "$once" ] || no "a second time changes nothing"
        installs --uninstall
        gone /usr/bin/f2b-pipe /etc/f2b-pipe /usr/lib/systemd/system/f2b-pipe.service /etc/logrotate.d/f2b-pipe /var/log/f2b-pipe
        "#,
    );
}

#[test]
#[ignore = "needs root and apache2"]
fn red_hats_places_are_used_there() {
    in_a_copy(
        "rhel",
        r#"
        mv /etc/apache2/conf-available /etc/apache2/conf-other
        mkdir -p /etc/httpd/conf /etc/httpd/conf.d /etc/httpd/logs /run/httpd
        ln -s /usr/lib/apache2/modules /etc/httpd/modules
        cat >/etc/httpd/conf/httpd.conf <<'CONF'
ServerRoot "/etc/httpd"
PidFile /run/httpd/httpd.pid
Listen 80
ServerName localhost
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LogFormat "%h %l %u %t \"%r\" %>s %b" common
CustomLog "logs/access_log" common
IncludeOptional conf.d/*.conf
CONF
        rm -f /usr/sbin/apachectl /etc/apache2/apache2.conf
        printf '#!/bin/sh\nexec apache2 -t -f /etc/httpd/conf/httpd.conf\n' >/usr/sbin/apachectl
        chmod 755 /usr/sbin/apachectl
        installs
        there /etc/httpd/conf.d/f2b-pipe.conf
        holds /tmp/out "every server's lines reach f2b-pipe"
        installs --uninstall
        gone /etc/httpd/conf.d/f2b-pipe.conf /usr/bin/f2b-pipe
        apachectl configtest
        "#,
    );
}
