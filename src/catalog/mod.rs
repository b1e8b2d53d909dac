//! What this session knows about the extension's objects in its database: where the tables are, what
//! the classes say, and what a role may read.
//!
//! Everything here is a copy kept per session. A relation, role or schema that changes sends a cache
//! invalidation, as it does for PostgreSQL's own copies; [`current`] takes in what has arrived before
//! it answers, so that a committed REVOKE, ALTER POLICY, state_class_define or DROP EXTENSION holds
//! from the next call on.

mod access;
mod attached;
mod class;
mod columns;
mod extension;
mod floor;
mod head;
mod history;
mod scan;
mod source;
mod stale;
mod text;
mod user_code;
mod version;

use crate::error::{Error, Result};
use crate::shared;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::rc::Rc;

pub use access::Access;
pub use class::Class;
pub use columns::attribute;
pub use floor::bucket;
pub use head::HeadRow;
pub use history::{KnownStart, Trace};
pub use scan::primary_key;
pub use source::Source;
pub use text::c_string;
pub use user_code::BudgetTables;
pub use version::LIBRARY;

use stale::{ACCESS_STALE, STALE};

/// The extension as installed in this database.
pub struct Catalog {
    /// Schema of the extension.
    namespace: pg_sys::Oid,
    /// Its name, quoted for SQL, in server encoding.
    pub schema: Vec<u8>,
    /// OID of `state_head`.
    pub head: pg_sys::Oid,
    /// OID of `state_snapshot`.
    pub snapshot: pg_sys::Oid,
    /// OID of `state_context`, whose owner writes it and the other tables of runs.
    pub context: pg_sys::Oid,
    /// OID of `state_task`, whose owner writes it.
    pub task: pg_sys::Oid,
    /// OID of `state_log_entry`.
    pub log: pg_sys::Oid,
    /// OID of the sequence that numbers its rows.
    pub log_number: pg_sys::Oid,
    /// OID of `state_class`.
    class: pg_sys::Oid,
    /// OID of `state_source`.
    source: pg_sys::Oid,
    /// OID of `state_floor`.
    pub floor: pg_sys::Oid,
    /// OID of `state_trace`.
    pub trace: pg_sys::Oid,
    /// OID of `state_horizon`.
    pub horizon: pg_sys::Oid,
    /// OID of `state_start`.
    pub start: pg_sys::Oid,
    /// OID of `state_protection`.
    pub protection: pg_sys::Oid,
    /// OID of `state_audit_result`.
    pub audit_result: pg_sys::Oid,
    /// OIDs of the tables of budgets.
    pub budgets: BudgetTables,
    /// This session's database.
    pub database: u32,
    /// Tells this installation from one that was dropped: no two have the same tables.
    pub incarnation: u64,
    classes: class::Classes,
    user_code: user_code::Memo,
    access: access::Memo,
    attached: attached::Attached,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Catalog>>> = const { RefCell::new(None) };
}

/// Registers the invalidation callbacks.
pub fn init() {
    // SAFETY: static callbacks, registered once per process (or once before the fork).
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
        for cache in [
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE,
            // Its owner is the only member of pg_database_owner.
            pg_sys::SysCacheIdentifier::DATABASEOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(role_changed),
                pg_sys::Datum::from(0usize),
            );
        }
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(schema_changed),
            pg_sys::Datum::from(0usize),
        );
    }
}

/// The extension that the SQL function (or trigger function) `function` belongs to.
///
/// # Errors
/// `42P01` if its tables are not where they belong, `55000` if they are of a release that this library does not know.
pub fn current(function: pg_sys::Oid) -> Result<Rc<Catalog>> {
    // SAFETY: a look-up in the system cache.
    up_to_date(|| unsafe { pg_sys::get_func_namespace(function) })
}

/// The extension as it is installed in this database, if it is, for who is called by no SQL function.
///
/// # Errors
/// `42P01` if its tables are not where they belong, `55000` if they are of a release that this library does not know.
pub fn installed() -> Result<Option<Rc<Catalog>>> {
    match extension::schema() {
        Some(schema) => up_to_date(|| schema).map(Some),
        None => Ok(None),
    }
}

/// What has become of an installation; `42P01` if it was dropped.
pub fn renewed(catalog: &Catalog) -> Result<Rc<Catalog>> {
    up_to_date(|| catalog.namespace)
}

