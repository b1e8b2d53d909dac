//! The books: counters as the server keeps them.

use super::model::{Book, No};
use state_cache_budget::{Account, Amount, Level, Share, allot, levels_crossed, quiet};
use std::collections::{BTreeMap, BTreeSet};

/// An account: a scope and a period, and the agent of the leaf or nobody.
type Name = (usize, bool, Option<i64>);

/// Where a hold is counted, and in which row.
#[derive(Debug, Clone)]
struct Hold {
    accounts: Vec<(Name, usize)>,
    amount: Amount,
    expires_at: i64,
    actual: Option<Amount>,
    voided: bool,
    taken_out: bool,
}

/// The books.
pub struct Books {
    books: Vec<Book>,
    limits: [Option<Amount>; 2],
    accounts: BTreeMap<Name, BTreeMap<usize, Share>>,
    /// Of each row, below which what it has spent reaches nothing; what is not here reaches something by anything.
    quiet: BTreeMap<(Name, usize), Option<Amount>>,
    told: BTreeMap<Name, BTreeSet<Level>>,
    holds: Vec<Hold>,
}

impl Books {
    pub fn new(books: Vec<Book>, limits: [Option<Amount>; 2]) -> Self {
        Self {
            books,
            limits,
            accounts: BTreeMap::new(),
            quiet: BTreeMap::new(),
            told: BTreeMap::new(),
            holds: Vec::new(),
        }
    }

    fn limit(&self, (scope, is_agent, _): Name) -> Option<Amount> {
        match is_agent {
            true => self.limits[scope],
            false => Some(self.books[scope].total),
        }
    }

    fn soft_limit(&self, name: Name) -> Option<Amount> {
        self.limit(name)
            .filter(|_| !name.1)
            .map(|limit| limit.part(4).times(3))
    }

    fn names(&self, path: &[usize], leaf: usize, now: i64, process: usize) -> Vec<(Name, usize)> {
        let of = |scope: usize, is_agent| {
            let book = &self.books[scope];
            (
                (scope, is_agent, book.period.start(now)),
                process % book.shards,
            )
        };
        let agent = [of(leaf, true)];
        agent
            .into_iter()
            .chain(path.iter().map(|scope| of(*scope, false)))
            .collect()
    }

    /// What has expired of an account and is counted still.
    fn expired(&self, name: Name, now: i64) -> Amount {
        let over = self.holds.iter().filter(|hold| {
            hold.actual.is_none() && !hold.voided && !hold.taken_out && hold.expires_at <= now
        });
        let over = over.filter(|hold| hold.accounts.iter().any(|(of, _)| *of == name));
        over.map(|hold| hold.amount).sum()
    }

    /// As `Counters::write`: all rows are locked.
    fn write(&mut self, name: Name, row: usize, spent: Amount, held: Amount) {
        let (limit, shards) = (self.limit(name), self.books[name.0].shards);
        let rows = self.accounts.entry(name).or_default();
        let own = rows.entry(row).or_default();
        own.spent += spent;
        own.held += held;
        let Some(limit) = limit else { return };
        let used: Vec<_> = rows.values().map(Share::used).collect();
        let count = rows.keys().filter(|row| **row < shards).count();
        for (share, allotted) in rows.values_mut().zip(allot(limit, &used, count)) {
            share.allotted = allotted;
        }
        let spent: Vec<_> = rows.values().map(|share| share.spent).collect();
        let numbers: Vec<_> = rows.keys().copied().collect();
        let parts = quiet(limit, self.soft_limit(name), &spent);
        for (n, row) in numbers.into_iter().enumerate() {
            let part = parts.as_ref().map(|parts| parts[n]);
            self.quiet.insert((name, row), part);
        }
    }

    fn is_alone(&self, name: Name, row: usize) -> bool {
        self.books[name.0].shards == 1 && row == 0
    }

