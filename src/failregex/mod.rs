//! Lines of any log to failures, as fail2ban's filters judge them.
