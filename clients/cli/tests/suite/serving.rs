//! `serve`: who is answered, and what the answers are.

use crate::support::{Database, database};
use serde_json::Value;
use state_cache_server_tests::{PATIENCE, Sql};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// The running program; it ends with this.
pub struct Page {
    child: Child,
    /// HOST:PORT
    pub host: String,
    pub token: String,
}

impl Drop for Page {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Page {
    pub fn open(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut url).unwrap();
        let rest = url
            .trim_end()
            .strip_prefix("http://")
            .unwrap_or_else(|| panic!("no URL: {url}"));
        let (host, token) = rest.split_once("/?token=").unwrap();
        Self {
            child,
            host: host.to_owned(),
            token: token.to_owned(),
        }
    }

    fn cookie(&self) -> String {
        let port = self.host.rsplit_once(':').unwrap().1;
        format!("Cookie: state_cache_{port}={}\r\n", self.token)
    }

    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn send(&self, method: &str, path: &str, host: &str, more: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        let mut whole = String::new();
        self.connect(&request).read_to_string(&mut whole).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &self.host, &self.cookie())
    }
}

fn serve(database: &Database, arguments: &[&str]) -> Page {
    Page::open(&mut database.command(&[&["serve"], arguments].concat()))
}

#[test]
fn only_who_has_the_token_is_answered() {
    let database = database("serving_token");
    let page = serve(&database, &[]);
    assert_eq!(page.token.len(), 64);
    assert!(page.host.starts_with("127.0.0.1:"), "{}", page.host);
    let cookie = page.cookie();
    for path in [
        "/",
        "/page.js",
        "/page.css",
        "/api/about",
        "/api/runs",
        "/api/changes",
        "/nothing",
    ] {
        assert_eq!(page.send("GET", path, &page.host, "").status, 401, "{path}");
        let wrong = cookie.replace(&page.token, &"0".repeat(64));
        assert_eq!(
            page.send("GET", path, &page.host, &wrong).status,
            401,
            "{path}"
        );
        assert_eq!(
            page.send("GET", path, "evil.example:80", &cookie).status,
            421,
            "{path}"
        );
    }
    // The token of the address becomes a cookie, once, and nowhere but at the door.
    let door = page.send("GET", &format!("/?token={}", page.token), &page.host, "");
    assert_eq!((door.status, door.header("location")), (303, Some("/")));
    let set = door.header("set-cookie").unwrap();
    assert!(cookie.contains(set.split(';').next().unwrap()), "{set}");
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict"),
        "{set}"
    );
    let (longer, shorter) = (format!("{}0", page.token), &page.token[1..]);
    for token in [longer.as_str(), shorter, ""] {
        assert_eq!(
            page.send("GET", &format!("/?token={token}"), &page.host, "")
                .status,
            401,
            "{token}"
        );
    }
    let inside = format!("/api/about?token={}", page.token);
    assert_eq!(page.send("GET", &inside, &page.host, "").status, 401);
    let rebound = format!("/?token={}", page.token);
    assert_eq!(page.send("GET", &rebound, "evil.example", "").status, 421);

    let local = page.host.replace("127.0.0.1", "LOCALHOST");
    assert_eq!(page.send("GET", "/", &local, &cookie).status, 200);
    let whole = page.get("/");
    assert!(
        whole.body.contains("page.js") && whole.status == 200,
        "{}",
        whole.body
    );
    let policy = whole.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    for text in [
        whole.body,
        page.get("/page.js").body,
        page.get("/page.css").body,
    ] {
        // The one address is the name of SVG, which nobody loads.
        let loads = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !loads.contains("http:") && !loads.contains("https:"),
            "something is loaded from elsewhere"
        );
    }
    assert_ne!(serve(&database, &[]).token, page.token);
}

