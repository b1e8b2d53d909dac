//! The worker's task that tells subscribers what committers have left in the ring.

use super::outbox::Epoch;
use super::{News, Prepared, Touched, messages};
use crate::catalog;
use crate::error::{Error, Result};
use crate::shared::{self, Database, SharedRing};
use crate::worker::task::{Next, Round, Task};
use crate::{memory, settings, worker};
use state_cache_memory::collect;
use state_cache_ring::{Digest, decode};

/// Bytes of records that are told in one transaction, at least: more are left for the next.
const MOST: usize = 4 << 20;
/// Bytes that are read from the ring at a time.
const BITE: usize = 64 << 10;

/// The task.
#[derive(Default)]
pub struct Teller {
    /// When it last told something, in microseconds since 2000.
    last: Option<i64>,
    /// What was read from the ring.
    buffer: Vec<u8>,
}

/// What is to be told.
enum Untold {
    /// These changes.
    Changes(Digest),
    /// Some of it is no longer known.
    Lost,
}

impl Task for Teller {
    fn name(&self) -> &'static str {
        "telling subscribers"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let (Some(database), Some(ring)) = (shared::database(), shared::ring()) else {
            return Ok(Next::Woken);
        };
        if !database.has_untold() {
            return Ok(Next::Woken);
        }
        if let Some(due) = self.due(round) {
            return Ok(Next::At(due));
        }
        self.tell(database, ring)?;
        self.last = Some(round.now);
        // Committers who saw that something was untold have woken nobody.
        Ok(match database.has_untold() {
            true => self.due(round).map_or(Next::Now, Next::At),
            false => Next::Woken,
        })
    }

    fn holds_work(&self) -> bool {
        shared::database().is_some_and(Database::has_untold)
    }
}

impl Teller {
    /// When it may tell again, if not now. A clock that was set back does not keep it waiting.
    fn due(&self, round: Round) -> Option<i64> {
        let last = self.last?;
        let due = last + settings::notify_interval();
        (!round.leaving && (last..due).contains(&round.now)).then_some(due)
    }

    fn tell(&mut self, database: &'static Database, ring: &SharedRing) -> Result<()> {
        let (untold, end) = self.read(database, ring)?;
        worker::transaction(|| {
            let catalog = catalog::installed()?.ok_or(Error::NotInstalled)?;
            let (messages, epoch) = match untold {
                Untold::Lost => (messages::everything(&catalog)?, Epoch::New),
                Untold::Changes(digest) => {
                    let mut messages = Vec::new();
                    for round in digest.rounds()? {
                        messages.extend(messages::messages(&catalog, &news(round)?)?);
                    }
                    (messages, Epoch::Present)
                }
            };
            Prepared {
                messages,
                records: Vec::new(),
            }
            .send_in(epoch);
            Ok(())
        })?;
        database.tell(end);
        Ok(())
    }

    /// Reads what is untold, and up to where that is.
    fn read(&mut self, database: &Database, ring: &SharedRing) -> Result<(Untold, u64)> {
        // Before anything is read: what is appended from here on is not lost.
        let head = ring.head();
        let start = database.told();
        let (mut at, mut digest) = (start, Digest::default());
        while at < head && at - start < MOST as u64 {
            let Ok(next) = ring.read(at, BITE, &mut self.buffer) else {
                return Ok((Untold::Lost, head));
            };
            for record in decode(&self.buffer) {
                match record {
                    Ok(record) if record.database == crate::sys::my_database() => {
                        digest.add(&record);
                    }
                    Ok(_) => {}
                    Err(_) => return Ok((Untold::Lost, head)),
                }
            }
            // The names that the digest holds are small, but many.
            memory::check()?;
            at = next;
        }
        Ok((Untold::Changes(digest), at))
    }
}

fn news(round: Vec<(state_cache_ring::Name, super::Change)>) -> Result<Vec<News>> {
    let news = round.into_iter().map(|((class, key), change)| News {
        class,
        key,
        change,
        behind: false,
        touched: Touched::default(),
    });
    Ok(collect(news)?)
}
