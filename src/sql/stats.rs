//! The view `state_cache_stats`.

use crate::call::{self, sql_functions};
use crate::catalog;
use crate::counters::{self, Counter, Totals};
use crate::settings;
use crate::shared;
use crate::sys;
use pgrx::pg_sys;

/// Why L1 does not answer this session, or `on`.
fn l1_status() -> &'static str {
    match shared::l1() {
        None => "off (not preloaded)",
        Some(_) if !settings::enabled() => "off (disabled)",
        Some(_) if sys::recovery_in_progress() => "on (recovery)",
        Some(_) => "on",
    }
}

fn datum(row: &Totals, counter: Counter) -> Option<pg_sys::Datum> {
    Some(call::count_datum(row.of(counter)))
}

/// Nanoseconds as the milliseconds that PostgreSQL's own views show.
fn milliseconds(row: &Totals, counter: Counter) -> Option<pg_sys::Datum> {
    Some(call::double_datum(row.of(counter) as f64 / 1e6))
}

sql_functions! {
    /// `state_cache_stats()`: a row per class, then one for the database.
    fn state_cache_stats(call) {
        let _ = catalog::current(call.function())?;
        let rows = counters::collect()?;
        let mut total = Totals::default();
        for row in rows.values() {
            total.add(row);
        }
        let memory = shared::l1().map(|l1| l1.memory());
        let mut out = call.rows()?;
        let named = rows.iter().map(|(name, row)| (Some(name), row));
        for (name, row) in named.chain([(None, &total)]) {
            let memory = if name.is_none() { memory.as_ref() } else { None };
            out.push([
                name.map(|name| call::varlena_datum(name)),
                Some(call::varlena_datum(l1_status().as_bytes())),
                Some(call::count_datum(row.entries)),
                Some(call::count_datum(row.bytes)),
                datum(row, Counter::Hits),
                datum(row, Counter::Validated),
                datum(row, Counter::Misses),
                datum(row, Counter::BypassOwn),
                datum(row, Counter::BypassWriters),
                datum(row, Counter::BypassSnapshot),
                datum(row, Counter::BypassSerializable),
                datum(row, Counter::BypassPrivileges),
                datum(row, Counter::BypassOff),
                datum(row, Counter::Damaged),
                datum(row, Counter::TooLarge),
                datum(row, Counter::Fills),
                datum(row, Counter::FillsRefused),
                datum(row, Counter::Evictions),
                datum(row, Counter::Expirations),
                datum(row, Counter::Flushes),
                datum(row, Counter::StatesWritten),
                datum(row, Counter::StatesDeleted),
                datum(row, Counter::DuplicatesSkipped),
                datum(row, Counter::Conflicts),
                datum(row, Counter::Notifications),
                datum(row, Counter::Deferred),
                datum(row, Counter::WrittenThrough),
                datum(row, Counter::BehindFlushed),
                Some(call::count_datum(row.dirty)),
                datum(row, Counter::Evaluations),
                datum(row, Counter::Waits),
                datum(row, Counter::MissesChanged),
                datum(row, Counter::MissesEvicted),
                milliseconds(row, Counter::L1ReadTime),
                milliseconds(row, Counter::L3ReadTime),
                milliseconds(row, Counter::FlushTime),
                milliseconds(row, Counter::EvaluationTime),
                memory.map(|memory| call::count_datum(memory.total)),
                memory.map(|memory| call::count_datum(memory.used)),
                memory.map(|memory| call::count_datum(memory.free)),
            ]);
        }
        Ok(call::void_datum())
    }
}
