//! The text of the statement that writes many states; `write_many` says what it does.

use super::texts::{HELD, IS_KEYFRAME};
use super::write::moved_sql;

/// What the statement does beside writing head rows.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// It makes snapshot rows of new documents.
    pub inserts: bool,
    /// It makes snapshot rows of versions that head rows held.
    pub moves: bool,
    /// It prunes.
    pub prunes: bool,
    /// It looks for versions that are kept above the new ones.
    pub looks: bool,
}

impl Parts {
    /// How many there are, as [`Parts::index`] numbers them.
    pub const KINDS: usize = 16;

    pub fn index(self) -> usize {
        usize::from(self.inserts)
            + 2 * usize::from(self.moves)
            + 4 * usize::from(self.prunes)
            + 8 * usize::from(self.looks)
    }
}

/// The columns of an item: those that [`new_version`] gives, and what follows them.
const COLUMNS: [&str; WIDTH] = [
    "class",
    "key",
    "hash",
    "size",
    "expires_at",
    "version",
    "state",
    "delta",
    "checkpoint_type",
    "recovery_point",
    "agent_phase",
    "execution_context",
    "parent_version",
    "oldest",
    "reach",
    "kind",
    "in_head",
    "moves",
];
/// How many those are.
pub(super) const WIDTH: usize = 18;
/// The column `hash` among them.
pub(super) const HASH: usize = 2;

/// Column `kind`: what is to become of the state.
pub(super) const INSERT: i32 = 0;
pub(super) const UPDATE: i32 = 1;
pub(super) const DELETE: i32 = 2;
pub(super) const TOUCH: i32 = 3;

/// The items in their order. The version of a state without a head row is found as for a single one.
fn input_sql() -> String {
    let arrays: Vec<_> = (1..)
        .zip(COLUMNS)
        .map(|(n, column)| format!("pg_catalog.unnest(${n}) AS {column}"))
        .collect();
    let columns = COLUMNS.map(|column| match column {
        "version" => format!(
            "CASE WHEN i.kind OPERATOR(pg_catalog.=) {INSERT} THEN GREATEST((\
             SELECT COALESCE(pg_catalog.max(s.version), 0) OPERATOR(pg_catalog.+) 1 \
             FROM @extschema@.state_snapshot s \
             WHERE s.class OPERATOR(pg_catalog.=) i.class AND s.key OPERATOR(pg_catalog.=) i.key), i.version) \
             ELSE i.version END AS version"
        ),
        column => format!("i.{column}"),
    });
    format!(
        "input AS MATERIALIZED (SELECT {} FROM (SELECT {}) AS i)",
        columns.join(", "),
        arrays.join(", ")
    )
}

/// Writes the head rows of those that have not moved.
fn head_sql(looks: bool) -> String {
    let above_all = match looks {
        true => format!(
            " AND ({IS_TOUCH} OR NOT EXISTS (SELECT FROM @extschema@.state_snapshot k \
             WHERE k.class OPERATOR(pg_catalog.=) excluded.class AND k.key OPERATOR(pg_catalog.=) excluded.key \
             AND k.version OPERATOR(pg_catalog.>=) excluded.version))"
        ),
        false => String::new(),
    };
    let held = HELD.map(|column| match column {
        "writer" => "CASE WHEN i.in_head THEN pg_catalog.pg_current_xact_id() END".to_owned(),
        column => format!("CASE WHEN i.in_head THEN i.{column} END"),
    });
    let hold = HELD.map(|column| {
        format!("{column} = CASE WHEN {IS_TOUCH} THEN h.{column} ELSE excluded.{column} END")
    });
    format!(
        "head AS (INSERT INTO @extschema@.state_head AS h \
         (class, key, version, hash, size, deleted, expires_at, updated_at, {}) \
         SELECT i.class, i.key, i.version, i.hash, i.size, i.kind OPERATOR(pg_catalog.=) {DELETE}, i.expires_at, \
         CASE WHEN i.kind OPERATOR(pg_catalog.=) {INSERT} THEN pg_catalog.clock_timestamp() \
         WHEN i.kind OPERATOR(pg_catalog.=) {TOUCH} THEN '-infinity' ELSE 'infinity' END, {} \
         FROM input i ON CONFLICT (class, key) DO UPDATE SET \
         version = CASE WHEN {IS_TOUCH} THEN h.version ELSE excluded.version END, \
         hash = CASE WHEN {IS_TOUCH} THEN h.hash WHEN excluded.deleted THEN NULL ELSE {} END, \
         size = CASE WHEN {IS_TOUCH} THEN h.size ELSE excluded.size END, \
         deleted = excluded.deleted, expires_at = excluded.expires_at, \
         updated_at = CASE WHEN {IS_TOUCH} AND pg_catalog.isfinite(h.updated_at) THEN h.updated_at \
         ELSE pg_catalog.clock_timestamp() END, {} \
         WHERE NOT pg_catalog.isfinite(excluded.updated_at) \
         AND h.version OPERATOR(pg_catalog.=) (excluded.version OPERATOR(pg_catalog.-) 1) \
         AND (pg_catalog.octet_length(excluded.hash) OPERATOR(pg_catalog.=) 24 \
         OR COALESCE(h.hash, '') OPERATOR(pg_catalog.=) pg_catalog.substring(excluded.hash, 25)) \
         AND pg_catalog.substring(excluded.hash, 17, 8) OPERATOR(pg_catalog.=) ANY (ARRAY[\
         pg_catalog.timestamptz_send('-infinity'), pg_catalog.timestamptz_send(COALESCE(h.expires_at, 'infinity'))])\
         {above_all} \
         RETURNING h.class, h.key, h.version, pg_catalog.isfinite(h.updated_at) AS was_there)",
        HELD.join(", "),
        held.join(", "),
        new_hash("excluded.hash"),
        hold.join(", "),
    )
}

