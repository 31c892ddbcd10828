//! What clients of fail2ban's socket send: any bytes are read or refused, in bounded memory (`-malloc_limit_mb`), and what
//! was read is the same when it is written and read again.

#![no_main]

use f2b_pipe::control::fail2ban::pickle::{self, Value};
use libfuzzer_sys::fuzz_target;

/// Numbers that are none are not equal to themselves.
fn comparable(value: &Value) -> bool {
    match value {
        Value::Float(n) => !n.is_nan(),
        Value::List(items) | Value::Tuple(items) => items.iter().all(comparable),
        Value::Dict(items) => items.iter().all(|(k, v)| comparable(k) && comparable(v)),
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Text(_) => true,
        Value::Exception(_) => panic!("an exception is never read"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = pickle::read(bytes) {
        let again = pickle::read(&pickle::write(&value));
        assert!(!comparable(&value) || again == Ok(value));
    }
});
