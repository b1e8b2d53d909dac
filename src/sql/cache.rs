//! The SQL functions for whoever looks after the cache.

use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::snapshots::{self, Retention};
use crate::store::{self, Setting};
use crate::{derived, encoding, interval, memory, notify, shared};
use pgrx::pg_sys;
use state_cache_document::{Pattern, PatternError};
use state_cache_memory::Grow;

/// The longest class name and channel, in bytes: those of an identifier.
const MAX_NAME: usize = 63;

/// Evicts what `wanted` says of this installation's entries, those of a class or of all; how many there were.
fn evict(catalog: &Catalog, class: Option<&[u8]>, mut wanted: impl FnMut(&[u8]) -> bool) -> u64 {
    // First: the header of `derived` says why.
    match class {
        Some(class) => {
            if let Some(tag) = shared::class_tag(catalog.database, catalog.incarnation, class) {
                tag.note_eviction();
            }
        }
        None => {
            for tag in shared::tags().map_or(&[][..], shared::Tags::all_classes) {
                tag.note_eviction();
            }
        }
    }
    let mut wanted = |of: &[u8], key: &[u8]| class.is_none_or(|class| of == class) && wanted(key);
    shared::l1().map_or(0, |l1| {
        let of_states = |of| l1.remove_if(catalog.database, of, |class, key, _| wanted(class, key));
        shared::incarnations(catalog.incarnation)
            .map(of_states)
            .into_iter()
            .sum()
    })
}

/// An optional class, which must exist if it is named.
fn optional_class<'a>(call: &Call<'a>, catalog: &Catalog, n: usize) -> Result<Option<&'a [u8]>> {
    let class = call.text(n);
    if let Some(class) = class {
        catalog.class(class)?;
    }
    Ok(class)
}

fn check_name(what: &str, name: &[u8]) -> Result<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        0 => Err(Error::argument(format!("{what} must not be empty"))),
        len => Err(Error::argument(format!(
            "{what} \"{}\" is too long: {len} bytes, the limit is {MAX_NAME}",
            text(name)
        ))),
    }
}

/// A number of which 0 takes the limit away.
fn limit(call: &Call<'_>, n: usize, name: &str) -> Result<Setting> {
    match call.integer(n) {
        None => Ok(Setting::Unnamed),
        Some(0) => Ok(Setting::Value(None)),
        Some(value) if value < 0 => Err(Error::argument(format!(
            "{name} must not be negative: {value}"
        ))),
        Some(value) => Ok(Setting::Value(Some(pg_sys::Datum::from(value)))),
    }
}

/// An interval of which 0 takes the limit away. The datum points into `room`.
fn duration(room: &mut Option<pg_sys::Interval>, name: &str) -> Result<Setting> {
    match room {
        None => Ok(Setting::Unnamed),
        Some(value) => {
            interval::check_not_negative(name, value, "0 takes the limit away.")?;
            Ok(Setting::Value(match interval::microseconds(value) {
                0 => None,
                _ => Some(pg_sys::Datum::from(&raw mut *value)),
            }))
        }
    }
}

/// A list of names, of which an empty one stands for the usual names.
fn names(call: &Call<'_>, n: usize, argument: &str) -> Result<Setting> {
    let Some(names) = call.text_array(n)? else {
        return Ok(Setting::Unnamed);
    };
    for name in &names {
        check_name(
            argument,
            name.ok_or_else(|| Error::null_argument(argument))?,
        )?;
    }
    Ok(Setting::Value(match names.is_empty() {
        true => None,
        false => call.argument(n),
    }))
}

fn check_notify(notify: Option<&[u8]>) -> Result<()> {
    match notify {
        None | Some(b"default" | b"off") => Ok(()),
        Some(other) => Err(Error::Argument {
            message: format!("notify \"{}\" is not known", text(other)),
            hint: Some("It is default or off."),
        }),
    }
}

fn check_codec(codec: Option<&[u8]>) -> Result<()> {
    match codec {
        None | Some(b"zstd" | b"gzip" | b"plain") => Ok(()),
        Some(other) => Err(Error::Argument {
            message: format!("l2_codec \"{}\" is not known", text(other)),
            hint: Some("It is zstd, gzip or plain."),
        }),
    }
}

