//! Random histories of a budget, those above it and beside it, against a plain model.
//!
//! The books do what the server does: counters in shares, allotments, a quick attempt at one share and all of them
//! together where that does not do (`state_cache_budget::Account`). The model keeps a list of what has happened and
//! adds it up, each time anew. After each step both must agree on what is spent, held and left in every scope, and on
//! every answer; and money must be conserved.

mod books;
mod model;

use books::Books;
use model::{Book, Model};
use state_cache_budget::{Amount, Period};

/// Histories of one run; a build that is not optimized has time for fewer.
const HISTORIES: u64 = if cfg!(debug_assertions) {
    20_000
} else {
    100_000
};
/// Steps of one history.
const STEPS: usize = 40;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Numbers from a seed (splitmix64): a seed gives the same history with every release of whatever.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn amount(&mut self) -> Amount {
        match self.below(4) {
            // So fine that floating point would be wrong.
            0 => Amount::from_billionths(i128::from(self.below(3_000_000_000)) + 1),
            1 => Amount::from_billionths(100_000_000 * (i128::from(self.below(40)) + 1)),
            _ => Amount::whole(self.below(5) as i64 + 1),
        }
    }
}

/// Scopes of a history: two leaves, a team above both, an organisation above that.
const PARENTS: [Option<usize>; 4] = [Some(2), Some(2), Some(3), None];

/// Which scope comes above which, up to the root.
fn path(leaf: usize) -> Vec<usize> {
    let mut path = vec![leaf];
    while let Some(parent) = PARENTS[path[path.len() - 1]] {
        path.push(parent);
    }
    path
}

fn book(random: &mut Random) -> Book {
    Book {
        total: Amount::whole(random.below(30) as i64),
        period: match random.below(3) {
            0 => Period::Endless,
            1 => Period::Every(DAY),
            _ => Period::Months(1),
        },
        shards: [1, 1, 2, 3, 8][random.below(5) as usize],
    }
}

/// One history; says what went wrong.
fn run(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let defined: Vec<Book> = PARENTS.iter().map(|_| book(&mut random)).collect();
    let limits = [Some(Amount::whole(random.below(20) as i64)), None];
    let mut model = Model::new(defined.clone(), limits);
    let mut books = Books::new(defined, limits);
    let mut now = 26 * 365 * DAY;
    let mut holds = 0;
    for step in 0..STEPS {
        now += (random.below(20) * random.below(20)) as i64 * (DAY / 60);
        let any = random.below(holds.max(1) as u64) as usize;
        let what = random.below(100);
        let (said, expected) = match what {
            0..45 => {
                let (leaf, amount) = (random.below(2) as usize, random.amount());
                let ttl = (random.below(30) as i64 + 1) * (DAY / 30);
                let process = random.below(16) as usize;
                let answer = books.reserve(&path(leaf), leaf, amount, now, ttl, process);
                let expected = model.reserve(&path(leaf), leaf, amount, now, ttl);
                holds += usize::from(expected.is_ok());
                (
                    answer.map(|()| Amount::ZERO),
                    expected.map(|()| Amount::ZERO),
                )
            }
            45..65 if holds > 0 => {
                let actual = match random.below(4) {
                    0 => Amount::ZERO,
                    1 => random.amount() + random.amount(),
                    _ => random.amount(),
                };
                (books.settle(any, actual), model.settle(any, actual))
            }
            65..75 if holds > 0 => (books.void(any), model.void(any)),
            75..82 if holds > 0 => {
                let ttl = (random.below(30) as i64 + 1) * (DAY / 30);
                (books.extend(any, now, ttl), model.extend(any, now, ttl))
            }
            82..90 => {
                books.take_out_expired(now, random.below(3) as usize);
                (Ok(Amount::ZERO), Ok(Amount::ZERO))
            }
            90..95 => {
                let scope = random.below(4) as usize;
                let total = Amount::whole(random.below(40) as i64);
                let shards = [1, 2, 3, 8][random.below(4) as usize];
                books.redefine(scope, total, shards, now);
                model.redefine(scope, total);
                (Ok(Amount::ZERO), Ok(Amount::ZERO))
            }
            _ => {
                let (leaf, amount) = (random.below(2) as usize, random.amount());
                let process = random.below(16) as usize;
                books.record(&path(leaf), leaf, amount, now, process);
                model.record(&path(leaf), leaf, amount, now);
                (Ok(Amount::ZERO), Ok(Amount::ZERO))
            }
        };
        let at = || format!("seed {seed}, step {step}, kind {what}");
        if said != expected {
            return Err(format!(
                "{}: answered {said:?}, expected {expected:?}",
                at()
            ));
        }
        for scope in 0..PARENTS.len() {
            let (counted, added) = (books.totals(scope, now), model.totals(scope, now));
            if counted != added {
                return Err(format!(
                    "{}: scope {scope} has {counted:?}, expected {added:?}",
                    at()
                ));
            }
        }
        books
            .check(now)
            .map_err(|wrong| format!("{}: {wrong}", at()))?;
        model
            .check(now)
            .map_err(|wrong| format!("{}: {wrong}", at()))?;
    }
    Ok(())
}

#[test]
fn books_and_model_agree_on_random_histories() {
    let threads: Vec<_> = (0..2_u64)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut seeds = (0..HISTORIES).filter(|seed| seed % 2 == thread);
                seeds.find_map(|seed| run(seed).err())
            })
        })
        .collect();
    let wrong: Vec<_> = threads
        .into_iter()
        .filter_map(|thread| {
            thread
                .join()
                .unwrap_or(Some("a thread has panicked".to_owned()))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}
