//! What the step leaves in the catalogs.

use super::{OLD, installed, old_installation, server};
use crate::partitions::partition;
use postgres::Client;
use state_cache_server_tests::Sql;
use std::collections::BTreeSet;

/// What there is in the catalogs, a line for each property of each object.
fn surface(client: &mut Client) -> BTreeSet<String> {
    client.run("SET search_path = pg_catalog");
    let rows = client.rows(include_str!("surface.sql"));
    client.run("RESET search_path");
    rows.into_iter().map(|row| row.join(" | ")).collect()
}

/// The lines that one has and the other has not, as many as one reads.
fn differences<'a>(one: &'a BTreeSet<String>, other: &'a BTreeSet<String>) -> Vec<&'a String> {
    one.symmetric_difference(other).take(20).collect()
}

fn nothing<'a>() -> Vec<&'a String> {
    Vec::new()
}

#[test]
fn an_updated_installation_is_as_a_new_one() {
    let server = server(&["state_cache.max_workers = 0"]);
    let mut admin = server.connect();
    for schema in ["public", "Some schema"] {
        let (old, new) = (format!("old {schema}"), format!("new {schema}"));
        for database in [&old, &new] {
            admin.run(&format!("CREATE DATABASE \"{database}\""));
            let mut client = server.connect_to(database);
            client.run(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""));
        }
        let (mut old, mut new) = (server.connect_to(&old), server.connect_to(&new));
        old.run(&format!(
            "CREATE EXTENSION state_cache SCHEMA \"{schema}\" VERSION '{OLD}'"
        ));
        new.run(&format!("CREATE EXTENSION state_cache SCHEMA \"{schema}\""));

        let before = surface(&mut old);
        assert!(before.len() > 5000, "{}", before.len());
        let expected = surface(&mut new);
        // Or this compares nothing.
        assert_ne!(differences(&before, &expected), nothing());

        // Taken back, the step leaves all as it was.
        old.run("BEGIN; ALTER EXTENSION state_cache UPDATE");
        assert_eq!(installed(&mut old), installed(&mut new));
        old.run("ROLLBACK");
        assert_eq!(installed(&mut old), OLD);
        assert_eq!(differences(&surface(&mut old), &before), nothing());
        old.run(&format!("SELECT \"{schema}\".state_set('a', '1')"));

        old.run("ALTER EXTENSION state_cache UPDATE");
        assert_eq!(installed(&mut old), installed(&mut new));
        assert_eq!(differences(&surface(&mut old), &expected), nothing());
        assert_eq!(
            old.text(&format!("SELECT \"{schema}\".state_get('a')")),
            "1"
        );
    }
    // So it is where the snapshots were partitioned before.
    let mut old = old_installation(&server, "old partitions");
    partition(&mut old);
    old.run("ALTER EXTENSION state_cache UPDATE");
    admin.run("CREATE DATABASE \"new partitions\"");
    let mut new = server.connect_to("new partitions");
    new.run("CREATE EXTENSION state_cache");
    partition(&mut new);
    assert_eq!(
        differences(&surface(&mut old), &surface(&mut new)),
        nothing()
    );
    // A second time there is nothing to do.
    old.run("ALTER EXTENSION state_cache UPDATE");
}
