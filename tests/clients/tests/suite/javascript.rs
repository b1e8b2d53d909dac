//! The tests of the JavaScript package: LangGraph's suite for savers, graphs, values, crashes, the page's program.

use state_cache_clients_tests::root;
use std::process::{Command, Stdio};

/// How many tests LangGraph's suite has, and ours: fewer would mean that some were not found.
const AT_LEAST: usize = 718 + 9;

#[test]
fn langgraph_js_saver() {
    let folder =
        std::env::var_os("STATE_CACHE_JS").expect("STATE_CACHE_JS is not set: run make clients");
    let output = Command::new("npm")
        .args(["test", "--silent", "--", "--reporter=dot", "--no-color"])
        .current_dir(folder)
        .env("STATE_CACHE_TOP", root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{warned}");
    let passed = said.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("Tests  ")?;
        rest.split_once(" passed (")?.0.parse::<usize>().ok()
    });
    assert!(passed >= Some(AT_LEAST), "{said}");
}
