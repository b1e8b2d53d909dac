//! Deleting the versions that are not kept.

use super::damage::{self, AnyFault};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog, Class};
use crate::context;
use crate::error::{Error, Result, Shown};
use crate::memory;
use crate::shared::{Command, Progress};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Contexts, Holder, KeptVersion};
use crate::{interval, sys};
use state_cache_memory::{Grow, collect};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// States looked at in one query.
const PAGE: i64 = 100;

/// Which snapshots go. The current version never does.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How many of the newest stay; `None` for no such limit.
    pub keep: Option<i64>,
    /// Those made before this time go, in microseconds since 2000; `None` for no such limit.
    pub before: Option<i64>,
    /// Whether a snapshot must be beyond both limits to go, and not beyond either.
    pub both: bool,
    /// Whether recovery points go too.
    pub recovery_points: bool,
}

impl Retention {
    /// Everything stays.
    pub const ALL: Self = Self {
        keep: None,
        before: None,
        both: false,
        recovery_points: false,
    };

    /// What a class keeps at that time, as it is defined by now; one that is not keeps everything.
    pub fn of_class_now(catalog: &Catalog, class: &[u8], now: i64) -> Self {
        match catalog::class_now(catalog, class) {
            Some(class) => Self::of_class(class.keep, class.keep_for, now),
            None => Self::ALL,
        }
    }

    /// What a class keeps at that time.
    pub fn of_class(keep: Option<i64>, keep_for: Option<i64>, now: i64) -> Self {
        Self {
            keep,
            before: keep_for.map(|time| now.saturating_sub(time)),
            ..Self::ALL
        }
    }

    /// Whether it lets anything go.
    pub fn is_limited(&self) -> bool {
        self.keep.is_some() || self.before.is_some()
    }

    /// Whether a snapshot goes before which there are `newer` newer ones.
    fn drops(&self, version: &KeptVersion, newer: i64) -> bool {
        if version.label.recovery_point && !self.recovery_points {
            return false;
        }
        let beyond = self.keep.map(|keep| newer >= keep);
        let old = self.before.map(|before| version.created_at < before);
        match (beyond, old) {
            (Some(beyond), Some(old)) if self.both => beyond && old,
            (beyond, old) => beyond.unwrap_or(false) || old.unwrap_or(false),
        }
    }
}

/// What becomes of a snapshot that others build upon and that would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// It stays as long as they do.
    Stays,
    /// They are stored as keyframes, and it goes.
    Goes,
}

/// How many states a class has, tombstones included. Those among them that have nothing to prune are passed over.
fn count_states(catalog: &Catalog, class: &[u8]) -> Result<u64> {
    let _snapshot = PushedSnapshot::transaction();
    store::count_heads(catalog, class)
}

/// Prunes all states of a class; how many snapshots went. `retention` is asked again once a state is locked, since
/// the class may keep more by then.
pub fn prune(catalog: &Catalog, class: &[u8], retention: &dyn Fn() -> Retention) -> Result<u64> {
    if catalog.access().row_security {
        // A row that the caller does not see may be current, or need one that it sees.
        return Err(Error::PartialView);
    }
    // Who may not change a row cannot store it anew.
    let needed = match catalog.may_rewrite_snapshots() {
        true => Needed::Goes,
        false => Needed::Stays,
    };
    let class = catalog.class_or_default(class)?;
    let progress = Progress::begin(Command::Prune, count_states(catalog, &class.name)?);
    let mut pruned = 0;
    let mut after: Box<[u8]> = Box::default();
    loop {
        let limits = retention();
        if !limits.is_limited() {
            return Ok(pruned);
        }
        let keys = {
            let _snapshot = PushedSnapshot::transaction();
            let (keep, before) = (limits.keep, limits.before);
            store::prunable_states(catalog, &class.name, &after, keep, before, PAGE)?
        };
        for key in &keys {
            progress.at(&class.name, key);
            store::lock(catalog, &class.name, key)?;
            pruned += prune_state(catalog, &class, key, &retention(), needed)?;
            progress.advance();
            pgrx::check_for_interrupts!();
        }
        match keys.into_iter().last() {
            Some(last) => after = last,
            None => return Ok(pruned),
        }
    }
}

/// Whether pruning a state would delete anything, as far as the active snapshot shows it.
pub fn would_prune(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    retention: &Retention,
) -> Result<bool> {
    let (_, dropped) = choose(catalog, class, key, retention, Needed::Stays)?;
    Ok(!dropped.is_empty())
}

/// Prunes a state whose head row is locked; how many snapshots went.
pub fn prune_state(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    retention: &Retention,
    needed: Needed,
) -> Result<u64> {
    // Taken after the lock: it sees what the last writer made.
    let _snapshot = PushedSnapshot::transaction();
    let (orphans, dropped) = choose(catalog, class, key, retention, needed)?;
    if let ControlFlow::Break(()) = rewrite(catalog, class, key, &orphans)? {
        return Ok(0);
    }
    let mut pruned = 0;
    for version in dropped {
        pruned += u64::from(store::delete_snapshot(catalog, &class.name, key, version)?);
    }
    Ok(pruned)
}