/// Asks whether the tables are still those of an installation, which a statement has looked up before it waited for
/// a lock, or before code of users ran. To be asked before anything else is asked about the tables: the server
/// answers with errors of its own about tables that are gone.
///
/// # Errors
/// `40001` if they are not.
pub fn require_same(catalog: &Catalog) -> Result<()> {
    match renewed(catalog) {
        Ok(now) if now.is(catalog) => Ok(()),
        Ok(_) | Err(Error::NotInstalled) => Err(Error::Reinstalled),
        Err(error) => Err(error),
    }
}

/// A class as it is defined by now, with what has arrived since it was last asked for; `None` if it is not, or the
/// extension was dropped.
pub fn class_now(catalog: &Catalog, name: &[u8]) -> Option<Rc<Class>> {
    renewed(catalog).ok()?.class(name).ok()
}

fn up_to_date(namespace: impl FnOnce() -> pg_sys::Oid) -> Result<Rc<Catalog>> {
    // SAFETY: allowed wherever a relation may be locked, so in every SQL function.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    let known = CURRENT.with_borrow(Clone::clone);
    let known = match known {
        Some(known) if !STALE.get() => return Ok(known),
        known => known,
    };
    // Before the load: what arrives while it runs must lead to another one. Nothing is known meanwhile,
    // so that a load that fails leaves nothing outdated behind.
    STALE.set(false);
    CURRENT.set(None);
    let namespace = match (namespace(), &known) {
        // A statement that was parsed before the extension was created anew calls a function that is gone.
        (pg_sys::InvalidOid, Some(known)) => known.namespace,
        (namespace, _) => namespace,
    };
    let loaded = Catalog::load(namespace)?;
    let catalog = match known {
        // Mostly it was a VACUUM or a GRANT: the prepared statements are still good.
        Some(known) if known.is(&loaded) => {
            known.classes.forget();
            known.access.forget();
            known.user_code.forget();
            known
        }
        _ => Rc::new(loaded),
    };
    CURRENT.set(Some(Rc::clone(&catalog)));
    Ok(catalog)
}

impl Catalog {
    fn load(namespace: pg_sys::Oid) -> Result<Self> {
        // First: the tables of another release may have other names.
        extension::check_version()?;
        // SAFETY: look-ups in the system caches; the names are NUL-terminated.
        unsafe {
            let relation = |name: &CStr| match pg_sys::get_relname_relid(name.as_ptr(), namespace) {
                pg_sys::InvalidOid => Err(Error::NotInstalled),
                oid => Ok(oid),
            };
            let (head, snapshot, class) = (
                relation(c"state_head")?,
                relation(c"state_snapshot")?,
                relation(c"state_class")?,
            );
            let context = relation(c"state_context")?;
            let task = relation(c"state_task")?;
            let (log, log_number) = (
                relation(c"state_log_entry")?,
                relation(c"state_log_number")?,
            );
            let source = relation(c"state_source")?;
            let (floor, trace, horizon, start) = (
                relation(c"state_floor")?,
                relation(c"state_trace")?,
                relation(c"state_horizon")?,
                relation(c"state_start")?,
            );
            let protection = relation(c"state_protection")?;
            let audit_result = relation(c"state_audit_result")?;
            let budgets = BudgetTables {
                budget: relation(c"state_budget")?,
                account: relation(c"state_budget_account")?,
                hold: relation(c"state_budget_hold")?,
            };
            let name = pg_sys::get_namespace_name(namespace);
            if name.is_null() {
                return Err(Error::NotInstalled);
            }
            let schema = CStr::from_ptr(pg_sys::quote_identifier(name))
                .to_bytes()
                .to_vec();
            Ok(Self {
                namespace,
                schema,
                head,
                snapshot,
                context,
                task,
                log,
                log_number,
                class,
                source,
                floor,
                trace,
                horizon,
                start,
                protection,
                audit_result,
                budgets,
                database: crate::sys::my_database(),
                incarnation: u64::from(head.to_u32()) << 32 | u64::from(snapshot.to_u32()),
                classes: class::Classes::default(),
                user_code: user_code::Memo::default(),
                access: access::Memo::default(),
                attached: attached::Attached::default(),
            })
        }
    }

    fn is(&self, other: &Self) -> bool {
        let tables = |c: &Self| {
            [
                c.head,
                c.snapshot,
                c.context,
                c.task,
                c.log,
                c.log_number,
                c.budgets.budget,
                c.budgets.account,
                c.budgets.hold,
                c.class,
                c.source,
                c.floor,
                c.trace,
                c.horizon,
                c.start,
                c.protection,
            ]
        };
        self.schema == other.schema && tables(self) == tables(other)
    }

