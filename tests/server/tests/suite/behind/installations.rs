//! Several databases, extensions that go and come back, roles that go: each dirty entry stays with the
//! installation it belongs to.

use super::{
    LONG, await_accepting, await_written, reload, seen_and_stored, server, unwritten, worker,
};
use state_cache_server_tests::{Sql, eventually};

const DEFINE: &str = "SELECT state_class_define('left', write_mode => 'behind')";

#[test]
fn two_databases_keep_their_changes_apart() {
    let server = server(&[LONG]);
    let mut one = server.connect();
    one.run("CREATE DATABASE other");
    let mut two = server.connect_to("other");
    two.run("CREATE EXTENSION state_cache");
    two.run(DEFINE);
    await_accepting(&mut two);
    assert_ne!(worker(&mut one), worker(&mut two));
    one.run("SELECT state_set('doc', '\"one\"', class => 'left')");
    two.run("SELECT state_set('doc', '\"two\"', class => 'left')");
    assert_eq!(seen_and_stored(&mut one, "doc").0, "v1 \"one\"");
    assert_eq!(seen_and_stored(&mut two, "doc").0, "v1 \"two\"");
    assert_eq!(
        (unwritten(&mut one), unwritten(&mut two)),
        (vec!["doc".into()], vec!["doc".to_string()])
    );
    assert_eq!(one.number("SELECT state_flush()"), 1);
    assert_eq!(
        (unwritten(&mut one), unwritten(&mut two)),
        (vec![], vec!["doc".to_string()])
    );
    reload(&server, "state_cache.flush_interval = '10ms'");
    await_written(&mut two);
    assert_eq!(seen_and_stored(&mut two, "doc").1, "v1 \"two\"");
    assert_eq!(seen_and_stored(&mut one, "doc").1, "v1 \"one\"");
}

#[test]
fn nothing_of_a_dropped_extension_comes_back() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    for round in 1..=3 {
        client.run("SELECT count(state_set('doc ' || i, '1', class => 'left')) FROM generate_series(1, 20) i");
        assert_eq!(unwritten(&mut client).len(), 20);
        client.run("DROP EXTENSION state_cache");
        if round == 2 {
            // Another worker than the one that saw it go.
            eventually("the worker to leave", || worker(&mut client) == 0);
        }
        client.run("CREATE EXTENSION state_cache");
        client.run(DEFINE);
        assert_eq!(unwritten(&mut client), Vec::<String>::new());
        await_accepting(&mut client);
        assert_eq!(
            seen_and_stored(&mut client, "doc 1"),
            ("absent".into(), "absent".into())
        );
        // Nobody could evict what nobody can write: it must be given back.
        let dirty = "SELECT coalesce(sum(dirty), 0) FROM state_cache_stats WHERE class IS NULL";
        eventually("the old entries to go", || client.number(dirty) == 0);
        client.run("SELECT state_flush()");
        assert_eq!(
            client.number("SELECT count(*) FROM state_current WHERE class = 'left'"),
            0
        );
    }
}

#[test]
fn a_drop_that_is_rolled_back_loses_nothing() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("SELECT state_set('doc', '1', class => 'left')");
    client.run("BEGIN; DROP EXTENSION state_cache; ROLLBACK");
    client.run("BEGIN; TRUNCATE state_head, state_snapshot; ROLLBACK");
    assert_eq!(unwritten(&mut client), ["doc"]);
    assert_eq!(seen_and_stored(&mut client, "doc").0, "v1 1");
    client.run("SELECT state_flush()");
    assert_eq!(seen_and_stored(&mut client, "doc").1, "v1 1");
}

#[test]
fn a_drop_of_the_database_that_fails_loses_nothing() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("CREATE DATABASE other");
    let mut other = server.connect_to("other");
    other.run("CREATE EXTENSION state_cache");
    other.run(DEFINE);
    await_accepting(&mut other);
    other.run("SELECT state_set('doc', '1', class => 'left')");
    // This session is in its way.
    assert_eq!(client.error("DROP DATABASE other"), "55006");
    assert_eq!(seen_and_stored(&mut other, "doc").0, "v1 1");
    await_accepting(&mut other);
    other.run("SELECT state_set('doc', '2', class => 'left')");
    assert_eq!(seen_and_stored(&mut other, "doc").0, "v2 2");
    other.run("SELECT state_flush()");
    assert_eq!(seen_and_stored(&mut other, "doc").1, "v2 2");
    other.run("SELECT state_set('doc', '3', class => 'left')");
    drop(other);
    // A copy has what was left as well, and so has a database with another name.
    client.run("CREATE DATABASE copy TEMPLATE other");
    client.run("ALTER DATABASE other RENAME TO renamed");
    for name in ["copy", "renamed"] {
        let mut session = server.connect_to(name);
        assert_eq!(
            seen_and_stored(&mut session, "doc"),
            ("v3 3".into(), "v3 3".into()),
            "{name}"
        );
    }
    // And when it succeeds, nothing is left of it.
    let mut session = server.connect_to("renamed");
    await_accepting(&mut session);
    session.run("SELECT state_set('doc', '4', class => 'left')");
    let oid = session.text("SELECT oid FROM pg_database WHERE datname = current_database()");
    drop(session);
    client.run("DROP DATABASE renamed WITH (FORCE)");
    client.run(&format!("CREATE DATABASE renamed OID {oid} TEMPLATE copy"));
    let mut session = server.connect_to("renamed");
    assert_eq!(
        seen_and_stored(&mut session, "doc"),
        ("v3 3".into(), "v3 3".into())
    );
}

#[test]
fn what_a_dropped_role_has_left_is_written() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("CREATE ROLE writer; GRANT SELECT, INSERT, UPDATE, DELETE ON state_class, state_head, state_snapshot \
        TO writer");
    client.run("SET ROLE writer; SELECT state_set('doc', '1', class => 'left'); RESET ROLE");
    assert_eq!(unwritten(&mut client), ["doc"]);
    client
        .run("REVOKE ALL ON state_class, state_head, state_snapshot FROM writer; DROP ROLE writer");
    // From here on somebody's code runs on the tables, as the role that made the change, if there is one.
    client.run(
        "CREATE TABLE seen(who text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES \
         (current_user); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON state_head FOR EACH ROW EXECUTE FUNCTION note()",
    );
    reload(&server, "state_cache.flush_interval = '10ms'");
    await_written(&mut client);
    assert_eq!(seen_and_stored(&mut client, "doc").1, "v1 1");
    assert_eq!(client.rows("SELECT * FROM seen"), [["postgres"]]);
}

#[test]
fn triggers_see_the_role_that_left_the_change() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("CREATE ROLE writer; GRANT SELECT, INSERT, UPDATE, DELETE ON state_class, state_head, state_snapshot \
        TO writer");
    client.run("SET ROLE writer; SELECT state_set('doc', '1', class => 'left'); RESET ROLE");
    client.run(
        "CREATE TABLE seen(who text); GRANT INSERT ON seen TO writer;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES \
         (current_user); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON state_head FOR EACH ROW EXECUTE FUNCTION note()",
    );
    reload(&server, "state_cache.flush_interval = '10ms'");
    await_written(&mut client);
    assert_eq!(client.rows("SELECT * FROM seen"), [["writer"]]);
    // While there are triggers, changes are written through: they may refuse them.
    let through = client.counter("written_through");
    client.run("SELECT state_set('doc', '2', class => 'left')");
    assert_eq!(client.counter("written_through"), through + 1);
    assert_eq!(seen_and_stored(&mut client, "doc").1, "v2 2");
}