/// The versions that are stored anew, and those that go, under the active snapshot.
fn choose(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    retention: &Retention,
    needed: Needed,
) -> Result<(Vec<i64>, BTreeSet<i64>)> {
    let head = store::target(catalog, &class.name, key)?;
    let versions = damage::versions(catalog, (&class.name, key), Contexts::LeftOut)?;
    let current = head.as_ref().filter(|head| !head.deleted);
    let current = current.map(|head| head.version);
    // A tombstone counts as one of those that are kept.
    let tombstones = i64::from(head.is_some_and(|head| head.deleted));
    let mut dropped = BTreeSet::new();
    for (newer, version) in (tombstones..).zip(&versions) {
        if Some(version.number) != current && retention.drops(version, newer) {
            memory::check()?;
            dropped.insert(version.number);
        }
    }
    if *class.name == *context::RUN
        && let Some(base) = context::base_version(catalog, key)?
    {
        dropped.remove(&base);
    }
    let orphans = orphans(&versions, &dropped)?;
    if needed == Needed::Goes {
        return Ok((orphans, dropped));
    }
    spare(&versions, &orphans, &mut dropped);
    Ok((Vec::new(), dropped))
}

/// The kept versions whose base goes.
pub(super) fn orphans(versions: &[KeptVersion], dropped: &BTreeSet<i64>) -> Result<Vec<i64>> {
    let is_orphan = |version: &&KeptVersion| {
        let mut bases = version.bases();
        !dropped.contains(&version.number) && bases.any(|base| dropped.contains(&base))
    };
    let orphans = versions.iter().filter(is_orphan);
    Ok(collect(orphans.map(|version| version.number))?)
}

/// Lets stay what the orphans build upon.
fn spare(versions: &[KeptVersion], orphans: &[i64], dropped: &mut BTreeSet<i64>) {
    for &orphan in orphans {
        let mut wanted = BTreeSet::from([orphan]);
        // Newest first, so a base comes after what builds upon it.
        for version in versions {
            if wanted.remove(&version.number) {
                dropped.remove(&version.number);
                wanted.extend(version.bases());
            }
        }
    }
}

/// Stores the orphans as keyframes. A damaged one may yet be understood with what it builds upon, so then nothing
/// of the state goes.
fn rewrite(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    orphans: &[i64],
) -> Result<ControlFlow<()>> {
    for &version in orphans {
        if let Some(fault) = store_as_keyframe(catalog, class, key, version)? {
            let state = Shown::new(&class.name, key);
            crate::error::warn_not_pruned(&state, version, &fault);
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Stores a version so that it depends on no other row; what is wrong with it if it cannot be read. A branch that
/// goes past the version to one below is stored so too: no keyframe may lie between a delta and its base, since those
/// who prune by position, or drop partitions, take a keyframe for the beginning of all that comes above.
pub(super) fn store_as_keyframe(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    version: i64,
) -> Result<Option<AnyFault>> {
    let versions = damage::versions(catalog, (&class.name, key), Contexts::LeftOut)?;
    for branch in past(&versions, version)? {
        // One that is damaged is nobody's ground.
        rewrite_one(catalog, class, key, branch)?;
    }
    rewrite_one(catalog, class, key, version)
}

/// The versions above this one that build upon one below it, and those that build upon one below these.
fn past(versions: &[KeptVersion], version: i64) -> Result<Vec<i64>> {
    let (mut found, mut keyframes) = (Vec::new(), BTreeSet::from([version]));
    // Newest first, so from the end a keyframe comes before what lies above it.
    for above in versions.iter().rev().filter(|it| it.number > version) {
        let mut bases = above.bases();
        if bases.any(|base| {
            base < above.number && keyframes.range(base + 1..above.number).next().is_some()
        }) {
            memory::check()?;
            keyframes.insert(above.number);
            found.try_push(above.number)?;
        }
    }
    Ok(found)
}

fn rewrite_one(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    version: i64,
) -> Result<Option<AnyFault>> {
    match damage::kept(catalog, (&class.name, key), version)? {
        // A snapshot row beside that does not count.
        Some(Ok(kept)) if kept.storage.holder() == Some(Holder::Head) => {}
        Some(Ok(kept)) => {
            let payload = match damage::payload(catalog, (&class.name, key), version)? {
                Some(Err(fault)) => return Ok(Some(fault)),
                Some(Ok(payload)) => Some(payload),
                None => None,
            };
            let kept = (&kept, payload.as_deref());
            store::rewrite_as_keyframe(catalog, class, key, version, kept)?;
        }
        Some(Err(fault)) => return Ok(Some(fault)),
        None => {}
    }
    Ok(None)
}

sql_functions! {
    /// `state_prune(class, keep, older_than, recovery_points)`
    fn state_prune(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(0, "class")?)?;
        call::check_may_write(c"state_prune()")?;
        let keep = match call.integer(1) {
            Some(keep) if keep < 1 => {
                return Err(Error::argument(format!("keep must be positive: {keep}")));
            }
            keep => keep.map(i64::from),
        };
        let now = sys::now();
        let age = call.interval(2);
        if let Some(age) = &age {
            interval::check_not_negative("older_than", age, "NULL names no age.")?;
        }
        let before = age.map(|age| now.saturating_sub(interval::microseconds(&age)));
        let named = Retention { keep, before, both: true, ..Retention::ALL };
        let recovery_points = call.boolean(3).unwrap_or(false);
        let retention = || Retention {
            recovery_points,
            ..match named.is_limited() {
                true => named,
                false => Retention::of_class_now(&catalog, &class.name, now),
            }
        };
        let pruned = match retention().is_limited() {
            true => prune(&catalog, &class.name, &retention)?,
            false => 0,
        };
        Ok(call::count_datum(pruned))
    }
}