    /// As `Counters::hold`.
    fn hold(&mut self, name: Name, row: usize, amount: Amount, now: i64) -> Result<(), No> {
        let limit = self.limit(name);
        let rows = self.accounts.entry(name).or_default();
        if let Some(share) = rows.get_mut(&row)
            && (limit.is_none() || share.left() >= amount)
        {
            share.held += amount;
            return Ok(());
        }
        rows.entry(row).or_default();
        if let Some(limit) = limit {
            let shares: Vec<_> = rows.values().copied().collect();
            let account = Account {
                limit,
                shares: &shares,
                expired: self.expired(name, now),
            };
            let scope = (!name.1).then_some(name.0);
            account
                .admit(amount)
                .map_err(|refusal| No::Room(scope, refusal.left))?;
        }
        self.write(name, row, Amount::ZERO, amount);
        Ok(())
    }

    /// As `Counters::charge`.
    fn charge(&mut self, name: Name, row: usize, spent: Amount, held: Amount) {
        let (limit, alone) = (self.limit(name), self.is_alone(name, row));
        let quiet = self
            .quiet
            .get(&(name, row))
            .copied()
            .unwrap_or(Some(Amount::ZERO));
        let rows = self.accounts.entry(name).or_default();
        if let Some(share) = rows.get_mut(&row) {
            let grows = spent + held;
            let is_quick = alone
                || limit.is_none()
                || grows <= Amount::ZERO
                || share.used() + grows <= share.allotted;
            let reaches = quiet.is_some_and(|quiet| share.spent + spent >= quiet);
            if is_quick && (spent == Amount::ZERO || !reaches) {
                share.spent += spent;
                share.held += held;
                return;
            }
        }
        let before = rows.values().map(|share| share.spent).sum();
        self.write(name, row, spent, held);
        if let Some(limit) = limit {
            let crossed = levels_crossed(before, before + spent, limit, self.soft_limit(name));
            // As `state_budget_reached`: what is there is not told again.
            self.told.entry(name).or_default().extend(crossed);
        }
    }

    fn spent(&self, name: Name) -> Amount {
        let rows = self.accounts.get(&name).into_iter();
        rows.flat_map(BTreeMap::values)
            .map(|share| share.spent)
            .sum()
    }

    /// As `told::after_redefinition`.
    fn tell_again(&mut self, name: Name) {
        if let Some(limit) = self.limit(name) {
            let (spent, soft_limit) = (self.spent(name), self.soft_limit(name));
            let reached = Level::ALL
                .into_iter()
                .filter(|it| it.is_reached(spent, limit, soft_limit));
            self.told.insert(name, reached.collect());
        }
    }

    pub fn reserve(
        &mut self,
        path: &[usize],
        leaf: usize,
        amount: Amount,
        now: i64,
        ttl: i64,
        process: usize,
    ) -> Result<(), No> {
        let accounts = self.names(path, leaf, now, process);
        // What an error rolls back.
        let before = self.accounts.clone();
        for (name, row) in &accounts {
            if let Err(no) = self.hold(*name, *row, amount, now) {
                self.accounts = before;
                return Err(no);
            }
        }
        self.holds.push(Hold {
            accounts,
            amount,
            expires_at: now + ttl,
            actual: None,
            voided: false,
            taken_out: false,
        });
        Ok(())
    }

    pub fn settle(&mut self, hold: usize, actual: Amount) -> Result<Amount, No> {
        let known = self.holds[hold].clone();
        match known.actual {
            Some(settled) if settled == actual => return Ok(actual),
            Some(_) => return Err(No::Resolved),
            None if known.voided => return Err(No::Resolved),
            None => {}
        }
        self.holds[hold].actual = Some(actual);
        let released = if known.taken_out {
            Amount::ZERO
        } else {
            known.amount
        };
        for (name, row) in known.accounts {
            self.charge(name, row, actual, -released);
        }
        Ok(actual)
    }

    fn release(&mut self, hold: &Hold) {
        for (name, row) in &hold.accounts {
            if let Some(share) = self
                .accounts
                .get_mut(name)
                .and_then(|rows| rows.get_mut(row))
            {
                share.held -= hold.amount;
            }
        }
    }

    pub fn void(&mut self, hold: usize) -> Result<Amount, No> {
        let known = self.holds[hold].clone();
        if known.actual.is_some() {
            return Err(No::Resolved);
        }
        if !known.voided && !known.taken_out {
            self.release(&known);
        }
        self.holds[hold].voided = true;
        Ok(known.amount)
    }

