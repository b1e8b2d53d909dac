//! A database or an extension that is made again under the old name, or even under the old OID, must not
//! find in L1 what its predecessor left.

use state_cache_server_tests::{Server, Sql};

const OID: u32 = 70_000;

#[test]
fn a_database_with_the_oid_of_a_dropped_one_reads_nothing_of_it() {
    let server = Server::new(&[]);
    let mut admin = server.connect();
    for round in 0..3 {
        admin.run(&format!(
            "CREATE DATABASE again TEMPLATE template0 OID {OID}"
        ));
        let mut client = server.connect_to("again");
        client.run("CREATE EXTENSION state_cache");
        assert_eq!(client.text("SELECT state_get('a')"), "NULL");
        assert_eq!(client.number("SELECT count(*) FROM state_cache_entries"), 0);
        client.run(&format!("SELECT state_set('a', '{{\"round\": {round}}}')"));
        assert_eq!(
            client.text("SELECT state_get('a')"),
            format!("{{\"round\": {round}}}")
        );
        assert_eq!(client.number("SELECT count(*) FROM state_cache_entries"), 1);
        drop(client);
        admin.run("DROP DATABASE again WITH (FORCE)");
    }
}

/// The worst case: not only the database but everything in it has the OIDs of what was dropped.
#[test]
fn a_copy_with_the_oids_of_a_dropped_database_reads_its_own_states() {
    let server = Server::new(&[]);
    let mut admin = server.connect();
    admin.run(&format!(
        "CREATE DATABASE original TEMPLATE template0 OID {OID}"
    ));
    let mut client = server.connect_to("original");
    client.run("CREATE EXTENSION state_cache; SELECT state_set('a', '{\"n\": \"old\"}')");
    drop(client);
    admin.run("CREATE DATABASE copy TEMPLATE original");

    let mut client = server.connect_to("original");
    client.run("SELECT state_set('a', '{\"n\": \"new\"}'), state_set('b', '{}')");
    client.run("SELECT state_get('a'), state_get('b')");
    // A copy of a database that lives is one thing, the original another.
    assert_eq!(
        server.connect_to("copy").text("SELECT state_get('a')"),
        "{\"n\": \"old\"}"
    );
    assert_eq!(client.text("SELECT state_get('a')"), "{\"n\": \"new\"}");
    drop(client);

    admin.run("DROP DATABASE original WITH (FORCE)");
    admin.run(&format!("CREATE DATABASE original TEMPLATE copy OID {OID}"));
    let mut client = server.connect_to("original");
    assert_eq!(client.text("SELECT state_get('a')"), "{\"n\": \"old\"}");
    assert_eq!(client.text("SELECT state_get('b')"), "NULL");
    assert_eq!(client.text("SELECT state_version('a')"), "1");
}

#[test]
fn a_dropped_and_recreated_extension_reads_nothing_of_before() {
    let server = Server::new(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    for round in 0..3 {
        let document = format!("{{\"round\": {round}}}");
        client.run(&format!("SELECT state_set('a', '{document}')"));
        for session in [&mut client, &mut other] {
            assert_eq!(session.text("SELECT state_get('a')"), document);
        }
        // What is rolled back leaves everything as it was.
        client.run("BEGIN; DROP EXTENSION state_cache; CREATE EXTENSION state_cache; SELECT state_set('a', \
            '{\"undone\": true}'); ROLLBACK");
        for session in [&mut client, &mut other] {
            assert_eq!(session.text("SELECT state_get('a')"), document);
            assert_eq!(session.text("SELECT state_version('a')"), "1");
        }
        client.run("DROP EXTENSION state_cache");
        assert_eq!(other.error("SELECT state_get('a')"), "42883");
        let schema = ["public", "elsewhere"][round % 2];
        client.run(&format!(
            "CREATE SCHEMA IF NOT EXISTS elsewhere; CREATE EXTENSION state_cache SCHEMA {schema}"
        ));
        for session in [&mut client, &mut other] {
            session.run("SET search_path = public, elsewhere");
            assert_eq!(session.text("SELECT state_get('a')"), "NULL");
            assert_eq!(
                session.number("SELECT count(*) FROM state_cache_entries"),
                0
            );
        }
    }
}

/// Two databases use the same keys.
#[test]
fn databases_do_not_see_each_others_states() {
    let server = Server::new(&[]);
    server.connect().run("CREATE DATABASE other");
    let (mut one, mut two) = (server.connect(), server.connect_to("other"));
    two.run("CREATE EXTENSION state_cache");
    for n in 0..10 {
        one.run(&format!("SELECT state_set('a', '{{\"one\": {n}}}')"));
        two.run(&format!("SELECT state_set('a', '{{\"two\": {n}}}')"));
        assert_eq!(
            one.text("SELECT state_get('a')"),
            format!("{{\"one\": {n}}}")
        );
        assert_eq!(
            two.text("SELECT state_get('a')"),
            format!("{{\"two\": {n}}}")
        );
    }
    one.run("SELECT state_cache_clear()");
    assert_eq!(one.number("SELECT count(*) FROM state_cache_entries"), 0);
    assert_eq!(two.number("SELECT count(*) FROM state_cache_entries"), 1);
    one.run("TRUNCATE state_head, state_snapshot");
    assert_eq!(two.text("SELECT state_get('a')"), "{\"two\": 9}");
}
