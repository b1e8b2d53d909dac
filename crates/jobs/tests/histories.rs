//! Random histories of jobs, against a plain model: a map of tasks, counted anew at each step.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use state_cache_histories::{Json, Random, encode};
use state_cache_jobs::{Change, Counts, Job, Status, step};
use std::collections::BTreeMap;

const MAX_ATTEMPTS: i32 = 3;

type Tasks = BTreeMap<usize, (Status, i32)>;

fn counted(tasks: &Tasks) -> Counts {
    let mut counts = Counts::default();
    for (status, _) in tasks.values() {
        counts.add(*status, 1);
    }
    counts
}

/// A session: tasks that it has changed and not committed, and what that does to the counts.
#[derive(Default)]
struct Session {
    changed: Tasks,
    counts: Counts,
}

/// Sessions change tasks of one job, no two of them the same task at once, and commit in any order: what they have
/// counted is added to whatever document is there then. After each commit the document says what the tasks say.
#[test]
fn counts_agree_with_the_tasks_after_every_commit() {
    for seed in 0..400 {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut random = Random::new(seed);
    let create = Change::Create {
        attributes: encode(&Json::object([])).unwrap(),
        tasks: Counts::default(),
    };
    let mut document = create.apply(None, b"then").unwrap();
    let mut tasks = Tasks::new();
    let mut sessions: Vec<Session> = (0..4).map(|_| Session::default()).collect();
    let mut next = 0;
    for _ in 0..200 {
        let who = random.below(4);
        match random.below(10) {
            // The end of a transaction: a commit, or an abort, which leaves nothing behind.
            0 | 1 => {
                let session = std::mem::take(&mut sessions[who]);
                if random.below(4) == 0 {
                    continue;
                }
                let change = Change::Count(session.counts);
                document = change.apply(Some(&document), b"now").unwrap();
                tasks.extend(session.changed);
            }
            2 | 3 => {
                sessions[who].changed.insert(next, (Status::Pending, 0));
                sessions[who].counts.add(Status::Pending, 1);
                next += 1;
            }
            _ => {
                let task = random.below(next.max(1));
                // Another session holds the row's lock.
                let is_locked = sessions.iter().enumerate();
                let mut is_locked = is_locked.filter(|(other, _)| *other != who);
                if is_locked.any(|(_, session)| session.changed.contains_key(&task)) {
                    continue;
                }
                let own = sessions[who].changed.get(&task);
                let Some(&(from, attempts)) = own.or_else(|| tasks.get(&task)) else {
                    continue;
                };
                let to = Status::ALL[random.below(5)];
                if let Ok(Some(made)) = step(from, attempts, to, MAX_ATTEMPTS) {
                    assert!(!from.has_ended() && made.attempts <= MAX_ATTEMPTS);
                    sessions[who].changed.insert(task, (made.to, made.attempts));
                    sessions[who].counts.moves(from, made.to);
                }
            }
        }
        let job = Job::open(&document).unwrap();
        assert_eq!(job.counts, counted(&tasks), "seed {seed}");
        assert!(job.says_so().unwrap());
        let all_ended = tasks.values().all(|(status, _)| status.has_ended());
        assert_eq!(job.counts.is_complete(), all_ended && !tasks.is_empty());
    }
}
