//! Numbers that are never given out twice: tokens of claims, names of conflicts, the order of exports.
//!
//! A sequence alone is not enough. A standby that lagged, a dump, or a copy of the data directory that was put back
//! begins where the sequence was, and gives out again what somebody holds already. So a number is at least the time
//! at which it is drawn, in microseconds since 2000: whatever was drawn before in a future that is lost is lower, as
//! long as clocks agree and nobody draws a million numbers a second. The sequence sees to the rest: each number is
//! greater than all before it, also where the clock was set back.

use crate::call::{self, sql_functions};
use crate::error::Error;
use crate::sys;
use pgrx::pg_sys;

/// A number of a sequence that was never given out. Needs what `nextval` and `setval` do.
pub fn draw(sequence: pg_sys::Oid) -> i64 {
    let argument = pg_sys::Datum::from(sequence);
    // SAFETY: a lock that nothing else takes, held for as long as the two steps need; an error gives it back with the
    // transaction. The two functions check whether this is a sequence and what the caller may do with it.
    unsafe {
        let mode = pg_sys::ExclusiveLock as i32;
        // An object of its own beside the sequence, whose own lock others would hold until they end.
        pg_sys::LockDatabaseObject(pg_sys::RelationRelationId, sequence, 1, mode);
        let next =
            pg_sys::OidFunctionCall1Coll(pg_sys::F_NEXTVAL.into(), pg_sys::InvalidOid, argument);
        let number = (next.value() as i64).max(sys::now());
        if number != next.value() as i64 {
            let setval = pg_sys::F_SETVAL_REGCLASS_INT8.into();
            let number = call::bigint_datum(number);
            pg_sys::OidFunctionCall2Coll(setval, pg_sys::InvalidOid, argument, number);
        }
        pg_sys::UnlockDatabaseObject(pg_sys::RelationRelationId, sequence, 1, mode);
        number
    }
}

sql_functions! {
    /// `state_draw(sequence)`: the default of the columns that hold such numbers.
    fn state_draw(call) {
        call::check_may_write(c"state_draw()")?;
        let sequence = call.argument(0).ok_or_else(|| Error::null_argument("sequence"))?;
        Ok(call::bigint_datum(draw(pg_sys::Oid::from(sequence.value() as u32))))
    }
}
