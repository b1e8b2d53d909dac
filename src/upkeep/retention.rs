//! Dropping what is older than its retention: traces and tombstones; then snapshots that are not kept.

use super::pace::{PAUSE, SECOND};
use super::pruning::Pruning;
use crate::cache::visibility::{next_full_xid, widen};
use crate::catalog::{self, Catalog, bucket};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::logs;
use crate::settings;
use crate::store::{self, Tombstone};
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use pgrx::pg_sys;
use std::collections::BTreeMap;

/// Rows that one transaction drops at most.
const BATCH: i64 = 100;
/// Rows that one transaction looks at.
const PAGE: i64 = 1000;
/// The most time between two looks at what is due, once the worker is woken; and how soon it looks again at
/// what was due and had to stay. In microseconds.
const LOOK: i64 = 60 * SECOND;
/// The least time between two looks when nothing is known to be due, in microseconds.
const RELOOK: i64 = 10 * SECOND;
/// How often it looks for snapshots that the writes did not prune: they prune nearly all.
const LOOK_AT_SNAPSHOTS: i64 = 3600 * SECOND;

/// Where a pass is.
#[derive(Clone)]
enum Stage {
    /// There is none.
    Idle,
    /// At the traces.
    Traces,
    /// At the tombstones behind this class and key.
    Tombstones((Box<[u8]>, Box<[u8]>)),
    /// At the snapshots.
    Snapshots(Pruning),
}

impl Stage {
    fn first_tombstone() -> Self {
        Self::Tombstones(Default::default())
    }
}

/// The task.
pub struct Retention {
    stage: Stage,
    /// While a step runs: where the pass goes on if what the step looks at is passed over.
    beyond: Option<Stage>,
    /// Rows that a step looks at: one where more have failed.
    page: i64,
    /// When the oldest tombstone that stays was written.
    oldest: Option<i64>,
    /// Whether something that is due had to stay.
    unfinished: bool,
    /// When the last pass began, and when something is due.
    looked: i64,
    due: i64,
    /// When snapshots were last looked at.
    looked_at_snapshots: Option<i64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            beyond: None,
            page: PAGE,
            oldest: None,
            unfinished: false,
            looked: i64::MIN,
            due: i64::MIN,
            looked_at_snapshots: None,
        }
    }
}

impl Task for Retention {
    fn name(&self) -> &'static str {
        "dropping what is no longer retained"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if round.leaving {
            return Ok(self.next());
        }
        if matches!(self.stage, Stage::Idle) {
            if !self.is_due(round.now) {
                return Ok(Next::At(self.due.min(self.looked.saturating_add(look()))));
            }
            self.begin_pass(round.now);
        }
        self.learn_from_failure();
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let next = transaction(|| self.step(&catalog, round.now))?;
        if self.went_on(next, round.now) {
            return Ok(Next::At(round.now + PAUSE));
        }
        Ok(self.next())
    }

    fn holds_work(&self) -> bool {
        false
    }
}

/// Between two looks.
fn look() -> i64 {
    settings::tombstone_retention().clamp(SECOND, LOOK)
}

impl Retention {
    /// Whether it is time for a pass; also when the clock was set back.
    fn is_due(&self, now: i64) -> bool {
        now >= self.due || now < self.looked || now - self.looked >= look()
    }

    fn next(&self) -> Next {
        Next::At(self.due)
    }

    pub(super) fn begin_pass(&mut self, now: i64) {
        self.stage = Stage::Traces;
        self.page = PAGE;
        (self.oldest, self.unfinished) = (None, false);
        self.looked = now;
    }

    /// If the last step failed, looks at its rows one by one, and passes over the one that fails again.
    fn learn_from_failure(&mut self) {
        match self.beyond.take() {
            None => {}
            Some(_) if self.page > 1 => self.page = 1,
            Some(beyond) => {
                self.stage = beyond;
                self.page = PAGE;
                self.unfinished = true;
            }
        }
    }

    /// One step of a pass, in a transaction: where the pass goes on when it has committed.
    pub(super) fn step(&mut self, catalog: &Catalog, now: i64) -> Result<Goes> {
        let until = now.saturating_sub(settings::tombstone_retention());
        let stage = match self.stage.clone() {
            Stage::Idle => Stage::Idle,
            Stage::Traces => self.drop_traces(catalog, until)?,
            Stage::Tombstones(after) => self.drop_tombstones(catalog, &after, until, now)?,
            Stage::Snapshots(pruning) => self.prune(catalog, pruning)?,
        };
        Ok(Goes(stage))
    }

    /// The step has committed; whether the pass goes on.
    pub(super) fn went_on(&mut self, next: Goes, now: i64) -> bool {
        self.beyond = None;
        self.stage = next.0;
        if !matches!(self.stage, Stage::Idle) {
            return true;
        }
        let retention = settings::tombstone_retention();
        let due = self.oldest.map(|time| time.saturating_add(retention));
        let retry = self.unfinished.then(|| now.saturating_add(look()));
        // What is deleted from now on is due then; nobody wakes the worker for it.
        let later = now.saturating_add(retention.max(RELOOK));
        self.due = due.into_iter().chain(retry).fold(later, i64::min);
        false
    }

