//! The changes of a state: what its statements in `store::write` do, row by row.

use super::Tables;
use super::columns::{HEAD, SNAPSHOT, head, snapshot};
use super::table::{BACKWARD, FORWARD, Found, Range, Table, Value};
use crate::call::{bigint_datum, boolean_datum, integer_datum, varlena_datum};
use crate::catalog::Class;
use crate::interval::Ttl;
use crate::store::storage::{Holder, Packed};
use crate::store::version::{AUTO, NewVersion, Replaced, new_version};
use crate::{sys, varlena};
use pgrx::pg_sys;

type HeadRow = [Value; HEAD];
type SnapshotRow = [Value; SNAPSHOT];

/// What is pruned once a version is made: what comes before the keyframe of `oldest`, the oldest version to be kept.
/// `reach` bounds how far below that is looked.
#[derive(Clone, Copy)]
pub struct Pruning {
    pub oldest: i64,
    pub reach: i64,
}

/// A state, with its name as the tables hold it.
struct State<'a> {
    class: &'a Class,
    key: &'a [u8],
    names: [pg_sys::Datum; 2],
}

impl<'a> State<'a> {
    fn new(class: &'a Class, key: &'a [u8]) -> Self {
        Self {
            class,
            key,
            names: [varlena_datum(&class.name), varlena_datum(key)],
        }
    }

    /// Begins to look up the head row.
    fn look_up_head(&self, heads: &mut Table) {
        // SAFETY: the names live as long as the change.
        unsafe { heads.look_up(self.names, None) };
    }

    /// Begins to look up snapshots.
    fn look_up(&self, snapshots: &mut Table, from: i64, to: i64) {
        // SAFETY: as above.
        unsafe { snapshots.look_up(self.names, Some(Range { from, to })) };
    }

    /// Whether this row of either table is one of the state: others may have given it another name since it was
    /// looked up.
    fn is_of(&self, row: &Found<'_>) -> bool {
        // SAFETY: these are `text` columns, the first two of both tables.
        let names = unsafe { [row.bytes(head::CLASS), row.bytes(head::KEY)] };
        names == [Some(&*self.class.name), Some(self.key)]
    }

    /// Whether this head row is the one to be replaced.
    fn is_unmoved(&self, row: &Found<'_>, replaced: &Replaced) -> bool {
        // SAFETY: a `bytea` column.
        let hash = unsafe { row.bytes(head::HASH) };
        self.is_of(row)
            && row.bigint(head::VERSION) == replaced.version
            // A tombstone has no hash, and what never expires no expiry.
            && (replaced.hash).is_none_or(|it| hash.unwrap_or_default() == it.to_be_bytes())
            && (replaced.expires_at).is_none_or(|it| row.expiry(head::EXPIRES_AT) == it)
    }

    /// The version that a state without a head row begins with: none is used again.
    fn first_version(&self, snapshots: &mut Table) -> i64 {
        self.look_up(snapshots, i64::MIN, i64::MAX);
        let newest = snapshots.next(BACKWARD);
        newest.map_or(0, |row| row.bigint(snapshot::VERSION)) + 1
    }

