//! `f2b-pipe metrics`: what Prometheus' own tool says of it, while jails are at work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-metrics-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("f2b-pipe.toml"),
            "[fail2ban]\nconfig = ''\n[jail.door]\nstatus = 401\nmaxretry = 2\n[firewall]\nbackend = 'dry-run'\n",
        )
        .unwrap();
        Self(dir)
    }

    fn f2b_pipe(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"));
        command.args(words).stderr(Stdio::null());
        command.arg("--config").arg(self.0.join("f2b-pipe.toml"));
        command.arg("--runtime-dir").arg(&self.0);
        command
    }

    /// The page while a logger has judged two lines.
    fn page(&self) -> String {
        let format = r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#;
        let mut logger = self.f2b_pipe(&["run", "--single-writer", "--format", format]);
        let mut logger = logger.stdin(Stdio::piped()).spawn().unwrap();
        let line =
            "192.0.2.7 - joe [02/Mar/2026:08:00:00 +0000] \"GET / HTTP/1.1\" 401 1 \"-\" \"-\"\n";
        let httpd = logger.stdin.as_mut().unwrap();
        httpd.write_all(line.repeat(2).as_bytes()).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let seen = |line: &str| line.starts_with("f2b_pipe_lines_total") && line.ends_with(" 2");
        let mut page = String::new();
        while !page.lines().any(seen) && Instant::now() < end {
            sleep(Duration::from_millis(50));
            let out = self.f2b_pipe(&["metrics"]).output().unwrap();
            assert!(out.status.success());
            page = String::from_utf8(out.stdout).unwrap();
        }
        drop(logger.stdin.take());
        assert!(logger.wait().unwrap().success());
        assert!(page.lines().any(seen), "{page}");
        page.replace(&format!("pid=\"{}\"", logger.id()), "pid=\"7\"")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_running_logger_is_seen() {
    let page = Folder::new("seen").page();
    for sample in [
        r#"f2b_pipe_process_info{pid="7",format="%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"",tee=""} 1"#,
        r#"f2b_pipe_hits_total{pid="7",jail="door"} 2"#,
        r#"f2b_pipe_bans_total{pid="7",jail="door"} 1"#,
        r#"f2b_pipe_unparsed_total{pid="7"} 0"#,
        r#"f2b_pipe_banned{jail="door"} 0"#,
        r#"f2b_pipe_tee_waiting_bytes{pid="7"} 0"#,
        r#"f2b_pipe_queue_length{pid="7",queue="feed"} 0"#,
        r#"f2b_pipe_queue_length{pid="7",queue="keeper"} 0"#,
        r#"f2b_pipe_netlink_errors_total{pid="7"} 0"#,
        r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="+Inf"} 1"#,
        r#"f2b_pipe_ban_latency_seconds_count{pid="7"} 1"#,
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample}\n{page}");
    }
}

#[test]
fn a_textfile_is_written_at_one_stroke_and_nothing_is_printed() {
    let folder = Folder::new("textfile");
    let file = folder.0.join("f2b.prom");
    let run = |file: &Path| {
        let mut command = folder.f2b_pipe(&["metrics"]);
        command.arg("--textfile").arg(file).output().unwrap()
    };
    let out = run(&file);
    assert!(out.status.success() && out.stdout.is_empty());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("f2b_pipe_build_info{version="), "{text}");
    let beside = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains(".new");
    assert!(!fs::read_dir(&folder.0).unwrap().flatten().any(beside));
    assert_eq!(run(&folder.0.join("none/f2b.prom")).status.code(), Some(2));
}

#[test]
#[ignore = "needs promtool of Debian's prometheus package"]
fn promtool_finds_nothing_to_say() {
    let page = Folder::new("promtool").page();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let out = promtool.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(out.status.success() && said.is_empty(), "{said}\n{page}");
}
