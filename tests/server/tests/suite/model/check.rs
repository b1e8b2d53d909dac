//! What the server says, compared with the model.

use super::case::{Case, Rows};
use super::transaction::{KEYS, Transaction};

impl Case {
    /// What both sessions see of every state, by the functions and in the tables.
    pub(super) fn check(&mut self, now: Option<&mut Transaction>) -> Result<(), String> {
        let names: Vec<_> = (0..KEYS).map(|key| self.key(key)).collect();
        let sql = format!(
            "SELECT state_get(k), state_get_text(k), state_version(k), state_exists(k) /* of every state */
                 , (SELECT (m.version, m.state) FROM state_get_many(ARRAY[k]) m),
                 h.version, CASE WHEN s.version > 0 THEN coalesce(s.state, state_at(k, s.version)) END, \
                 h.expires_at IS NOT NULL
             FROM unnest('{{{}}}'::text[]) WITH ORDINALITY k (k, n) LEFT JOIN state_head h ON (h.class, h.key) = \
             ('run', k)
                 LEFT JOIN state_kept s ON (s.class, s.key, s.version) = ('run', k, h.version) AND NOT h.deleted
             ORDER BY n",
            names.join(",")
        );
        if let Some(now) = now {
            let rows = self.main(&sql)?;
            self.compare("the first session", now, rows)?;
        }
        if self.chance(50) {
            let rows = self.other(&sql)?;
            self.compare("the other session", &mut Transaction::default(), rows)?;
        }
        Ok(())
    }

    fn compare(&self, who: &str, now: &mut Transaction, rows: Rows) -> Result<(), String> {
        for (key, row) in rows.iter().enumerate() {
            let [get, text, version, exists, many, head, state, expires] = row.as_slice() else {
                return Err(self.differs("not eight columns"));
            };
            let document = now.reads(&self.committed, key);
            let versions = now.versions(&self.committed, key);
            let table = now.row(&self.committed, key);
            let parsed = |text: &Option<String>| {
                text.as_ref()
                    .map(|text| serde_json::from_str(text).unwrap())
            };
            let shown: i64 = version
                .as_ref()
                .map_or(0, |version| version.parse().unwrap());
            let said = [
                ("state_get", parsed(get) == document),
                ("state_get_text", text == get),
                (
                    "state_version",
                    versions.is_empty() || versions.contains(&shown),
                ),
                (
                    "state_exists",
                    exists.as_deref() == Some(if document.is_some() { "t" } else { "f" }),
                ),
                ("state_get_many", many.is_some() == document.is_some()),
                (
                    "version of the head",
                    head.as_ref().map_or(0, |head| head.parse().unwrap()) == table.version,
                ),
                ("snapshot", parsed(state) == table.document()),
                (
                    "expiry of the head",
                    table.state.as_ref().is_none_or(|state| {
                        expires.as_deref() == Some(if state.expires { "t" } else { "f" })
                    }),
                ),
            ];
            if let Some((what, _)) = said.iter().find(|(_, right)| !right) {
                return Err(self.differs(&format!(
                    "{what} is wrong for {who} and state {}: it says {row:?}; the model sees {document:?} in \
                        version {versions:?} over {table:?}",
                    self.key(key)
                )));
            }
        }
        Ok(())
    }

    /// Between transactions L1 holds nothing but what is current.
    pub(super) fn check_l1(&mut self) -> Result<(), String> {
        let rows = self.other(
            "SELECT e.key, e.version, h.version FROM state_cache_entries e LEFT JOIN state_head h USING (class, key)
             WHERE e.version IS DISTINCT FROM h.version OR h.deleted",
        )?;
        match rows.is_empty() {
            true => Ok(()),
            false => Err(self.differs(&format!("L1 holds what is not current: {rows:?}"))),
        }
    }
}
