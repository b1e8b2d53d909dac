//! What users put onto the tables and pg_dump leaves out: a restore says what it has lost, and how to have it back.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// One of each kind.
const PUT: &str = r#"
    CREATE ROLE tenant; CREATE ROLE keeper;
    CREATE TABLE mirror (key text);
    CREATE FUNCTION mirror() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    GRANT SELECT ON state_head, state_snapshot, state_current TO tenant;
    CREATE POLICY "it's mine" ON state_head AS PERMISSIVE FOR SELECT TO tenant, keeper
        USING (key LIKE 'mine%' AND class <> 'it''s');
    CREATE POLICY all_of_it ON state_snapshot TO PUBLIC USING (key LIKE 'mine%') WITH CHECK (key <> '');
    CREATE POLICY never ON state_snapshot AS RESTRICTIVE FOR DELETE USING (false);
    ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
    ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE INDEX "by writer" ON state_snapshot (writer) WHERE writer IS NOT NULL;
    CREATE TRIGGER "a trigger" AFTER INSERT ON state_outbox FOR EACH ROW EXECUTE FUNCTION mirror();
    ALTER TABLE state_outbox ENABLE ALWAYS TRIGGER "a trigger";
    ALTER TABLE state_head ADD CONSTRAINT short CHECK (octet_length(key) < 200);
    ALTER TABLE state_head SET (autovacuum_vacuum_scale_factor = 0.01);
    ALTER TABLE state_snapshot SET (toast.autovacuum_enabled = false);
    ALTER TABLE state_snapshot ALTER state SET COMPRESSION pglz, ALTER agent_phase SET STATISTICS 500;
    CREATE STATISTICS both_of_them ON class, key FROM state_head;
    CREATE RULE quiet AS ON DELETE TO state_outbox WHERE OLD.acknowledged_at IS NULL DO INSTEAD NOTHING;
    CREATE PUBLICATION of_states FOR TABLE state_head (class, key, version) WHERE (class = 'run');
    ALTER TABLE state_head REPLICA IDENTITY FULL
"#;

fn statements(client: &mut Client, present: bool) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT statement FROM state_protections() WHERE present = {present}"
    ))
}

fn restore(server: &Server, database: &str) -> Client {
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    server.run_program("pg_dump", &["--dbname=postgres", "--file", dump]);
    server.connect().run(&format!("CREATE DATABASE {database}"));
    let name = format!("--dbname={database}");
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        &name,
        "--file",
        dump,
    ];
    server.run_program("psql", &arguments);
    server.connect_to(database)
}

#[test]
fn what_a_dump_leaves_out_is_known_and_put_back_by_its_statements() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut original = server.connect();
    assert!(
        original
            .rows("SELECT * FROM state_protections()")
            .is_empty()
    );
    original.run("SELECT state_set('mine', '1'), state_set('theirs', '1')");
    original.run(PUT);
    let all = statements(&mut original, true);
    assert_eq!(all.len(), 18, "{all:?}");
    assert!(statements(&mut original, false).is_empty());
    original.run("SELECT state_protections_note()");

    let mut restored = restore(&server, "restored");
    let lost = statements(&mut restored, false);
    // Everybody with a grant sees everything, which is why it is said.
    restored.run("SET ROLE tenant");
    assert_eq!(restored.text("SELECT state_get('theirs')"), "1");
    restored.run("RESET ROLE");
    let mut there = statements(&mut restored, true);
    there.extend(lost.clone());
    there.sort();
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(there, expected);
    for must_be_lost in [
        "CREATE POLICY",
        "ENABLE ROW",
        "FORCE ROW",
        "CREATE INDEX",
        "CREATE TRIGGER",
        "ADD CONSTRAINT",
        "SET (auto",
    ] {
        assert!(
            lost.iter().any(|row| row[0].contains(must_be_lost)),
            "{must_be_lost}: {lost:?}"
        );
    }
    for row in &lost {
        restored.run(&row[0]);
    }
    assert_eq!(statements(&mut restored, true), all);
    assert!(statements(&mut restored, false).is_empty());
    restored.run("SET ROLE tenant");
    assert_eq!(restored.text("SELECT state_get('theirs')"), "NULL");
    assert_eq!(restored.text("SELECT state_get('mine')"), "1");
    restored.run("RESET ROLE; SELECT state_protections_note()");

    // What is taken away here, where it was in force, is not missed; nor in a dump made after that.
    restored.run("DROP POLICY never ON state_snapshot; DROP INDEX \"by writer\"; SELECT state_protections_note()");
    assert_eq!(statements(&mut restored, true).len(), all.len() - 2);
    assert!(statements(&mut restored, false).is_empty());
}