/// How long Redis holds the states of a class: NULL takes the class out of L2, so here 0 does.
fn l2_ttl(room: &mut Option<pg_sys::Interval>) -> Result<Setting> {
    let setting = duration(room, "l2_ttl")?;
    if let Some(value) = room
        && !matches!(interval::microseconds(value), 0 | 1_000_000..)
    {
        return Err(Error::argument("l2_ttl must be at least 1 second"));
    }
    Ok(setting)
}

/// `55000` for a class that is in L2 and whose states must not be there, or of which nobody would hear.
fn check_l2(catalog: &Catalog, class: &[u8]) -> Result<()> {
    let known = catalog.class(class)?;
    let has_policies = || {
        [catalog.head, catalog.snapshot]
            .into_iter()
            .any(derived::has_row_security)
    };
    let (fault, hint) = match () {
        () if !known.in_l2 => return Ok(()),
        () if has_policies() => (
            "row-level security is on, and Redis knows no policies",
            "Keep the states of another installation of the extension in L2, one without policies.",
        ),
        () if known.source.is_some() => (
            "its documents are computed, and have no versions",
            "Read its documents from the database.",
        ),
        () if !known.notifies => (
            "its changes are told by no message",
            "Define the class with notify => 'default', or with l2_ttl => '0'.",
        ),
        () => return Ok(()),
    };
    Err(Error::NotInL2 {
        class: text(class),
        fault,
        hint,
    })
}

fn check_write_mode(mode: Option<&[u8]>) -> Result<()> {
    match mode {
        None | Some(b"through" | b"behind") => Ok(()),
        Some(other) => Err(Error::Argument {
            message: format!("write mode \"{}\" is not known", text(other)),
            hint: Some("It is through or behind."),
        }),
    }
}

