//! Whose privileges and names count: the flush works as whoever staged the change.

use crate::sys::current_user;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;

/// Role and `search_path`, under which the functions are found that a write may call.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The role.
    pub user: pg_sys::Oid,
    /// The setting `search_path`.
    search_path: std::rc::Rc<CStr>,
}

impl Identity {
    /// A role, under the `search_path` of now.
    pub fn of(user: pg_sys::Oid) -> Self {
        Self {
            user,
            ..Self::current()
        }
    }

    /// That of now.
    pub fn current() -> Self {
        // SAFETY: the setting is a NUL-terminated string that lives until it is changed.
        let search_path = unsafe { CStr::from_ptr(pg_sys::namespace_search_path) };
        Self {
            user: current_user(),
            search_path: search_path.into(),
        }
    }
}

/// The owner of a table; `InvalidOid` if it is gone.
pub fn owner_of(table: pg_sys::Oid) -> pg_sys::Oid {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: opened and closed in a pair; a lock that is too weak to be in anybody's way.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return pg_sys::InvalidOid;
        }
        let owner = (*(*relation).rd_rel).relowner;
        pg_sys::relation_close(relation, lock);
        owner
    }
}

/// Under which `search_path` statements run for somebody. Under another one they are parsed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchPath {
    /// That of the session: the statements are the extension's, and name everything in full.
    Unchanged,
    /// Theirs: code of users runs, and finds functions by it.
    Theirs,
}

impl SearchPath {
    /// The one to take where code of users runs, or does not.
    pub fn where_user_code(runs: bool) -> Self {
        match runs {
            true => Self::Theirs,
            false => Self::Unchanged,
        }
    }
}

/// The current role and `search_path` are others for as long as the value lives.
pub struct Impersonation {
    outer: pg_sys::Oid,
    context: i32,
    /// Level of settings to go back to, if `search_path` was changed.
    settings: Option<i32>,
    /// Whether it is what makes the code that runs meanwhile a security-restricted one.
    restricts: bool,
}

thread_local! {
    /// How many of those there are.
    static RESTRICTING: Cell<u32> = const { Cell::new(0) };
}

/// Whether code of another role runs for a command such as REFRESH MATERIALIZED VIEW, CREATE INDEX or ANALYZE, which
/// must leave nothing behind that runs later. A write of the extension's own as the owner of a table is no such
/// command.
pub fn is_sandboxed() -> bool {
    // SAFETY: reads a flag of this backend.
    RESTRICTING.get() == 0 && unsafe { pg_sys::InSecurityRestrictedOperation() }
}

impl Impersonation {
    /// Becomes somebody, who cannot change the session's role meanwhile.
    pub fn begin(identity: &Identity, path: SearchPath) -> Self {
        let now = Identity::current();
        let (mut outer, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: reads and sets this backend's identity and settings; put back by `drop` or by the abort
        // of the (sub)transaction. The strings are NUL-terminated.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut outer, &mut context);
            if outer != identity.user {
                pg_sys::SetUserIdAndSecContext(
                    identity.user,
                    context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32,
                );
            }
            let settings = (path == SearchPath::Theirs && now.search_path != identity.search_path)
                .then(|| {
                    let level = pg_sys::NewGUCNestLevel();
                    pg_sys::set_config_option(
                        c"search_path".as_ptr(),
                        identity.search_path.as_ptr(),
                        pg_sys::GucContext::PGC_USERSET,
                        pg_sys::GucSource::PGC_S_SESSION,
                        pg_sys::GucAction::GUC_ACTION_SAVE,
                        true,
                        0,
                        false,
                    );
                    level
                });
            Self {
                outer,
                context,
                settings,
                restricts: false,
            }
        }
    }
}

impl Impersonation {
    /// Becomes a role that may read all tables and change none, and that nobody can log in as, for a query of a
    /// user's: what the query calls cannot change what outlives it.
    pub fn reader() -> Self {
        Self::restricted(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_DATA))
    }

    /// Becomes the owner of a table, for a write of the extension's own: triggers that somebody has put on the
    /// table run with the owner's privileges, and cannot change what outlives the write.
    pub fn owner_of(table: pg_sys::Oid) -> Self {
        Self::restricted(owner_of(table))
    }

    /// Becomes a role in a security-restricted operation; nobody else if there is no such role.
    fn restricted(role: pg_sys::Oid) -> Self {
        let (mut outer, mut context) = (pg_sys::InvalidOid, 0);
        let restriction = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        // SAFETY: as in `begin`.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut outer, &mut context);
            if role != pg_sys::InvalidOid {
                pg_sys::SetUserIdAndSecContext(
                    role,
                    context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32 | restriction,
                );
            }
        }
        let restricts = role != pg_sys::InvalidOid && context & restriction == 0;
        RESTRICTING.set(RESTRICTING.get() + u32::from(restricts));
        Self {
            outer,
            context,
            settings: None,
            restricts,
        }
    }
}

impl Drop for Impersonation {
    fn drop(&mut self) {
        // Also on an error, which gives the role back by itself.
        RESTRICTING.set(RESTRICTING.get().saturating_sub(u32::from(self.restricts)));
        if !std::thread::panicking() {
            // SAFETY: as in `begin`.
            unsafe {
                if let Some(level) = self.settings {
                    pg_sys::AtEOXact_GUC(true, level);
                }
                pg_sys::SetUserIdAndSecContext(self.outer, self.context);
            }
        }
    }
}
