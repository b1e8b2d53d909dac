//! `state_changes` and `state_cursor`.

use super::starts;
use crate::cache::visibility::{next_full_xid, own_full_xid};
use crate::call::{self, Rows, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, front_text};
use crate::name::StateName as Name;
use crate::shared::{Change, Recent, Tag};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Head};
use crate::sys;
use crate::{behind, memory, shared};
use pgrx::pg_sys;
use state_cache_formats::{Cursor, Home, Unread, widen, widen_at_most};
use state_cache_l1::EntryInfo;
use state_cache_memory::{Grow, format};
use std::collections::{BTreeMap, BTreeSet};

/// More documents of a derived class than this, and the class is told as a whole.
const MOST_KEYS: usize = 1000;

/// How much of a malformed cursor an error message shows, in bytes.
const SHOWN: usize = 80;

/// What happened to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// It has this version now.
    Set(i64),
    /// It is gone, by this version if one is known.
    Delete(Option<i64>),
}

impl Op {
    /// What a head row says.
    fn of(head: &Head) -> Self {
        let expired = head.expires_at != i64::MAX && head.expires_at <= sys::statement_timestamp();
        if head.deleted || expired {
            Self::Delete(Some(head.version))
        } else {
            Self::Set(head.version)
        }
    }
}

/// The changes that commits have left to the worker and the tables do not hold yet. Called before the snapshot
/// is taken: what the worker writes in between is then told of twice, and not passed over. A role to which L1
/// does not answer hears of them when they are written.
fn unwritten(catalog: &Catalog) -> Result<BTreeMap<Name, Op>> {
    if !catalog.access().l1 {
        return Ok(BTreeMap::new());
    }
    let op = |info: &EntryInfo| {
        let expired = info.expires_at != i64::MAX && info.expires_at <= sys::statement_timestamp();
        match expired {
            true => Op::Delete(Some(info.version)),
            false => Op::Set(info.version),
        }
    };
    let mut unwritten = BTreeMap::new();
    for (name, info) in behind::dirty_states(catalog, None)? {
        memory::check()?;
        unwritten.insert(name, op(&info));
    }
    Ok(unwritten)
}

/// Where cursors are taken.
fn home(catalog: &Catalog) -> Result<Home> {
    // SAFETY: reads what is known since the server's start.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    Ok(Home {
        system,
        timeline: sys::timeline(),
        database: catalog.database,
        incarnation: catalog.incarnation,
        run: run(catalog)?,
        start: starts::name(catalog),
    })
}

/// Which run of the server, where a crash may lose what has been acknowledged: a subscriber that has heard of
/// it would never hear that it is gone.
fn run(catalog: &Catalog) -> Result<u64> {
    Ok(match shared::server_start() {
        Some(start) if !catalog.behind_classes()?.is_empty() => start,
        _ => 0,
    })
}

/// The cursor of the active snapshot, good also after a crash of the server.
fn cursor(catalog: &Catalog) -> Result<Cursor> {
    let snapshot = sys::active_snapshot();
    // Read after the snapshot was taken: no id in it is higher.
    let next = next_full_xid();
    let full = |xid: pg_sys::TransactionId| widen_at_most(xid.into_inner(), next);
    // Whatever the snapshot sees was written before this place.
    let position = sys::flush_wal();
    // SAFETY: an active MVCC snapshot, whose lists have as many elements as it says.
    unsafe {
        let snapshot = &*snapshot;
        let list = |start: *const pg_sys::TransactionId, count: usize| match count {
            0 => &[][..],
            _ => std::slice::from_raw_parts(start, count),
        };
        let xmin = full(snapshot.xmin);
        let lists_all = !snapshot.suboverflowed && !snapshot.takenDuringRecovery;
        let (mut xmax, mut in_progress) = (xmin, Vec::new());
        if lists_all {
            let subtransactions = usize::try_from(snapshot.subxcnt).unwrap_or(0);
            xmax = full(snapshot.xmax);
            for part in [
                list(snapshot.xip, snapshot.xcnt as usize),
                list(snapshot.subxip, subtransactions),
            ] {
                in_progress.try_room(part.len())?;
                in_progress.extend(part.iter().copied().map(full));
            }
        }
        match own_full_xid() {
            0 => {}
            // It sees what this transaction has written, which may still be rolled back.
            own => xmax = xmax.min(own),
        }
        Ok(Cursor::new(
            home(catalog)?,
            position,
            xmin,
            xmax,
            in_progress,
        ))
    }
}

