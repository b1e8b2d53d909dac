//! What a run may use up, what it has used, and what its children were allotted.
//!
//! # Contract
//!
//! Of each counter a run has a limit (`resourceLimits`) or none, what it has used (`usage`) and what its running
//! children were allotted (`reservations`, by child). Left is the limit less the other two. A child's limit is either
//! *allotted*: then it is reserved with the parent until the child ends, when what it has used counts as the parent's
//! and the rest is free again; or *shared* (`sharedLimits`): then all that is charged to the child is charged to the
//! parent too. A parent that shares charges its own parent in turn, reservations included. So nothing is ever counted
//! twice, and what is given back is what the parent's document says was reserved, whatever the child says.
//!
//! Of a child that is gone without having ended, by expiry or by hand, nobody knows what it used. What it was
//! allotted counts as used once its parent ends, or once there is a run of its name below those that hold the
//! reservation.
//!
//! Of branches each running child is a reservation of one. What is spent of them beside that does not come back.
//!
//! Every charge first locks all runs that it is charged to, in the order of the flush, and then looks what is left.

use super::claim::{fence_now, under};
use super::error::ContextError;
use super::hierarchy::is_there;
use super::number::Number;
use super::purse::{Charge, Purse, SPENDABLE};
use super::run::{self, malformed};
use crate::budgets;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::transaction::{self, Operation};
use state_cache_context::{Counter, LIMITS, Label, OTHER_LIMITS, Run};
use state_cache_document as document;
use state_cache_memory::{Grow, copy, try_collect};
use std::ffi::CStr;

/// Whether something that is done to a run is done to its parent too.
enum Reach {
    /// It is.
    GoesOn,
    /// It is done to this one only.
    EndsHere,
    /// It is not even done to this one.
    EndedBelow,
}

/// The runs from `first` up that something is done to, as far as they are there.
fn chain(
    relative: &StateRef<'_>,
    first: Vec<u8>,
    reach: impl Fn(&Purse<'_>) -> Result<Reach>,
) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    let mut next = Some(first);
    while let Some(key) = next.take() {
        let state = relative.sibling(&key);
        let Some((_, document)) = transaction::read_latest(&state, &mut Document)?.state() else {
            if is_there(&state)? {
                // What is to be charged to it must not get lost because this role does not see it.
                return Err(run::unknown(state.key));
            }
            break;
        };
        let purse = Purse::new(&state, &document)?;
        let parent = match reach(&purse)? {
            Reach::GoesOn => purse.parent()?,
            Reach::EndsHere => None,
            Reach::EndedBelow => break,
        };
        // No document leads in a circle but one that somebody wrote by hand.
        next = parent.filter(|parent| !keys.contains(parent));
        keys.try_push(key)?;
    }
    Ok(keys)
}

/// Locks runs in the order in which a flush locks states.
pub fn lock_runs(relative: &StateRef<'_>, mut keys: Vec<Vec<u8>>, function: &CStr) -> Result<()> {
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        transaction::lock(&relative.sibling(&key), function)?;
    }
    Ok(())
}

/// Locks the runs that `find` names, until it names no others: what it reads may have become another while a lock was
/// waited for. What it names at last.
pub fn lock_found(
    relative: &StateRef<'_>,
    function: &CStr,
    find: impl Fn() -> Result<Vec<Vec<u8>>>,
) -> Result<Vec<Vec<u8>>> {
    let mut locked: Vec<Vec<u8>> = Vec::new();
    loop {
        let found = find()?;
        let new = found.iter().filter(|key| !locked.contains(key));
        let new = try_collect(new.map(|key| copy(key)))?;
        if new.is_empty() {
            return Ok(found);
        }
        for key in &new {
            locked.try_push(copy(key)?)?;
        }
        lock_runs(relative, new, function)?;
    }
}

/// The runs that something of these counters is charged to when it is charged to a run.
fn charged_runs(state: &StateRef<'_>, counters: &[Counter]) -> Result<Vec<Vec<u8>>> {
    chain(state, copy(state.key)?, |purse| {
        for counter in counters {
            if purse.shares(*counter)? {
                return Ok(Reach::GoesOn);
            }
        }
        Ok(Reach::EndsHere)
    })
}

/// Charges something to a run and, as far as it shares its limit, to those above; what is left of the least, `None`
/// without any limit. A run that has ended is charged nothing any more.
pub fn charge(
    state: &StateRef<'_>,
    counter: Counter,
    charge: Charge<'_>,
    function: &CStr,
) -> Result<Option<Number>> {
    let mut least: Option<Number> = None;
    let keys = lock_found(state, function, || charged_runs(state, &[counter]))?;
    if keys.is_empty() {
        return Err(run::unknown(state.key));
    }
    for key in &keys {
        let state = state.sibling(key);
        let (_, document) = run::found(&state, transaction::read_locked(&state, &mut Document)?)?;
        let purse = Purse::new(&state, &document)?;
        run::check_running(key, &purse.context)?;
        if let Some(left) = purse.check(counter, charge.amount())? {
            least = Some(least.map_or(left.clone(), |least| least.min(left)));
        }
        let updates = purse.charged(counter, charge)?;
        transaction::apply_locked(&state, Operation::Update(updates), function)?;
    }
    // All of them, or none: only now nothing can fail for a limit any more.
    for key in &keys {
        let state = state.sibling(key);
        match charge {
            // The child is written at once.
            Charge::Reserve(..) => transaction::keep_staged(&state)?,
            Charge::Spend(_) => transaction::keep(&state)?,
        }
    }
    Ok(least)
}

