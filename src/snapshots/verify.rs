//! Checking what L3 holds, and mending what can be mended.

use super::damage::{self, AnyFault, error_type, first_intact, log, severity};
use super::lives;
use super::prune::{orphans, store_as_keyframe};
use super::recover::{is_read, label, reinstate};
use crate::cache::StateRef;
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, Shown, warn_not_repaired};
use crate::identity::Impersonation;
use crate::memory;
use crate::shared::{Command, Progress};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Contexts, Holder, Kept, KeptVersion, LogEntry, SurvivingDamage, Target};
use crate::subtransaction::survive_failure;
use crate::transaction;
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
    row: BadRow,
}

/// The row that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadRow {
    /// There is none to be put aside; one that is intact stays, whatever the head says of it.
    None,
    /// That of the version.
    Damaged,
    /// The one of two that was written first. The one written last counts.
    Doubled,
}

impl Finding {
    fn of_head(version: i64, fault: impl Into<AnyFault>) -> Self {
        Self {
            version,
            fault: fault.into(),
            is_current: true,
            row: BadRow::None,
        }
    }

    fn of_row(version: i64, fault: impl Into<AnyFault>, is_current: bool, row: BadRow) -> Self {
        Self {
            version,
            fault: fault.into(),
            is_current,
            row,
        }
    }
}

