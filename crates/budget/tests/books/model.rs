//! The plain model: what has happened, added up each time it is asked for.

use state_cache_budget::{Amount, Period};

/// What is defined of a scope.
#[derive(Debug, Clone, Copy)]
pub struct Book {
    /// What may be spent.
    pub total: Amount,
    /// When counting begins anew.
    pub period: Period,
    /// Among how many rows counters are distributed; nothing to the model.
    pub shards: usize,
}

/// What an operation that is refused says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum No {
    /// There is no room: so much is left, in the first scope that has not enough (`None`: the agent's own).
    Room(Option<usize>, Amount),
    /// The hold is settled with another amount, or voided.
    Resolved,
    /// Its time is over.
    Expired,
}

/// What became of money: a hold, or a cost without one.
struct Entry {
    /// The leaf, and with it the agent.
    leaf: usize,
    scopes: Vec<usize>,
    made_at: i64,
    amount: Amount,
    expires_at: i64,
    actual: Option<Amount>,
    voided: bool,
    is_hold: bool,
}

/// The model.
pub struct Model {
    books: Vec<Book>,
    limits: [Option<Amount>; 2],
    entries: Vec<Entry>,
    /// Places of the holds among the entries.
    holds: Vec<usize>,
}

impl Model {
    /// With nothing in it. A leaf has one agent, of this limit.
    pub fn new(books: Vec<Book>, limits: [Option<Amount>; 2]) -> Self {
        Self {
            books,
            limits,
            entries: Vec::new(),
            holds: Vec::new(),
        }
    }

    fn counts(&self, scope: usize, now: i64) -> impl Iterator<Item = &Entry> {
        let period = self.books[scope].period;
        self.entries.iter().filter(move |entry| {
            entry.scopes.contains(&scope) && period.start(entry.made_at) == period.start(now)
        })
    }

    fn sum<'a>(entries: impl Iterator<Item = &'a Entry>, now: i64) -> (Amount, Amount) {
        let (mut spent, mut held) = (Amount::ZERO, Amount::ZERO);
        for entry in entries {
            match entry.actual {
                Some(actual) => spent += actual,
                None if !entry.voided && entry.expires_at > now => held += entry.amount,
                None => {}
            }
        }
        (spent, held)
    }

    /// What a scope has spent and holds.
    pub fn totals(&self, scope: usize, now: i64) -> (Amount, Amount) {
        Self::sum(self.counts(scope, now), now)
    }

    fn left(&self, scope: usize, now: i64) -> Amount {
        let (spent, held) = self.totals(scope, now);
        self.books[scope].total - spent - held
    }

    /// What the agent of a leaf has left.
    fn agent_left(&self, leaf: usize, now: i64) -> Option<Amount> {
        let of_agent = self.counts(leaf, now).filter(|entry| entry.leaf == leaf);
        let (spent, held) = Self::sum(of_agent, now);
        Some(self.limits[leaf]? - spent - held)
    }

    pub fn reserve(
        &mut self,
        path: &[usize],
        leaf: usize,
        amount: Amount,
        now: i64,
        ttl: i64,
    ) -> Result<(), No> {
        if let Some(left) = self.agent_left(leaf, now).filter(|left| amount > *left) {
            return Err(No::Room(None, left));
        }
        for scope in path {
            let left = self.left(*scope, now);
            if amount > left {
                return Err(No::Room(Some(*scope), left));
            }
        }
        self.holds.push(self.entries.len());
        self.entries.push(Entry {
            leaf,
            scopes: path.to_vec(),
            made_at: now,
            amount,
            expires_at: now + ttl,
            actual: None,
            voided: false,
            is_hold: true,
        });
        Ok(())
    }

    pub fn settle(&mut self, hold: usize, actual: Amount) -> Result<Amount, No> {
        let entry = &mut self.entries[self.holds[hold]];
        match entry.actual {
            Some(settled) if settled == actual => Ok(actual),
            Some(_) => Err(No::Resolved),
            None if entry.voided => Err(No::Resolved),
            None => {
                entry.actual = Some(actual);
                Ok(actual)
            }
        }
    }

    pub fn void(&mut self, hold: usize) -> Result<Amount, No> {
        let entry = &mut self.entries[self.holds[hold]];
        if entry.actual.is_some() {
            return Err(No::Resolved);
        }
        entry.voided = true;
        Ok(entry.amount)
    }

    pub fn extend(&mut self, hold: usize, now: i64, ttl: i64) -> Result<Amount, No> {
        let entry = &mut self.entries[self.holds[hold]];
        if entry.actual.is_some() || entry.voided {
            return Err(No::Resolved);
        }
        if entry.expires_at <= now {
            return Err(No::Expired);
        }
        entry.expires_at = now + ttl;
        Ok(entry.amount)
    }

    pub fn redefine(&mut self, scope: usize, total: Amount) {
        self.books[scope].total = total;
    }

    pub fn record(&mut self, path: &[usize], leaf: usize, amount: Amount, now: i64) {
        self.entries.push(Entry {
            leaf,
            scopes: path.to_vec(),
            made_at: now,
            amount: Amount::ZERO,
            expires_at: now,
            actual: Some(amount),
            voided: false,
            is_hold: false,
        });
    }

    /// What must hold whatever has happened: each cost and hold of a leaf is one of the scopes above it, in its
    /// period there; and nothing is held by what is no hold.
    pub fn check(&self, now: i64) -> Result<(), String> {
        for entry in &self.entries {
            if !entry.is_hold && entry.amount.is_positive() {
                return Err("a cost holds something".to_owned());
            }
        }
        let all: Amount = self.entries.iter().filter_map(|entry| entry.actual).sum();
        if self.books[3].period == Period::Endless && self.totals(3, now).0 != all {
            return Err("the root has not spent what all have".to_owned());
        }
        Ok(())
    }
}