/// Reads a cursor: `22023` if it is none, `55000` if it is none of here.
pub fn parse(catalog: &Catalog, given: &[u8]) -> Result<Cursor> {
    let cursor = Cursor::parse(given).map_err(|error| match error {
        Unread::OutOfMemory(refused) => refused.into(),
        Unread::Malformed => Error::Argument {
            message: format!("cursor \"{}\" is not well-formed", front_text(given, SHOWN)),
            hint: Some("Pass what state_changes() or state_cursor() gave, or NULL."),
        },
    })?;
    let (there, here) = (cursor.home, home(catalog)?);
    let stale = |reason| Err(Error::StaleCursor { reason });
    if there.system != here.system {
        return stale("The cursor was taken on another server.");
    }
    if there.database != here.database {
        return stale("The cursor was taken in another database.");
    }
    if there.incarnation != here.incarnation {
        return stale("The extension was created anew since.");
    }
    if there.run != here.run {
        return stale("The server was restarted since, or the behind classes came or went.");
    }
    // What a server has that has left the timeline at or behind the cursor's place, is all that the cursor has seen.
    let is_here = there.timeline == here.timeline
        || sys::timeline_left(there.timeline).is_some_and(|end| cursor.position <= end);
    if !is_here {
        return stale(
            "The server was promoted or restored from a backup since, and may not have all that the cursor speaks \
                of.",
        );
    }
    if let Some(reason) = starts::strangeness(catalog, &cursor) {
        return stale(reason);
    }
    // A standby may be behind the server where the cursor was taken, and tells again what it tells.
    if !sys::recovery_in_progress() && cursor.is_ahead_of(next_full_xid()) {
        return stale("The server was set back to an earlier time since.");
    }
    Ok(cursor)
}

/// The rows of `state_changes`, each given back to memory once it is stored.
struct Out {
    rows: Rows,
    /// What is told last, in place of what the tables say.
    unwritten: BTreeMap<Name, Op>,
    set: pg_sys::Datum,
    delete: pg_sys::Datum,
}

impl Out {
    fn new(rows: Rows, unwritten: BTreeMap<Name, Op>) -> Self {
        Self {
            rows,
            unwritten,
            set: call::varlena_datum(b"set"),
            delete: call::varlena_datum(b"delete"),
        }
    }

    /// What the tables say of a state.
    fn push(&mut self, class: &[u8], key: &[u8], op: Op) {
        let is_unwritten =
            !self.unwritten.is_empty() && self.unwritten.contains_key(&(class.into(), key.into()));
        if !is_unwritten {
            self.put(class, key, op);
        }
    }

    fn put(&mut self, class: &[u8], key: &[u8], op: Op) {
        let (class, key) = (call::varlena_datum(class), call::varlena_datum(key));
        let (version, op) = match op {
            Op::Set(version) => (Some(version), self.set),
            Op::Delete(version) => (version, self.delete),
        };
        let version = version.map(call::bigint_datum);
        self.rows
            .push([Some(class), Some(key), version, Some(op), None]);
        for datum in [class, key] {
            // SAFETY: made above; the row is a copy.
            unsafe { call::free(datum) };
        }
    }

