//! Carrying out a ban.