/// What is left to a run of a counter, the runs above included that it shares with. The run is locked.
pub fn left(state: &StateRef<'_>, counter: Counter) -> Result<Option<Number>> {
    let mut least: Option<Number> = None;
    for key in charged_runs(state, &[counter])? {
        let state = state.sibling(&key);
        let (_, document) = run::found(&state, transaction::read_latest(&state, &mut Document)?)?;
        if let Some(left) = Purse::new(&state, &document)?.left(counter)? {
            least = Some(least.map_or(left.clone(), |least| least.min(left)));
        }
    }
    Ok(least)
}

/// The runs above one that is to be created that hold a reservation for one of its name which is gone, wherever it
/// stood.
fn stale_reservations(parent: &StateRef<'_>, child: &[u8]) -> Result<Vec<Vec<u8>>> {
    // One that is hidden from this role reserves all the same.
    let _owner = Impersonation::owner_of(parent.catalog.snapshot);
    let above = chain(parent, copy(parent.key)?, |_| Ok(Reach::GoesOn))?;
    let mut reserving = Vec::new();
    for key in above {
        let state = parent.sibling(&key);
        let Some((_, document)) = transaction::read_latest(&state, &mut Document)?.state() else {
            continue;
        };
        if Purse::new(&state, &document)?.has_allotted(child)? {
            reserving.try_push(key)?;
        }
    }
    Ok(reserving)
}

/// The runs that hold a reservation for a child.
pub fn reserving_runs(
    relative: &StateRef<'_>,
    parent: &[u8],
    child: &[u8],
) -> Result<Vec<Vec<u8>>> {
    chain(relative, copy(parent)?, |purse| {
        Ok(match purse.has_allotted(child)? {
            true => Reach::GoesOn,
            false => Reach::EndedBelow,
        })
    })
}

/// Gives back what a child that ends was allotted and has not used, and charges what it has.
pub fn settle(child: &StateRef<'_>, ended: &Run<'_>, function: &CStr) -> Result<()> {
    let Some(parent) = run::text_of(child.key, ended, "parentRunId")? else {
        return Ok(());
    };
    let used = Purse {
        run: child.key,
        context: *ended,
    };
    let keys = lock_found(child, function, || {
        reserving_runs(child, &parent, child.key)
    })?;
    settle_in(child, keys, child.key, Some(&used), function)
}

/// Ends the reservations for a child that is gone without having ended: by expiry, or by hand. What it was allotted
/// counts as used, since nobody knows how much of it was not.
fn settle_gone(parent: &StateRef<'_>, child: &[u8], function: &CStr) -> Result<()> {
    let keys = lock_found(parent, function, || stale_reservations(parent, child))?;
    settle_in(parent, keys, child, None, function)
}

/// Ends the reservations that a run holds which is about to end: its children are gone, or it could not. Whether
/// there were any.
pub fn settle_all_gone(state: &StateRef<'_>, document: &[u8], function: &CStr) -> Result<bool> {
    let children = Purse::new(state, document)?.reserved_for()?;
    for child in &children {
        let keys = lock_found(state, function, || reserving_runs(state, state.key, child))?;
        settle_in(state, keys, child, None, function)?;
    }
    Ok(!children.is_empty())
}

/// Ends the reservations for a child that these runs hold, which are locked.
fn settle_in(
    relative: &StateRef<'_>,
    keys: Vec<Vec<u8>>,
    child: &[u8],
    used: Option<&Purse<'_>>,
    function: &CStr,
) -> Result<()> {
    for key in keys {
        let state = relative.sibling(&key);
        let (_, document) = run::found(&state, transaction::read_locked(&state, &mut Document)?)?;
        if let Some(updates) = Purse::new(&state, &document)?.settled(child, used)? {
            transaction::apply_locked(&state, Operation::Update(updates), function)?;
            transaction::keep_staged(&state)?;
        }
    }
    Ok(())
}

/// Checks limits that somebody gives a run: each has a known name and is a number that is not negative.
pub fn check_given(given: &[u8]) -> Result<()> {
    for (name, value) in super::variables::members("resource_limits", given)? {
        let known = |known: &str| known.as_bytes() == name;
        let mut counters = Counter::ALL.iter().map(|counter| counter.limit());
        if !counters.any(known) && !OTHER_LIMITS.into_iter().any(known) {
            return Err(Error::UnknownLabel {
                what: "resource limit",
                name: text(name),
                known: LIMITS.to_owned(),
            });
        }
        let number = Number::of_document(&value).ok_or_else(|| {
            Error::argument(format!(
                "resource limit \"{}\" must be a number",
                text(name)
            ))
        })?;
        if number < Number::zero() {
            return Err(Error::argument(format!(
                "resource limit \"{}\" must not be negative: {number}",
                text(name)
            )));
        }
    }
    Ok(())
}