    /// Whether the tables are the ones that names in SQL lead to now. Asked with a lock on them held, the
    /// answer lasts until the transaction ends.
    pub fn is_installed(&self) -> bool {
        let leads_to = |name: &CStr, table: pg_sys::Oid| {
            // SAFETY: a look-up in the system caches; the name is NUL-terminated.
            unsafe { pg_sys::get_relname_relid(name.as_ptr(), self.namespace) == table }
        };
        leads_to(c"state_head", self.head) && leads_to(c"state_snapshot", self.snapshot)
    }

    /// Whether the tables are gone, and not only renamed, in a transaction that can have dropped them: one
    /// that has written something.
    pub fn may_be_dropped_by_us(&self) -> bool {
        // SAFETY: looks at this backend's transaction state.
        unsafe {
            pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
                && !crate::sys::relation_exists(self.head)
        }
    }

    /// What a higher room keeps about this installation, such as its prepared statements: one value of each type, as
    /// new when it is first asked for. It lives as long as this does.
    pub fn attached<T: Default + 'static>(&self) -> &T {
        self.attached.get()
    }

    /// The class of that name; `42704` if there is none.
    pub fn class(&self, name: &[u8]) -> Result<Rc<Class>> {
        self.classes.get(name, self.class, self.source)
    }

    /// The same, with what a new class has for one that is not defined any more.
    pub fn class_or_default(&self, name: &[u8]) -> Result<Rc<Class>> {
        match self.class(name) {
            Err(Error::UnknownClass { .. }) => Ok(Rc::new(Class::undefined(name))),
            known => known,
        }
    }

    /// The head row of a state as it is now, whoever asks.
    pub fn head_row(&self, class: &[u8], key: &[u8]) -> Option<HeadRow> {
        head::read(self.head, class, key)
    }

    /// The names of the `behind` classes.
    pub fn behind_classes(&self) -> Result<Vec<Box<[u8]>>> {
        class::behind(self.class)
    }

    /// The names of the derived classes, in order.
    pub fn derived_classes(&self) -> Result<Vec<Box<[u8]>>> {
        source::names(self.source)
    }

    /// The schema of the extension.
    pub fn namespace(&self) -> pg_sys::Oid {
        self.namespace
    }

    /// Makes all sessions look at the definitions of classes anew once the transaction has committed.
    pub fn invalidate_classes(&self) {
        // SAFETY: inside a transaction; a relation that is gone is an error of the server.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(self.class) };
    }

    /// Whether a class is a `behind` class, as a snapshot sees it.
    ///
    /// # Safety
    /// The snapshot is active or registered.
    pub unsafe fn is_behind(&self, class: &[u8], snapshot: pg_sys::Snapshot) -> bool {
        // SAFETY: the caller's promise.
        unsafe { class::is_behind(class, self.class, snapshot) }
    }

    /// The highest version that a state of this key's bucket had whose head row is gone, 0 for none.
    pub fn floor(&self, class: &[u8], key: &[u8]) -> i64 {
        floor::read(self.floor, class, key)
    }

    /// The latest transaction of which tombstones or traces were dropped, as a snapshot sees it; 0 for none.
    ///
    /// # Safety
    /// The snapshot is active or registered.
    pub unsafe fn horizon(&self, snapshot: pg_sys::Snapshot) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { history::horizon(self.horizon, snapshot) }
    }

    /// Calls `each` for what a snapshot sees of the changes that no head row tells.
    ///
    /// # Safety
    /// The snapshot is active or registered.
    pub unsafe fn traces(&self, snapshot: pg_sys::Snapshot, each: impl FnMut(Trace<'_>)) {
        // SAFETY: the caller's promise.
        unsafe { history::traces(self.trace, snapshot, each) }
    }

    /// The starts of this server that the newest committed rows tell of, or this transaction's own.
    pub fn starts(&self) -> Vec<KnownStart> {
        history::starts(self.start)
    }

    /// The channels of all classes.
    pub fn channels(&self) -> Result<Vec<CString>> {
        class::channels(self.class)
    }

    /// A relation of the installation, by its name.
    pub fn relation(&self, name: &CStr) -> Result<pg_sys::Oid> {
        // SAFETY: a look-up in the system caches; the name is NUL-terminated.
        match unsafe { pg_sys::get_relname_relid(name.as_ptr(), self.namespace) } {
            pg_sys::InvalidOid => Err(Error::NotInstalled),
            oid => Ok(oid),
        }
    }

    /// What the current role may read without asking the tables.
    pub fn access(&self) -> Access {
        if ACCESS_STALE.replace(false) {
            self.access.forget();
        }
        self.access.of_current_user(self.head, self.snapshot)
    }

    /// `42501` unless the current role may read states.
    pub fn check_may_read(&self) -> Result<()> {
        access::check_may_read(self.head, self.snapshot)
    }

    /// Raises `42501` unless the current role may change states.
    pub fn check_may_change(&self) -> Result<()> {
        // A relation that has changed since this was looked up may be one of ours, with other privileges.
        if !STALE.get() && self.access().change {
            return Ok(());
        }
        access::check_may_change(self.head, self.snapshot)
    }

    /// Whether the current role may store a snapshot anew.
    pub fn may_rewrite_snapshots(&self) -> bool {
        !self.access().row_security && access::may_update(self.snapshot)
    }

    /// Whether row-level security of the logs applies to the current role.
    pub fn logs_have_row_security(&self) -> bool {
        access::has_row_security(self.log)
    }

    /// Whether row-level security of `state_task` applies to the current role.
    pub fn tasks_have_row_security(&self) -> bool {
        access::has_row_security(self.task)
    }

    /// Raises `42501` unless the current role may know of every state: it needs SELECT on both tables, and no row of
    /// theirs may be hidden from it.
    pub fn check_may_see_all(&self) -> Result<()> {
        let access = self.access();
        if access.row_security {
            return Err(Error::RowSecurity);
        }
        if !access.l1 {
            return Err(Error::Privilege {
                table: "state_head and state_snapshot",
                wanted: "SELECT",
            });
        }
        Ok(())
    }

    /// Raises `42501` unless the current role may empty the cache: it needs UPDATE on `state_head`, and
    /// under row-level security it would learn what is hidden from it.
    pub fn check_may_evict(&self) -> Result<()> {
        if self.access().row_security {
            return Err(Error::RowSecurity);
        }
        access::check_may_evict(self.head)
    }

    /// Whether a user's triggers or rules may turn a row that the flush writes into another one.
    pub fn rows_may_be_rewritten(&self) -> bool {
        self.user_code.of(self.head, self.snapshot).rewrites
    }

    /// Whether code of users may run when the tables are written: triggers, rules, policies, constraints.
    pub fn runs_user_code(&self) -> bool {
        self.user_code.of(self.head, self.snapshot).runs
    }

    /// Whether the current role may write the tables, and a statement that does would do nothing else: the tables are
    /// as the installation script has made them.
    pub fn takes_rows(&self) -> bool {
        // What has changed since that was looked up may be one of them.
        !STALE.get() && self.user_code.of(self.head, self.snapshot).is_plain && self.access().change
    }

    /// Whether the current role may read the tables, and a statement that does would do nothing else.
    pub fn shows_rows(&self) -> bool {
        !STALE.get() && self.user_code.of(self.head, self.snapshot).is_readable && self.access().l1
    }

    /// Whether the current role may do that with one of the tables of budgets, and a statement that does would do
    /// nothing else.
    pub fn takes_budget_rows(&self, table: pg_sys::Oid, wanted: &[u32]) -> bool {
        !STALE.get()
            && self.user_code.budgets_are_plain(&self.budgets)
            && access::may(table, wanted)
    }

    /// The state `key` of `class` as L1 knows it.
    pub fn l1_key<'a>(&self, class: &'a Class, key: &'a [u8]) -> shared::Key<'a> {
        shared::key(self.database, self.incarnation, &class.name, key)
    }
}

/// Whether something has arrived that this session has not taken in: about the tables, or about what roles may do.
/// Never panics.
pub fn is_stale() -> bool {
    STALE.get() || ACCESS_STALE.get()
}

/// A relation changed: ours, or (0) possibly any.
unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    let ours = relation == pg_sys::InvalidOid
        || CURRENT.with(|current| match current.try_borrow() {
            Ok(current) => current.as_ref().is_none_or(|c| {
                let BudgetTables {
                    budget,
                    account,
                    hold,
                } = c.budgets;
                let states = [c.head, c.snapshot, c.class, c.source];
                states.contains(&relation) || [budget, account, hold].contains(&relation)
            }),
            // The copy is being replaced right now.
            Err(_) => true,
        });
    if ours {
        STALE.set(true);
    }
}

/// A role, a membership, or the owner of a database changed.
unsafe extern "C-unwind" fn role_changed(_: pg_sys::Datum, _: i32, _: u32) {
    ACCESS_STALE.set(true);
}

unsafe extern "C-unwind" fn schema_changed(_: pg_sys::Datum, _: i32, _: u32) {
    STALE.set(true);
}
