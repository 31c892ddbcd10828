//! The host's fail2ban configuration, as it stands in /etc/fail2ban, to jails.