    /// Says that a document of a derived class may be another one.
    fn computed(&mut self, class: &[u8], key: &[u8]) {
        let (class, key) = (call::varlena_datum(class), call::varlena_datum(key));
        self.rows
            .push([Some(class), Some(key), None, Some(self.set), None]);
        for datum in [class, key] {
            // SAFETY: made above; the row is a copy.
            unsafe { call::free(datum) };
        }
    }

    /// Says that all of a class is to be dropped.
    fn invalidate(&mut self, class: &[u8]) {
        let [class, key, op] = [class, &b"*"[..], b"invalidate"].map(call::varlena_datum);
        self.rows
            .push([Some(class), Some(key), None, Some(op), None]);
    }

    fn end(mut self, cursor: &Cursor) -> Result<()> {
        for ((class, key), op) in std::mem::take(&mut self.unwritten) {
            self.put(&class, &key, op);
        }
        let (op, cursor) = (
            call::varlena_datum(b"end"),
            call::varlena_datum(format(format_args!("{cursor}"))?.as_bytes()),
        );
        self.rows.push([None, None, None, Some(op), Some(cursor)]);
        Ok(())
    }
}

/// Every state there is.
fn everything(catalog: &Catalog, out: &mut Out) -> Result<()> {
    store::heads(catalog, |class, key, head| {
        if let op @ Op::Set(_) = Op::of(head) {
            out.push(class, key, op);
        }
        Ok(())
    })
}

/// Every change that the active snapshot sees and `since` does not.
fn changes(catalog: &Catalog, since: &Cursor, out: &mut Out) -> Result<()> {
    let traces = unseen_traces(catalog, since)?;
    let next = next_full_xid();
    let unseen = |head: &Head| !since.sees(widen(head.xid.into_inner(), next));
    store::heads(catalog, |class, key, head| {
        if unseen(head) {
            out.push(class, key, Op::of(head));
        }
        Ok(())
    })?;
    for (class, key) in traces {
        match store::head(catalog, &class, &key)? {
            Some(head) if unseen(&head) => {}
            Some(head) => out.push(&class, &key, Op::of(&head)),
            // To a role that does not see all states this would tell a name.
            None if catalog.access().row_security => return Err(forgotten()),
            None => out.push(&class, &key, Op::Delete(None)),
        }
    }
    Ok(())
}

/// What may have changed since of the documents of one derived class.
enum Changed {
    /// Any of them.
    All,
    /// These.
    Keys(BTreeSet<Box<[u8]>>),
}

/// The documents of derived classes that may be others since: by their keys as long as the server remembers them
/// (`shared::Recent`) and they are not too many, else the classes as a whole. What this server does not know of may
/// have changed.
fn derived_changes(catalog: &Catalog, since: &Cursor, out: &mut Out) -> Result<()> {
    let classes = catalog.derived_classes()?;
    if classes.is_empty() {
        return Ok(());
    }
    let knows = !sys::recovery_in_progress() && since.home.start == starts::name(catalog);
    let recent = match knows {
        true => shared::recent()?.filter(|recent| since.sees_all_up_to(recent.horizon)),
        false => None,
    };
    if let Some(recent) = recent {
        for (class, changed) in recent_changes(catalog, since, &classes, &recent)? {
            match changed {
                Changed::All => out.invalidate(class),
                Changed::Keys(keys) => {
                    for key in keys {
                        out.computed(class, &key);
                    }
                }
            }
        }
        return Ok(());
    }
    let is_seen = |tag: &Tag| since.sees_all_up_to(tag.last_change());
    for class in classes {
        memory::check()?;
        let tags = shared::tags().zip(shared::class_tag(
            catalog.database,
            catalog.incarnation,
            &class,
        ));
        let is_told = match tags {
            Some((tags, tag)) if knows => {
                !is_seen(tags.definitions(catalog.database)) || !is_seen(tag)
            }
            _ => true,
        };
        if is_told {
            out.invalidate(&class);
        }
    }
    Ok(())
}

