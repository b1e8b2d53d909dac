//! `state_purge`.

use super::error::KeysError;
use super::names::with_prefix;
use crate::cache::StateRef;
use crate::call::{self, Call, Scratch, sql_functions};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result};
use crate::snapshots::{self, Purged};
use crate::store::{self, LogPlace};
use crate::{behind, context, logs, transaction};
use state_cache_memory::{boxed, try_collect};
use std::rc::Rc;

/// What of each state goes.
enum What {
    /// The whole of it, with its log.
    State,
    /// These versions.
    Versions(Vec<i64>),
    /// All but so many of the newest.
    AllBut(i64),
}

impl What {
    fn of(call: &Call<'_>) -> Result<Self> {
        match (call.bigint_array(2)?, call.integer(3)) {
            (None, None) => Ok(Self::State),
            (None, Some(keep @ 1..)) => Ok(Self::AllBut(keep.into())),
            (None, Some(keep)) => Err(Error::argument(format!("keep must be positive: {keep}"))),
            (Some(_), Some(_)) => Err(KeysError::VersionsAndKeep.into()),
            (Some(versions), None) => {
                let known = |version: Option<i64>| {
                    version.ok_or_else(|| Error::argument("versions must not contain null"))
                };
                versions
                    .into_iter()
                    .map(known)
                    .collect::<Result<_>>()
                    .map(Self::Versions)
            }
        }
    }
}

/// The keys that a call names, in the order in which a flush locks states.
fn keys(
    call: &Call<'_>,
    (catalog, class): (&Rc<Catalog>, &Class),
    what: &What,
) -> Result<Vec<Box<[u8]>>> {
    let mut keys = match (call.text_array(0)?, call.text(1)) {
        (Some(named), None) => {
            let known = |key: Option<&[u8]>| {
                let key = key.ok_or_else(|| Error::argument("keys must not contain null"))?;
                Ok::<_, Error>(boxed(key)?)
            };
            try_collect(named.into_iter().map(known))?
        }
        (None, Some(prefix)) => with_prefix((catalog, class), prefix, matches!(what, What::State))?,
        _ => return Err(KeysError::KeysOrPrefix.into()),
    };
    keys.sort_unstable();
    keys.dedup();
    match what {
        What::Versions(_) if call.argument(0).is_none() || keys.len() > 1 => {
            Err(KeysError::VersionsOfMany.into())
        }
        _ => Ok(keys),
    }
}

/// Purges one state; whether there was anything.
fn purge(state: &StateRef<'_>, what: &What) -> Result<bool> {
    match what {
        What::Versions(versions) => snapshots::purge_versions(state, Purged::Versions(versions)),
        What::AllBut(keep) => snapshots::purge_versions(state, Purged::AllBut(*keep)),
        What::State => {
            let erased = snapshots::purge_state(state)?;
            logs::lock(state);
            catalog::require_same(&state.catalog)?;
            let place = LogPlace {
                class: &state.class.name,
                key: state.key,
            };
            Ok(store::erase_log(&state.catalog, &place)? > 0 || erased)
        }
    }
}

sql_functions! {
    /// `state_purge(keys, prefix, versions, keep, class)`
    fn state_purge(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(4, "class")?)?;
        transaction::check_may_write(&catalog, c"state_purge()")?;
        let what = What::of(call)?;
        let keys = keys(call, (&catalog, &class), &what)?;
        behind::lock_for_many(&catalog, &class.name, keys.len())?;
        let scratch = Scratch::new();
        let mut purged = 0;
        for key in &keys {
            pgrx::check_for_interrupts!();
            purged += u64::from(scratch.with(|| {
                // A former purge may have waited for somebody who has redefined the class.
                let state = StateRef::new(&catalog::renewed(&catalog)?, &class.name, key)?;
                purge(&state, &what)
            })?);
        }
        if *class.name == *context::RUN && matches!(what, What::State) {
            let catalog = catalog::renewed(&catalog)?;
            context::purge_beside(&catalog, &keys)?;
        }
        Ok(call::count_datum(purged))
    }
}
