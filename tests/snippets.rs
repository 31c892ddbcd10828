//! Every snippet is put into a configuration like its distribution's and shown to the real httpd (`apache2 -t`), which
//! takes it as it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODULES: &str = "/usr/lib/apache2/modules";

/// A ServerRoot that goes away by itself.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-pipe-snippets-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("logs")).unwrap();
        Self(dir)
    }

    /// `apache2 -t` on the main file with `snippet` included; what it said if it refused.
    fn accepts(&self, snippet: &Path) -> Result<(), String> {
        let dir = self.0.display();
        let mut conf = format!(
            "ServerRoot {dir}\nServerName localhost\nPidFile {dir}/pid\nErrorLog {dir}/logs/error_log\nListen 127.0.0.1:18080\n"
        );
        for module in ["mpm_event", "authz_core", "alias", "setenvif", "remoteip"] {
            writeln!(conf, "LoadModule {module}_module {MODULES}/mod_{module}.so").unwrap();
        }
        conf += "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O \\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\"\" combined\n";
        conf += "CustomLog logs/access_log combined\n";
        writeln!(conf, "Include {}", snippet.display()).unwrap();
        let main = self.0.join("httpd.conf");
        fs::write(&main, conf).unwrap();
        let said = Command::new("apache2")
            .args(["-t", "-f"])
            .arg(&main)
            .env("APACHE_LOG_DIR", self.0.join("logs"))
            .output()
            .expect("apache2 is installed (apt install apache2)");
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        if said.status.success() {
            Ok(())
        } else {
            Err(text)
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn snippets(family: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("httpd-snippets")
        .join(family);
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn httpd_takes_all_of(family: &str) {
    let found = snippets(family);
    assert_eq!(found.len(), 6, "{found:?}");
    let root = Root::new(family);
    for snippet in found {
        if let Err(said) = root.accepts(&snippet) {
            panic!("{}: {said}", snippet.display());
        }
        // The same with the program in place: what stands within <IfFile> is read, too.
        let text = fs::read_to_string(&snippet)
            .unwrap()
            .replace("<IfFile /usr/bin/f2b-pipe>", "<IfFile /bin/sh>");
        let live = root.0.join("live.conf");
        fs::write(&live, text).unwrap();
        if let Err(said) = root.accepts(&live) {
            panic!("{}, program installed: {said}", snippet.display());
        }
    }
}

#[test]
#[ignore = "needs apache2"]
fn httpd_takes_debians_snippets() {
    httpd_takes_all_of("debian");
}

#[test]
#[ignore = "needs apache2"]
fn httpd_takes_red_hats_snippets() {
    httpd_takes_all_of("rhel");
}

#[test]
#[ignore = "needs apache2"]
fn httpd_refuses_a_snippet_with_a_mistake() {
    let root = Root::new("mistake");
    let wrong = root.0.join("wrong.conf");
    fs::write(
        &wrong,
        "<VirtualHost *:80>\nGlobalLog \"|/usr/bin/f2b-pipe\" combined\n</VirtualHost>\n",
    )
    .unwrap();
    let said = root.accepts(&wrong).unwrap_err();
    assert!(said.contains("GlobalLog"), "{said}");
}

#[test]
fn each_says_when_it_serves_and_what_it_gives_up() {
    for family in ["debian", "rhel"] {
        for snippet in snippets(family) {
            let text = fs::read_to_string(&snippet).unwrap();
            for word in ["# When:", "# Gives up:", "# Where:"] {
                assert!(text.contains(word), "{}: {word}", snippet.display());
            }
        }
    }
}

#[test]
fn the_format_is_the_one_the_program_knows_as_f2b() {
    let format = f2b_pipe::parse::format::F2B.replace('"', "\\\"");
    let line = format!("LogFormat \"{format}\" f2b");
    let with_format = ["debian", "rhel"]
        .into_iter()
        .flat_map(snippets)
        .filter(|snippet| {
            let text = fs::read_to_string(snippet).unwrap();
            let has = text.contains("LogFormat");
            assert!(!has || text.contains(&line), "{}", snippet.display());
            has
        });
    assert_eq!(with_format.count(), 8);
}