/// The limits of a child.
pub struct Inherited {
    /// `resourceLimits` of its document.
    pub limits: Vec<u8>,
    /// `sharedLimits` of its document.
    pub shared: Vec<u8>,
}

/// Locks the runs that creating a child may charge or settle, the parent among them: what is read of it from here on
/// stays.
pub fn lock_for_child(parent: &StateRef<'_>, child: &[u8], function: &CStr) -> Result<()> {
    lock_found(parent, function, || {
        let mut keys = charged_runs(parent, &SPENDABLE)?;
        for key in stale_reservations(parent, child)? {
            keys.try_push(key)?;
        }
        Ok(keys)
    })
    .map(|_| ())
}

/// What a child gets of its parent's limits, and reserves what it is allotted. What it asks for is in `given`: of
/// that no more than is left is allotted (`54000`), and what it does not ask for is shared, also where there is no
/// limit. The runs are locked ([`lock_for_child`]).
pub fn inherit(
    parent: &StateRef<'_>,
    parent_document: &[u8],
    child: &[u8],
    given: Option<&[u8]>,
    function: &CStr,
) -> Result<Inherited> {
    let purse = Purse::new(parent, parent_document)?;
    settle_gone(parent, child, function)?;
    let asked = |name: &str| -> Result<Option<Number>> {
        let Some(given) = given else { return Ok(None) };
        let value = document::member(given, name.as_bytes()).map_err(malformed(child))?;
        Ok(value.as_deref().and_then(Number::of_document))
    };
    let (mut limits, mut shared) = (Vec::new(), Vec::new());
    for counter in SPENDABLE {
        match asked(counter.limit())? {
            Some(amount) => {
                charge(parent, counter, Charge::Reserve(child, &amount), function)?;
                limits.push((counter.limit(), amount.document()?));
            }
            None => {
                if let Some(left) = left(parent, counter)? {
                    limits.push((counter.limit(), left.document()?));
                }
                let name = document::string(counter.name().as_bytes());
                shared.push(name.map_err(malformed(child))?);
            }
        }
    }
    let branches = Counter::Branches;
    if purse.limit(branches)?.is_some() {
        let one = Number::from(1);
        charge(parent, branches, Charge::Reserve(child, &one), function)?;
    }
    for name in [branches.limit()].into_iter().chain(OTHER_LIMITS) {
        let most = purse.number("resourceLimits", name)?;
        let value = match (asked(name)?, most) {
            (Some(asked), Some(most)) if asked > most => {
                return Err(ContextError::AboveParent {
                    run: text(child),
                    limit: name,
                    asked: asked.to_string(),
                    most: most.to_string(),
                }
                .into());
            }
            (asked, most) => asked.or(most),
        };
        if let Some(value) = value {
            limits.push((name, value.document()?));
        }
    }
    Ok(Inherited {
        limits: document::object(&limits).map_err(malformed(child))?,
        shared: document::array(&shared).map_err(malformed(child))?,
    })
}

/// Charges credits that a run has spent to the budget that it names, if it names one.
fn charge_budget(state: &StateRef<'_>, amount: &Number) -> Result<()> {
    let (_, document) = run::found(state, transaction::read_locked(state, &mut Document)?)?;
    let context = run::open(state, &document)?;
    let Some(budget) = run::text_of(state.key, &context, "budget")? else {
        return Ok(());
    };
    let routine = run::text_of(state.key, &context, "routineId")?;
    let spent = budgets::Spent {
        budget: &budget,
        agent: routine.as_deref(),
        run: state.key,
    };
    budgets::spend(&state.catalog, &spent, amount.clone().datum())
}

crate::call::sql_functions! {
    /// `state_context_spend(run_id, what, amount, token)`
    fn state_context_spend(call) {
        let state = run::named(call, 0)?;
        let what = call.required_text(1, "what")?;
        let counter = Counter::parse(what).ok_or_else(|| Error::UnknownLabel {
            what: "counter",
            name: text(what),
            known: Counter::known(),
        })?;
        let amount = Number::amount(call.argument(2), "amount")?;
        let function = c"state_context_spend()";
        let token = call.bigint(3);
        let left = under(&state, token, || {
            transaction::check_may_change(&state, function)?;
            run::require(&state)?;
            fence_now(&state, token)?;
            charge(&state, counter, Charge::Spend(&amount), function)
        })?;
        if counter == Counter::Credits {
            charge_budget(&state, &amount)?;
        }
        Ok(call.nullable(left.and_then(Number::datum)))
    }
}
