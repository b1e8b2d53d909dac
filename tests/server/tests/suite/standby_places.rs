//! A session of a standby looks for a head row where it found the row last, and goes on if the row is elsewhere.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// A primary with its writer, a standby with its reader.
struct Pair {
    standby: Server,
    primary: Server,
    writer: Client,
    reader: Client,
}

impl Pair {
    fn new() -> Self {
        // Nobody else moves a row.
        let primary = Server::new(&["autovacuum = off"]);
        let writer = primary.connect();
        let standby = primary.standby();
        let reader = standby.connect();
        Self {
            standby,
            primary,
            writer,
            reader,
        }
    }

    /// Changes something on the primary, which the standby has then, too.
    fn change(&mut self, sql: &str) {
        self.writer.run(sql);
        self.standby.catch_up_with(&self.primary);
    }

    /// Reads a state as the first one does that finds it, as who looks for its row by the index, and as who knows the
    /// place.
    fn finds(&mut self, key: &str, expected: &str) {
        for _ in 1..=3 {
            assert_eq!(self.get(key), expected, "{key}");
        }
    }

    fn get(&mut self, key: &str) -> String {
        self.reader.text(&format!("SELECT state_get('{key}')"))
    }

    /// Where the head row is.
    fn place(&mut self, key: &str) -> String {
        let place = format!("SELECT ctid FROM state_head WHERE key = '{key}'");
        self.writer.text(&place)
    }
}

#[test]
fn a_row_that_was_changed_is_found_where_it_was() {
    let mut pair = Pair::new();
    pair.change("SELECT state_set('a', '{\"n\": 0}')");
    pair.finds("a", "{\"n\": 0}");
    // In its page and into others, and with what is dead taken away in between.
    for n in 1..=300 {
        pair.writer.run(&format!(
            "SELECT state_update('a', '{{\"n\": {n}}}'), state_set('other{n}', '{{}}')"
        ));
        if n % 20 == 0 {
            pair.change("VACUUM state_head");
            pair.finds("a", &format!("{{\"n\": {n}}}"));
        }
    }
}

#[test]
fn a_line_that_another_state_has_taken_is_not_the_state() {
    let mut pair = Pair::new();
    pair.change("SELECT state_set('a', '{\"n\": 1}'), state_set('stays', '{}')");
    pair.finds("a", "{\"n\": 1}");
    let place = pair.place("a");
    pair.writer.run("DELETE FROM state_head WHERE key = 'a'");
    // The line is free once nobody could see the row. Version and document are those of the state that was there.
    let mut others = 0;
    eventually("another state in its place", || {
        others += 1;
        let other = format!("b{others}");
        pair.change("VACUUM (INDEX_CLEANUP ON) state_head");
        pair.change(&format!("SELECT state_set('{other}', '{{\"n\": 1}}')"));
        pair.place(&other) == place
    });
    pair.finds("a", "NULL");
    pair.finds(&format!("b{others}"), "{\"n\": 1}");
}

#[test]
fn an_old_snapshot_sees_the_row_that_was() {
    let mut pair = Pair::new();
    pair.change("SELECT state_set('a', '{\"n\": 1}')");
    pair.finds("a", "{\"n\": 1}");
    pair.reader
        .run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    pair.change("SELECT state_update('a', '{\"n\": 2}')");
    pair.finds("a", "{\"n\": 1}");
    pair.reader.run("COMMIT");
    pair.finds("a", "{\"n\": 2}");
    pair.reader
        .run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    pair.change("SELECT state_delete('a')");
    pair.finds("a", "{\"n\": 2}");
    pair.reader.run("COMMIT");
    pair.finds("a", "NULL");
}

#[test]
fn a_table_that_was_rewritten_or_cut_is_looked_through_anew() {
    let mut pair = Pair::new();
    let many =
        "SELECT state_set('k' || n, jsonb_build_object('n', n)) FROM generate_series(1, 2000) n";
    pair.change(many);
    pair.finds("k1", "{\"n\": 1}");
    pair.finds("k2000", "{\"n\": 2000}");
    // Other rows stand in these lines of the new file.
    pair.writer.run("SELECT state_purge(prefix => 'k1')");
    pair.change("VACUUM FULL state_head");
    pair.finds("k1", "NULL");
    pair.finds("k2000", "{\"n\": 2000}");
    // The file ends before the row's page.
    let pages = "SELECT pg_relation_size('state_head') / 8192";
    let before = pair.writer.number(pages);
    pair.writer.run("DELETE FROM state_head");
    pair.change("VACUUM (INDEX_CLEANUP ON, TRUNCATE ON) state_head");
    assert!(pair.writer.number(pages) < before);
    pair.finds("k2000", "NULL");
    pair.change(many);
    pair.finds("k1", "{\"n\": 1}");
    pair.finds("k2000", "{\"n\": 2000}");
    pair.change("TRUNCATE state_head, state_snapshot");
    pair.finds("k2000", "NULL");
    pair.change("SELECT state_set('k2000', '{\"n\": 2000}')");
    pair.finds("k2000", "{\"n\": 2000}");
}
