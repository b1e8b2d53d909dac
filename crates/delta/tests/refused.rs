//! Where there is no memory for something as large as a document, it is neither stored nor read, and not called
//! damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_delta::{Base, Decoder, Encoder, Error, Fault, Form, Layout};
use state_cache_histories::{Refusing, refuse_each};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

fn document(version: usize) -> Vec<u8> {
    (0..40_000)
        .flat_map(|n| format!("{n} {} ", n * version % 7).into_bytes())
        .collect()
}

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error() {
    let (first, second) = (document(1), document(2));
    let base = Base {
        version: 1,
        document: &first,
        layout: Layout::keyframe(first.len()),
    };
    let encode = |base| Encoder::new(3).unwrap().encode(&second, 2, base, 9);
    let refusals = |base| refuse_each(|| encode(base), |outcome| *outcome == Err(Error::Memory));
    assert!(refusals(None) > 0);
    assert!(refusals(Some(base)) > 0);
    for base in [None, Some(base)] {
        let Form::Packed(packed) = encode(base).unwrap().form else {
            panic!("it is stored whole");
        };
        let base = base.map(|base| base.document);
        let decode = || Decoder::new().unwrap().decode(&packed, base);
        let count = refuse_each(decode, |outcome| *outcome == Err(Fault::Memory));
        assert!(count > 0);
        assert_eq!(decode(), Ok(second.clone()));
    }
}
