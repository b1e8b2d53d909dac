//! The view `state_cache_workers`.

use crate::call::{self, sql_functions};
use crate::catalog;
use crate::shared::{self, Database, Stage};
use crate::sys;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

/// How things stand, in words.
fn state(slot: &Database) -> &'static str {
    if slot.has_worker() {
        let asked = slot.is_dismissed() || slot.is_barred(sys::now());
        return match slot.report.stage() {
            Stage::Leaving => "leaving",
            _ if asked => "leaving",
            _ if slot.report.idle_since.load(SeqCst) != 0 => "idle",
            _ => "running",
        };
    }
    match slot.report.stage() {
        Stage::Starting => "starting",
        Stage::None | Stage::Running | Stage::Leaving => "none",
        Stage::NoExtension => "no extension",
        Stage::Queued => "waiting for a free worker",
        Stage::NoProcess => "waiting for max_worker_processes",
        Stage::BackingOff | Stage::Died => "backing off",
    }
}

/// A time, if there was one.
fn time(time: &AtomicI64) -> Option<pg_sys::Datum> {
    let time = time.load(SeqCst);
    (time != 0).then(|| call::bigint_datum(time))
}

/// Text in UTF-8, in the encoding of this database: where that is another, what is not ASCII is escaped.
fn text(text: &str) -> pg_sys::Datum {
    if sys::database_is_utf8() {
        call::varlena_datum(text.as_bytes())
    } else {
        call::varlena_datum(text.as_bytes().escape_ascii().to_string().as_bytes())
    }
}

/// The name of a database; `None` if it was dropped just now.
fn name(oid: u32) -> Option<pg_sys::Datum> {
    // SAFETY: a look-up in the system cache; a name is NUL-terminated.
    unsafe {
        let name = pg_sys::get_database_name(oid.into());
        (!name.is_null()).then(|| call::varlena_datum(CStr::from_ptr(name).to_bytes()))
    }
}

sql_functions! {
    /// `state_cache_workers()`: a row per database that has or had a worker, or wants one.
    fn state_cache_workers(call) {
        let _ = catalog::current(call.function())?;
        let mut out = call.rows()?;
        let Some(databases) = shared::databases() else {
            return Ok(call::void_datum());
        };
        let now = sys::now();
        for (oid, slot) in databases.iter() {
            let report = &slot.report;
            let (activity, error) = shared::texts(slot).unzip();
            let worker = slot.worker();
            let (backlog, oldest) = shared::l1().map_or((0, None), |l1| l1.backlog(oid));
            out.push([
                name(oid),
                (worker != 0).then(|| call::integer_datum(worker as i32)),
                Some(text(state(slot))),
                activity.as_ref().and_then(|text| text.get()).map(text),
                time(&report.started_at).filter(|_| worker != 0),
                time(&report.last_flush),
                Some(call::count_datum(backlog)),
                oldest.map(|since| call::interval_datum((now - since).max(0))),
                Some(call::count_datum(slot.untold())),
                error.as_ref().and_then(|text| text.get()).map(text),
                time(&report.last_error_at),
                Some(call::count_datum(report.failures.load(SeqCst))),
                Some(call::count_datum(report.warm_done.load(SeqCst))),
                Some(call::count_datum(report.warm_total.load(SeqCst))),
                Some(call::count_datum(report.audited.load(SeqCst))),
                Some(call::count_datum(report.differing.load(SeqCst))),
            ]);
        }
        Ok(call::void_datum())
    }
}