#[test]
fn nothing_is_changed() {
    let database = database("serving_read_only");
    let page = serve(&database, &[]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = page.send(method, "/api/runs", &page.host, &page.cookie());
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    assert_eq!(page.get("/api/about").json()["read_only"], "on");
    let names: Vec<String> = page
        .get("/api/runs?parent=x%27%3B%20DROP%20TABLE%20state_head")
        .json()["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(page.get("/api/document?run=nobody&version=1").status, 404);
    assert_eq!(page.get("/api/document?run=nobody&version=x").status, 400);
    assert_eq!(page.get("/nothing").status, 404);
}

#[test]
fn ten_thousand_runs_come_in_pages() {
    let mut database = database("serving_many");
    database.session.run(
        "SELECT state_context_create('old');
         SELECT count(state_context_child('old', 'old/' || n)) FROM generate_series(1, 250) n;
         SELECT count(state_context_create('run-' || n)) FROM generate_series(1, 9749) n",
    );
    let page = serve(&database, &[]);
    let runs = |path: &str| {
        let answer = page.get(path).json();
        let names: Vec<String> = answer["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["run_id"].as_str().unwrap().to_owned())
            .collect();
        (names, answer["next"].as_str().map(str::to_owned), answer)
    };
    let (first, next, _) = runs("/api/runs");
    assert_eq!((first.len(), first.last()), (100, next.as_ref()));
    let mut seen: std::collections::BTreeSet<String> = first.into_iter().collect();
    let (mut next, mut last) = (next, Value::Null);
    let mut pages = 1;
    while let Some(after) = next {
        let (names, following, answer) = runs(&format!("/api/runs?after={after}"));
        assert!(names.len() <= 100);
        for name in names {
            assert!(seen.insert(name.clone()), "{name} comes twice");
            last = answer["runs"].as_array().unwrap().last().unwrap().clone();
        }
        (next, pages) = (following, pages + 1);
    }
    assert_eq!(seen.len(), 9750);
    assert!((98..=100).contains(&pages), "{pages} pages");
    assert_eq!(
        (&last["run_id"], &last["has_children"]),
        (&"old".into(), &true.into())
    );
    assert!(!seen.contains("old/1"), "a child stands at the top");

    let mut children = 0;
    let mut next = Some(String::new());
    while let Some(after) = next {
        let behind = if after.is_empty() {
            String::new()
        } else {
            format!("&after={}", after.replace('/', "%2F"))
        };
        let (names, following, answer) = runs(&format!("/api/runs?parent=old{behind}"));
        children += names.len();
        assert!(
            answer["runs"]
                .as_array()
                .unwrap()
                .iter()
                .all(|run| run["has_children"] == false)
        );
        next = following;
    }
    assert_eq!(children, 250);
}

/// A run with variables of all levels; in version 1 `later` was public.
const LEVELS: &str = "
    SELECT state_context_create('r', sensitivity_map => '{\"floored\": \"pii\"}');
    SELECT state_context_set('r', 'open', '\"one-public\"', sensitivity => 'public');
    SELECT state_context_set('r', 'inner', '\"one-internal\"', sensitivity => 'internal');
    SELECT state_context_set('r', 'floored', '\"one-floored\"', sensitivity => 'public');
    SELECT state_context_set('r', 'later', '\"one-later\"', sensitivity => 'public');
    SELECT state_context_set('r', 'key', '\"one-secret\"', sensitivity => 'secret');
    SELECT state_context_mark_export('r', 'open', 'parent_context');
    SELECT state_context_mark_export('r', 'key', 'parent_context');
    SELECT state_context_set('r', 'later', '\"two-later\"', sensitivity => 'secret');
    SELECT state_context_set('r', 'key', '\"two-secret\"');
    SELECT state_context_set('r', 'open', '\"two-public\"')";

fn newest(page: &Page, run: &str) -> Vec<i64> {
    let listed = page.get(&format!("/api/versions?run={run}")).json();
    listed["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_i64().unwrap())
        .collect()
}

#[test]
fn what_is_above_the_level_of_the_viewer_does_not_show() {
    let mut database = database("serving_levels");
    for statement in LEVELS.split(";\n") {
        database.session.run(statement);
    }
    let lowest = serve(&database, &[]);
    assert_eq!(lowest.get("/api/about").json()["sensitivity"], "public");
    let versions = newest(&lowest, "r");
    assert!(versions.len() >= 8, "{versions:?}");
    let hidden = ["internal", "floored", "later", "secret"]
        .map(|word| [format!("one-{word}"), format!("two-{word}")]);
    let first = versions.last().unwrap();
    for version in &versions {
        let shown = lowest.get(&format!("/api/document?run=r&version={version}"));
        let diff = lowest.get(&format!("/api/diff?run=r&from={first}&to={version}"));
        assert_eq!(
            (shown.status, diff.status),
            (200, 200),
            "{}{}",
            shown.body,
            diff.body
        );
        for word in hidden.iter().flatten() {
            assert!(
                !shown.body.contains(word.as_str()),
                "version {version} shows {word}: {}",
                shown.body
            );
            assert!(
                !diff.body.contains(word.as_str()),
                "the diff to {version} shows {word}: {}",
                diff.body
            );
        }
        for name in [
            "\\\"key\\\": \\\"key\\\"",
            "\\\"later\\\"",
            "\\\"floored\\\"",
            "\\\"inner\\\"",
        ] {
            assert!(
                !shown.body.contains(name),
                "version {version} shows {name}: {}",
                shown.body
            );
        }
    }
    let current = lowest
        .get(&format!("/api/document?run=r&version={}", versions[0]))
        .json();
    let visible = database
        .session
        .text("SELECT jsonb_pretty(state_context_visible('r', 'public'))");
    assert_eq!(current["pretty"], visible.as_str());
    assert!(visible.contains("two-public"), "{visible}");

    // The rule that is applied to former versions is that of the server: of a document that was the current one a
    // moment ago, the page shows the same as before.
    for level in ["public", "internal", "confidential", "pii", "secret"] {
        let page = serve(&database, &["--sensitivity", level]);
        let version = newest(&page, "r")[0];
        let path = format!("/api/document?run=r&version={version}");
        let before = page.get(&path).json();
        assert_eq!(before["current"], version);
        database.session.run(&format!(
            "SELECT state_context_set('r', 'open', '\"at-{level}\"')"
        ));
        let after = page.get(&path).json();
        assert_ne!(after["current"], version);
        assert_eq!(before["pretty"], after["pretty"], "{level}");
        let text = after["pretty"].as_str().unwrap();
        assert_eq!(text.contains("two-secret"), level == "secret", "{level}");
    }

    // What is no run's document, or not known to be harmless, does not show.
    database
        .session
        .run("SELECT state_set('odd', '{\"note\": \"odd-secret\"}')");
    let odd = lowest.get("/api/document?run=odd&version=1");
    assert!(
        odd.status >= 400 && !odd.body.contains("odd-secret"),
        "{}",
        odd.body
    );
    database.session.run("SELECT state_delete('r')");
    let gone = lowest.get(&format!("/api/document?run=r&version={}", versions[0]));
    assert!(
        gone.status >= 400 && !gone.body.contains("public\\\""),
        "{}",
        gone.body
    );
}

#[test]
fn a_comparison_is_that_of_diff() {
    let mut database = database("serving_diff");
    for statement in LEVELS.split(";\n") {
        database.session.run(statement);
    }
    let page = serve(&database, &["--sensitivity", "secret"]);
    let versions = newest(&page, "r");
    let (last, first) = (versions[0], versions[versions.len() - 1]);
    for (from, to) in [
        (first, last),
        (last, first),
        (versions[1], last),
        (last, last),
    ] {
        let answer = page
            .get(&format!("/api/diff?run=r&from={from}&to={to}"))
            .json();
        let lines: Vec<&str> = answer["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["text"].as_str().unwrap())
            .collect();
        let ran = database.run(&["diff", "r", &from.to_string(), &to.to_string()]);
        assert_eq!(
            lines,
            ran.out.lines().collect::<Vec<_>>(),
            "{from} {to} {}",
            ran.err
        );
        assert_eq!(lines.is_empty(), from == to);
    }
}

/// The events of a page; the test fails where none comes in time.
fn events(page: &Page) -> impl FnMut(&str, &str) {
    let request = format!(
        "GET /api/changes HTTP/1.1\r\nHost: {}\r\n{}\r\n",
        page.host,
        page.cookie()
    );
    let mut lines = BufReader::new(page.connect(&request)).lines();
    move |event, text| {
        let mut name = String::new();
        loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(said) = line.strip_prefix("event: ") {
                name = said.to_owned();
            } else if line.starts_with("data: ") && name == event && line.contains(text) {
                return;
            }
        }
    }
}

#[test]
fn changes_are_told_as_they_are_committed() {
    let mut database = database("serving_changes");
    database.session.run("SELECT state_context_create('first')");
    let page = serve(&database, &[]);
    let (mut one, mut other) = (events(&page), events(&page));
    one("ready", "");
    other("ready", "");
    database
        .session
        .run("SELECT state_context_create('second')");
    one("change", "\"key\":\"second\"");
    other("change", "\"key\":\"second\"");
    // The connection that listens is lost, and made anew.
    database.session.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'state-cache'",
    );
    one("lost", "");
    one("ready", "");
    database
        .session
        .run("SELECT state_context_set('first', 'a', '1')");
    one("change", "\"key\":\"first\"");
    // So are those that ask.
    assert_eq!(
        page.get("/api/runs").json()["runs"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_role_sees_what_its_grants_allow() {
    let mut database = database("serving_grants");
    database
        .session
        .run("CREATE ROLE serving_reader LOGIN; SELECT state_context_create('r')");
    database
        .session
        .run("GRANT USAGE ON SCHEMA \"Agents\" TO serving_reader");
    let page = Page::open(&mut database.command_as("serving_reader", &["serve"]));
    let refused = page.get("/api/runs");
    assert!(
        refused.status == 403 && refused.body.contains("permission denied"),
        "{}",
        refused.body
    );
    database
        .session
        .run("SELECT state_grant('serving_reader', 'reader')");
    let page = Page::open(&mut database.command_as("serving_reader", &["serve"]));
    assert_eq!(page.get("/api/runs").json()["runs"][0]["run_id"], "r");
    assert_eq!(newest(&page, "r").len(), 1);
    assert!(
        page.get("/api/document?run=r&version=1").json()["pretty"]
            .as_str()
            .unwrap()
            .contains("\"runId\": \"r\"")
    );
    events(&page)("ready", "");
    assert_eq!(page.get("/api/figures").status, 403);

    let page = serve(&database, &[]);
    let figures = page.get("/api/figures").json();
    assert_eq!(figures["now"]["database"], "serving_grants");
    assert_eq!(figures["history"].as_array().unwrap().len(), 4);
}
