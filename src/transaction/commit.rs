//! What happens before the commit record: flush, marks, notifications.

use super::batch::{Batch, Phase, with};
use super::explicit::Whose;
use super::known::{Content, State};
use super::{capability, commit_by_hand, deferred, definitions, flush};
use crate::cache::found::Version;
use crate::cache::publish::{Changed, New, NewValue};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::memory;
use crate::notify::{self, Change, News, Touched};
use crate::snapshot::PushedSnapshot;
use pgrx::pg_sys;
use state_cache_memory::Grow;
use std::rc::Rc;

/// Makes the transaction's changes ready for the commit record.
pub fn prepare() -> Result<()> {
    let untouched =
        with(|batch| batch.states.is_empty() && !batch.by_hand.any() && !batch.dependents.any());
    let redefined = redefined()?;
    if untouched && !notify::has_requests() && redefined.is_none() {
        return Ok(());
    }
    let catalog = loop {
        flush_all()?;
        let requested_of = notify::requested()?.map(|(catalog, _)| catalog);
        let known = with(|batch| batch.scope.catalog.clone()).or(requested_of);
        let redefined_of = redefined.as_ref().map(|(catalog, _)| Rc::clone(catalog));
        let Some(catalog) = known.or(redefined_of) else {
            return Ok(());
        };
        let catalog = match catalog::renewed(&catalog) {
            Ok(catalog) => catalog,
            // Dropped by this transaction, or the flush would have said so.
            Err(Error::NotInstalled) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !hand_over_deferred(&catalog)? {
            break catalog;
        }
        // Triggers on what was written have staged more, perhaps on the same states.
        with(|batch| batch.publication.withdraw());
    };
    if !crate::fault::leaves_out!(ClassCheck) {
        deferred::check_classes(&catalog)?;
    }
    crate::fault::stop_at!(AfterFlush);
    let redefined = redefined.map(|(_, classes)| classes).unwrap_or_default();
    let mut news = collect_news(&catalog, redefined)?;
    for requested in notify::requested()?
        .map(|(_, news)| news)
        .unwrap_or_default()
    {
        news.try_push(requested)?;
    }
    // What a trigger on the tables written below staged would be written by nobody.
    with(|batch| batch.phase = Phase::Committing);
    let (untraced, floors) = with(|batch| (batch.by_hand.untraced(), batch.by_hand.floors()));
    let (untraced, floors) = (untraced?, floors?);
    if with(|batch| batch.by_hand.any()) {
        let changed = with(|batch| batch.by_hand.changed())?;
        for capability in capability::all() {
            capability.after_changes_by_hand(&catalog, &changed)?;
        }
    }
    for capability in capability::all() {
        capability.before_marks(&catalog, &untraced, &floors)?;
    }
    let prepared = notify::prepare(&catalog, news)?;
    mark(&catalog)?;
    crate::fault::stop_at!(Marked);
    prepared.send();
    #[cfg(feature = "fault_injection")]
    if crate::fault::leaves_out!(EndOfUse) {
        super::batch::BATCH.with(crate::callback::Kept::leak);
    }
    Ok(())
}

/// Flushes until nothing is staged. Rows written at this point have missed the server's own firing of
/// deferred triggers, and the triggers may stage changes again.
fn flush_all() -> Result<()> {
    while with(|batch| batch.is_any_staged()) {
        {
            let _snapshot = PushedSnapshot::transaction();
            flush::flush(Whose::All)?;
        }
        // SAFETY: before the commit record, with no query running: where the server itself calls it.
        unsafe { pg_sys::AfterTriggerFireDeferred() };
    }
    Ok(())
}

/// Hands over deferred versions; whether that has led to new staged changes.
fn hand_over_deferred(catalog: &Rc<Catalog>) -> Result<bool> {
    let wrote = {
        let _snapshot = PushedSnapshot::transaction();
        deferred::hand_over(catalog)?
    };
    if wrote {
        // SAFETY: as in `flush_all`.
        unsafe { pg_sys::AfterTriggerFireDeferred() };
    }
    Ok(wrote && with(|batch| batch.is_any_staged()))
}

/// What subscribers are to hear.
fn collect_news(catalog: &Rc<Catalog>, redefined: Vec<Box<[u8]>>) -> Result<Vec<News>> {
    let mut news: Vec<News> = with(|batch| {
        let flushed = batch
            .states
            .iter()
            .filter(|(_, state)| state.belongs_to(catalog))
            .filter_map(|(_, state)| {
                let flushed = state.flushed.as_ref().filter(|flushed| flushed.is_news())?;
                let change = match flushed.content {
                    Content::Document { .. } | Content::Unkept => Change::Set(flushed.version),
                    Content::Deleted => Change::Delete(flushed.version),
                    Content::Touched => return None,
                };
                let by_hand = batch.by_hand.has(&state.class.name, &state.key);
                (!by_hand || flushed.is_deferred()).then(|| News {
                    class: (*state.class.name).into(),
                    key: (*state.key).into(),
                    change,
                    behind: flushed.is_deferred(),
                    touched: flushed.touched.clone(),
                })
            });
        let mut flushed = memory::checked(flushed)?;
        flushed.sort_unstable_by(|a, b| (&a.class, &a.key).cmp(&(&b.class, &b.key)));
        Ok::<_, Error>(flushed)
    })?;
    // What the last command did by hand must be visible to the reads below.
    // SAFETY: we are inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    let by_hand = with(|batch| batch.by_hand.keys())?;
    commit_by_hand::before_keys_commit(catalog, &by_hand)?;
    for (class, key) in by_hand {
        let change = match catalog.head_row(&class, &key) {
            Some(head) if head.deleted => Change::Delete(head.version),
            Some(head) => Change::Set(head.version),
            None => Change::Delete(0),
        };
        news.try_push(News {
            class,
            key,
            change,
            behind: false,
            touched: Touched::default(),
        })?;
    }
    add_dependents(&mut news, redefined)?;
    if with(|batch| batch.by_hand.all()) {
        commit_by_hand::before_all_commit(catalog, with(|batch| batch.by_hand.truncated()))?;
        // Deferred versions become visible after the rest, so they are told by themselves.
        news.retain(|news| news.behind);
        news.push(News::everything());
    }
    Ok(news)
}

/// Classes of an installation.
type Classes = (Rc<Catalog>, Vec<Box<[u8]>>);

/// The derived classes, if the transaction has changed definitions: any of their documents may be another one now.
/// `None` if there are none.
fn redefined() -> Result<Option<Classes>> {
    if !definitions::may_have_to_be_told() {
        return Ok(None);
    }
    let catalog = match catalog::installed() {
        Ok(Some(catalog)) => catalog,
        Ok(None) | Err(Error::NotInstalled) => return Ok(None),
        Err(error) => return Err(error),
    };
    let classes = catalog.derived_classes()?;
    Ok((!classes.is_empty()).then_some((catalog, classes)))
}

/// Adds the documents of derived classes that may be others now, and the classes of which any may be. They have no
/// versions.
fn add_dependents(news: &mut Vec<News>, redefined: Vec<Box<[u8]>>) -> Result<()> {
    let (classes, keys) = with(|batch| (batch.dependents.classes(), batch.dependents.keys()));
    let mut classes = classes?;
    classes.extend(redefined);
    classes.sort_unstable();
    classes.dedup();
    // What the extension computes for itself is told by nobody.
    let is_told = |class: &[u8]| class.first() != Some(&0);
    let whole = classes
        .into_iter()
        .filter(|class| is_told(class))
        .map(|class| (class, Box::default(), Change::Everything));
    let single = keys?
        .into_iter()
        .filter(|(class, _)| is_told(class))
        .map(|(class, key)| (class, key, Change::Set(0)));
    for (class, key, change) in whole.chain(single) {
        news.try_push(News {
            class,
            key,
            change,
            behind: false,
            touched: Touched::default(),
        })?;
    }
    Ok(())
}

/// Reserves L1 memory and raises the marks.
fn mark(catalog: &Rc<Catalog>) -> Result<()> {
    with(|batch| {
        // The marks go straight into the batch, whose abort takes them back whatever happens here.
        mark_flushed(batch, catalog)?;
        mark_by_hand(batch, catalog)?;
        mark_dependents(batch, catalog)?;
        batch.publication.seal();
        Ok(())
    })
}

/// Raises the marks of the states that flushes have written.
fn mark_flushed(batch: &mut Batch, catalog: &Catalog) -> Result<()> {
    let (by_hand, publication) = (&batch.by_hand, &mut batch.publication);
    for state in batch.states.values() {
        let Some(flushed) = &state.flushed else {
            continue;
        };
        if !state.belongs_to(catalog) {
            continue;
        }
        memory::check()?;
        publication.needs_worker_by(flushed.expires_at);
        // The mark of a deferred version was raised when L1 took it.
        if flushed.is_deferred() || by_hand.has(&state.class.name, &state.key) {
            continue;
        }
        let new = match &flushed.content {
            // The state may have been changed by hand since the flush.
            _ if by_hand.all() => New::Nothing,
            Content::Document {
                document,
                hash,
                storage,
            } => New::Version(NewValue {
                class: &state.class,
                version: Version {
                    number: flushed.version,
                    expires_at: flushed.expires_at,
                    hash: *hash,
                    storage: *storage,
                },
                document,
            }),
            Content::Unkept | Content::Deleted | Content::Touched => New::Nothing,
        };
        let changed = Changed {
            class: &state.class.name,
            key: &state.key,
            new,
        };
        publication.add(catalog, &changed)?;
    }
    Ok(())
}

/// Raises the marks of the states that were changed by hand.
fn mark_by_hand(batch: &mut Batch, catalog: &Catalog) -> Result<()> {
    let (by_hand, publication) = (&batch.by_hand, &mut batch.publication);
    for (class, key) in by_hand.keys()? {
        memory::check()?;
        let known = batch.states.get(&Batch::id(catalog, &class, &key));
        // A flush of this transaction has taken in what only L1 held.
        let new = match known.is_some_and(State::is_in_tables) {
            true => New::Nothing,
            false => New::NothingClean,
        };
        let changed = Changed {
            class: &class,
            key: &key,
            new,
        };
        publication.add(catalog, &changed)?;
    }
    if by_hand.all() {
        publication.add_all(catalog);
    }
    if by_hand.truncated() {
        publication.truncate(catalog);
    }
    Ok(())
}

/// Raises the marks of what derived documents depend on.
fn mark_dependents(batch: &mut Batch, catalog: &Catalog) -> Result<()> {
    let (dependents, publication) = (&batch.dependents, &mut batch.publication);
    for class in dependents.classes()? {
        memory::check()?;
        publication.add_derived_class(catalog, &class)?;
    }
    for (class, key) in dependents.keys()? {
        memory::check()?;
        publication.add_derived(catalog, &class, &key)?;
    }
    Ok(())
}

/// `0A000` if the transaction has changed states or has something to tell: a prepared transaction outlives
/// this backend, which alone knows what to publish.
pub fn check_may_prepare() -> Result<()> {
    let changed = with(|batch| {
        batch.by_hand.any()
            || batch.dependents.any()
            || batch.holds_claim
            || !batch.written_back.is_empty()
            || batch
                .states
                .values()
                .any(|state| state.is_staged() || state.flushed.is_some())
    });
    if changed || notify::has_requests() {
        Err(Error::Prepare)
    } else {
        Ok(())
    }
}
