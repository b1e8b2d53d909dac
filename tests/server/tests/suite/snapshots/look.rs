//! What the functions must say of a state between the steps of a case.

use super::case::{Case, Rows};
use super::{patch, quoted};
use std::collections::BTreeSet;

impl Case {
    /// Sees that the tables hold what they must, and from then on knows exactly what that is.
    pub fn settle(&mut self) -> Result<(), String> {
        self.ask(&format!("SELECT state_flush({})", quoted(&self.class)))?;
        self.model.flush();
        let rows = self.ask(&format!(
            "SELECT version FROM state_history({})",
            self.state()
        ))?;
        let stored: BTreeSet<i64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        self.model
            .settle(&stored)
            .map_err(|difference| self.differs(&difference))
    }

    /// The current version, read by either session, and by `state_at`.
    pub fn look_at_current(&mut self) -> Result<(), String> {
        let row = self.read(&format!(
            "SELECT state_version({state}), (SELECT state_get({state})) IS NOT DISTINCT FROM {truth},
                state_at({state}, version => {last}) IS NOT DISTINCT FROM {truth}",
            state = self.state(),
            truth = self.truth(self.model.current.unwrap_or(0)),
            last = self.model.last
        ))?;
        let number = self
            .model
            .current
            .map_or("NULL".to_owned(), |number| number.to_string());
        self.check(
            "the current version",
            row,
            vec![vec![number, "t".to_owned(), "t".to_owned()]],
        )
    }

    /// Every version is as it was written, or gone where it may be; nothing else is there.
    pub fn look_at_all(&mut self) -> Result<(), String> {
        self.settle()?;
        let rows = self.read(&format!(
            "SELECT version FROM truth, LATERAL (SELECT state_at(key, version, {class}) AS found) f
                WHERE key = {key} AND found IS NOT NULL
                    AND (found <> document OR state_hash(found) <> state_hash(document))",
            key = quoted(&self.key),
            class = quoted(&self.class)
        ))?;
        self.check("wrong versions", rows, Vec::new())?;
        let rows = self.read(&format!(
            "SELECT version FROM generate_series(0, {}) version WHERE state_at({}, version => version) IS NOT NULL",
            self.model.last + 1,
            self.state()
        ))?;
        let found: Vec<i64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        self.check(
            "the kept versions",
            found,
            self.model.versions.keys().copied().collect(),
        )?;
        self.look_at_history()?;
        self.look_at_difference()?;
        let class = quoted(&self.class);
        let findings = self.read(&format!("SELECT * FROM state_verify({class})"))?;
        self.check("findings", findings, Vec::new())
    }

    fn look_at_history(&mut self) -> Result<(), String> {
        let rows = self.read(&format!(
            "SELECT h.version, recovery_point, checkpoint_type, agent_phase, encoding,
                bytes = (SELECT size FROM state_head WHERE class = {class} AND state_head.key = {key})
                FROM state_history({key}, {class}) h",
            key = quoted(&self.key),
            class = quoted(&self.class)
        ))?;
        let mut wanted = Vec::new();
        for (number, version) in self.model.versions.iter().rev() {
            let (kind, phase) = version.label.clone();
            let point = if version.recovery_point { "t" } else { "f" };
            wanted.push(vec![
                number.to_string(),
                point.to_owned(),
                kind,
                phase.unwrap_or("NULL".to_owned()),
            ]);
        }
        for row in &rows {
            self.saw(&row[4]);
            self.check(
                "a recovery point that depends on others",
                row[1] == "t" && row[4] == "delta",
                false,
            )?;
            let is_current = self
                .model
                .current
                .is_some_and(|number| number.to_string() == row[0]);
            self.check(
                "bytes of the current version",
                is_current && row[5] != "t",
                false,
            )?;
        }
        let found: Rows = rows.into_iter().map(|row| row[..4].to_vec()).collect();
        self.check("the history", found, wanted)
    }

    fn look_at_difference(&mut self) -> Result<(), String> {
        let numbers: Vec<i64> = self.model.versions.keys().copied().collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let (from, to) = (self.pick(&numbers), self.pick(&numbers));
        let row = self.read(&format!(
            "SELECT {}, state_diff({}, from_version => {from}, to_version => {to}), {}",
            self.truth(from),
            self.state(),
            self.truth(to)
        ))?;
        let [before, difference, after] = [0, 1, 2].map(|column| row[0][column].as_str());
        let is_right = patch::makes(before, difference, after);
        self.check(&format!("{from} to {to} by {difference}"), is_right, true)
    }
}
