//! Does SELinux enforce, and what are we to it?

use std::fs;
use std::path::Path;

/// It does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// The type of this process: `httpd_t`.
    pub domain: String,
}

/// Whether it does, and what it takes this process for.
#[must_use]
pub fn enforced() -> Option<Enforced> {
    enforced_in(Path::new("/"))
}

fn enforced_in(root: &Path) -> Option<Enforced> {
    let enforce = fs::read_to_string(root.join("sys/fs/selinux/enforce")).ok()?;
    if enforce.trim() != "1" {
        return None;
    }
    let context = fs::read_to_string(root.join("proc/self/attr/current")).unwrap_or_default();
    // `system_u:system_r:httpd_t:s0`, with a NUL behind.
    let domain = context.trim_end_matches('\0').split(':').nth(2);
    Some(Enforced {
        domain: domain.unwrap_or("unknown").trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_told_only_while_it_is_enforced() {
        let root = std::env::temp_dir().join(format!("f2b-pipe-selinux-{}", std::process::id()));
        for dir in ["sys/fs/selinux", "proc/self/attr"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let context = b"system_u:system_r:httpd_t:s0\0";
        fs::write(root.join("proc/self/attr/current"), context).unwrap();
        assert_eq!(enforced_in(&root), None);
        fs::write(root.join("sys/fs/selinux/enforce"), "0").unwrap();
        assert_eq!(enforced_in(&root), None);
        fs::write(root.join("sys/fs/selinux/enforce"), "1\n").unwrap();
        let domain = "httpd_t".to_owned();
        assert_eq!(enforced_in(&root), Some(Enforced { domain }));
        fs::remove_dir_all(root).unwrap();
    }
}
