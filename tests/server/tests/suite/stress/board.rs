//! What the sessions of the stress know together, and what they found wrong.

use super::setup::{STATES, State};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The differences worth keeping: a broken cache would give as many as there are reads.
const KEPT: usize = 10;

/// Shared by all threads of a run.
pub struct Board {
    target: u64,
    until_difference: bool,
    over: AtomicBool,
    reads: AtomicU64,
    commits: AtomicU64,
    conflicts: AtomicU64,
    differences: Mutex<Vec<String>>,
    acknowledged: [AtomicI64; STATES],
    documents: Mutex<HashMap<(State, i64), Vec<u8>>>,
    appended: Mutex<Vec<String>>,
}

impl Board {
    /// A run that ends after `target` reads, or, if so wanted, at the first difference.
    pub fn new(target: u64, until_difference: bool) -> Self {
        Self {
            target,
            until_difference,
            over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            differences: Mutex::default(),
            acknowledged: [const { AtomicI64::new(0) }; STATES],
            documents: Mutex::default(),
            appended: Mutex::default(),
        }
    }

    /// Runs a thread's work; if it panics, the others stop too.
    pub fn guard(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.over.store(true, Ordering::SeqCst);
            resume_unwind(panic);
        }
    }

    /// Whether it is time to stop.
    pub fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// So many answers were compared.
    pub fn compared(&self, reads: usize) {
        if self.reads.fetch_add(reads as u64, Ordering::SeqCst) + reads as u64 >= self.target {
            self.over.store(true, Ordering::SeqCst);
        }
    }

    /// Answers compared so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// Something was not as it must be.
    pub fn differs(&self, difference: String) {
        let mut differences = self.differences.lock().unwrap();
        if differences.len() < KEPT {
            differences.push(difference);
        }
        if self.until_difference {
            self.over.store(true, Ordering::SeqCst);
        }
    }

    /// What was not as it must be.
    pub fn differences(&self) -> Vec<String> {
        self.differences.lock().unwrap().clone()
    }

    /// A commit of this version was acknowledged.
    pub fn acknowledge(&self, state: State, version: i64) {
        self.acknowledged[state].fetch_max(version, Ordering::SeqCst);
    }

    /// The newest version of each state whose commit was acknowledged before now.
    pub fn acknowledged(&self) -> [i64; STATES] {
        std::array::from_fn(|state| self.acknowledged[state].load(Ordering::SeqCst))
    }

    /// A version of a state was seen with this hash; every other reader must have seen the same.
    pub fn seen(&self, state: State, version: i64, hash: Vec<u8>) {
        let mut documents = self.documents.lock().unwrap();
        let first = documents
            .entry((state, version))
            .or_insert_with(|| hash.clone());
        if *first != hash {
            drop(documents);
            self.differs(format!(
                "two documents for version {version} of state {state}"
            ));
        }
    }

    /// An append was acknowledged.
    pub fn append(&self, entry: String) {
        self.appended.lock().unwrap().push(entry);
    }

    /// The appends that were acknowledged, sorted.
    pub fn appended(&self) -> Vec<String> {
        let mut entries = self.appended.lock().unwrap().clone();
        entries.sort();
        entries
    }

    /// A transaction ended.
    pub fn ended(&self, committed: bool) {
        let counter = if committed {
            &self.commits
        } else {
            &self.conflicts
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    /// Transactions that changed something and were committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Transactions that failed with a conflict or a deadlock.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::SeqCst)
    }

    /// What the run was, in a line.
    pub fn summary(&self) -> String {
        format!(
            "{} reads compared, {} commits, {} conflicts, {} appends, {} differences",
            self.reads(),
            self.commits(),
            self.conflicts(),
            self.appended.lock().unwrap().len(),
            self.differences.lock().unwrap().len()
        )
    }
}
