//! Transaction ids in full: a row and a snapshot show the low 32 bits only.

/// The first id that is given to a transaction; those below are the server's own and precede every other.
const FIRST_NORMAL: u32 = 3;

/// The full id of a transaction whose low 32 bits a row shows; `next` is the next full id to be given out, read
/// after the row. A row that is frozen may show an id of an earlier circle: then the result is too high.
#[must_use]
pub fn widen(xid: u32, next: u64) -> u64 {
    below(xid, next, next)
}

/// The same for an id that may be `next` itself, as the upper bound of a snapshot.
#[must_use]
pub fn widen_at_most(xid: u32, next: u64) -> u64 {
    below(xid, next, next.saturating_add(1))
}

fn below(xid: u32, next: u64, bound: u64) -> u64 {
    if xid < FIRST_NORMAL {
        return u64::from(xid);
    }
    let candidate = (next & !u64::from(u32::MAX)) | u64::from(xid);
    if candidate < bound {
        candidate
    } else {
        candidate.saturating_sub(1 << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_full_id_that_has_been_given_out_is_taken() {
        let next = (7 << 32) | 100;
        assert_eq!(widen(99, next), (7 << 32) | 99);
        assert_eq!(widen(100, next), (6 << 32) | 100);
        assert_eq!(widen(u32::MAX, next), (6 << 32) | u64::from(u32::MAX));
        assert_eq!(widen(2, next), 2);
    }

    #[test]
    fn a_bound_may_be_the_next_id() {
        let next = (7 << 32) | 100;
        assert_eq!(widen_at_most(100, next), next);
        assert_eq!(widen_at_most(101, next), (6 << 32) | 101);
    }

    #[test]
    fn in_the_first_circle_nothing_is_below_it() {
        assert_eq!(widen(50, 100), 50);
        assert_eq!(widen(150, 100), 0);
    }
}