#[test]
fn the_worker_notes_them_and_says_what_a_restore_has_lost() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run("CREATE ROLE tenant; GRANT SELECT ON state_head, state_snapshot TO tenant");
    original.run("CREATE POLICY mine ON state_head USING (key LIKE 'mine%'); ALTER TABLE state_head ENABLE ROW \
        LEVEL SECURITY");
    drop(original);
    // It looks after the start.
    server.stop();
    server.start();
    let mut original = server.connect();
    eventually("the worker to note the policy", || {
        original.number("SELECT count(*) FROM state_protection") == 2
    });
    let mut restored = restore(&server, "restored");
    restored.run("SELECT state_set('a', '1')");
    assert_eq!(statements(&mut restored, false).len(), 2);
    drop(restored);
    server.stop();
    server.start();
    let said = "2 of the policies, indexes, triggers and the like that the tables of state_cache had are missing";
    eventually("the worker to say so", || server.log().contains(said));
}

/// What is put onto the table of notes itself runs as its owner, not as the worker; and a statement may be of any
/// length.
#[test]
fn the_worker_notes_them_as_the_owner_of_the_table() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(
        "CREATE ROLE keeper; ALTER TABLE state_protection OWNER TO keeper;
         CREATE TABLE public.seen (role text); GRANT INSERT ON public.seen TO keeper;
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER look AFTER INSERT ON state_protection
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()",
    );
    client.run(
        "DO $$ BEGIN EXECUTE format('CREATE POLICY long ON state_head USING (key <> %L)',
             (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n)); END $$",
    );
    drop(client);
    // It looks after the start.
    server.stop();
    server.start();
    let mut client = server.connect();
    eventually("the worker to note all three", || {
        client.number("SELECT count(*) FROM state_protection") == 3
    });
    assert_eq!(
        client.text("SELECT DISTINCT role FROM public.seen"),
        "keeper"
    );
}

/// `pg_restore --disable-triggers` leaves triggers that fire always as ordinary ones.
#[test]
fn triggers_that_a_restore_has_weakened_are_named() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    let modes = "SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2";
    let before = client.rows(modes);
    client.run(
        "ALTER TABLE state_head DISABLE TRIGGER ALL; ALTER TABLE state_head ENABLE TRIGGER ALL;
         ALTER TABLE state_class DISABLE TRIGGER ALL; ALTER TABLE state_class ENABLE TRIGGER ALL;
         ALTER TABLE state_floor DISABLE TRIGGER ALL; ALTER TABLE state_floor ENABLE TRIGGER ALL",
    );
    let weakened = statements(&mut client, false);
    assert_eq!(weakened.len(), 9, "{weakened:?}");
    for row in &weakened {
        client.run(&row[0]);
    }
    assert_eq!(client.rows(modes), before);
    assert!(client.rows("SELECT * FROM state_protections()").is_empty());
}

/// PostgreSQL lets the indexes of an extension's tables be dropped, and a migration tool that knows nothing of them
/// does.
#[test]
fn own_indexes_that_were_dropped_are_named_by_the_worker_and_made_again_by_the_statements() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let own = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE starts_with(c.relname, 'state_')
            AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = i.indexrelid) ORDER BY 1";
    let before = client.rows(own);
    assert!(before.len() > 5, "{before:?}");
    for index in &before {
        client.run(&format!("DROP INDEX {}", index[0]));
    }
    let missing = statements(&mut client, false);
    assert_eq!(missing.len(), before.len(), "{missing:?}");
    drop(client);
    // It looks after the start.
    server.stop();
    server.start();
    let said = format!(
        "{} of the policies, indexes, triggers and the like",
        before.len()
    );
    eventually("the worker to say so", || server.log().contains(&said));
    let mut client = server.connect();
    for row in &missing {
        client.run(&row[0]);
    }
    assert_eq!(client.rows(own), before);
    assert!(client.rows("SELECT * FROM state_protections()").is_empty());
}
