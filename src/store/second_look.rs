//! What is looked at again once a write is done. A statement that waited for a row writes what was decided before it
//! waited; meanwhile others may have made versions and deleted them by hand, moved the head row back, deleted what
//! the new version builds upon, or redefined the class.
//!
//! # Contract
//!
//! [`put_right`] is called with the head row written, so locked until the transaction ends:
//! - **What the class keeps now** and the write has taken away, by the settings of before, is put back. A snapshot of
//!   now that sees of this transaction only what came before the write still sees it.
//! - **A number** that is not above all versions that the state has, or had, becomes one that is. Nobody has seen it
//!   yet.
//! - **A difference** from a version that is gone is stored as a keyframe. The caller may know that the version
//!   before is there. Nobody knows that of the one that a branch goes on from: versions that are not current are
//!   pruned and purged without a change of the state. So is a branch whose way to that one leads past a keyframe by
//!   now: who erases a version stores anew what builds upon it.
//! - **A label** that another version has is an error, where the class wants labels to be unique.
//!
//! The first is a comparison in memory, the last a look into the index of labels. The others cost a query, and are
//! left out where the caller knows that nobody has committed a change of the state since it decided.

use super::changes::write;
use super::history::{Kept, named, rewrite_as_keyframe};
use super::keys::label_twice;
use super::own_write::OwnWrite;
use super::payload::pack_payload;
use super::spi::{Connection, Statement};
use super::storage::{Holder, pack};
use super::texts::{IS_KEYFRAME, KEPT, OF_STATE};
use super::version::{Made, NewVersion};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result, Shown, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::copy;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    newest: OnceCell<Statement>,
    look: OnceCell<Statement>,
    number_head: OnceCell<Statement>,
    number_snapshot: OnceCell<Statement>,
    before: OnceCell<Statement>,
    put_back: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What was decided, and upon what.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    /// The class as it was then.
    pub class: &'a Class,
    /// Key of the state.
    pub key: &'a [u8],
    /// The version to be written; `None` for a tombstone.
    pub new: Option<&'a NewVersion<'a>>,
    /// Whether there was no head row.
    pub is_first: bool,
    /// Whether it is known that nobody has committed a change of the state since.
    pub is_quiet: bool,
    /// The version that this transaction has deleted by hand in the state's bucket, 0 for none.
    pub own_floor: i64,
    /// The command that was begun for the write.
    pub command: pg_sys::CommandId,
}

/// Puts right what has become wrong while the statement waited that has written `made`; the version as it is then.
pub fn put_right(catalog: &Catalog, decided: &Decided<'_>, made: Made) -> Result<Made> {
    let Decided { class, key, .. } = *decided;
    catalog::require_same(catalog)?;
    let now = catalog::class_now(catalog, &class.name);
    let now = now.as_deref().unwrap_or(class);
    if keeps_more(class, now) {
        put_back(catalog, class, key, made.version, decided.command)?;
    }
    if now.unique_labels {
        check_label(catalog, decided)?;
    }
    let branch = decided.new.and_then(|new| new.branch);
    if decided.is_quiet && branch.is_none() {
        return Ok(made);
    }
    let base = decided.new.and_then(|new| new.base).or(branch);
    let payload = decided
        .new
        .and_then(|new| new.checkpoint?.payload.as_deref());
    // A payload may build upon it too.
    let base = base.filter(|_| made.storage.depth() > 0 || payload.is_some());
    let found = {
        let _owner = Impersonation::owner_of(catalog.snapshot);
        let _snapshot = PushedSnapshot::latest();
        let versions = [base, branch].map(|it| it.map(|it| it.version));
        look(catalog, class, key, made.version, versions)?
    };
    let floor = match decided.is_first {
        true => catalog.floor(&class.name, key).max(decided.own_floor),
        false => 0,
    };
    // In a partitioned table another row may have the number of the one that was written.
    let own = i64::from(made.storage.holder() == Some(Holder::Snapshot));
    let is_taken = found.highest > made.version || found.of_number > own;
    if is_taken || floor >= made.version {
        let number = found.highest.max(floor).max(made.version) + 1;
        return renumber(catalog, class, key, decided.new, made, number);
    }
    if let (Some(new), Some(_), false) = (decided.new, base, found.has_base) {
        let _owner = Impersonation::owner_of(catalog.snapshot);
        let kept = Kept {
            document: copy(new.document)?,
            hash: new.hash,
            storage: made.storage,
        };
        rewrite_as_keyframe(catalog, class, key, made.version, (&kept, payload))?;
    }
    Ok(made)
}

