//! What must be there of one state, and what may be.

use std::collections::{BTreeMap, BTreeSet};

/// Types of checkpoints that are skipped where nothing has changed.
pub const SKIPPABLE: [&str; 3] = ["auto", "intermediate", "pipeline_complete"];

/// A version that may be there.
#[derive(Debug, Clone)]
pub struct Version {
    /// Hash of the document.
    pub hash: String,
    /// What a checkpoint is compared by beside its document: type and phase.
    pub label: (String, Option<String>),
    /// Whether pruning passes it over.
    pub recovery_point: bool,
    /// Whether it must be there.
    pub required: bool,
    /// Whether the tables are known to hold it.
    pub stored: bool,
}

/// A state as it should be.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// How many snapshots the class keeps.
    pub keep: Option<usize>,
    /// Whether the class is written behind.
    pub behind: bool,
    /// The newest version, a tombstone included.
    pub last: i64,
    /// The current version; `None` while there is no state.
    pub current: Option<i64>,
    /// What may be there.
    pub versions: BTreeMap<i64, Version>,
    /// Versions that are deletes.
    tombstones: BTreeSet<i64>,
}

impl Model {
    /// The current version.
    pub fn current(&self) -> Option<(i64, &Version)> {
        let number = self.current?;
        Some((number, &self.versions[&number]))
    }

    /// A version is made; `stored`: the tables hold it from the commit on.
    pub fn make(&mut self, mut version: Version, stored: bool) {
        self.leave_current();
        version.stored = stored;
        version.required = true;
        self.last += 1;
        self.current = Some(self.last);
        self.versions.insert(self.last, version);
        self.let_go();
    }

    /// The state is deleted.
    pub fn delete(&mut self) {
        self.leave_current();
        self.last += 1;
        self.current = None;
        self.tombstones.insert(self.last);
        self.let_go();
    }

    /// What was current is not any more: what the tables do not hold by now, they may never hold.
    fn leave_current(&mut self) {
        let current = self
            .current
            .and_then(|number| self.versions.get_mut(&number));
        if let Some(version) = current {
            version.required &= version.stored;
        }
    }

    /// The tables hold the current version.
    pub fn flush(&mut self) {
        let current = self
            .current
            .and_then(|number| self.versions.get_mut(&number));
        if let Some(version) = current {
            version.stored = true;
        }
    }

    /// With a write, what is beyond `keep` may go. A tombstone counts as one that is kept. Where versions are
    /// written through, their numbers are counted; written behind, they have gaps, and those that are there are.
    fn let_go(&mut self) {
        let Some(keep) = self.keep else { return };
        let newer = |number: i64| match self.behind {
            true => {
                self.versions.range(number + 1..).count()
                    + self.tombstones.range(number + 1..).count()
            }
            false => usize::try_from(self.last - number).unwrap(),
        };
        let beyond: Vec<i64> = self
            .versions
            .keys()
            .copied()
            .filter(|number| newer(*number) >= keep)
            .collect();
        for number in beyond {
            let version = self.versions.get_mut(&number).unwrap();
            version.required &= version.recovery_point || self.current == Some(number);
        }
    }

    /// The tables hold these versions and no others: what is wrong with that.
    pub fn settle(&mut self, stored: &BTreeSet<i64>) -> Result<(), String> {
        for (number, version) in &self.versions {
            let is_unwritten = self.current == Some(*number) && !version.stored;
            if version.required && !is_unwritten && !stored.contains(number) {
                return Err(format!("version {number} is gone"));
            }
        }
        if let Some(unknown) = stored
            .iter()
            .find(|number| !self.versions.contains_key(number))
        {
            return Err(format!("version {unknown} is there"));
        }
        let current = self.current;
        self.versions
            .retain(|number, _| stored.contains(number) || current == Some(*number));
        for number in stored {
            self.versions.get_mut(number).unwrap().stored = true;
        }
        Ok(())
    }

    /// Prunes what is beyond the newest `keep`, at once; how many go. The tables are known.
    pub fn prune(&mut self, keep: usize, recovery_points: bool) -> usize {
        let kept = keep.saturating_sub(usize::from(self.current.is_none() && self.last > 0));
        let beyond: Vec<i64> = self.versions.keys().rev().skip(kept).copied().collect();
        let before = self.versions.len();
        for number in beyond {
            if self.current != Some(number)
                && (recovery_points || !self.versions[&number].recovery_point)
            {
                self.versions.remove(&number);
            }
        }
        before - self.versions.len()
    }

    /// The version that a recovery reinstates; all are intact.
    pub fn chosen(&self, kind: &str) -> Option<i64> {
        let newest = |mut numbers: Box<dyn Iterator<Item = i64> + '_>| numbers.next();
        let all = || self.versions.keys().copied();
        let point = |number: &i64| self.versions[number].recovery_point;
        match kind {
            "restart" => all().next(),
            "resume" => all().next_back(),
            _ => newest(Box::new(all().rev().filter(point))).or_else(|| all().next_back()),
        }
    }
}
