//! As whom the worker writes: as who made the change, never as itself, a superuser. Who may put code on the
//! tables gets by it what those roles may do, and no more.

use super::{LONG, await_written, reload, seen_and_stored, server, unwritten};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// The worker begins to write.
const NOW: &str = "state_cache.flush_interval = '10ms'";

/// `mallory` may change states, and put triggers on the tables; `keeper` owns the tables. `log` says who was who
/// when.
fn with_roles() -> (Server, Client) {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run(
        "CREATE ROLE keeper; CREATE ROLE mallory;
         CREATE SCHEMA m; GRANT ALL ON SCHEMA m TO keeper, mallory;
         CREATE TABLE log (what text, who name); GRANT INSERT ON log TO public;
         GRANT ALL ON SCHEMA public TO keeper;
         ALTER TABLE state_head OWNER TO keeper; ALTER TABLE state_snapshot OWNER TO keeper;
         GRANT SELECT ON state_class TO keeper;
         GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON state_head, state_snapshot TO mallory;
         CREATE FUNCTION m.note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.log VALUES (TG_NAME, current_user); RETURN NEW; END $$",
    );
    (server, client)
}

/// Leaves a change of mallory's, and what mallory does then.
fn left_by_mallory(client: &mut Client, then: &str) {
    client.run("SET ROLE mallory");
    client.run("SELECT state_set('doc', '1', class => 'left')");
    client.run(then);
    client.run("RESET ROLE");
    assert!(unwritten(client).contains(&"doc".into()));
}

fn log(client: &mut Client) -> Vec<Vec<String>> {
    client.rows("SELECT DISTINCT what, who FROM log ORDER BY 1, 2")
}

#[test]
fn deferred_triggers_run_as_who_made_the_change() {
    let (server, mut client) = with_roles();
    left_by_mallory(
        &mut client,
        "CREATE TRIGGER at_once AFTER INSERT ON state_head FOR EACH ROW EXECUTE FUNCTION m.note();
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON state_head DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION m.note()",
    );
    reload(&server, NOW);
    await_written(&mut client);
    assert_eq!(
        log(&mut client),
        [["at_once", "mallory"], ["later", "mallory"]]
    );
}

/// Nor does a trigger get around that by what it does while it runs: such a state is put aside.
#[test]
fn a_trigger_puts_nothing_off_to_the_commit_of_the_worker() {
    for trick in [
        "CREATE FUNCTION m.trick() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NEW; END $$;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON state_head DEFERRABLE FOR EACH ROW EXECUTE FUNCTION \
         m.note()",
        "CREATE FUNCTION m.later() RETURNS text LANGUAGE sql AS
             $$ INSERT INTO public.log VALUES ('cursor', current_user); SELECT '' $$;
         CREATE FUNCTION m.trick() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT m.later()'; RETURN NEW; END $$",
    ] {
        let (server, mut client) = with_roles();
        let trigger = "CREATE TRIGGER first BEFORE INSERT ON state_head FOR EACH ROW EXECUTE FUNCTION m.trick()";
        left_by_mallory(&mut client, &format!("{trick}; {trigger}"));
        reload(&server, NOW);
        eventually("the worker to have tried", || {
            client.flag("SELECT NOT EXISTS (SELECT FROM state_cache_unwritten WHERE NOT parked)")
        });
        assert_eq!(log(&mut client), Vec::<Vec<String>>::new(), "{trick}");
        let error = client
            .text("SELECT last_error FROM state_cache_workers WHERE database = current_database()");
        assert!(
            error.contains("security-restricted operation"),
            "{trick}: {error}"
        );
        // Nothing is lost by that.
        client.run("DROP FUNCTION m.trick CASCADE");
        await_written(&mut client);
        assert_eq!(
            seen_and_stored(&mut client, "doc"),
            ("v1 1".into(), "v1 1".into())
        );
    }
}

/// What the owner of the tables puts there, and the triggers that make others write through do not tell of.
const EXPRESSIONS: &str = "SET ROLE keeper;
    CREATE FUNCTION m.filled() RETURNS text LANGUAGE sql AS
        $$ INSERT INTO public.log VALUES ('default', current_user); SELECT '' $$;
    CREATE FUNCTION m.indexed(key text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RAISE LOG 'indexed as %', current_user; RETURN key; END $$;
    ALTER TABLE state_head ADD COLUMN more text;
    ALTER TABLE state_head ALTER COLUMN more SET DEFAULT m.filled();
    CREATE INDEX indexed ON state_head (m.indexed(key));
    RESET ROLE";

/// Puts them there; where the server's log ends then. Creating the index may compute it for rows that were deleted
/// just now, and logs that.
fn put_expressions(server: &Server, client: &mut Client) -> usize {
    client.run(EXPRESSIONS);
    server.log().len()
}

/// Whose names the server's log has, from here on, as those who filled the index.
fn indexed_as(server: &Server, from: usize) -> Vec<String> {
    let log = server.log();
    let lines = log[from..]
        .lines()
        .filter_map(|line| line.split("indexed as ").nth(1));
    let mut names: Vec<String> = lines.map(str::to_string).collect();
    names.dedup();
    names
}

#[test]
fn defaults_and_indexes_are_computed_as_who_made_the_change() {
    let (server, mut client) = with_roles();
    let from = put_expressions(&server, &mut client);
    left_by_mallory(&mut client, "");
    reload(&server, NOW);
    await_written(&mut client);
    assert_eq!(log(&mut client), [["default", "mallory"]]);
    assert_eq!(indexed_as(&server, from), ["mallory"]);
}

#[test]
fn what_a_role_has_left_that_is_gone_is_written_as_the_owner_of_the_tables() {
    let (server, mut client) = with_roles();
    let from = put_expressions(&server, &mut client);
    left_by_mallory(&mut client, "");
    client.run("DROP OWNED BY mallory; DROP ROLE mallory");
    reload(&server, NOW);
    await_written(&mut client);
    assert_eq!(log(&mut client), [["default", "keeper"]]);
    assert_eq!(indexed_as(&server, from), ["keeper"]);
    assert_eq!(seen_and_stored(&mut client, "doc").1, "v1 1");
}

/// Policies that are switched on while something is dirty, and hold for the owner of the tables.
#[test]
fn policies_decide_what_the_worker_may_write() {
    let (server, mut client) = with_roles();
    left_by_mallory(
        &mut client,
        "SELECT state_set('forbidden', '1', class => 'left')",
    );
    client.run("SELECT state_set('brief', '1', ttl => '1 ms')");
    for table in ["state_head", "state_snapshot"] {
        client.run(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
             CREATE POLICY most ON {table} USING (true) WITH CHECK (key <> 'forbidden')"
        ));
    }
    reload(&server, NOW);
    eventually("the worker to have tried", || {
        client.flag("SELECT NOT EXISTS (SELECT FROM state_cache_unwritten WHERE NOT parked)")
    });
    assert_eq!(unwritten(&mut client), ["forbidden"]);
    assert_eq!(
        client.rows("SELECT key, state FROM state_current WHERE class = 'left'"),
        [["doc", "1"]]
    );
    // Upkeep works as the owner.
    eventually("the expired state to go", || {
        client.flag("SELECT deleted FROM state_head WHERE key = 'brief'")
    });
    client.run("ALTER POLICY most ON state_head WITH CHECK (true)");
    client.run("ALTER POLICY most ON state_snapshot WITH CHECK (true)");
    await_written(&mut client);
}
