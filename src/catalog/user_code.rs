//! Whether code of users runs when the tables are written; remembered until a relation changes.

use super::columns::{
    ACCOUNT, BUDGET, Column, HEAD, HOLD, SNAPSHOT, has_own_checks, is_as_made, is_readable,
};
use super::stale::STALE;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;

/// What there is on `state_head` and `state_snapshot` that users have put there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserCode {
    /// Triggers, rules, policies or constraints: something of theirs runs.
    pub runs: bool,
    /// Something that may turn a row into another one.
    pub rewrites: bool,
    /// Nothing of that kind, and both are as the installation script has made them: a statement that writes a row
    /// does nothing else.
    pub is_plain: bool,
    /// Both are tables with the columns of the installation script, whatever runs when they are written.
    pub is_readable: bool,
    /// Row-level security is switched on.
    pub has_policies: bool,
}

/// The tables of budgets whose rows are read and written without a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetTables {
    /// `state_budget`.
    pub budget: pg_sys::Oid,
    /// `state_budget_account`.
    pub account: pg_sys::Oid,
    /// `state_budget_hold`.
    pub hold: pg_sys::Oid,
}

/// What was found out.
#[derive(Default)]
pub struct Memo {
    states: Cell<Option<UserCode>>,
    /// Whether the tables of budgets are as the installation script has made them.
    budgets: Cell<Option<bool>>,
}

impl Memo {
    /// What there is on these tables.
    pub fn of(&self, head: pg_sys::Oid, snapshot: pg_sys::Oid) -> UserCode {
        if !STALE.get()
            && let Some(known) = self.states.get()
        {
            return known;
        }
        let found = [
            UserCode::of(head, &HEAD, 2),
            UserCode::of(snapshot, &SNAPSHOT, 3),
        ];
        let found = UserCode {
            runs: found.iter().any(|found| found.runs),
            rewrites: found.iter().any(|found| found.rewrites),
            is_plain: found.iter().all(|found| found.is_plain),
            is_readable: found.iter().all(|found| found.is_readable),
            has_policies: found.iter().any(|found| found.has_policies),
        };
        // What has changed while the tables were opened is found out the next time.
        if !STALE.get() {
            self.states.set(Some(found));
        }
        found
    }

    /// Whether a statement on the tables of budgets does nothing else than read or write rows.
    pub fn budgets_are_plain(&self, tables: &BudgetTables) -> bool {
        if !STALE.get()
            && let Some(known) = self.budgets.get()
        {
            return known;
        }
        let definitions = UserCode::of(tables.budget, &BUDGET, 1);
        let is_plain = definitions.is_readable
            && !definitions.has_policies
            && UserCode::of(tables.account, &ACCOUNT, 4).is_plain
            && UserCode::of(tables.hold, &HOLD, 1).is_plain;
        if !STALE.get() {
            self.budgets.set(Some(is_plain));
        }
        is_plain
    }

    /// Forgets it.
    pub fn forget(&self) {
        self.states.set(None);
        self.budgets.set(None);
    }
}

impl UserCode {
    /// What there is on a table, whose primary key are so many of its columns; nothing on one that is gone.
    fn of(table: pg_sys::Oid, columns: &[Column], key: usize) -> Self {
        /// Triggers that the installation script makes on either table; a trigger of a user has another name.
        const OWN_TRIGGERS: [&CStr; 3] = [
            c"state_cache_changing",
            c"state_cache_changed",
            c"state_cache_truncating",
        ];
        // SAFETY: opened and closed in pairs; a lock that is too weak to be in anybody's way.
        unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let relation = pg_sys::try_relation_open(table, lock);
            if relation.is_null() {
                return Self::default();
            }
            let (about, triggers) = (&*(*relation).rd_rel, (*relation).trigdesc.as_ref());
            let rewrites = !(*relation).rd_rules.is_null()
                || triggers
                    .is_some_and(|on| on.trig_insert_before_row || on.trig_update_before_row);
            let runs = rewrites
                || about.relrowsecurity
                || !has_own_checks(relation)
                || triggers.is_some_and(|on| {
                    let count = usize::try_from(on.numtriggers).unwrap_or(0);
                    let all = std::slice::from_raw_parts(on.triggers, count);
                    let is_own =
                        |it: &pg_sys::Trigger| OWN_TRIGGERS.contains(&CStr::from_ptr(it.tgname));
                    !all.iter().all(is_own)
                });
            let is_readable = is_readable(relation, columns, key);
            let is_plain = is_readable && !runs && is_as_made(relation, columns);
            let has_policies = about.relrowsecurity;
            pg_sys::relation_close(relation, lock);
            Self {
                runs,
                rewrites,
                is_plain,
                is_readable,
                has_policies,
            }
        }
    }
}