    /// Replaces the head row by what `new` makes of it, if it is the one to be replaced; whether it was.
    fn replace(
        &self,
        heads: &mut Table,
        replaced: &Replaced,
        new: impl Fn(&Found<'_>) -> HeadRow,
    ) -> bool {
        self.replace_where(heads, |row| self.is_unmoved(row, replaced), new)
    }

    /// The same if it `is_meant`.
    fn replace_where(
        &self,
        heads: &mut Table,
        is_meant: impl Fn(&Found<'_>) -> bool,
        new: impl Fn(&Found<'_>) -> HeadRow,
    ) -> bool {
        let row = |row: Found<'_>| is_meant(&row).then(|| new(&row));
        self.look_up_head(heads);
        // SAFETY: the values of the new row are those of the old one, or of the change.
        heads.next(FORWARD).is_some() && unsafe { heads.update(row) }
    }

    /// Whether a version is kept that a new one of this number would not be above.
    fn is_kept_above(&self, snapshots: &mut Table, number: i64) -> bool {
        self.look_up(snapshots, number, i64::MAX);
        snapshots.next(FORWARD).is_some()
    }

    /// Makes a snapshot row of the version that the head row held which has just been replaced, if it held it. A
    /// snapshot row of the same version, which somebody has put beside it by hand, gives way.
    fn move_from_head(&self, heads: &Table, snapshots: &mut Table) {
        let row = heads.found();
        if let (Some(state), Some(hash)) = (row.value(head::STATE), row.value(head::HASH)) {
            let version = row.bigint(head::VERSION);
            self.look_up(snapshots, version, version);
            while snapshots.next(FORWARD).is_some() {
                snapshots
                    .delete(|row| self.is_of(&row) && row.bigint(snapshot::VERSION) == version);
            }
            let checkpoint_type = row.value(head::CHECKPOINT_TYPE);
            snapshots.insert::<SNAPSHOT>([
                Some(self.names[0]),
                Some(self.names[1]),
                row.value(head::VERSION),
                row.value(head::PARENT_VERSION),
                Some(hash),
                Some(checkpoint_type.unwrap_or_else(|| varlena_datum(AUTO))),
                Some(boolean_datum(false)),
                row.value(head::AGENT_PHASE),
                row.value(head::EXECUTION_CONTEXT),
                row.value(head::UPDATED_AT),
                Some(row.value(head::WRITER).unwrap_or_else(|| bigint_datum(0))),
                Some(state),
                None,
                // What has either is never held by a head row.
                None,
                None,
            ]);
        }
    }

    /// Deletes the snapshots that fall out of `keep` when version `made` is made.
    fn prune(&self, snapshots: &mut Table, made: i64, Pruning { oldest, reach }: Pruning) {
        let from = oldest.saturating_sub(reach);
        // Whether what comes below is of no group that is kept.
        let mut is_below = oldest >= made;
        let to = if is_below { made - 1 } else { oldest };
        self.look_up(snapshots, from, to);
        while let Some(row) = snapshots.next(BACKWARD) {
            if !is_below {
                is_below = is_keyframe(&row);
                continue;
            }
            snapshots.delete(|row| {
                let version = row.bigint(snapshot::VERSION);
                let is_below = (from..=to).contains(&version);
                self.is_of(&row) && is_below && !row.boolean(snapshot::RECOVERY_POINT)
            });
        }
    }
}

/// Whether a snapshot depends on no other row.
fn is_keyframe(row: &Found<'_>) -> bool {
    let is_delta = |column: usize| {
        row.value(column).is_some_and(|packed| {
            // SAFETY: a `bytea` column, of which the first byte is read; the row is pinned.
            let first = unsafe { varlena::first_byte(packed) };
            first == Some(state_cache_delta::DELTA)
        })
    };
    let holds_document =
        row.value(snapshot::STATE).is_some() || row.value(snapshot::DELTA).is_some();
    holds_document
        && (row.value(snapshot::STATE).is_some() || !is_delta(snapshot::DELTA))
        && !is_delta(snapshot::PAYLOAD)
}

/// A version as rows, but for its number.
struct New {
    /// As `new_version` gives them.
    values: [Value; 15],
    holder: Holder,
    /// The time to live that the head row remembers, `None` for the one that it has.
    ttl: Option<Value>,
    /// Whether there was no state before.
    is_first: bool,
    now: pg_sys::Datum,
    writer: pg_sys::Datum,
}

impl New {
    fn of(class: &Class, key: &[u8], new: &NewVersion<'_>, packed: &Packed) -> Self {
        // SAFETY: we are inside a transaction that is about to write.
        let writer = unsafe { pg_sys::GetTopFullTransactionId() };
        Self {
            values: new_version(class, key, new, packed).map(|(_, value)| value),
            holder: packed.holder(),
            ttl: new.ttl.value(),
            is_first: new.is_first,
            now: bigint_datum(sys::now()),
            writer: bigint_datum(writer.value as i64),
        }
    }

    /// The least number that it may have.
    fn least(&self) -> i64 {
        self.values[5].map_or(0, |number| number.value() as i64)
    }

    /// The head row, in place of the one before, if there is one.
    fn head(&self, number: i64, before: Option<&Found<'_>>) -> HeadRow {
        let ttl = self.ttl.unwrap_or_else(|| before?.value(head::TTL));
        let created_at = before.filter(|_| !self.is_first);
        let created_at = created_at.map_or(Some(self.now), |row| row.value(head::CREATED_AT));
        let [
            class,
            key,
            hash,
            size,
            expires_at,
            _,
            state,
            _,
            checkpoint_type,
            _,
            phase,
            context,
            parent,
            ..,
        ] = self.values;
        let held = match self.holder {
            Holder::Snapshot => [None; 6],
            Holder::Head => [
                parent,
                checkpoint_type,
                phase,
                context,
                Some(self.writer),
                state,
            ],
        };
        let [parent, checkpoint_type, phase, context, writer, state] = held;
        [
            class,
            key,
            Some(bigint_datum(number)),
            hash,
            size,
            Some(boolean_datum(false)),
            expires_at,
            ttl,
            created_at,
            Some(self.now),
            parent,
            checkpoint_type,
            phase,
            context,
            writer,
            state,
        ]
    }

    /// The snapshot row, if one is to hold it.
    fn snapshot(&self, number: i64) -> Option<SnapshotRow> {
        let [
            class,
            key,
            hash,
            _,
            _,
            _,
            state,
            delta,
            checkpoint_type,
            recovery_point,
            phase,
            context,
            parent,
            label,
            payload,
        ] = self.values;
        (self.holder == Holder::Snapshot).then_some([
            class,
            key,
            Some(bigint_datum(number)),
            parent,
            hash,
            checkpoint_type,
            recovery_point,
            phase,
            context,
            Some(self.now),
            Some(self.writer),
            state,
            delta,
            label,
            payload,
        ])
    }
}

/// The head row of a tombstone, in place of the one before, if there is one.
fn tombstone(state: &State<'_>, number: i64, before: Option<&Found<'_>>) -> HeadRow {
    let [class, key] = state.names;
    let now = bigint_datum(sys::now());
    let mut row = [None; HEAD];
    row[..=head::UPDATED_AT].copy_from_slice(&[
        Some(class),
        Some(key),
        Some(bigint_datum(number)),
        None,
        Some(integer_datum(0)),
        Some(boolean_datum(true)),
        None,
        None,
        before.map_or(Some(now), |row| row.value(head::CREATED_AT)),
        Some(now),
    ]);
    row
}

impl Tables {
    /// Writes a state that has no head row; its version, or `None` when there is a head row by now.
    pub fn insert(
        &mut self,
        class: &Class,
        key: &[u8],
        new: &NewVersion<'_>,
        packed: &Packed,
    ) -> Option<i64> {
        self.change(|heads, mut snapshots| {
            let state = State::new(class, key);
            let new = New::of(class, key, new, packed);
            let number = state.first_version(snapshots.table()).max(new.least());
            if !heads.insert_unless_there(new.head(number, None)) {
                return None;
            }
            if let Some(row) = new.snapshot(number) {
                snapshots.table().insert(row);
            }
            Some(number)
        })
    }

    /// Writes a version after the one to be replaced; `None` when that is not current any more, or when a version is
    /// kept that the new one would not be above. `moves`: the head row of the version before becomes a snapshot row,
    /// if it holds the document.
    pub fn update(
        &mut self,
        class: &Class,
        key: &[u8],
        (replaced, moves): (&Replaced, bool),
        (new, packed): (&NewVersion<'_>, &Packed),
        pruning: Option<Pruning>,
    ) -> Option<i64> {
        self.change(|heads, mut snapshots| {
            let state = State::new(class, key);
            let number = new.number;
            let new = New::of(class, key, new, packed);
            let is_written = (replaced.is_newest
                || !state.is_kept_above(snapshots.table(), number))
                && state.replace(heads, replaced, |row| new.head(number, Some(row)));
            if !is_written {
                return None;
            }
            if moves {
                state.move_from_head(heads, snapshots.table());
            }
            if let Some(row) = new.snapshot(number) {
                snapshots.table().insert(row);
            }
            if let Some(pruning) = pruning {
                state.prune(snapshots.table(), number, pruning);
            }
            Some(number)
        })
    }

    /// Puts a tombstone of version `number` in place of the version to be replaced; as [`Tables::update`].
    pub fn delete(
        &mut self,
        class: &Class,
        key: &[u8],
        (replaced, moves): (&Replaced, bool),
        number: i64,
        pruning: Option<Pruning>,
    ) -> Option<i64> {
        self.change(|heads, mut snapshots| {
            let state = State::new(class, key);
            let is_written = (replaced.is_newest
                || !state.is_kept_above(snapshots.table(), number))
                && state.replace(heads, replaced, |row| tombstone(&state, number, Some(row)));
            if !is_written {
                return None;
            }
            if moves {
                state.move_from_head(heads, snapshots.table());
            }
            if let Some(pruning) = pruning {
                state.prune(snapshots.table(), number, pruning);
            }
            Some(number)
        })
    }

    /// Puts a tombstone in place of a state that has expired by `now`, above all versions that are kept; its version,
    /// or `None` if it has not expired. `moves`: as for [`Tables::update`].
    pub fn expire(&mut self, class: &Class, key: &[u8], now: i64, moves: bool) -> Option<i64> {
        self.change(|heads, mut snapshots| {
            let state = State::new(class, key);
            let first = state.first_version(snapshots.table());
            let number = |row: &Found<'_>| row.bigint(head::VERSION).saturating_add(1).max(first);
            let is_expired = |row: &Found<'_>| {
                let has_ended = row.expiry(head::EXPIRES_AT) <= now;
                has_ended && !row.boolean(head::DELETED) && state.is_of(row)
            };
            let tombstone = |row: &Found<'_>| tombstone(&state, number(row), Some(row));
            if !state.replace_where(heads, is_expired, tombstone) {
                return None;
            }
            // The row that was replaced is the one that was found.
            let made = number(&heads.found());
            if moves {
                state.move_from_head(heads, snapshots.table());
            }
            if let Some(keep) = class.keep {
                let oldest = made - keep + 1;
                state.prune(snapshots.table(), made, Pruning { oldest, reach: 1 });
            }
            Some(made)
        })
    }

    /// Writes a tombstone for a state that has no head row; its version, or `None` when there is a head row by now.
    pub fn insert_tombstone(&mut self, class: &Class, key: &[u8], number: i64) -> Option<i64> {
        self.change(|heads, _| {
            let state = State::new(class, key);
            (heads.insert_unless_there(tombstone(&state, number, None))).then_some(number)
        })
    }

    /// Gives the current version another expiry, `i64::MAX` for never, and perhaps another time to live; the version,
    /// or `None` as for [`Tables::update`].
    pub fn touch(
        &mut self,
        class: &Class,
        key: &[u8],
        replaced: &Replaced,
        (expires_at, ttl): (i64, &Ttl),
    ) -> Option<i64> {
        self.change(|heads, _| {
            let state = State::new(class, key);
            let is_written = state.replace(heads, replaced, |row| {
                let mut row: HeadRow = std::array::from_fn(|column| row.value(column));
                row[head::EXPIRES_AT] = (expires_at != i64::MAX).then(|| bigint_datum(expires_at));
                if let Some(ttl) = ttl.value() {
                    row[head::TTL] = ttl;
                }
                row
            });
            is_written.then_some(replaced.version)
        })
    }
}
