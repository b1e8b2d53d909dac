//! `top`, `runs`, `verify` on a terminal: through a pseudo-terminal, whose screen is looked at.

use crate::support::{Database, database, server};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use state_cache_server_tests::{Sql, eventually};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

/// A program on a terminal.
struct Terminal {
    parser: Arc<Mutex<vt100::Parser>>,
    /// All that it has written.
    said: Arc<Mutex<Vec<u8>>>,
    keys: Box<dyn Write + Send>,
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
}

const SIZE: PtySize = PtySize {
    rows: 24,
    cols: 80,
    pixel_width: 0,
    pixel_height: 0,
};

impl Terminal {
    fn start(database: &Database, arguments: &[&str]) -> Self {
        let pair = native_pty_system().openpty(SIZE).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_state-cache"));
        command.args(arguments);
        // Else the program would start in its home.
        command.cwd("/");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") || name == "NO_COLOR" {
                command.env_remove(name);
            }
        }
        command.env("TERM", "xterm-256color");
        command.env("HOME", "/nowhere");
        command.env("PGHOST", server().host());
        command.env("PGUSER", "postgres");
        command.env("PGDATABASE", database.name);
        let child = pair.slave.spawn_command(command).unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(SIZE.rows, SIZE.cols, 0)));
        let mut output = pair.master.try_clone_reader().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (screen, heard) = (parser.clone(), said.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error once the program has ended.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                heard.lock().unwrap().extend_from_slice(&bytes[..length]);
                screen.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self {
            parser,
            said,
            keys: pair.master.take_writer().unwrap(),
            master: pair.master,
            child,
        }
    }

    fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits for its end, which must be a success.
    fn finish(&mut self) {
        eventually("the program ends", || {
            self.child.try_wait().unwrap().is_some()
        });
        assert!(self.child.wait().unwrap().success(), "{}", self.text());
    }
}

#[test]
fn top_shows_figures_on_a_screen_and_gives_it_back() {
    let mut database = database("terminal_top");
    database
        .session
        .run("SELECT state_set('watched', '{\"n\": 0}')");
    let mut top = Terminal::start(&database, &["top", "--interval", "0.2"]);
    // A screen may arrive in pieces.
    for part in [
        "Reads a second",
        "terminal_top",
        "L1 on",
        "Writes a second",
        "Messages and write-behind",
        "Classes",
        "Workers",
    ] {
        eventually(part, || top.text().contains(part));
    }
    assert!(top.parser.lock().unwrap().screen().alternate_screen());
    // Work goes on until the screen shows that it does.
    let mut number = 0;
    eventually("top shows the work", || {
        number += 1;
        let change = format!("SELECT state_set('watched', '{{\"n\": {number}}}')");
        database.session.run(&change);
        let read = "SELECT state_get('watched') FROM generate_series(1, 50)";
        database.session.run(read);
        let text = top.text();
        let moves = |name: &str| {
            let after = text.split_once(name).map(|(_, after)| after.trim_start());
            let digits = after.and_then(|after| after.split_whitespace().next());
            digits.is_some_and(|digits| digits != "0")
        };
        let of_all = moves("hits ") && moves("written ") && moves("flushes ");
        of_all && text.contains("│run ") && text.contains('█')
    });
    println!("{}", top.text());
    // A small window is no reason to fall over. After a change of size the program draws all of its screen.
    for size in [
        PtySize {
            rows: 6,
            cols: 30,
            ..SIZE
        },
        SIZE,
    ] {
        *top.parser.lock().unwrap() = vt100::Parser::new(size.rows, size.cols, 0);
        top.master.resize(size).unwrap();
        eventually("top draws anew", || top.text().contains("state-cache"));
    }
    top.keys.write_all(b"p").unwrap();
    eventually("top pauses", || top.text().contains("paused"));
    top.keys.write_all(b"q").unwrap();
    top.finish();
    let leaves = b"\x1b[?1049l";
    eventually("the screen is given back", || {
        let said = top.said.lock().unwrap();
        said.windows(leaves.len()).any(|part| part == leaves)
    });
}

#[test]
fn top_has_json_and_says_what_it_lacks() {
    let mut database = database("terminal_top_json");
    let lines = database
        .run(&["top", "--json", "--count", "2", "--interval", "0.1"])
        .json();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["database"], "terminal_top_json");
    assert!(lines[0]["per_second"]["hits"].is_number());
    assert_eq!(database.run(&["top"]).code, 2, "top without a terminal");
    assert_eq!(database.run(&["top", "--interval", "0"]).code, 2);
    database
        .session
        .run("CREATE ROLE terminal_app LOGIN; SELECT state_grant('terminal_app', 'application')");
    let ran = database.run_as("terminal_app", &["top", "--json"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("operator"), "{}", ran.err);
}

#[test]
fn runs_have_colours_on_a_terminal() {
    let mut database = database("terminal_runs");
    database
        .session
        .run("SELECT state_context_create('root'); SELECT state_context_child('root', 'below')");
    database
        .session
        .run("SELECT * FROM state_context_complete('below', 'failed')");
    let mut runs = Terminal::start(&database, &["runs", "root"]);
    runs.finish();
    eventually("the tree is there", || {
        runs.text().contains("└─ below  failed")
    });
    let parser = runs.parser.lock().unwrap();
    let screen = parser.screen();
    let column = screen
        .contents()
        .lines()
        .nth(1)
        .unwrap()
        .chars()
        .position(|c| c == 'f')
        .unwrap();
    assert_eq!(
        screen.cell(1, column as u16).unwrap().fgcolor(),
        vt100::Color::Idx(1)
    );
    assert!(screen.cell(0, 0).unwrap().bold());
}

#[test]
fn verify_and_prune_clear_their_bar() {
    let mut database = database("terminal_verify");
    database
        .session
        .run("SELECT state_set('k' || n, to_jsonb(n)) FROM generate_series(1, 3000) n");
    for (command, said) in [
        (&["verify"][..], "every kept version is intact"),
        (&["prune", "run", "--keep", "1"], "0 versions were deleted"),
    ] {
        let mut terminal = Terminal::start(&database, command);
        terminal.finish();
        eventually("the result is there", || terminal.text().contains(said));
        assert!(!terminal.text().contains("states,"), "{}", terminal.text());
    }
}
