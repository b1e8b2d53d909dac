//! What a server is like after many writes, before VACUUM comes by.

use state_cache_server_tests::{Server, Sql};

/// Writes that are measured.
const WRITES: i64 = 500;

/// Index entries that a write may visit: those of the versions it reads, replaces and prunes.
const VISITED_PER_WRITE: i64 = 10;

/// Every write leaves a dead version behind. Were they all visited by the next write, writing would get
/// slower until VACUUM, which a long transaction keeps from its work. Whatever plan statistics suggest.
#[test]
fn versions_that_wait_for_vacuum_do_not_slow_writes() {
    for keep in [1, 3] {
        let server = Server::new(&["autovacuum = off"]);
        let mut client = server.connect();
        client.run(&format!(
            "SELECT state_class_define('run', keep => {keep});
             CREATE PROCEDURE write(first int, last int) LANGUAGE plpgsql AS $$ BEGIN
                 FOR n IN first..last LOOP
                     PERFORM state_set('k' || n % 5, jsonb_build_object('n', n, 'padding', repeat('x', 500)));
                     COMMIT;
                 END LOOP;
             END $$"
        ));
        client.run("CALL write(1, 10000)");
        client.run("ANALYZE state_snapshot, state_head");
        client.run("CALL write(10001, 20000)");
        let mut visited = || {
            client.run("SELECT pg_stat_force_next_flush()");
            client.number("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('state_snapshot', \
                'state_head')")
        };
        let before = visited();
        let mut writer = server.connect();
        writer.run(&format!("CALL write(20001, 20000 + {WRITES})"));
        writer.run("SELECT pg_stat_force_next_flush()");
        let visited = visited() - before;
        assert!(
            visited <= WRITES * VISITED_PER_WRITE,
            "keep {keep}: {visited} index entries visited by {WRITES} writes"
        );
    }
}