    pub fn extend(&mut self, hold: usize, now: i64, ttl: i64) -> Result<Amount, No> {
        let known = &mut self.holds[hold];
        if known.actual.is_some() || known.voided {
            return Err(No::Resolved);
        }
        if known.taken_out || known.expires_at <= now {
            return Err(No::Expired);
        }
        known.expires_at = now + ttl;
        Ok(known.amount)
    }

    /// What the worker does, for some of the holds.
    pub fn take_out_expired(&mut self, now: i64, most: usize) {
        let over = |hold: &Hold| {
            hold.actual.is_none() && !hold.voided && !hold.taken_out && hold.expires_at <= now
        };
        let due: Vec<_> = (0..self.holds.len())
            .filter(|n| over(&self.holds[*n]))
            .take(most)
            .collect();
        for n in due {
            let hold = self.holds[n].clone();
            self.release(&hold);
            self.holds[n].taken_out = true;
        }
    }

    /// As `state_budget_define`: the accounts of this period are allotted anew.
    pub fn redefine(&mut self, scope: usize, total: Amount, shards: usize, now: i64) {
        self.books[scope].total = total;
        self.books[scope].shards = shards;
        let period = self.books[scope].period.start(now);
        for is_agent in [false, true] {
            let name = (scope, is_agent, period);
            let first = self
                .accounts
                .get(&name)
                .and_then(|rows| rows.keys().next().copied());
            if let Some(first) = first {
                self.write(name, first, Amount::ZERO, Amount::ZERO);
                self.tell_again(name);
            }
        }
    }

    pub fn record(
        &mut self,
        path: &[usize],
        leaf: usize,
        amount: Amount,
        now: i64,
        process: usize,
    ) {
        for (name, row) in self.names(path, leaf, now, process) {
            self.charge(name, row, amount, Amount::ZERO);
        }
    }

    /// What a scope has spent and holds.
    pub fn totals(&self, scope: usize, now: i64) -> (Amount, Amount) {
        let name = (scope, false, self.books[scope].period.start(now));
        let rows = self
            .accounts
            .get(&name)
            .into_iter()
            .flat_map(BTreeMap::values);
        let (mut spent, mut held) = (Amount::ZERO, Amount::ZERO);
        for share in rows {
            spent += share.spent;
            held += share.held;
        }
        (spent, held - self.expired(name, now))
    }

    /// No counter is negative; no row alone grants what all together have not; children have no more than parents.
    pub fn check(&self, now: i64) -> Result<(), String> {
        for (name, rows) in &self.accounts {
            if let Some(share) = rows
                .values()
                .find(|it| it.spent.is_negative() || it.held.is_negative())
            {
                return Err(format!("{name:?} has {share:?}"));
            }
            // Allotments of a period that is over are nobody's.
            if name.2 != self.books[name.0].period.start(now) {
                continue;
            }
            let Some(limit) = self.limit(*name) else {
                continue;
            };
            // What is reached by money was told, and nothing else.
            let (spent, soft_limit) = (self.spent(*name), self.soft_limit(*name));
            for level in Level::ALL {
                let is_reached = spent.is_positive() && level.is_reached(spent, limit, soft_limit);
                let is_told = self
                    .told
                    .get(name)
                    .is_some_and(|told| told.contains(&level));
                // A level of 0 is reached by nothing.
                let begins_reached = level.is_reached(Amount::ZERO, limit, soft_limit);
                if is_reached != is_told && !begins_reached {
                    return Err(format!("{level:?} of {name:?} at {spent}: told {is_told}"));
                }
            }
            let used: Amount = rows.values().map(Share::used).sum();
            let left = limit - used;
            if let Some((row, share)) = rows.iter().find(|(row, share)| {
                **row < self.books[name.0].shards
                    && share.left().is_positive()
                    && share.left() > left
            }) {
                return Err(format!(
                    "row {row} of {name:?} gives away {} of {left}",
                    share.left()
                ));
            }
        }
        Ok(())
    }
}
