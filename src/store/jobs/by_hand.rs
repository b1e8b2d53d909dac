//! What a statement of somebody else's has changed in `state_task`.

use super::statements;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::spi::{Connection, Row};
use pgrx::pg_sys;
use state_cache_memory::collect;

/// The call of a trigger for a statement on `state_task`.
pub struct Transition(*mut pg_sys::TriggerData);

impl Transition {
    /// What a function is called for, if by a trigger.
    pub fn of(context: *mut pg_sys::Node) -> Option<Self> {
        // SAFETY: context is NULL or a node.
        let node = unsafe { context.as_ref() }?;
        (node.type_ == pg_sys::NodeTag::T_TriggerData).then(|| Self(context.cast()))
    }

    fn event(&self) -> u32 {
        // SAFETY: the server passes a complete node, which outlives the call.
        unsafe { (*self.0).tg_event & pg_sys::TRIGGER_EVENT_OPMASK }
    }

    /// The table that was changed.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: as above; the server has opened the relation for the trigger.
        unsafe { (*(*self.0).tg_relation).rd_id }
    }

    /// Whether rows were added.
    pub fn inserts(&self) -> bool {
        self.event() == pg_sys::TRIGGER_EVENT_INSERT
    }

    /// Whether all rows are gone.
    pub fn truncates(&self) -> bool {
        self.event() == pg_sys::TRIGGER_EVENT_TRUNCATE
    }
}

/// So many more tasks of a status than before.
pub struct CountedChange {
    /// The job that the rows name.
    pub job: Box<[u8]>,
    /// The status.
    pub status: Box<[u8]>,
    /// How many.
    pub tasks: i64,
}

/// What a statement has changed, in the order of jobs: the triggers call the rows before it `old_tasks`, and those
/// after it `new_tasks`.
pub fn counted_changes(catalog: &Catalog, transition: &Transition) -> Result<Vec<CountedChange>> {
    const OLD: &str = "SELECT job_id, status, -1 AS n FROM old_tasks";
    const NEW: &str = "SELECT job_id, status, 1 AS n FROM new_tasks";
    let (slot, rows) = match transition.event() {
        pg_sys::TRIGGER_EVENT_INSERT => (0, NEW.to_owned()),
        pg_sys::TRIGGER_EVENT_DELETE => (1, OLD.to_owned()),
        _ => (2, format!("{OLD} UNION ALL {NEW}")),
    };
    let sql = || {
        format!(
            "SELECT job_id, status, pg_catalog.sum(n) FROM ({rows}) AS t GROUP BY job_id, status \
             HAVING pg_catalog.sum(n) OPERATOR(pg_catalog.<>) 0 ORDER BY job_id"
        )
    };
    let connection = Connection::open()?;
    connection.register(transition.0)?;
    let slot = &statements(catalog).changes[slot];
    let statement = connection.prepare(slot, &catalog.schema, sql, &[])?;
    let rows = connection.query(statement, [])?;
    let change = |row: Row<'_>| CountedChange {
        job: row.text(1),
        status: row.text(2),
        tasks: row.bigint(3),
    };
    Ok(collect(rows.iter().map(change))?)
}
