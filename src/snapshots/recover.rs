//! Going back to an earlier version.

use super::damage::{self, error_type, first_intact, log, severity};
use super::history::required_document;
use super::labels::RECOVERY;
use super::lives;
use crate::cache::StateRef;
use crate::cache::forms::IfIntact;
use crate::cache::found::Found;
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::context;
use crate::error::{Error, Result, text};
use crate::snapshot::PushedSnapshot;
use crate::store::{
    self, Checkpoint, Contexts, Kept, KeptVersion, Label, LogEntry, SurvivingDamage,
};
use crate::subtransaction::survive_damage;
use crate::sys;
use crate::transaction::{self, Saved};
use state_cache_memory::copy;
use std::borrow::Cow;
use std::ffi::CStr;
use strum::{EnumString, IntoStaticStr, VariantNames};

/// Which version a recovery reinstates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
enum Kind {
    /// The oldest that is kept: the run begins again.
    Restart,
    /// The newest that is intact: the run goes on.
    Resume,
    /// The newest recovery point, or without an intact one the newest version.
    Rollback,
}

impl Kind {
    fn parse(name: &[u8]) -> Result<Self> {
        let known = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        known.ok_or_else(|| Error::UnknownLabel {
            what: "kind of recovery",
            name: text(name),
            known: Self::VARIANTS.join(", "),
        })
    }

    /// The version to be reinstated among these, newest first.
    fn choose<'v>(
        self,
        state: &StateRef<'_>,
        versions: &[&'v KeptVersion],
    ) -> Result<Option<(&'v KeptVersion, Kept)>> {
        let name = (&*state.class.name, state.key);
        let versions = versions.iter().copied();
        if self == Self::Restart {
            return first_intact(&state.catalog, name, versions.rev());
        }
        if self == Self::Rollback {
            let points = versions
                .clone()
                .filter(|version| version.label.recovery_point);
            if let Some(found) = first_intact(&state.catalog, name, points)? {
                return Ok(Some(found));
            }
        }
        first_intact(&state.catalog, name, versions)
    }
}

/// Makes a version with the content of an earlier one, and what that said of itself.
pub fn reinstate(
    state: &StateRef<'_>,
    document: &[u8],
    (version, label): (i64, Label),
    expected: Option<i64>,
    function: &CStr,
) -> Result<Saved> {
    let mut checkpoint = Checkpoint {
        checkpoint_type: RECOVERY.into(),
        recovery_point: false,
        agent_phase: label.agent_phase,
        execution_context: label.execution_context,
        parent: Some(version),
        payload: payload(state, version)?,
        ..Checkpoint::default()
    };
    let (document, expected) = match context::is_run(state) {
        true => {
            let (document, found) = with_current_books(state, document)?;
            // What a run begins with is kept: it says which run it is (`lives`).
            checkpoint.recovery_point = found.is_some();
            (Cow::Owned(document), expected.or(found))
        }
        false => (Cow::Borrowed(document), expected),
    };
    transaction::save(state, &document, checkpoint, expected, None, function)
}

/// The payload of a version that is gone back to, if it has one that is intact.
fn payload(state: &StateRef<'_>, version: i64) -> Result<Option<Vec<u8>>> {
    let name = (&*state.class.name, state.key);
    let payload = damage::payload(&state.catalog, name, version)?;
    Ok(payload.and_then(std::result::Result::ok))
}

/// A document to which a run goes back, which is locked if it is there. What it has used since stays used. Beside it
/// the version that must not have moved: nothing locks a run that is not there, and another may be created meanwhile.
fn with_current_books(state: &StateRef<'_>, document: &[u8]) -> Result<(Vec<u8>, Option<i64>)> {
    let read = || transaction::read_latest(state, &mut IfIntact);
    Ok(match survive_damage(read)? {
        Ok(Found::Absent(_)) => (context::with_place_lost(state.key, document)?, Some(0)),
        Ok(Found::State(_, Some(now))) => {
            (context::with_books_of(state.key, document, &now)?, None)
        }
        // Nobody can read them any more.
        Ok(Found::State(_, None)) | Err(_) => (copy(document)?, None),
    })
}

/// Raises `55000` if a version of the document of a run is that of a former run, while there is one.
fn check_own(state: &StateRef<'_>, version: i64, document: &[u8]) -> Result<()> {
    let _snapshot = PushedSnapshot::transaction();
    let (catalog, class) = (&*state.catalog, &*state.class.name);
    let versions = damage::versions(catalog, (class, state.key), Contexts::LeftOut)?;
    let is_kept = versions.iter().any(|kept| kept.number == version);
    let Some(head) = store::target(catalog, class, state.key)?.filter(|_| is_kept) else {
        return Ok(());
    };
    let own = lives::of_current(class, &versions, head.version)?;
    if own.iter().any(|own| own.number == version) {
        return Ok(());
    }
    context::check_may_return(state, version, document)
}

