//! Checking what L3 holds, and mending what can be mended.

use super::damage::{self, AnyFault, error_type, first_intact, log, severity};
use super::lives;
use super::prune::{orphans, store_as_keyframe};
use super::recover::{label, reinstate};
use crate::batch;
use crate::cache::StateRef;
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::memory;
use crate::shared::{Command, Progress};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Contexts, LogEntry, SurvivingDamage};
use state_cache_memory::Grow;
use std::collections::BTreeSet;
use std::rc::Rc;

/// States whose names are read in one query.
const PAGE: i64 = 100;

/// A version that is not what it should be.
struct Finding {
    version: i64,
    fault: AnyFault,
    is_current: bool,
    /// Whether there is a row of it to be put aside; one that is intact stays, whatever the head says of it.
    has_bad_row: bool,
}

/// What is wrong with a state, newest version first, under the active snapshot.
fn examine(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Vec<Finding>> {
    let head = store::target(catalog, class, key)?;
    let current = head.as_ref().filter(|head| !head.deleted);
    let mut findings = Vec::new();
    if let Some(head) = current
        && !head.has_snapshot
    {
        findings.push(Finding {
            version: head.version,
            fault: "its snapshot is missing".into(),
            is_current: true,
            has_bad_row: false,
        });
    }
    for version in damage::versions(catalog, (class, key), Contexts::LeftOut)? {
        let is_current = current.is_some_and(|head| head.version == version.number);
        let (fault, has_bad_row) = match damage::kept(catalog, (class, key), version.number)? {
            Some(Err(fault)) => (Some(fault), true),
            Some(Ok(kept)) if is_current => {
                let differs = current.filter(|head| head.hash != Some(kept.hash));
                let fault = differs.map(|_| "head and snapshot have different hashes".into());
                (fault, false)
            }
            Some(Ok(_)) | None => (None, false),
        };
        if let Some(fault) = fault {
            findings.try_push(Finding {
                version: version.number,
                fault,
                is_current,
                has_bad_row,
            })?;
        }
    }
    Ok(findings)
}

/// Puts the damaged versions of a state aside and makes the newest intact one current again, if the current one is
/// among them. What is left without an intact version stays as it was found.
fn repair(catalog: &Rc<Catalog>, class: &[u8], key: &[u8]) -> Result<()> {
    let state = StateRef {
        catalog: Rc::clone(catalog),
        class: catalog.class_or_default(class)?,
        key,
    };
    // A version of an undefined class cannot be written.
    let is_defined = !matches!(catalog.class(class), Err(Error::UnknownClass { .. }));
    let _surviving = SurvivingDamage::begin();
    batch::settle_before_recovery(&state, c"state_verify()")?;
    store::lock(catalog, class, key)?;
    let _snapshot = PushedSnapshot::transaction();
    let findings = examine(catalog, class, key)?;
    let versions = damage::versions(catalog, (class, key), Contexts::LeftOut)?;
    // What is put in place of a damaged run is not a former one of the same id.
    let head = store::target(catalog, class, key)?;
    let newest = head.map_or(i64::MAX, |head| head.version);
    let intact = match is_defined {
        true => {
            let own = lives::of_current(class, &versions, newest)?;
            first_intact(catalog, (class, key), own)?
        }
        false => None,
    };
    let current_is_damaged = findings.iter().any(|finding| finding.is_current);
    if intact.is_some() {
        let bad = findings.iter().filter(|finding| finding.has_bad_row);
        let mut versions_of_bad = BTreeSet::new();
        for finding in bad {
            memory::check()?;
            versions_of_bad.insert(finding.version);
        }
        // What is intact stays so without what it builds upon.
        let _owner = Impersonation::owner_of(catalog.snapshot);
        for version in orphans(&versions, &versions_of_bad)? {
            store_as_keyframe(catalog, &state.class, key, version)?;
        }
    }
    for finding in &findings {
        let outcome = match (&intact, finding.is_current) {
            (None, _) if !is_defined => "its class is not defined; left as it was found".to_owned(),
            (None, _) => "there is no intact version; left as it was found".to_owned(),
            (Some((intact, _)), true) => {
                let aside = if finding.has_bad_row {
                    "put aside; "
                } else {
                    ""
                };
                format!("{aside}version {} is restored", intact.number)
            }
            (Some(_), false) => "put aside".to_owned(),
        };
        let entry = LogEntry {
            state: (class, key),
            version: Some(finding.version),
            error_type: error_type(class),
            severity: match (&intact, finding.is_current) {
                (None, true) => "fatal",
                (Some(_), true) => severity(class),
                (_, false) => "warning",
            },
            fault: &finding.fault,
            strategy: "repair",
            outcome: &outcome,
            restored: intact
                .as_ref()
                .filter(|_| finding.is_current)
                .map(|(intact, _)| intact.number),
            // What is left is found each time.
            once: intact.is_none(),
        };
        let id = log(catalog, &entry)?.filter(|_| intact.is_some() && finding.has_bad_row);
        if let Some(id) = id {
            let _owner = Impersonation::owner_of(catalog.snapshot);
            damage::put_aside(catalog, (class, key), finding.version, &id)?;
        }
    }
    if let (true, Some((version, kept))) = (current_is_damaged, intact) {
        let label = label(&state, version.number)?;
        let version = (version.number, label);
        reinstate(&state, &kept.document, version, None, c"state_verify()")?;
    }
    Ok(())
}

/// How many head rows these classes have, tombstones included: the states that a walk comes by, but for those whose
/// head rows are gone.
fn count_states(catalog: &Catalog, classes: &[Box<[u8]>]) -> Result<u64> {
    let _snapshot = PushedSnapshot::transaction();
    let counts = classes
        .iter()
        .map(|class| store::count_heads(catalog, class));
    counts.sum()
}

sql_functions! {
    /// `state_verify(class, repair)`
    fn state_verify(call) {
        let catalog = catalog::current(call.function())?;
        let repairs = call.boolean(1).unwrap_or(false);
        let classes = match call.text(0) {
            Some(class) => {
                catalog.class(class)?;
                vec![class.into()]
            }
            None => {
                let _snapshot = PushedSnapshot::transaction();
                store::classes(&catalog)?
            }
        };
        if repairs {
            // SAFETY: raises PostgreSQL's own error; the name is NUL-terminated.
            unsafe { pgrx::pg_sys::PreventCommandIfReadOnly(c"state_verify()".as_ptr()) };
            catalog.check_may_change()?;
            if catalog.access().row_security {
                return Err(Error::PartialView);
            }
        }
        let command = if repairs { Command::Repair } else { Command::Verify };
        let progress = Progress::begin(command, count_states(&catalog, &classes)?);
        let mut rows = call.rows()?;
        for class in classes {
            let mut after: Box<[u8]> = Box::default();
            loop {
                let keys = {
                    let _snapshot = PushedSnapshot::transaction();
                    store::keys(&catalog, &class, &after, PAGE)?
                };
                for key in &keys {
                    pgrx::check_for_interrupts!();
                    progress.at(&class, key);
                    let findings = {
                        let _snapshot = PushedSnapshot::transaction();
                        examine(&catalog, &class, key)?
                    };
                    for finding in &findings {
                        rows.push([
                            Some(call::varlena_datum(&class)),
                            Some(call::varlena_datum(key)),
                            Some(call::bigint_datum(finding.version)),
                            Some(call::varlena_datum(finding.fault.as_bytes())),
                        ]);
                    }
                    if repairs && !findings.is_empty() {
                        repair(&catalog, &class, key)?;
                    }
                    progress.advance();
                }
                match keys.into_iter().last() {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        Ok(call::void_datum())
    }
}
