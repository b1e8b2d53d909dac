//! Accounts: what a scope may spend, has spent and holds.
//!
//! An account has one row of counters for each shard. A hold is granted by one of its rows alone where that row's
//! allotment has room ([`Share::left`]). This is right as long as no row has less than nothing left while another
//! has something: then the rows together have at least what each of them has. Allotments are made so ([`allot`]).
//! Where they do not suffice, all rows are locked and looked at together ([`Account`]), which is exact.

use crate::Amount;
use std::fmt;

/// One row of counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// What of the limit this row may give away without asking the others.
    pub allotted: Amount,
    /// What was charged.
    pub spent: Amount,
    /// What is held, expired holds included that nobody has taken out.
    pub held: Amount,
}

impl Share {
    /// What was given away.
    pub fn used(&self) -> Amount {
        self.spent + self.held
    }

    /// What this row can give away.
    pub fn left(&self) -> Amount {
        self.allotted - self.used()
    }
}

/// All rows of an account.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// What may be spent.
    pub limit: Amount,
    /// The rows.
    pub shares: &'a [Share],
    /// What is held by holds that have expired and that the rows still count.
    pub expired: Amount,
}

/// Why a hold is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What is left.
    pub left: Amount,
    /// What was asked for.
    pub asked: Amount,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} left, {} asked for", self.left, self.asked)
    }
}

impl Account<'_> {
    /// What is left of the limit; negative after an overrun.
    pub fn left(&self) -> Amount {
        let used: Amount = self.shares.iter().map(Share::used).sum();
        self.limit - used + self.expired
    }

    /// Whether so much can be held: all that is left may be, and no more.
    ///
    /// # Errors
    /// Says what is left.
    pub fn admit(&self, asked: Amount) -> Result<(), Refusal> {
        let left = self.left();
        match asked <= left {
            true => Ok(()),
            false => Err(Refusal { left, asked }),
        }
    }
}

/// What each row may give away from now on, of an account with so many shards; rows beyond these, of a time when
/// there were more, get what they have given away already. What the counters say is free is divided evenly among
/// the shards; the first gets what division leaves.
///
/// With one shard, the first row has all, and less than nothing where the limit is exceeded. With several, none can
/// give anything away then: all allotments are 0, whatever is voided later, until they are made anew.
pub fn allot(limit: Amount, used: &[Amount], shards: usize) -> Vec<Amount> {
    let shards = shards.clamp(1, used.len().max(1));
    let free = limit - used.iter().copied().sum();
    if shards > 1 && free.is_negative() {
        return vec![Amount::ZERO; used.len()];
    }
    let part = free.part(shards);
    let rest = free - part.times(i64::try_from(shards).unwrap_or(i64::MAX));
    let shares = used.iter().enumerate().map(|(n, used)| match n {
        0 => *used + part + rest,
        n if n < shards => *used + part,
        _ => *used,
    });
    shares.collect()
}

/// Below which what each row has spent reaches no level, whatever the others spend below theirs: `None` if no level
/// is left to be reached. What is missing to the next level is divided evenly among the rows.
///
/// A row that stays below its part while the others do not go beyond theirs keeps the sum below the level. So who
/// makes a row reach its part looks at all rows together, and nobody else needs to.
pub fn quiet(limit: Amount, soft_limit: Option<Amount>, spent: &[Amount]) -> Option<Vec<Amount>> {
    let all: Amount = spent.iter().copied().sum();
    let soft_limit = soft_limit.filter(|soft| all < *soft);
    // What is equal to the limit can exceed it still.
    let limit = Some(limit).filter(|limit| all <= *limit);
    let next = soft_limit.into_iter().chain(limit).min()?;
    let part = (next - all).part(spent.len());
    Some(spent.iter().map(|spent| *spent + part).collect())
}

/// What an account can reach by being charged. Each is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As much is spent as its soft limit says.
    SoftLimit,
    /// All is spent.
    Limit,
    /// More than all is spent.
    Overrun,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::SoftLimit, Self::Limit, Self::Overrun];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftLimit => "soft_limit",
            Self::Limit => "limit",
            Self::Overrun => "overrun",
        }
    }

    /// Whether it is reached with so much spent.
    pub fn is_reached(self, spent: Amount, limit: Amount, soft_limit: Option<Amount>) -> bool {
        match self {
            Self::SoftLimit => soft_limit.is_some_and(|soft| spent >= soft),
            Self::Limit => spent >= limit && spent.is_positive(),
            Self::Overrun => spent > limit,
        }
    }
}

/// The levels that are reached after a charge and were not before.
pub fn levels_crossed(
    before: Amount,
    after: Amount,
    limit: Amount,
    soft_limit: Option<Amount>,
) -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(move |level| {
        level.is_reached(after, limit, soft_limit) && !level.is_reached(before, limit, soft_limit)
    })
}
