//! What a logger says to `watch` and what that answers: whatever comes is heard or refused, takes no more memory than the
//! bytes that came allow, and what is heard is heard the same when it is said again.

#![no_main]

use f2b_pipe::feed::wire::{FRAME_MAX, Hits, JAILS_MAX, Said, hello, put, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    loop {
        let before = rest.len();
        let (said, after) = match read(rest) {
            Ok(Some(heard)) => heard,
            // What is waited for fits a buffer.
            Ok(None) => return assert!(before < FRAME_MAX + 4),
            Err(_) => return,
        };
        let took = before - after.len();
        assert!(took > 4 && took <= FRAME_MAX + 4);
        match said {
            Said::Hello { pid, jails } => {
                assert!(jails.len() <= JAILS_MAX && jails.len() * 2 <= took);
                let again = hello(pid, &jails);
                let (said, _) = read(&again).unwrap().unwrap();
                let Said::Hello { pid: p, jails: j } = said else { panic!("no hello") };
                assert_eq!((p, j), (pid, jails));
            }
            Said::Hits { batch, at_us, .. } => {
                // A hit takes seven bytes at least, a party ten.
                assert!(batch.hits.len() * 7 + batch.parties.len() * 10 <= took);
                assert_eq!(batch.hits.len(), batch.parties.iter().map(|party| party.hits).sum::<usize>());
                let mut frames = Vec::new();
                put(&batch, &mut frames, || Hits::new(1, at_us));
                let mut hits = batch.hits.iter();
                for frame in frames {
                    let bytes = frame.done();
                    assert!(bytes.len() <= FRAME_MAX + 4);
                    let (said, _) = read(&bytes).unwrap().unwrap();
                    let Said::Hits { batch, .. } = said else { panic!("no hits") };
                    for hit in &batch.hits {
                        assert_eq!(Some(hit), hits.next());
                    }
                }
                assert_eq!(hits.next(), None);
            }
            Said::Welcome | Said::Counted(_) => {}
        }
        rest = after;
    }
});
