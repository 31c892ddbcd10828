//! Who asks and changes while the program runs.

pub mod fail2ban; // fail2ban's own clients
