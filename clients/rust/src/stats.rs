//! What is counted: for whoever asks the client, and for the recorder of the `metrics` crate, if there is one when
//! the client is made.

use metrics::{Counter, Gauge, Histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// The near cache, in this process.
    Near,
    /// Redis, shared by the application's servers.
    L2,
    /// PostgreSQL, the only authority.
    Server,
}

impl Tier {
    /// All of them, from the nearest.
    pub const ALL: [Self; 3] = [Self::Near, Self::L2, Self::Server];

    /// Its name, as the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::L2 => "l2",
            Self::Server => "server",
        }
    }
}

/// One tier, counted since the client was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TierStats {
    /// Answers, "there is no such state" included.
    pub hits: u64,
    /// Questions that went on to the next tier.
    pub misses: u64,
    /// Questions that failed.
    pub errors: u64,
    /// Bytes of documents answered.
    pub bytes: u64,
    /// Bytes of them as they travelled: fewer where they were compressed.
    pub wire_bytes: u64,
    /// Time that the timed questions took together. Of the near cache one hit in 64 is timed.
    pub time: Duration,
    /// How many were timed.
    pub timed: u64,
}

impl TierStats {
    /// What a question took on average, `None` before the first.
    pub fn average(&self) -> Option<Duration> {
        let timed = u32::try_from(self.timed).ok()?;
        self.time.checked_div(timed)
    }
}

/// What the client has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// The near cache.
    pub near: TierStats,
    /// Redis.
    pub l2: TierStats,
    /// PostgreSQL.
    pub server: TierStats,
    /// Answers of the near cache that were not proven to be right: [`crate::WhileDown::ServeUpTo`].
    pub unproven: u64,
    /// States in the near cache.
    pub entries: u64,
    /// Bytes in the near cache, those of typed values estimated.
    pub entry_bytes: u64,
    /// States turned out of the near cache for want of room.
    pub turned_out: u64,
    /// Reads that were joined instead of sent.
    pub joined: u64,
    /// Answers that were thrown away, being older than what is known: they were asked for again.
    pub old: u64,
    /// Transactions run again after a conflict or a deadlock.
    pub retried: u64,
    /// Connections of the pool in use, and how many there are.
    pub connections: (u64, u64),
}

/// One tier's counters.
struct Counting {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    wire_bytes: AtomicU64,
    nanos: AtomicU64,
    timed: AtomicU64,
    told_hits: Counter,
    told_misses: Counter,
    told_errors: Counter,
    told_bytes: Counter,
    told_wire_bytes: Counter,
    told_seconds: Histogram,
}

impl Counting {
    fn new(tier: Tier) -> Self {
        let tier = tier.name();
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wire_bytes: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            told_hits: metrics::counter!("state_cache_client_hits_total", "tier" => tier),
            told_misses: metrics::counter!("state_cache_client_misses_total", "tier" => tier),
            told_errors: metrics::counter!("state_cache_client_errors_total", "tier" => tier),
            told_bytes: metrics::counter!("state_cache_client_bytes_total", "tier" => tier),
            told_wire_bytes: metrics::counter!("state_cache_client_wire_bytes_total", "tier" => tier),
            told_seconds: metrics::histogram!("state_cache_client_seconds", "tier" => tier),
        }
    }

    fn read(&self) -> TierStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStats {
            hits: of(&self.hits),
            misses: of(&self.misses),
            errors: of(&self.errors),
            bytes: of(&self.bytes),
            wire_bytes: of(&self.wire_bytes),
            time: Duration::from_nanos(of(&self.nanos)),
            timed: of(&self.timed),
        }
    }
}

/// One number that only grows.
pub(crate) struct Count {
    here: AtomicU64,
    told: Counter,
}

impl Count {
    fn new(told: Counter) -> Self {
        Self {
            here: AtomicU64::new(0),
            told,
        }
    }

    /// One more.
    pub fn add(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.told.increment(1);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

/// All counters of a client.
pub(crate) struct Counters {
    tiers: [Counting; 3],
    pub unproven: Count,
    pub joined: Count,
    pub old: Count,
    pub retried: Count,
    pub turned_out: AtomicU64,
    staleness: Histogram,
    entries: Gauge,
    entry_bytes: Gauge,
    connections: Gauge,
}

impl Counters {
    pub fn new() -> Self {
        Self {
            tiers: Tier::ALL.map(Counting::new),
            unproven: Count::new(metrics::counter!("state_cache_client_unproven_total")),
            joined: Count::new(metrics::counter!("state_cache_client_joined_total")),
            old: Count::new(metrics::counter!("state_cache_client_old_total")),
            retried: Count::new(metrics::counter!("state_cache_client_retried_total")),
            turned_out: AtomicU64::new(0),
            staleness: metrics::histogram!("state_cache_client_staleness_seconds"),
            entries: metrics::gauge!("state_cache_client_entries"),
            entry_bytes: metrics::gauge!("state_cache_client_entry_bytes"),
            connections: metrics::gauge!("state_cache_client_connections_in_use"),
        }
    }

    fn of(&self, tier: Tier) -> &Counting {
        &self.tiers[tier as usize]
    }

    /// A tier has answered. Gives the number of this answer.
    pub fn hit(&self, tier: Tier, bytes: usize, wire_bytes: usize) -> u64 {
        let of = self.of(tier);
        of.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        of.told_hits.increment(1);
        of.told_bytes.increment(bytes as u64);
        if wire_bytes > 0 {
            of.wire_bytes
                .fetch_add(wire_bytes as u64, Ordering::Relaxed);
            of.told_wire_bytes.increment(wire_bytes as u64);
        }
        of.hits.fetch_add(1, Ordering::Relaxed)
    }

    /// A tier did not know.
    pub fn miss(&self, tier: Tier) {
        let of = self.of(tier);
        of.misses.fetch_add(1, Ordering::Relaxed);
        of.told_misses.increment(1);
    }

    /// A tier has failed.
    pub fn error(&self, tier: Tier) {
        let of = self.of(tier);
        of.errors.fetch_add(1, Ordering::Relaxed);
        of.told_errors.increment(1);
    }

    /// A question to a tier took so long.
    pub fn took(&self, tier: Tier, time: Duration) {
        let of = self.of(tier);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        of.nanos.fetch_add(nanos, Ordering::Relaxed);
        of.timed.fetch_add(1, Ordering::Relaxed);
        of.told_seconds.record(time.as_secs_f64());
    }

    /// A change was applied so long after it was written.
    pub fn applied_after(&self, time: Duration) {
        self.staleness.record(time.as_secs_f64());
    }

    /// All of it, with what the near cache and the pool hold now.
    pub fn read(&self, (entries, bytes): (usize, usize), connections: (u64, u64)) -> Stats {
        self.entries.set(entries as f64);
        self.entry_bytes.set(bytes as f64);
        self.connections.set(connections.0 as f64);
        Stats {
            near: self.of(Tier::Near).read(),
            l2: self.of(Tier::L2).read(),
            server: self.of(Tier::Server).read(),
            unproven: self.unproven.get(),
            entries: entries as u64,
            entry_bytes: bytes as u64,
            turned_out: self.turned_out.load(Ordering::Relaxed),
            joined: self.joined.get(),
            old: self.old.get(),
            retried: self.retried.get(),
            connections,
        }
    }
}