    fn drop_traces(&mut self, catalog: &Catalog, until: i64) -> Result<Stage> {
        self.beyond = Some(Stage::first_tombstone());
        let seen = SeenByAll::of(catalog.trace)?;
        let mut horizon = 0;
        let (found, dropped) = {
            let _owner = Impersonation::owner_of(catalog.trace);
            store::set_constraints_immediate();
            store::drop_traces(catalog, until, BATCH.min(self.page), |xid| {
                let xid = widen(xid);
                let goes = seen.includes(xid);
                horizon = if goes { xid.max(horizon) } else { horizon };
                goes
            })?
        };
        raise_horizon(catalog, horizon)?;
        Ok(if dropped > 0 && dropped == found {
            Stage::Traces
        } else {
            self.unfinished |= found > 0;
            Stage::first_tombstone()
        })
    }

    fn drop_tombstones(
        &mut self,
        catalog: &Catalog,
        after: &(Box<[u8]>, Box<[u8]>),
        until: i64,
        now: i64,
    ) -> Result<Stage> {
        let mut page = store::tombstones(catalog, after, self.page)?;
        let is_last = (page.len() as i64) < self.page;
        let is_due = |tombstone: &Tombstone| tombstone.updated_at <= until;
        // As many as are dropped at a time, and those in between.
        let end = page.iter().enumerate().filter(|(_, row)| is_due(row));
        let end = end.map(|(n, _)| n + 1).nth(BATCH as usize - 1);
        page.truncate(end.unwrap_or(page.len()));
        let next = match page.last() {
            Some(last) if !is_last || end.is_some() => {
                Stage::Tombstones((last.class.clone(), last.key.clone()))
            }
            _ => self.snapshots(catalog, now)?,
        };
        self.beyond = Some(next.clone());
        let seen = SeenByAll::of(catalog.head)?;
        let (mut horizon, mut floors) = (0, BTreeMap::new());
        {
            let _owner = Impersonation::owner_of(catalog.head);
            store::set_constraints_immediate();
            for tombstone in &page {
                let xid = widen(tombstone.xid);
                if !is_due(tombstone) {
                    let written = tombstone.updated_at;
                    self.oldest = Some(self.oldest.map_or(written, |known| known.min(written)));
                } else if seen.includes(xid)
                    && logs::lock_if_free(catalog, &tombstone.class, &tombstone.key)
                    && store::drop_tombstone(catalog, tombstone)?
                {
                    horizon = xid.max(horizon);
                    let bucket = (&tombstone.class, bucket(&tombstone.key));
                    let floor = floors.entry(bucket).or_insert(tombstone.version);
                    *floor = tombstone.version.max(*floor);
                } else {
                    self.unfinished = true;
                }
            }
        }
        {
            let _owner = Impersonation::owner_of(catalog.floor);
            for ((class, bucket), version) in floors {
                store::raise_floor(catalog, class, bucket, version)?;
            }
        }
        raise_horizon(catalog, horizon)?;
        Ok(next)
    }

    /// The stage behind the tombstones.
    fn snapshots(&mut self, catalog: &Catalog, now: i64) -> Result<Stage> {
        let looked = self.looked_at_snapshots;
        if looked.is_some_and(|then| (then..then.saturating_add(LOOK_AT_SNAPSHOTS)).contains(&now))
        {
            return Ok(Stage::Idle);
        }
        self.looked_at_snapshots = Some(now);
        Ok(match Pruning::begin(catalog, now)? {
            Some(pruning) => Stage::Snapshots(pruning),
            None => Stage::Idle,
        })
    }

    fn prune(&mut self, catalog: &Catalog, pruning: Pruning) -> Result<Stage> {
        let (keys, next) = pruning.page(catalog, BATCH.min(self.page))?;
        let next = next.map_or(Stage::Idle, Stage::Snapshots);
        self.beyond = Some(next.clone());
        let _owner = Impersonation::owner_of(catalog.snapshot);
        store::set_constraints_immediate();
        for key in keys {
            pruning.prune(catalog, &key)?;
        }
        Ok(next)
    }
}

/// Where a pass goes on.
pub(super) struct Goes(Stage);

/// Changes up to this transaction are not all known any more.
fn raise_horizon(catalog: &Catalog, xid: u64) -> Result<()> {
    if xid == 0 {
        return Ok(());
    }
    let _owner = Impersonation::owner_of(catalog.horizon);
    store::raise_horizon(catalog, xid)
}

/// The transactions whose effects every snapshot sees that is in use in this database.
struct SeenByAll {
    /// All below this full id.
    below: u64,
}

impl SeenByAll {
    /// As far as a table goes; [`Error::NotInstalled`] if it is gone.
    fn of(table: pg_sys::Oid) -> Result<Self> {
        // SAFETY: opened and closed in a pair; a lock that is too weak to be in anybody's way. Within half a
        // circle of the next id, as every horizon of the server is.
        let oldest = unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let relation = pg_sys::try_relation_open(table, lock);
            if relation.is_null() {
                return Err(Error::NotInstalled);
            }
            let oldest = pg_sys::GetOldestNonRemovableTransactionId(relation);
            pg_sys::relation_close(relation, lock);
            oldest
        };
        let next = next_full_xid();
        Ok(Self {
            below: state_cache_formats::widen_at_most(oldest.into_inner(), next),
        })
    }

    fn includes(&self, xid: u64) -> bool {
        xid < self.below
    }
}