/// `23505` if another kept version has the label of the one that was written: nobody else gives the state one
/// meanwhile.
fn check_label(catalog: &Catalog, decided: &Decided<'_>) -> Result<()> {
    let checkpoint = decided.new.and_then(|new| new.checkpoint);
    let Some(label) = checkpoint.and_then(|it| it.label.as_deref()) else {
        return Ok(());
    };
    let (class, key) = (&*decided.class.name, decided.key);
    let _owner = Impersonation::owner_of(catalog.snapshot);
    let _snapshot = PushedSnapshot::latest();
    match label_twice(catalog, class, key, Some(label))? {
        None => Ok(()),
        Some(label) => Err(Error::LabelTaken {
            state: Shown::new(class, key),
            label: text(&label),
        }),
    }
}

/// Whether a class keeps more snapshots than before.
fn keeps_more(before: &Class, now: &Class) -> bool {
    match (before.keep, now.keep) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(now)) => now > before,
    }
}

/// The highest version of a state that a snapshot row holds under the active snapshot, whoever may see it; 0 for
/// none. What the head row holds is of its own version.
pub fn newest_kept(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<i64> {
    let _owner = Impersonation::owner_of(catalog.snapshot);
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).newest,
        &catalog.schema,
        || {
            format!(
                "SELECT COALESCE(pg_catalog.max(version), 0) FROM @extschema@.state_snapshot WHERE {OF_STATE}"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let name = [Some(varlena_datum(class)), Some(varlena_datum(key))];
    let rows = connection.query(statement, name)?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// The snapshot rows that there are beside a version that was just written.
struct Beside {
    /// The highest version that is not below it, 0 for none.
    highest: i64,
    /// How many rows have its number, its own among them if it has one.
    of_number: i64,
    /// Whether the versions are kept that it may build upon, and no keyframe lies between it and the one that it goes
    /// on from.
    has_base: bool,
}

fn look(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    number: i64,
    [base, branch]: [Option<i64>; 2],
) -> Result<Beside> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).look,
        &catalog.schema,
        || {
            format!(
                "SELECT pg_catalog.max(version), pg_catalog.count(*) FILTER (WHERE version OPERATOR(pg_catalog.=) \
                    $3), \
                 EXISTS (SELECT FROM @extschema@.state_snapshot WHERE {OF_STATE} \
                 AND version OPERATOR(pg_catalog.=) $4) AND ($5 IS NULL OR \
                 EXISTS (SELECT FROM @extschema@.state_snapshot WHERE {OF_STATE} \
                 AND version OPERATOR(pg_catalog.=) $5) AND NOT EXISTS (SELECT FROM @extschema@.state_snapshot k \
                 WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 \
                 AND k.version OPERATOR(pg_catalog.>) $5 AND k.version OPERATOR(pg_catalog.<) $3 \
                 AND {IS_KEYFRAME})) \
                 FROM @extschema@.state_snapshot WHERE {OF_STATE} AND version OPERATOR(pg_catalog.>=) $3"
            )
        },
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
        ],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(&class.name)),
            Some(varlena_datum(key)),
            Some(bigint_datum(number)),
            base.map(bigint_datum),
            branch.map(bigint_datum),
        ],
    )?;
    let found = rows.first();
    let number = |column| found.as_ref().map_or(0, |row| row.bigint(column));
    Ok(Beside {
        highest: number(1),
        of_number: number(2),
        has_base: found.as_ref().is_some_and(|row| row.boolean(3)),
    })
}

