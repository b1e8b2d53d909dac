//! Dirty entries that are damaged in shared memory: what is lost is said, and what is left is kept.

use super::{LONG, await_written, reload, seen_and_stored, server, unwritten};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

const DECLARE: &str = "CREATE FUNCTION damage(class text, key text, part text) RETURNS boolean
    LANGUAGE c AS 'state_cache', 'state_cache_test_damage'";

/// A document that takes more than one chunk of L1, as SQL.
fn long(name: &str) -> String {
    format!("to_jsonb('{name}' || repeat('.', 2000))")
}

/// The same as `seen_and_stored` shows it.
fn shown(version: i64, name: &str) -> String {
    format!("v{version} \"{name}{}\"", ".".repeat(2000))
}

fn set(client: &mut Client, key: &str, name: &str) {
    let document = long(name);
    client.run(&format!(
        "SELECT state_set('{key}', {document}, class => 'left')"
    ));
}

/// A server whose worker writes nothing by itself, with a state of which L3 holds version 1 and L1 version 2, and
/// one of which only L1 holds version 1.
fn with_dirty_states() -> (Server, Client) {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run(DECLARE);
    set(&mut client, "doc", "old");
    client.run("SELECT state_flush('left')");
    set(&mut client, "doc", "lost");
    set(&mut client, "new", "lost");
    (server, client)
}

fn damage(client: &mut Client, key: &str, part: &str) {
    assert!(client.flag(&format!("SELECT damage('left', '{key}', '{part}')")));
}

fn says_lost(server: &Server, version: i64, key: &str) -> bool {
    let said = format!("version {version} of state \"left/{key}\" is lost");
    server.log().contains(&said)
}

#[test]
fn a_reader_of_a_damaged_version_is_told_and_gets_what_is_left() {
    let (server, mut client) = with_dirty_states();
    damage(&mut client, "doc", "chain");
    damage(&mut client, "new", "chain");
    for read in [
        "state_get('doc', class => 'left')",
        "to_jsonb(state_get_text('doc', class => 'left')::jsonb)",
        "(SELECT state FROM state_get_many(ARRAY['doc'], class => 'left'))",
    ] {
        assert!(
            client.flag(&format!("SELECT {read} = {}", long("old"))),
            "{read}"
        );
    }
    assert!(says_lost(&server, 2, "doc"));
    assert!(client.flag("SELECT state_get('new', class => 'left') IS NULL"));
    assert!(says_lost(&server, 1, "new"));
    // They stay until something newer takes their place, since their numbers count.
    assert_eq!(unwritten(&mut client), ["doc", "new"]);
    set(&mut client, "doc", "next");
    set(&mut client, "new", "next");
    client.run("SELECT state_flush('left')");
    assert_eq!(
        seen_and_stored(&mut client, "doc"),
        (shown(3, "next"), shown(3, "next"))
    );
    assert_eq!(seen_and_stored(&mut client, "new").0, shown(2, "next"));
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
}

#[test]
fn every_change_over_a_damaged_version_gets_a_number_above_it() {
    let (_server, mut client) = with_dirty_states();
    for (key, change, version) in [
        // The document that L3 holds is a new version all the same.
        ("same", "state_set('same', {old}, class => 'left')", 3),
        (
            "touched",
            "state_touch('touched', '1 day', class => 'left')",
            3,
        ),
        ("deleted", "state_delete('deleted', class => 'left')", 3),
        (
            "saved",
            "state_save('saved', {old}, checkpoint_type => 'manual', class => 'left')",
            // What is left is written first, as version 3.
            4,
        ),
        // A change that fails leaves everything as it is.
        (
            "failed",
            "state_append('failed', '{}', '1', class => 'left')",
            1,
        ),
    ] {
        set(&mut client, key, "old");
        client.run("SELECT state_flush('left')");
        set(&mut client, key, "lost");
        damage(&mut client, key, "chain");
        let call = format!("SELECT {}", change.replace("{old}", &long("old")));
        let written = match version {
            1 => {
                client.error(&call);
                false
            }
            _ => {
                client.run(&call);
                true
            }
        };
        let sql = format!("SELECT version FROM state_head WHERE class = 'left' AND key = '{key}'");
        assert_eq!(
            unwritten(&mut client).contains(&key.into()),
            client.number(&sql) == 1
        );
        if written {
            client.run("SELECT state_flush('left')");
        }
        assert_eq!(client.number(&sql), version, "{change}");
    }
}

#[test]
fn a_flush_of_damaged_versions_says_so_and_tells_who_has_seen_them() {
    for part in ["chain", "value"] {
        let (server, mut client) = with_dirty_states();
        damage(&mut client, "doc", part);
        damage(&mut client, "new", part);
        let cursor = client.text("SELECT cursor FROM state_changes(NULL) WHERE op = 'end'");
        client.run("SELECT state_flush('left')");
        assert!(says_lost(&server, 2, "doc") && says_lost(&server, 1, "new"));
        assert_eq!(unwritten(&mut client), Vec::<String>::new());
        // What is left has a version above the one that was lost.
        assert_eq!(
            seen_and_stored(&mut client, "doc"),
            (shown(3, "old"), shown(3, "old"))
        );
        assert!(
            client.flag("SELECT count(*) = 1 FROM state_get_if_newer('doc', 2, class => 'left')")
        );
        assert_eq!(seen_and_stored(&mut client, "new").1, "absent");
        let told = client.rows(&format!(
            "SELECT key, version FROM state_changes('{cursor}') WHERE class = 'left' ORDER BY 1"
        ));
        assert_eq!(told, [["doc", "3"], ["new", "2"]]);
        set(&mut client, "new", "again");
        assert_eq!(seen_and_stored(&mut client, "new").0, shown(3, "again"));
    }
}

#[test]
fn the_worker_mends_damaged_versions_and_writes_the_others() {
    let (server, mut client) = with_dirty_states();
    set(&mut client, "fine", "fine");
    damage(&mut client, "doc", "value");
    reload(&server, "state_cache.flush_interval = '100ms'");
    await_written(&mut client);
    assert!(says_lost(&server, 2, "doc"));
    assert_eq!(seen_and_stored(&mut client, "doc").1, shown(3, "old"));
    assert_eq!(seen_and_stored(&mut client, "fine").1, shown(1, "fine"));
}

#[test]
fn versions_whose_names_are_damaged_are_counted_in_the_log() {
    let (server, mut client) = with_dirty_states();
    damage(&mut client, "doc", "header");
    reload(&server, "state_cache.flush_interval = '100ms'");
    await_written(&mut client);
    eventually("the loss to be logged", || {
        server
            .log()
            .contains("up to 1 unwritten versions of states")
    });
    assert_eq!(seen_and_stored(&mut client, "doc").0, shown(1, "old"));
}
