//! What a role may do with the tables, remembered until a relation or a role changes.

use crate::error::{Error, Result};
use crate::sys;
use pgrx::pg_sys;
use std::cell::RefCell;

/// Whether L1 may answer a role, and what an invisible row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The role may select from both tables and no row-level security applies: L1 may answer.
    pub l1: bool,
    /// The role may select from both tables, and row-level security applies to `state_head` alone: L1 may answer
    /// where the role sees the head row.
    pub validated: bool,
    /// Row-level security applies: a missing snapshot may be a hidden one.
    pub row_security: bool,
    /// The role may do all that a flush does, see [`check_may_change`].
    pub change: bool,
}

/// What was found out, by role and by the setting `row_security`.
#[derive(Default)]
pub struct Memo {
    known: RefCell<Vec<((pg_sys::Oid, bool), Access)>>,
}

/// More roles than this in one session, and the memo starts over.
const MEMO_SIZE: usize = 64;

impl Memo {
    /// Forgets everything.
    pub fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// What the current role may read; nothing by L1 from tables that are gone.
    pub fn of_current_user(&self, head: pg_sys::Oid, snapshot: pg_sys::Oid) -> Access {
        // SAFETY: a plain global of this process.
        let asked = (sys::current_user(), unsafe { pg_sys::row_security });
        if let Some((_, access)) = self.known.borrow().iter().find(|(of, _)| *of == asked) {
            return *access;
        }
        let both = [head, snapshot];
        let readable = both
            .iter()
            .all(|&table| allowed(table, pg_sys::ACL_SELECT) == Some(true));
        let [of_head, of_snapshot] = both.map(has_row_security);
        let access = Access {
            l1: readable && !of_head && !of_snapshot,
            validated: readable && of_head && !of_snapshot,
            row_security: of_head || of_snapshot,
            change: check_may_change(head, snapshot).is_ok(),
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= MEMO_SIZE {
            known.clear();
        }
        known.push((asked, access));
        access
    }
}

/// Whether the current role may do that with a table; `None` for one that is gone.
fn allowed(table: pg_sys::Oid, wanted: u32) -> Option<bool> {
    let mut missing = false;
    // SAFETY: checks the system caches; raises no error for a table that is not there.
    let answer = unsafe {
        pg_sys::pg_class_aclcheck_ext(
            table,
            sys::current_user(),
            pg_sys::AclMode::from(wanted),
            &mut missing,
        )
    };
    (!missing).then_some(answer == pg_sys::AclResult::ACLCHECK_OK)
}

fn require(table: pg_sys::Oid, name: &'static str, wanted: &[(u32, &'static str)]) -> Result<()> {
    for (mode, wanted) in wanted {
        match allowed(table, *mode) {
            Some(true) => {}
            Some(false) => {
                return Err(Error::Privilege {
                    table: name,
                    wanted,
                });
            }
            None => return Err(Error::Reinstalled),
        }
    }
    Ok(())
}

/// `42501` unless the current role may do what a flush does, `40001` if the tables are gone. The flush itself is
/// checked by the executor again; this makes the error come where the change is made.
pub fn check_may_change(head: pg_sys::Oid, snapshot: pg_sys::Oid) -> Result<()> {
    const SELECT: (u32, &str) = (pg_sys::ACL_SELECT, "SELECT");
    const INSERT: (u32, &str) = (pg_sys::ACL_INSERT, "INSERT");
    const UPDATE: (u32, &str) = (pg_sys::ACL_UPDATE, "UPDATE");
    const DELETE: (u32, &str) = (pg_sys::ACL_DELETE, "DELETE");
    require(head, "state_head", &[SELECT, INSERT, UPDATE])?;
    require(snapshot, "state_snapshot", &[SELECT, INSERT, DELETE])
}

/// `42501` unless the current role may select from both tables.
pub fn check_may_read(head: pg_sys::Oid, snapshot: pg_sys::Oid) -> Result<()> {
    const SELECT: [(u32, &str); 1] = [(pg_sys::ACL_SELECT, "SELECT")];
    require(head, "state_head", &SELECT)?;
    require(snapshot, "state_snapshot", &SELECT)
}

/// Whether the current role may update a table; not one that is gone.
pub fn may_update(table: pg_sys::Oid) -> bool {
    may(table, &[pg_sys::ACL_UPDATE])
}

/// Whether the current role may do all of that with a table; not with one that is gone.
pub fn may(table: pg_sys::Oid, wanted: &[u32]) -> bool {
    wanted
        .iter()
        .all(|wanted| allowed(table, *wanted) == Some(true))
}

/// `42501` unless the current role may update `state_head`.
pub fn check_may_evict(head: pg_sys::Oid) -> Result<()> {
    require(head, "state_head", &[(pg_sys::ACL_UPDATE, "UPDATE")])
}

/// Whether row-level security of a table applies to the current role.
pub fn has_row_security(table: pg_sys::Oid) -> bool {
    // SAFETY: checks the system caches; with noError the function answers instead of raising.
    let answer = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    answer == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}
