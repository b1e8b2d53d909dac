//! TRUNCATE under readers. It is not MVCC-safe, so only statements with a snapshot of their own are
//! compared: they wait for its lock before they take their snapshot.

use postgres::Client;
use state_cache_server_tests::{RaiseOnDrop, Server, Sql};
use std::sync::atomic::{AtomicBool, Ordering};

const ROUNDS: usize = 60;
const READERS: usize = 6;

fn compare(client: &mut Client) -> Vec<Vec<String>> {
    client.rows(
        "SELECT k, state_version(k), c.version
             FROM (SELECT 'k' || n AS k FROM generate_series(1, 20) n) keys
                 LEFT JOIN state_current c ON c.class = 'run' AND c.key = k
             WHERE state_get(k) IS DISTINCT FROM c.state OR state_version(k) IS DISTINCT FROM c.version",
    )
}

#[test]
fn no_read_answers_from_before_a_truncate() {
    let server = Server::new(&[]);
    let over = AtomicBool::new(false);
    let compared = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                threads.spawn(|| {
                    let (mut client, mut compared) = (server.connect(), 0);
                    while !over.load(Ordering::SeqCst) {
                        assert_eq!(compare(&mut client), Vec::<Vec<String>>::new());
                        compared += 1;
                    }
                    compared
                })
            })
            .collect();
        let raise = RaiseOnDrop(&over);
        let mut client = server.connect();
        for round in 0..ROUNDS {
            client.run(&format!(
                "SELECT state_set('k' || n, jsonb_build_object('round', {round})) FROM generate_series(1, 20) n"
            ));
            client.run("SELECT count(state_get('k' || n)) FROM generate_series(1, 20) n");
            let end = ["COMMIT", "ROLLBACK"][round % 2];
            client.run(&format!(
                "BEGIN; TRUNCATE state_head, state_snapshot; {end}"
            ));
            // By functions alone, which wait for no lock on the tables.
            let left =
                client.number("SELECT count(state_get('k' || n)) FROM generate_series(1, 20) n");
            if round % 2 == 0 {
                assert_eq!(left, 0)
            } else {
                assert_eq!(left, 20)
            }
        }
        drop(raise);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<usize>()
    });
    assert!(compared > ROUNDS);
    assert!(server.connect().counter("hits") > 0);
}