/// What is wrong with a state, newest version first, under the active snapshot.
fn examine(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Vec<Finding>> {
    let head = store::target(catalog, class, key)?;
    let versions = damage::versions(catalog, (class, key), Contexts::LeftOut)?;
    let newest = versions.first().map(|version| version.number);
    let mut findings: Vec<_> = head
        .iter()
        .filter_map(|head| Some(Finding::of_head(head.version, head_fault(head, newest)?)))
        .collect();
    let current = head.as_ref().filter(|head| !head.deleted);
    let mut before = None;
    for version in &versions {
        let number = version.number;
        // Only by hand, or in a partitioned table, can it come to be held twice.
        if before == Some(number) {
            let fault = "it is kept twice";
            findings.push(Finding::of_row(number, fault, false, BadRow::Doubled));
            continue;
        }
        before = Some(number);
        let is_current = current.is_some_and(|head| head.version == number);
        let found = match damage::kept(catalog, (class, key), number)? {
            _ if number < 1 => Some((store::BELOW_1.into(), BadRow::Damaged)),
            Some(Err(fault)) => Some((fault, BadRow::Damaged)),
            Some(Ok(kept)) if is_current => {
                current
                    .filter(|head| !is_read(head, &kept))
                    .map(|head| match head.holder {
                        // It is a snapshot row beside that is intact.
                        Some(Holder::Head) => (
                            "the document in the head row does not match its hash".into(),
                            BadRow::Damaged,
                        ),
                        _ => (
                            "head and snapshot have different hashes".into(),
                            BadRow::None,
                        ),
                    })
            }
            Some(Ok(_)) | None => None,
        };
        let found = match found {
            None => match damage::payload(catalog, (class, key), number)? {
                Some(Err(fault)) => Some((fault, BadRow::Damaged)),
                Some(Ok(_)) | None => None,
            },
            found => found,
        };
        if let Some((fault, row)) = found {
            findings.try_push(Finding::of_row(number, fault, is_current, row))?;
        }
    }
    Ok(findings)
}

/// What is wrong with a head row beside the versions that are kept, of which `newest` is the highest.
fn head_fault(head: &Target, newest: Option<i64>) -> Option<AnyFault> {
    if head.version < 1 {
        return Some(store::BELOW_1.into());
    }
    match newest {
        Some(newest) if newest > head.version => {
            Some(format!("version {newest} is kept, which is above the current one").into())
        }
        _ if !head.deleted && head.holder.is_none() => Some("its snapshot is missing".into()),
        _ => None,
    }
}

/// Repairs a state. If that fails the state stays as it was found, somebody is told, and the others are looked at.
fn repair_or_tell(
    catalog: &Rc<Catalog>,
    class: &[u8],
    key: &[u8],
    findings: &[Finding],
) -> Result<()> {
    let Err(failure) = survive_failure(|| repair(catalog, class, key)) else {
        return Ok(());
    };
    memory::check()?;
    warn_not_repaired(&Shown::new(class, key), &failure);
    for finding in findings {
        let entry = LogEntry {
            state: (class, key),
            version: Some(finding.version),
            error_type: error_type(class),
            severity: match finding.is_current {
                true => severity(class),
                false => "warning",
            },
            fault: &finding.fault,
            strategy: "repair",
            outcome: &format!("failed, left as it was found: {failure}"),
            restored: None,
            once: true,
        };
        log(catalog, &entry)?;
    }
    Ok(())
}

/// Puts the damaged versions of a state aside and makes the newest intact one current again, if the current one is
/// among them. What is left without an intact version stays as it was found.
fn repair(catalog: &Rc<Catalog>, class: &[u8], key: &[u8]) -> Result<()> {
    let state = StateRef::of(catalog, catalog.class_or_default(class)?, key);
    // A version of an undefined class cannot be written.
    let is_defined = !matches!(catalog.class(class), Err(Error::UnknownClass { .. }));
    let _surviving = SurvivingDamage::begin();
    transaction::write_before_recovery(&state, c"state_verify()")?;
    store::lock(catalog, class, key)?;
    let _snapshot = PushedSnapshot::transaction();
    let findings = examine(catalog, class, key)?;
    let versions = damage::versions(catalog, (class, key), Contexts::LeftOut)?;
    // What is put in place of a damaged run is not a former one of the same id.
    let head = store::target(catalog, class, key)?;
    let kept = versions.first().map_or(i64::MIN, |version| version.number);
    let newest = head.map_or(i64::MAX, |head| head.version.max(kept));
    let intact = match is_defined {
        true => {
            let own = lives::of_current(class, &versions, newest)?;
            first_intact(
                catalog,
                (class, key),
                own.into_iter().filter(|version| version.number > 0),
            )?
        }
        false => None,
    };
    let current_is_damaged = findings.iter().any(|finding| finding.is_current);
    if intact.is_some() {
        let bad = findings
            .iter()
            .filter(|finding| finding.row == BadRow::Damaged);
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
    // Of a version that is kept twice the other row goes before the one that is damaged.
    let (doubled, others): (Vec<_>, Vec<_>) = findings
        .iter()
        .partition(|finding| finding.row == BadRow::Doubled);
    for finding in doubled.into_iter().chain(others) {
        log_and_put_aside(catalog, (class, key), finding, is_defined, intact.as_ref())?;
    }
    if let (true, Some((version, kept))) = (current_is_damaged, intact) {
        let label = label(&state, version.number)?;
        let version = (version.number, label);
        reinstate(&state, &kept.document, version, None, c"state_verify()")?;
    }
    Ok(())
}

/// Logs what becomes of a finding, and puts the row aside that it is about if there is an intact version to go back
/// to.
fn log_and_put_aside(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    finding: &Finding,
    is_defined: bool,
    intact: Option<&(&KeptVersion, Kept)>,
) -> Result<()> {
    let aside = match finding.row {
        BadRow::None => "",
        BadRow::Damaged => "put aside",
        BadRow::Doubled => "the one written first is put aside",
    };
    let outcome = match (intact, finding.is_current) {
        (None, _) if !is_defined => "its class is not defined; left as it was found".to_owned(),
        (None, _) => "there is no intact version; left as it was found".to_owned(),
        (Some((intact, _)), true) => {
            let separator = if aside.is_empty() { "" } else { "; " };
            format!("{aside}{separator}version {} is restored", intact.number)
        }
        (Some(_), false) => aside.to_owned(),
    };
    let restored = intact.filter(|_| finding.is_current);
    let entry = LogEntry {
        state: (class, key),
        version: Some(finding.version),
        error_type: error_type(class),
        severity: match (intact, finding.is_current) {
            (None, true) => "fatal",
            (Some(_), true) => severity(class),
            (_, false) => "warning",
        },
        fault: &finding.fault,
        strategy: "repair",
        outcome: &outcome,
        restored: restored.map(|(intact, _)| intact.number),
        // What is left is found each time.
        once: intact.is_none(),
    };
    let Some(id) = log(catalog, &entry)?.filter(|_| intact.is_some()) else {
        return Ok(());
    };
    let _owner = Impersonation::owner_of(catalog.snapshot);
    let name = (class, key);
    match finding.row {
        BadRow::None => Ok(()),
        BadRow::Damaged => damage::put_aside(catalog, name, finding.version, &id),
        BadRow::Doubled => store::put_first_aside(catalog, class, key, finding.version, &id),
    }
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
            call::check_may_write(c"state_verify()")?;
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
                        repair_or_tell(&catalog, &class, key, &findings)?;
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
