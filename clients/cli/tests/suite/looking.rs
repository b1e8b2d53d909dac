//! `ls`, `show`, `history`, `diff`.

use crate::support::database;
use state_cache_server_tests::Sql;

#[test]
fn ls_shows_classes_and_states_by_prefix() {
    let mut database = database("looking_ls");
    database.session.run(
        "SELECT state_set(k, jsonb_build_object('k', k)) FROM unnest('{a-1,a-2,b-1}'::text[]) k",
    );
    database
        .session
        .run("SELECT state_set('gone', '1'); SELECT state_delete('gone')");
    database
        .session
        .run("SELECT state_set('short', '1', ttl => '1 hour')");
    let classes = database.run(&["ls", "--json"]).json();
    let run = classes.iter().find(|row| row["class"] == "run").unwrap();
    assert_eq!(run["states"], 4);
    assert!(
        classes
            .iter()
            .any(|row| row["class"] == "config" && row["states"] == 0)
    );

    let keys = |arguments: &[&str]| -> Vec<String> {
        let ran = database.run(&[&["ls", "run", "--json"], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.json()
            .iter()
            .map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(&[]), ["a-1", "a-2", "b-1", "short"]);
    assert_eq!(keys(&["a-"]), ["a-1", "a-2"]);
    assert_eq!(keys(&["--after", "a-2"]), ["b-1", "short"]);
    assert_eq!(keys(&["--limit", "1"]), ["a-1"]);
    assert_eq!(keys(&["%"]), Vec::<String>::new());

    let table = database.run(&["ls", "run"]);
    let lines = table.lines();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>()[..3],
        ["KEY", "VERSION", "SIZE"]
    );
    assert!(
        lines[1].starts_with("a-1") && !table.out.contains("gone"),
        "{}",
        table.out
    );
    assert!(lines[4].contains("min"), "no time to live: {}", lines[4]);
    assert_eq!(database.run(&["ls", "no_such_class"]).code, 5);
    assert_eq!(database.run(&["ls", "config"]).lines(), ["no states"]);
}

#[test]
fn what_is_not_written_yet_is_shown_all_the_same() {
    let mut database = database("looking_behind");
    database
        .session
        .run("SELECT state_class_define('draft', write_mode => 'behind')");
    database
        .session
        .run("SELECT state_set('a', '{\"n\": 1}', class => 'draft')");
    let listed = database.run(&["ls", "draft", "--json"]).json();
    assert_eq!((listed.len(), &listed[0]["key"]), (1, &"a".into()));
    let shown = database.run(&["show", "a", "--class", "draft", "--path", "n"]);
    assert_eq!(shown.lines(), ["1"]);
    let exported = database.run(&["export", "draft"]).json();
    assert_eq!((exported.len(), &exported[0]["state"]["n"]), (1, &1.into()));
}

#[test]
fn show_gives_documents_parts_and_kept_versions() {
    let mut database = database("looking_show");
    database
        .session
        .run("SELECT state_set('a', '{\"n\": 1.50, \"plan\": {\"steps\": [\"x\", \"y\"]}}')");
    database.session.run("SELECT state_set('a', '{\"n\": 2}')");
    assert_eq!(
        database.run(&["show", "a"]).lines(),
        ["{", "    \"n\": 2", "}"]
    );
    assert_eq!(
        database.run(&["show", "a", "--at", "1", "--json"]).lines(),
        [
            r#"{"class":"run","key":"a","version":1,"state":{"n": 1.50, "plan": {"steps": ["x", "y"]}}}"#
        ]
    );
    assert_eq!(
        database
            .run(&["show", "a", "--at", "1", "--path", "plan.steps.1"])
            .lines(),
        ["\"y\""]
    );
    for absent in [
        &["show", "b"][..],
        &["show", "a", "--at", "9"],
        &["show", "a", "--path", "plan"],
        &["show", "a", "--class", "config"],
    ] {
        assert_eq!(database.run(absent).code, 5, "{absent:?}");
    }
}

#[test]
fn nothing_in_a_key_or_document_steers_the_terminal() {
    let mut database = database("looking_clean");
    database
        .session
        .run("SELECT state_set(E'k\\x1b[2J', '\"\u{9b}2J\"')");
    for arguments in [&["ls", "run"][..], &["show", "k\x1b[2J"]] {
        let ran = database.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.out.contains(['\x1b', '\u{9b}']), "{:?}", ran.out);
    }
}

#[test]
fn history_and_diff_show_versions() {
    let mut database = database("looking_history");
    database
        .session
        .run("SELECT state_set('a', '{\"n\": 1, \"same\": true}')");
    database.session.run(
        "SELECT * FROM state_save('a', '{\"n\": 2, \"same\": true}', 'manual', recovery_point => true)",
    );
    let history = database.run(&["history", "a", "--json"]).json();
    assert_eq!(history.len(), 2);
    assert_eq!(
        (&history[0]["version"], &history[0]["recovery_point"]),
        (&2.into(), &true.into())
    );
    assert!(database.run(&["history", "a"]).lines()[1].contains("manual"));
    assert_eq!(
        database
            .run(&["history", "a", "--limit", "1", "--json"])
            .json()
            .len(),
        1
    );
    assert_eq!(database.run(&["history", "b"]).code, 5);

    let differing = database.run(&["diff", "a", "1"]);
    assert_eq!(differing.code, 1, "{}", differing.err);
    let lines: Vec<&str> = differing.out.lines().collect();
    assert!(
        lines.contains(&"-    \"n\": 1,") && lines.contains(&"+    \"n\": 2,"),
        "{}",
        differing.out
    );
    assert!(lines.contains(&"     \"same\": true"), "{}", differing.out);
    let patch = database.run(&["diff", "a", "1", "2", "--json"]);
    assert_eq!(patch.json()[0][0]["path"], "/n");
    assert!(
        database
            .run(&["diff", "a", "1", "--color", "always"])
            .out
            .contains("\x1b[31m-")
    );
    let same = database.run(&["diff", "a", "2"]);
    assert_eq!((same.code, same.out.as_str()), (0, ""));
    assert_eq!(database.run(&["diff", "a", "7"]).code, 5);
}
