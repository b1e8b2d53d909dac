//! A task for tests: it does what `state_cache.test_task` says. Compiled in with the feature
//! `fault_injection` only.

use super::place::transaction;
use super::task::{Next, Round, Task};
use crate::error::Result;
use crate::fault::injection::{Probe as Order, probe};
use pgrx::pg_sys;
use pgrx::{PgLogLevel, PgSqlErrorCode, ereport};

/// The task.
#[derive(Default)]
pub struct Probe {
    /// What it was told to hold is done.
    done: bool,
}

impl Task for Probe {
    fn name(&self) -> &'static str {
        "probing"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        match probe() {
            Order::Error => transaction(|| run_sql(c"SELECT 1 / 0"))?,
            Order::Panic => {
                let nothing: [u8; 0] = [];
                std::hint::black_box(nothing[std::hint::black_box(1)]);
            }
            Order::Fatal => ereport!(
                PgLogLevel::FATAL,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "told to die"
            ),
            Order::Lock => transaction(|| run_sql(c"LOCK TABLE public.probe"))?,
            Order::Due => return Ok(Next::At(round.now + 2_000_000)),
            Order::Hold if round.leaving && !self.done => {
                transaction(|| run_sql(c"INSERT INTO public.probe DEFAULT VALUES"))?;
                self.done = true;
            }
            _ => {}
        }
        Ok(Next::Woken)
    }

    fn holds_work(&self) -> bool {
        match probe() {
            Order::Hold => !self.done,
            Order::Stuck => true,
            _ => false,
        }
    }
}

fn run_sql(sql: &std::ffi::CStr) -> Result<()> {
    // SAFETY: inside a transaction with a snapshot; what is left open after an error goes with it.
    unsafe {
        pg_sys::SPI_connect();
        pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_finish();
    }
    Ok(())
}