sql_functions! {
    /// `state_cache_clear(class)`
    fn state_cache_clear(call) {
        let catalog = catalog::current(call.function())?;
        catalog.check_may_evict()?;
        let class = optional_class(call, &catalog, 0)?;
        let evicted = evict(&catalog, class, |_| true);
        Ok(call::count_datum(evicted))
    }

    /// `state_invalidate(pattern, class)`
    fn state_invalidate(call) {
        let catalog = catalog::current(call.function())?;
        let text = call.required_text(0, "pattern")?;
        let pattern = Pattern::parse(text).map_err(|error| match error {
            PatternError::OutOfMemory(refused) => refused.into(),
            PatternError::Unfinished => Error::Argument {
                message: "the pattern ends in a backslash".to_owned(),
                hint: Some("Write two backslashes for one."),
            },
        })?;
        catalog.check_may_evict()?;
        let class = optional_class(call, &catalog, 1)?;
        let evicted = evict(&catalog, class, |key| pattern.matches(key, encoding::character));
        notify::request_invalidation(&catalog, class, text)?;
        Ok(call::count_datum(evicted))
    }

    /// `state_class_define(class, write_mode, keep, dedup, ttl, cache_ttl, max_entries, channel, keep_for,
    /// compression, checkpoint_types, agent_phases, notify, source, serve_stale, l2_ttl, l2_codec, l2_above,
    /// unique_labels)`
    fn state_class_define(call) {
        call::check_may_write(c"state_class_define()")?;
        let catalog = catalog::current(call.function())?;
        let name = call.required_text(0, "class")?;
        check_name("class", name)?;
        let write_mode = call.text(1);
        check_write_mode(write_mode)?;
        let channel = call.text(7);
        if let Some(channel) = channel {
            check_name("channel", channel)?;
        }
        let notify = call.text(12);
        check_notify(notify)?;
        let named = |datum: Option<pg_sys::Datum>| match datum {
            Some(datum) => Setting::Value(Some(datum)),
            None => Setting::Unnamed,
        };
        let codec = call.text(16);
        check_codec(codec)?;
        let above = call.integer(17);
        if let Some(above) = above.filter(|above| *above < 0) {
            return Err(Error::argument(format!("l2_above must not be negative: {above}")));
        }
        let mut in_l2 = call.interval(15);
        let (mut ttl, mut cache_ttl) = (call.interval(4), call.interval(5));
        let mut keep_for = call.interval(8);
        let settings = [
            named(write_mode.map(call::varlena_datum)),
            limit(call, 2, "keep")?,
            named(call.boolean(3).map(call::boolean_datum)),
            duration(&mut ttl, "ttl")?,
            duration(&mut cache_ttl, "cache_ttl")?,
            limit(call, 6, "max_entries")?,
            named(channel.map(call::varlena_datum)),
            duration(&mut keep_for, "keep_for")?,
            named(call.boolean(9).map(call::boolean_datum)),
            names(call, 10, "checkpoint_types")?,
            names(call, 11, "agent_phases")?,
            named(notify.map(call::varlena_datum)),
            l2_ttl(&mut in_l2)?,
            named(codec.map(call::varlena_datum)),
            named(above.map(call::integer_datum)),
            named(call.boolean(18).map(call::boolean_datum)),
        ];
        let mut serve_stale = call.interval(14);
        duration(&mut serve_stale, "serve_stale")?;
        // Whoever redefines the class at the same time is done when its row is locked.
        let before = store::lock_class_row(&catalog, call::varlena_datum(name))?;
        // The lock may have been waited for.
        catalog::require_same(&catalog)?;
        store::define_class(&catalog, call::varlena_datum(name), settings)?;
        // SAFETY: what was written just now is to be seen below; inside a transaction, not in parallel mode.
        unsafe { pg_sys::CommandCounterIncrement() };
        let catalog = catalog::renewed(&catalog)?;
        derived::define(&catalog, &derived::NewSource { class: name, query: call.text(13), serve_stale })?;
        let catalog = catalog::renewed(&catalog)?;
        check_l2(&catalog, name)?;
        if notify == Some(b"off") {
            // The last that subscribers hear of it: what they hold they drop.
            notify::request_invalidation(&catalog, Some(name), b"*")?;
        }
        let keeps_fewer = match (before, call.integer(2)) {
            (Some(_), None | Some(0)) | (None, _) => false,
            (Some(before), Some(keep)) => before.is_none_or(|before| before > i64::from(keep)),
        };
        if keeps_fewer && let Some(keep) = call.integer(2) {
            let keep = Retention { keep: Some(keep.into()), ..Retention::ALL };
            snapshots::prune(&catalog, name, &|| keep)?;
        }
        Ok(call::void_datum())
    }

    /// `state_cache_version()`: says so whatever is installed, so it asks for no tables.
    fn state_cache_version(_call) {
        Ok(call::varlena_datum(catalog::LIBRARY.as_bytes()))
    }

    /// `state_hash(state)`
    fn state_hash(call) {
        let document = call.required_jsonb(0, "state")?;
        Ok(call::varlena_datum(&state_cache_document::hash(document).to_be_bytes()))
    }

    /// `state_cache_entries()`
    fn state_cache_entries(call) {
        let catalog = catalog::current(call.function())?;
        catalog.check_may_see_all()?;
        let (mut entries, mut outcome) = (Vec::new(), Ok(()));
        if let Some(l1) = shared::l1() {
            for incarnation in shared::incarnations(catalog.incarnation) {
                l1.for_each(catalog.database, incarnation, |class, key, info| {
                    if outcome.is_ok() {
                        outcome = memory::check().and_then(|()| {
                            let has_version = incarnation == catalog.incarnation;
                            entries.try_push((class.to_vec(), key.to_vec(), *info, has_version))?;
                            Ok(())
                        });
                    }
                })?;
            }
        }
        outcome?;
        let mut rows = call.rows()?;
        for (class, key, info, has_version) in entries {
            rows.push([
                Some(call::varlena_datum(&class)),
                Some(call::varlena_datum(&key)),
                has_version.then(|| call::bigint_datum(info.version)),
                Some(call::count_datum(info.value_len.into())),
                info.text_len.map(|len| call::count_datum(len.into())),
                Some(call::bigint_datum(info.loaded_at)),
                (info.expires_at != i64::MAX).then(|| call::bigint_datum(info.expires_at)),
            ]);
        }
        Ok(call::void_datum())
    }
}
