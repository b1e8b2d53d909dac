//! Dirty entries of installations that are no more: DROP EXTENSION takes them along, and so does dropping
//! the tables. Nobody evicts them, so the worker looks for them.

use crate::cache::damage;
use crate::shared;
use crate::sys;
use pgrx::pg_sys;

/// Installations looked at in one call. The others wait for the next one.
const AT_ONCE: usize = 16;

/// Drops the dirty entries of installations in this database whose tables are gone. Runs in a transaction.
pub fn drop_orphaned() {
    let Some(l1) = shared::l1() else { return };
    let mut found = [0_u64; AT_ONCE];
    let mut count = 0;
    let database = sys::my_database();
    // Under a lock of L1 nothing can be looked up, so the first pass only takes notes.
    let unreadable = l1.drop_dirty(database, |incarnation, _, _| {
        if count < AT_ONCE && !found[..count].contains(&incarnation) {
            found[count] = incarnation;
            count += 1;
        }
        false
    });
    damage::tell_of_nameless(unreadable);
    let gone =
        |incarnation: u64| !sys::relation_exists(pg_sys::Oid::from((incarnation >> 32) as u32));
    for incarnation in found
        .into_iter()
        .take(count)
        .filter(|&incarnation| gone(incarnation))
    {
        l1.drop_dirty(database, |of, _, _| of == incarnation);
    }
}
