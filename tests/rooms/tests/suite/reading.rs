//! That the check sees what it is there for.

use state_cache_rooms_tests::{Source, circles, violations};

/// The imports of made-up files, each given by its path below `src` and its text.
fn source(files: &[(&str, &str)]) -> Source {
    let root = ("src/lib.rs".to_owned(), String::new(), String::new());
    let files = files.iter().map(|(path, text)| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        (
            format!("src/{path}"),
            module.replace('/', "::"),
            (*text).to_owned(),
        )
    });
    Source::of(std::iter::once(root).chain(files))
}

/// Where the made-up room `cache` is found to import `sql`.
fn found(text: &str) -> Vec<String> {
    let source = source(&[
        ("sql/mod.rs", "pub mod door;"),
        ("sql/door.rs", ""),
        ("cache/mod.rs", "mod read;"),
        ("cache/read.rs", text),
    ]);
    let imports = source.imports();
    violations(&imports).into_values().flatten().collect()
}

#[test]
fn an_import_from_a_higher_floor_is_found() {
    let says =
        ["src/cache/read.rs:2: `cache` (the cache) imports `sql` from a higher floor (the door)"];
    for text in [
        "\nuse crate::sql;",
        "\nuse crate::sql::door::Thing;",
        "use crate::{call,\nsql::{door, Other}};",
        "\nuse super::super::sql::door;",
        "fn f() {\ncrate::sql::door::open() }",
        "fn f(x:\n&crate::sql::Thing) {}",
        "fn f() { some_macro!(a,\n{ crate::sql::door::open() }) }",
        "some_macro! { fn f() {\nuse crate::{sql::door}; } }",
        "macro_rules! m { () => {\n$crate::sql::open() } }",
        "mod inner {\nuse super::super::super::sql::door; }",
        "fn f() {\ncrate::sql::open!() }",
    ] {
        assert_eq!(found(text), says, "{text}");
    }
}

#[test]
fn what_only_looks_like_an_import_is_not_one() {
    for text in [
        "// crate::sql::door\n",
        "const TEXT: &str = \"crate::sql\";",
        "use other::sql::door;",
        "fn f() { m!(other::crate_sql::door) }",
        "fn f() { sql::open() }",
    ] {
        assert_eq!(found(text), [""; 0], "{text}");
    }
}

#[test]
fn a_circle_between_rooms_of_one_floor_is_found() {
    let source = source(&[
        ("store/mod.rs", "use crate::worker::Task;"),
        ("worker/mod.rs", "\nfn f() { crate::store::read() }"),
    ]);
    let imports = source.imports();
    let says = violations(&imports)
        .into_values()
        .flatten()
        .collect::<Vec<_>>();
    assert_eq!(says.len(), 2);
    assert!(
        says[1].starts_with("src/worker/mod.rs:2: `worker` imports `store`"),
        "{says:?}"
    );
}

/// The circles of files of the made-up room `cache`.
fn circle(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let imports = source(files).imports();
    let edges = imports
        .iter()
        .map(|it| (it.file.as_str(), it.to_file.as_str()));
    let found = circles(edges);
    found
        .iter()
        .map(|it| it.iter().map(|file| (*file).to_owned()).collect())
        .collect()
}

#[test]
fn a_circle_of_files_is_found_also_through_names_that_are_handed_on() {
    let found = circle(&[
        (
            "cache/mod.rs",
            "mod read;\nmod write;\npub use write::Write;",
        ),
        ("cache/read.rs", "use super::Write;"),
        ("cache/write.rs", "fn f() { super::read::read() }"),
    ]);
    assert_eq!(found, [["src/cache/read.rs", "src/cache/write.rs"]]);
}

#[test]
fn a_door_that_declares_and_hands_on_is_in_no_circle() {
    let found = circle(&[
        (
            "cache/mod.rs",
            "mod read;\npub use read::Read;\npub struct Shared;",
        ),
        ("cache/read.rs", "use super::Shared;"),
    ]);
    assert_eq!(found, Vec::<Vec<String>>::new());
}

#[test]
fn a_door_that_uses_what_is_behind_it_is_in_a_circle() {
    let found = circle(&[
        (
            "cache/mod.rs",
            "mod read;\npub struct Shared;\nfn f() { read::f() }",
        ),
        ("cache/read.rs", "use super::Shared;"),
    ]);
    assert_eq!(found, [["src/cache/mod.rs", "src/cache/read.rs"]]);
}