/// The label of a version, without its execution context if PostgreSQL cannot read that; the label of a plain
/// change for a version that no row holds yet.
pub(super) fn label(state: &StateRef<'_>, version: i64) -> Result<Label> {
    let (catalog, class, key) = (&*state.catalog, &state.class.name, state.key);
    let stored = match survive_damage(|| store::label(catalog, class, key, version))? {
        Ok(label) => label,
        Err(_) => store::version(catalog, class, key, version, Contexts::LeftOut)?
            .map(|version| version.label),
    };
    Ok(stored.unwrap_or(Label {
        checkpoint_type: store::AUTO.into(),
        recovery_point: false,
        agent_phase: None,
        execution_context: None,
        label: None,
    }))
}

/// What a recovery came to.
struct Recovered {
    action: &'static str,
    version: i64,
    from: i64,
    label: Label,
}

/// Whether who reads the state gets this of the version that the head row names, and not what the head row holds of
/// it, which is damaged then.
pub(super) fn is_read(head: &store::Target, kept: &Kept) -> bool {
    head.hash == Some(kept.hash) && head.holder == kept.storage.holder()
}

/// What is wrong with the version that a head row names.
fn fault_of(state: &StateRef<'_>, head: &store::Target) -> Result<Option<Cow<'static, str>>> {
    let name = (&*state.class.name, state.key);
    Ok(match damage::kept(&state.catalog, name, head.version)? {
        None => Some("its snapshot is missing".into()),
        Some(Err(fault)) => Some(fault),
        Some(Ok(stored)) if !is_read(head, &stored) => {
            Some("the document does not match its hash".into())
        }
        Some(Ok(_)) => None,
    })
}

fn recover(state: &StateRef<'_>, kind: Kind) -> Result<Recovered> {
    if state.catalog.access().row_security {
        return Err(Error::PartialView);
    }
    let _surviving = SurvivingDamage::begin();
    transaction::write_before_recovery(state, c"state_recover()")?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    // The transaction's snapshot may be older than the lock.
    let (versions, head) = {
        let _snapshot = PushedSnapshot::transaction();
        let name = (&*state.class.name, state.key);
        let versions = damage::versions(&state.catalog, name, Contexts::LeftOut)?;
        let head = store::target(&state.catalog, &state.class.name, state.key)?;
        (versions, head)
    };
    let _snapshot = PushedSnapshot::transaction();
    let newest = head.as_ref().map_or(i64::MAX, |head| head.version);
    let own = lives::of_current(&state.class.name, &versions, newest)?;
    let Some((found, kept)) = kind.choose(state, &own)? else {
        return Err(Error::NothingToRecover {
            state: state.shown(),
            kept: own.len(),
        });
    };
    let current = head.as_ref().filter(|head| !head.deleted);
    // One that has expired reads as absent.
    let is_current = current.is_some_and(|head| {
        head.version == found.number
            && is_read(head, &kept)
            && head.expires_at > sys::statement_timestamp()
    });
    if is_current {
        return Ok(Recovered {
            action: "unchanged",
            version: found.number,
            from: found.number,
            label: found.label.clone(),
        });
    }
    let fault = match current {
        Some(head) => fault_of(state, head)?,
        None => None,
    };
    let label = label(state, found.number)?;
    let saved = reinstate(
        state,
        &kept.document,
        (found.number, label),
        None,
        c"state_recover()",
    )?;
    let (error_type, severity) = match &fault {
        Some(_) => (error_type(&state.class.name), severity(&state.class.name)),
        None => ("none", "info"),
    };
    log(
        &state.catalog,
        &LogEntry {
            state: (&state.class.name, state.key),
            version: head.as_ref().map(|head| head.version),
            error_type,
            severity,
            fault: fault.as_deref().unwrap_or("a recovery was asked for"),
            strategy: kind.into(),
            outcome: &format!("version {} is current", saved.version),
            restored: Some(found.number),
            once: false,
        },
    )?;
    Ok(Recovered {
        action: "recovered",
        version: saved.version,
        from: found.number,
        label: found.label.clone(),
    })
}

sql_functions! {
    /// `state_restore(key, version, expected_version, class)`
    fn state_restore(call) {
        let key = call.required_text(0, "key")?;
        let class = call.required_text(3, "class")?;
        let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
        let version = call.bigint(1).ok_or_else(|| Error::null_argument("version"))?;
        let is_run = context::is_run(&state);
        if is_run {
            // The books that it keeps are those that there are now.
            transaction::lock(&state, c"state_restore()")?;
        }
        let document = required_document(&state, version)?;
        if is_run {
            check_own(&state, version, &document)?;
        }
        let label = label(&state, version)?;
        let saved = reinstate(&state, &document, (version, label), call.bigint(2), c"state_restore()")?;
        Ok(call::bigint_datum(saved.version))
    }

    /// `state_recover(key, kind, class)`
    fn state_recover(call) {
        let key = call.required_text(0, "key")?;
        let kind = Kind::parse(call.required_text(1, "kind")?)?;
        let class = call.required_text(2, "class")?;
        let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
        let recovered = recover(&state, kind)?;
        call.rows()?.push([
            Some(call::varlena_datum(recovered.action.as_bytes())),
            Some(call::bigint_datum(recovered.version)),
            Some(call::bigint_datum(recovered.from)),
            Some(call::boolean_datum(recovered.label.recovery_point)),
            Some(call::varlena_datum(&recovered.label.checkpoint_type)),
        ]);
        Ok(call::void_datum())
    }
}