/// Gives the version or tombstone that was just written another number. A version is stored as a keyframe then: a
/// difference names what it builds upon by the distance.
fn renumber(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    new: Option<&NewVersion<'_>>,
    made: Made,
    number: i64,
) -> Result<Made> {
    let raced = || Error::Raced {
        state: Shown::new(&class.name, key),
    };
    let [class_name, key_name, from] = named(&class.name, key, made.version);
    let to = Some(bigint_datum(number));
    let of_version = format!("{OF_STATE} AND version OPERATOR(pg_catalog.=) $3");
    let written = write(
        catalog,
        &statements(catalog).number_head,
        &format!(
            "UPDATE @extschema@.state_head SET version = $4 WHERE {of_version} RETURNING version"
        ),
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
        ],
        [class_name, key_name, from, to],
    )?;
    // Unless a trigger or rule has made something else of it.
    if written != 1 {
        return Err(raced());
    }
    let Some(new) = new else {
        return Ok(Made::without_document(number));
    };
    if made.storage.holder() == Some(Holder::Head) {
        return Ok(Made {
            version: number,
            ..made
        });
    }
    let is_recovery_point = made.storage.is_recovery_point();
    let packed = pack(
        catalog,
        class,
        number,
        new.document,
        [None; 2],
        is_recovery_point,
    );
    let payload = new.checkpoint.and_then(|it| it.payload.as_deref());
    let payload = payload
        .map(|payload| pack_payload(catalog, class, key, number, payload, None))
        .transpose()?;
    let _owner = Impersonation::owner_of(catalog.snapshot);
    let whole = packed.delta.is_none().then(|| varlena_datum(new.document));
    let delta = packed.delta.as_deref().map(varlena_datum);
    let payload = payload.as_deref().map(varlena_datum);
    let written = write(
        catalog,
        &statements(catalog).number_snapshot,
        &format!(
            "UPDATE @extschema@.state_snapshot SET version = $4, state = $5, delta = $6, payload = $7 \
             WHERE {of_version} \
             AND writer OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id() RETURNING version"
        ),
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
            pg_sys::JSONBOID,
            pg_sys::BYTEAOID,
            pg_sys::BYTEAOID,
        ],
        [class_name, key_name, from, to, whole, delta, payload],
    )?;
    if written != 1 {
        return Err(raced());
    }
    Ok(Made {
        version: number,
        storage: packed.storage.held_by_snapshot().written_newest(),
    })
}

/// The columns of `state_snapshot`, and their types.
const COLUMNS: [(&str, pg_sys::Oid); 15] = [
    ("class", pg_sys::TEXTOID),
    ("key", pg_sys::TEXTOID),
    ("version", pg_sys::INT8OID),
    ("parent_version", pg_sys::INT8OID),
    ("hash", pg_sys::BYTEAOID),
    ("checkpoint_type", pg_sys::TEXTOID),
    ("recovery_point", pg_sys::BOOLOID),
    ("agent_phase", pg_sys::TEXTOID),
    ("execution_context", pg_sys::JSONBOID),
    ("created_at", pg_sys::TIMESTAMPTZOID),
    ("writer", pg_sys::XID8OID),
    ("state", pg_sys::JSONBOID),
    ("delta", pg_sys::BYTEAOID),
    ("label", pg_sys::TEXTOID),
    ("payload", pg_sys::BYTEAOID),
];

/// Puts back what command `command` of this transaction has taken away of the versions below this one.
fn put_back(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    below: i64,
    command: pg_sys::CommandId,
) -> Result<()> {
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let _owner = Impersonation::owner_of(catalog.snapshot);
    let _snapshot = PushedSnapshot::latest_before(command);
    let connection = Connection::open()?;
    let before = connection.prepare(
        &statements(catalog).before,
        &catalog.schema,
        || {
            format!(
                "SELECT {names} FROM {KEPT} WHERE version OPERATOR(pg_catalog.<) $3 \
                 ORDER BY version, in_head USING OPERATOR(pg_catalog.>)"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let put_back = connection.prepare(
        &statements(catalog).put_back,
        &catalog.schema,
        || {
            let values: Vec<_> = (1..=COLUMNS.len()).map(|n| format!("${n}")).collect();
            format!(
                "INSERT INTO @extschema@.state_snapshot ({names}) VALUES ({}) ON CONFLICT DO NOTHING",
                values.join(", ")
            )
        },
        &COLUMNS.map(|(_, of_type)| of_type),
    )?;
    let rows = connection.query(
        before,
        [
            Some(varlena_datum(&class.name)),
            Some(varlena_datum(key)),
            Some(bigint_datum(below)),
        ],
    )?;
    let _own = OwnWrite::begin();
    for row in rows.iter() {
        let values: [_; COLUMNS.len()] = std::array::from_fn(|n| row.column(n as i32 + 1));
        connection.modify(put_back, values)?;
    }
    Ok(())
}
