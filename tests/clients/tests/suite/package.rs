//! The tests of the Python package, a file of them each.

use state_cache_clients_tests::root;
use std::process::{Command, Stdio};

/// Runs a file of `clients/python/tests`.
fn passes(file: &str) {
    let python = std::env::var_os("STATE_CACHE_PYTHON")
        .expect("STATE_CACHE_PYTHON is not set: run make clients");
    let package = root().join("clients/python");
    let output = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(package.join("tests").join(file))
        .current_dir(&package)
        .env("PYTHONPATH", package.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}:\n{said}\n{warned}");
}

/// What this suite leaves out: CrewAI takes a gigabyte, so `make adapters` runs the file of it.
const ELSEWHERE: [&str; 1] = ["test_crewai.py"];

macro_rules! files {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            passes(concat!(stringify!($name), ".py"));
        })*

        #[test]
        fn every_file_is_run() {
            let mut known = vec![$(concat!(stringify!($name), ".py")),*];
            known.extend(ELSEWHERE);
            for entry in std::fs::read_dir(root().join("clients/python/tests")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with("test_") || known.contains(&name.as_str()), "{name}");
            }
        }
    };
}

files! {
    test_client
    test_conformance
    test_graphs
    test_package
    test_values
    test_crashes
    test_examples
    test_store
    test_delta
    test_migrate
    test_openai_agents
    test_google_adk
    test_agent_framework
    test_proxy
}
