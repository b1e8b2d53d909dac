//! What `state_source` says of derived classes.

use super::scan::{Wanted, scan_rows};
use super::text::c_string;
use crate::error::Result;
use crate::varlena;
use pgrx::pg_sys;
use state_cache_memory::{Grow, boxed};
use std::ffi::CString;

/// The query that computes the documents of a class.
pub struct Source {
    /// Its text.
    pub query: CString,
    /// Under which `search_path` it is read.
    pub search_path: CString,
    /// For how long after the end of its age an entry may serve readers while another session computes the next one,
    /// in microseconds.
    pub serve_stale: Option<i64>,
}

/// The columns of `state_source`: class, query, search_path, serve_stale.
const COLUMNS: usize = 4;

/// The source of a class, if it has one.
pub fn read(class: &[u8], relation: pg_sys::Oid) -> Result<Option<Source>> {
    let mut found = None;
    let wanted = [Wanted::Text(class)];
    // SAFETY: the relation is `state_source`, whose primary key is its first column; the next two are text that is
    // NOT NULL, the fourth is an interval, which is passed by pointer.
    unsafe {
        scan_rows(relation, &wanted, COLUMNS, std::ptr::null_mut(), |row| {
            let text = |n: usize| c_string(varlena::detoasted_bytes(row.values[n].cast_mut_ptr()));
            let interval = |n: usize| *row.values[n].cast_mut_ptr::<pg_sys::Interval>();
            found = Some(Source {
                query: text(1),
                search_path: text(2),
                serve_stale: (!row.nulls[3]).then(|| crate::interval::microseconds(&interval(3))),
            });
        });
    }
    Ok(found)
}

/// The names of the classes that have one, in order.
pub fn names(relation: pg_sys::Oid) -> Result<Vec<Box<[u8]>>> {
    let (mut names, mut outcome) = (Vec::new(), Ok(()));
    // SAFETY: the relation is `state_source`, whose first column is text that is NOT NULL.
    unsafe {
        scan_rows(relation, &[], COLUMNS, std::ptr::null_mut(), |row| {
            if outcome.is_ok() {
                let name = varlena::detoasted_bytes(row.values[0].cast_mut_ptr());
                outcome = boxed(name).and_then(|name| names.try_push(name));
            }
        });
    }
    outcome?;
    names.sort_unstable();
    Ok(names)
}
