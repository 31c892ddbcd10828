//! The date in a line of a log: found, read, and cut out.
