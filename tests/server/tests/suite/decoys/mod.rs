//! Functions and operators that somebody has planted where our scripts and statements could find them: in the schema
//! of the extension and in `public`, which come first in everybody's `search_path`. A superuser must call none of
//! them.
//!
//! What is planted is derived from what our scripts and sources say, see [`names_called`] and `plant.sql`.

pub mod tour;

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PLANT: &str = include_str!("plant.sql");

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The contents of the files below a directory whose names end so.
fn texts(directory: &Path, ending: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// What our scripts say.
fn scripts() -> Vec<String> {
    let mut found = Vec::new();
    texts(&top().join("sql"), ".sql", &mut found);
    found
}

/// What the sources say that hold statements.
fn statements() -> Vec<String> {
    let mut found = Vec::new();
    texts(&top().join("src/store"), ".rs", &mut found);
    found
}

/// Every name that stands before a parenthesis and does not define a function. Many are no functions of SQL; which
/// ones are PostgreSQL knows.
fn names_called(sources: &[String]) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for source in sources {
        let lines = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .filter(|line| !line.starts_with("COMMENT") && !line.starts_with("\tIS '"));
        for line in lines {
            for (at, _) in line.match_indices('(') {
                let before = line[..at].trim_end_matches(' ');
                let prefix = before.trim_end_matches(is_word);
                let name = &before[prefix.len()..];
                if !name.is_empty() && !prefix.trim_end().ends_with("FUNCTION") {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    names
}

/// Operators that our scripts and sources use, or a part of whose text looks like it.
fn operators_used(client: &mut Client) -> BTreeSet<String> {
    let sources = [scripts(), statements()].concat();
    let rows = client.rows(
        "SELECT DISTINCT oprname FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'",
    );
    rows.into_iter()
        .map(|mut row| row.remove(0))
        .filter(|name| {
            let forms = [format!("pg_catalog.{name})"), format!(" {name} ")];
            sources
                .iter()
                .any(|source| forms.iter().any(|form| source.contains(form)))
        })
        .collect()
}

/// Functions of the extension and of the script that partitions: names and types of arguments.
pub fn own_functions(client: &mut Client) -> Vec<Vec<String>> {
    client.rows(
        "SELECT p.proname, ARRAY(SELECT unnest(p.proargtypes)) FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
         WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
         AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'state_cache') ORDER BY 1",
    )
}

/// Plants decoys in both schemas, as a role that may create in them.
fn plant(client: &mut Client, own: &[Vec<String>]) {
    let operators = operators_used(client);
    for expected in ["=", "<", "->>", "||"] {
        assert!(operators.contains(expected), "{expected}: {operators:?}");
    }
    client.run(
        "CREATE ROLE mallory; CREATE SCHEMA target; CREATE SCHEMA workshop AUTHORIZATION mallory;
         GRANT CREATE, USAGE ON SCHEMA public, target TO mallory; SET ROLE mallory; SET search_path = workshop",
    );
    client.run(PLANT);
    let called = names_called(&scripts());
    let wanted: Vec<String> = names_called(&[scripts(), statements()].concat())
        .iter()
        .map(|name| format!("('function', '{name}')"))
        .chain(
            operators
                .iter()
                .map(|name| format!("('operator', '{name}')")),
        )
        .collect();
    client.run(&format!("INSERT INTO wanted VALUES {}", wanted.join(", ")));
    // Of our own functions those matter that a script calls.
    for function in own.iter().filter(|it| called.contains(&it[0])) {
        client.run(&format!(
            "INSERT INTO own VALUES ('{}', '{}')",
            function[0], function[1]
        ));
    }
    client.run("CALL plant('target'); CALL plant('public')");
    let planted =
        client.number("SELECT count(*) FROM pg_proc WHERE pronamespace = 'target'::regnamespace");
    assert!(planted > 5000, "only {planted}");
    client.run("RESET ROLE; SET search_path = pg_catalog");
}

const SCRIPT: &str = include_str!("../../../../../sql/state_cache_partition_by_month.sql");

#[test]
fn nothing_planted_is_called() {
    // A first server tells which functions are ours; decoys have other arguments.
    let own = {
        let server = Server::new(&[]);
        let mut client = server.connect();
        client.run(&format!("BEGIN; {SCRIPT} COMMIT"));
        own_functions(&mut client)
    };
    let server = Server::without_extension(&[
        "shared_preload_libraries = 'state_cache'",
        "state_cache.tombstone_retention = '1s'",
        "state_cache.flush_interval = '10ms'",
        "autovacuum = off",
    ]);
    let mut observer = server.connect();
    plant(&mut observer, &own);
    let called = |server: &Server| {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("decoy called"));
        lines.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let none = BTreeSet::new();

    // With the search_path that the server gives its script, and with one in which PostgreSQL's own come last.
    observer.run("CREATE EXTENSION state_cache SCHEMA target; DROP EXTENSION state_cache");
    observer.run("ALTER DATABASE postgres SET search_path = target, public, pg_catalog");
    let mut client = server.connect();
    client.run("CREATE EXTENSION state_cache SCHEMA target");
    // What PostgreSQL has of its own is pinned, and nothing depends on it; on what is planted something would.
    let dependent = "SELECT pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, \
        d.refobjid, 0)
         FROM pg_depend d WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND d.deptype = 'n' \
         AND d.refobjid >= 16384
         AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND \
         e.deptype = 'e')
         AND d.classid <> 'pg_operator'::regclass";
    assert_eq!(observer.rows(dependent), Vec::<Vec<String>>::new());

    for round in ["plain", "partitioned"] {
        tour::run(&mut client, round);
        assert_eq!(called(&server), none, "{round}");
        // The worker: what is left to it, what has expired, what is retained no longer.
        eventually("the worker to be done", || {
            observer.flag(
                "SELECT NOT EXISTS (SELECT FROM target.state_head WHERE expires_at < now() + interval '1 minute')
                 AND NOT EXISTS (SELECT FROM target.state_head WHERE deleted)
                 AND NOT EXISTS (SELECT FROM target.state_cache_unwritten)",
            )
        });
        assert_eq!(called(&server), none, "{round}");
        if round == "plain" {
            client.run(&format!("BEGIN; {SCRIPT} COMMIT"));
            assert_eq!(called(&server), none, "the script that partitions");
            assert_eq!(observer.rows(dependent), Vec::<Vec<String>>::new());
        }
    }
    // The floor that the first round's replica has brought is merged with the later ones.
    assert_eq!(
        observer.text("SELECT version FROM target.state_floor WHERE class = 'run' AND bucket = 1"),
        "5"
    );
    assert_eq!(
        observer.text("SELECT sum(failures) FROM target.state_cache_workers"),
        "0"
    );
    // The tour has missed no function.
    let missed: Vec<String> = own_functions(&mut observer)
        .into_iter()
        .map(|mut row| row.remove(0))
        .filter(|name| !tour::covers(name))
        .collect();
    assert_eq!(missed, Vec::<String>::new());
}
