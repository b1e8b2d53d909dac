//! The page in a headless Chromium: `clients/cli/tests/browser/page.js` does what a reader does.
//!
//! With `STATE_CACHE_WRITE_PAGE` set, the pictures that `docs/operations/command-line.md` shows are made anew.

use crate::serving::Page;
use crate::support::{database, server};
use state_cache_server_tests::Sql;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Functions of tests in `page.js`: fewer would mean that some were not found.
const TESTS: usize = 11;

/// Ten thousand runs. The newest stand first: one with children, versions and a secret, one that will be changed.
const RUNS: &str = r#"
    SELECT count(state_context_create('run-' || n)) FROM generate_series(1, 9996) n;
    SELECT state_context_create('live');
    SELECT state_context_create('research', inputs => '{"plan": "a first outline", "apiKey": "hush"}',
        sensitivity_map => '{"plan": "public", "apiKey": "secret"}');
    SELECT state_context_child('research', 'research/search', inputs => '{"plan": "a first outline"}');
    SELECT state_context_child('research', 'research/write');
    SELECT state_context_claim('research/search', 'worker-7', '1 day');
    SELECT state_context_set('research', 'plan', '"two parts"');
    SELECT state_context_set('research', 'plan', '"three parts, with sources"')"#;

/// A variable that `scripts/with-clients` sets.
fn given(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    PathBuf::from(value.unwrap_or_else(|| panic!("{name} is not set: run make clients")))
}

/// Where the documentation has its pictures.
fn documented() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .unwrap()
        .join("docs/operations/pictures")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_page_works_in_a_browser() {
    let mut database = database("browser");
    for statement in RUNS.split(";\n") {
        database.session.run(statement);
    }
    let page = Page::open(&mut database.command(&["serve"]));
    let folder = given("STATE_CACHE_BROWSER");
    let pictures = match std::env::var_os("STATE_CACHE_WRITE_PAGE") {
        Some(_) => documented(),
        None => folder.join("pictures"),
    };
    // Of an earlier run.
    let _ = std::fs::remove_dir_all(&pictures);
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new("node")
        .args(["--test-reporter=tap", "page.js"])
        .current_dir(&folder)
        .env("STATE_CACHE_CHROMIUM", given("STATE_CACHE_CHROMIUM"))
        .env(
            "PAGE",
            format!("http://{}/?token={}", page.host, page.token),
        )
        .env("PICTURES", &pictures)
        .env("PGHOST", server().host())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", database.name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{warned}");
    assert!(
        said.contains(&format!("\n# pass {TESTS}\n")),
        "{said}\n{warned}"
    );
    assert_eq!(names(&pictures), names(&documented()));
}
