//! Filling L1 ahead of its readers: `state_warm()`, and the task that does it after a start.

use super::pace::PAUSE;
use super::resident;
use crate::cache::StateRef;
use crate::cache::warm::{Warmed, warm};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::counters;
use crate::derived::{self, DerivedError};
use crate::error::{Error, Result, text};
use crate::store::{self, Proceed};
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use crate::{settings, shared, sys, worker};
use state_cache_formats::resident::Name;
use std::rc::Rc;
use std::vec::IntoIter;

/// States between two reports of progress, and between two pauses of the task.
const STEP: u64 = 100;

/// Counts, and tells how far it is.
struct Progress {
    done: u64,
    total: u64,
}

impl Progress {
    fn begin(total: u64) -> Self {
        worker::report_warming(0, total);
        Self { done: 0, total }
    }

    /// One more was looked at.
    fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(STEP) {
            self.report();
        }
    }

    fn report(&self) {
        worker::report_warming(self.done, self.total);
        counters::flush();
    }
}

sql_functions! {
    /// `state_warm(class, max_entries)`
    fn state_warm(call) {
        let catalog = catalog::current(call.function())?;
        let name = call.required_text(0, "class")?;
        let most = match call.integer(1) {
            None => u64::MAX,
            Some(most) => u64::try_from(most)
                .map_err(|_| Error::argument(format!("max_entries must not be negative: {most}")))?,
        };
        catalog.check_may_see_all()?;
        let class = catalog.class(name)?;
        if class.source.is_some() {
            return Err(DerivedError::KeysUnknown { class: text(name) }.into());
        }
        let mut progress = Progress::begin(store::count(&catalog, &class)?.min(most));
        let mut filled = 0;
        if most > 0 {
            store::newest_keys(&catalog, &class, |key| {
                let state = StateRef::of(&catalog, Rc::clone(&class), key);
                progress.step();
                match warm(&state)? {
                    Warmed::Filled => filled += 1,
                    Warmed::Passed => {}
                    Warmed::Full | Warmed::Off => return Ok(Proceed::Stop),
                }
                Ok(if filled < most { Proceed::On } else { Proceed::Stop })
            })?;
        }
        progress.report();
        Ok(call::count_datum(filled))
    }
}

/// The task: it fills L1 with what it held at the last clean shutdown.
#[derive(Default)]
pub struct Warm {
    /// What is left to be done; `None` before the list was read.
    names: Option<IntoIter<Name>>,
    progress: Option<Progress>,
}

impl Task for Warm {
    fn name(&self) -> &'static str {
        "warming the cache"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let names = match &mut self.names {
            Some(names) => names,
            // The worker that comes after this one takes the list.
            None if round.leaving => return Ok(Next::Woken),
            None => {
                crate::fault::stop_at!(ListWanted);
                // Read also where it is not wanted any more: the file goes.
                let names = resident::take(sys::my_database());
                let wanted = settings::warm_on_start() && !names.is_empty();
                let names = if wanted { names } else { Vec::new() };
                self.progress = wanted.then(|| Progress::begin(names.len() as u64));
                self.names.insert(names.into_iter())
            }
        };
        let Some(progress) = &mut self.progress else {
            return Ok(Next::Woken);
        };
        if round.leaving {
            return Ok(Next::Woken);
        }
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let next: Vec<Name> = names.by_ref().take(STEP as usize).collect();
        let proceed = transaction(|| fill(&catalog, &next, progress))?;
        progress.report();
        if proceed == Proceed::Stop || names.len() == 0 {
            self.names = Some(Vec::new().into_iter());
            self.progress = None;
            return Ok(Next::Woken);
        }
        Ok(Next::At(round.now + PAUSE))
    }

    fn works_in_recovery(&self) -> bool {
        true
    }

    fn holds_work(&self) -> bool {
        false
    }
}

/// Fills these, unless there is no room for more.
fn fill(catalog: &Rc<Catalog>, names: &[Name], progress: &mut Progress) -> Result<Proceed> {
    for name in names {
        progress.step();
        let [of_states, of_documents] = shared::incarnations(catalog.incarnation);
        if name.incarnation == of_documents {
            // One that finds no room leaves room for those after it.
            derived::warm_unattended(catalog, &name.class, &name.key)?;
            continue;
        }
        if name.incarnation != of_states {
            continue;
        }
        let state = match StateRef::new(catalog, &name.class, &name.key) {
            Ok(state) => state,
            // Dropped since.
            Err(Error::UnknownClass { .. }) => continue,
            Err(error) => return Err(error),
        };
        if matches!(warm(&state)?, Warmed::Full | Warmed::Off) {
            return Ok(Proceed::Stop);
        }
    }
    Ok(Proceed::On)
}
