//! Python's regular expressions with fail2ban's tags, on the engines of Rust.