/// What the server remembers that the cursor does not see, by class.
fn recent_changes<'a>(
    catalog: &Catalog,
    since: &Cursor,
    classes: &'a [Box<[u8]>],
    recent: &Recent,
) -> Result<BTreeMap<&'a [u8], Changed>> {
    let mut all: BTreeMap<&[u8], Changed> = BTreeMap::new();
    let is_meant = |change: &Change<'_>| [0, catalog.database].contains(&change.database);
    for change in recent.iter().filter(is_meant) {
        if since.sees(change.xid) {
            continue;
        }
        memory::check()?;
        let meant = classes
            .iter()
            .filter(|class| change.class.is_empty() || change.class == &***class);
        for class in meant {
            let known = all
                .entry(class)
                .or_insert_with(|| Changed::Keys(BTreeSet::new()));
            match known {
                Changed::Keys(keys) if !change.key.is_empty() && keys.len() < MOST_KEYS => {
                    keys.insert(change.key.into());
                }
                Changed::Keys(keys) if keys.contains(change.key) => {}
                _ => *known = Changed::All,
            }
        }
    }
    Ok(all)
}

fn forgotten() -> Error {
    Error::StaleCursor {
        reason: "Not all changes since are retained.",
    }
}

/// The states with changes that no head row tells and `since` does not see; `55000` if that is not known.
fn unseen_traces(catalog: &Catalog, since: &Cursor) -> Result<BTreeSet<Name>> {
    let snapshot = sys::active_snapshot();
    let next = next_full_xid();
    let (mut everything, mut names, mut outcome) = (false, BTreeSet::new(), Ok(()));
    // SAFETY: the active snapshot.
    let horizon = unsafe {
        catalog.traces(snapshot, |trace| {
            if outcome.is_ok() && !since.sees(widen(trace.xid.into_inner(), next)) {
                outcome = memory::check();
                match trace.name {
                    Some((class, key)) => drop(names.insert((class.into(), key.into()))),
                    None => everything = true,
                }
            }
        });
        catalog.horizon(snapshot)
    };
    outcome?;
    if everything || (horizon != 0 && !since.sees_all_up_to(horizon)) {
        return Err(forgotten());
    }
    Ok(names)
}

sql_functions! {
    /// `state_changes(since)`
    fn state_changes(call) {
        let catalog = catalog::current(call.function())?;
        let since = call.text(0).map(|given| parse(&catalog, given)).transpose()?;
        let unwritten = unwritten(&catalog)?;
        let _snapshot = if sys::isolation_uses_transaction_snapshot() {
            PushedSnapshot::transaction()
        } else {
            PushedSnapshot::latest()
        };
        let mut out = Out::new(call.rows()?, unwritten);
        match &since {
            None => everything(&catalog, &mut out)?,
            Some(since) => {
                changes(&catalog, since, &mut out)?;
                derived_changes(&catalog, since, &mut out)?;
            }
        }
        out.end(&cursor(&catalog)?)?;
        // Last: what it writes is nothing that the cursor tells of.
        starts::note(&catalog)?;
        Ok(call::void_datum())
    }

    /// `state_cursor()`
    fn state_cursor(call) {
        let catalog = catalog::current(call.function())?;
        // Nobody numbers messages on a standby, and a promotion begins anew.
        let database = shared::database().filter(|_| !sys::recovery_in_progress());
        let message = database.map(shared::Database::last_message);
        // One of now also at REPEATABLE READ: the messages are those of now.
        let _snapshot = PushedSnapshot::latest();
        let cursor = format(format_args!("{}", cursor(&catalog)?))?;
        call.rows()?.push([
            message.map(|(epoch, _)| call::varlena_datum(format!("{epoch:x}").as_bytes())),
            message.map(|(_, seq)| call::count_datum(seq)),
            Some(call::varlena_datum(cursor.as_bytes())),
        ]);
        starts::note(&catalog)?;
        Ok(call::void_datum())
    }
}