/// Whether a row that is to be updated is to get another expiry only.
const IS_TOUCH: &str = "excluded.updated_at OPERATOR(pg_catalog.=) '-infinity'";

/// Stands for an expiry that does not matter.
pub(super) const ANY_EXPIRY: i64 = i64::MIN;

/// The hash of an item's own document.
fn new_hash(hash: &str) -> String {
    format!("pg_catalog.substring({hash}, 1, 16)")
}

/// Whether the head row of item `i` was written. Not a join, since the rows are to be looked up in a hash table.
const IS_WRITTEN: &str = "((ROW(i.class, i.key) OPERATOR(pg_catalog.=) ANY (\
     SELECT head.class, head.key FROM head WHERE head.was_there)) IS TRUE)";

/// What a snapshot gets from its item.
const NEW: [&str; 9] = [
    "version",
    "parent_version",
    "hash",
    "checkpoint_type",
    "recovery_point",
    "agent_phase",
    "execution_context",
    "state",
    "delta",
];

/// The same as it stands in the item.
fn new_values() -> [String; 9] {
    NEW.map(|column| match column {
        "hash" => new_hash("i.hash"),
        column => format!("i.{column}"),
    })
}

fn insert_sql() -> String {
    format!(
        "inserted AS (INSERT INTO @extschema@.state_snapshot (class, key, {}) \
         SELECT i.class, i.key, {} FROM input i \
         WHERE i.kind OPERATOR(pg_catalog.<=) {UPDATE} AND NOT i.in_head AND {IS_WRITTEN})",
        NEW.join(", "),
        new_values().join(", ")
    )
}

/// Makes snapshot rows of the versions before that head rows held and classes keep.
fn move_sql() -> String {
    format!(
        "moving AS (SELECT h.* FROM input i, @extschema@.state_head h \
         WHERE i.moves AND {IS_WRITTEN} \
         AND h.class OPERATOR(pg_catalog.=) i.class AND h.key OPERATOR(pg_catalog.=) i.key \
         AND h.version OPERATOR(pg_catalog.=) (i.version OPERATOR(pg_catalog.-) 1) \
         AND h.hash OPERATOR(pg_catalog.=) pg_catalog.substring(i.hash, 25) AND h.state IS NOT NULL), {}",
        moved_sql()
    )
}

/// The rule of `pruning::pruning_sql`, for each state that has an `oldest` version to be kept.
fn prune_sql() -> String {
    format!(
        "pruned AS (DELETE FROM @extschema@.state_snapshot s USING input i \
         WHERE i.oldest IS NOT NULL AND {IS_WRITTEN} \
         AND s.class OPERATOR(pg_catalog.=) i.class AND s.key OPERATOR(pg_catalog.=) i.key \
         AND s.version OPERATOR(pg_catalog.<) \
         CASE WHEN i.oldest OPERATOR(pg_catalog.>=) i.version THEN i.version ELSE \
         (SELECT k.version FROM @extschema@.state_snapshot k \
         WHERE k.class OPERATOR(pg_catalog.=) i.class AND k.key OPERATOR(pg_catalog.=) i.key \
         AND k.version OPERATOR(pg_catalog.<=) i.oldest \
         AND k.version OPERATOR(pg_catalog.>=) (i.oldest OPERATOR(pg_catalog.-) i.reach) AND {IS_KEYFRAME} \
         ORDER BY k.version USING OPERATOR(pg_catalog.>) LIMIT 1) END \
         AND s.version OPERATOR(pg_catalog.>=) (i.oldest OPERATOR(pg_catalog.-) i.reach) \
         AND NOT s.recovery_point)"
    )
}

/// The whole statement. Its rows are those of `head` in the order of the items.
pub(super) fn sql(parts: Parts) -> String {
    let mut all = vec![input_sql(), head_sql(parts.looks)];
    if parts.inserts {
        all.push(insert_sql());
    }
    if parts.moves {
        all.push(move_sql());
    }
    if parts.prunes {
        all.push(prune_sql());
    }
    format!(
        "WITH {} SELECT h.class, h.key, h.version, h.was_there FROM head h",
        all.join(", ")
    )
}
