//! The examples of README and the book: what a page shows is what the server answers.
//!
//! A page's blocks of SQL run in their order in one psql session, in a database of their own. What a block of text
//! right after one shows must be the end of its output; nothing else may raise an error. Left out of both: results of
//! functions that return `void`, messages where a block shows none, widths of columns, and what differs from run to
//! run (process ids, numbers of messages, times, ids, cursors). `…` on a line of its own stands for any lines.
//!
//! Comments in the page's source say more: `<!-- run: SQL -->` is run before the next block and not shown;
//! `<!-- not run: reason -->` stands before a block that is not run.

use state_cache_server_tests::Server;
use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A block of SQL, and what it shows.
#[derive(Default)]
struct Example {
    line: usize,
    sql: String,
    shows: Option<String>,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|it| it == "md") => pages.push(path),
                false => {}
            }
        }
    }
    pages.sort();
    pages
}

/// The examples of a page.
fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let (mut hidden, mut skipped) = (String::new(), false);
    // Whether nothing but blank lines has come since the last block of SQL.
    let mut right_after = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .collect();
            let block = block.join("\n");
            match (language, right_after) {
                ("sql", _) => {
                    let sql = std::mem::take(&mut hidden) + &block;
                    right_after = !std::mem::take(&mut skipped);
                    if right_after {
                        found.push(Example {
                            line: number + 1,
                            sql,
                            shows: None,
                        });
                    }
                }
                ("text", true) => {
                    right_after = false;
                    found.last_mut().unwrap().shows = Some(block);
                }
                _ => right_after = false,
            }
        } else if let Some(sql) = line.strip_prefix("<!-- run: ") {
            hidden = hidden + sql.strip_suffix(" -->").unwrap() + "\n";
        } else if line.starts_with("<!-- not run: ") {
            skipped = true;
        } else if !line.is_empty() {
            right_after = false;
        }
    }
    found
}

/// Puts `mask` in the place of what follows `start`, as far as `part` holds.
fn masked(line: &str, start: &str, part: impl Fn(char) -> bool, mask: &str) -> String {
    let (mut done, mut rest) = (String::new(), line);
    while let Some(at) = rest.find(start) {
        let (before, after) = rest.split_at(at + start.len());
        let end = after.find(|c| !part(c)).unwrap_or(after.len());
        done = done + before + mask;
        rest = &after[end..];
    }
    done + rest
}

/// A line without widths and without what differs from run to run.
fn comparable(line: &str) -> String {
    let line = masked(line, "\"epoch\":\"", |c| c.is_ascii_hexdigit(), "E");
    let line = masked(&line, "\"seq\":", |c| c.is_ascii_digit(), "N");
    let line = masked(&line, "with PID ", |c| c.is_ascii_digit(), "P");
    let words = line.split_whitespace().map(|word| {
        let is_cursor = word.len() > 25 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let is_time = word.len() >= 10
            && word.starts_with(|c: char| c.is_ascii_digit())
            && (word.matches(':').count() == 2 || word.matches('-').count() == 2)
            && word
                .chars()
                .all(|c| c.is_ascii_digit() || ":-+.".contains(c));
        // Ids and tokens begin with the time in microseconds since 2000.
        let is_number = word.len() >= 15 && word.chars().all(|c| c.is_ascii_digit());
        let is_rule = word.len() > 1 && word.chars().all(|c| c == '-' || c == '+');
        match (is_rule, is_time || is_number, is_cursor) {
            (true, ..) => word.split('+').map(|_| "-").collect::<Vec<_>>().join("+"),
            (_, true, _) => "TIME".to_owned(),
            (.., true) => "CURSOR".to_owned(),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The lines that count of an output.
fn essence(output: &str) -> Vec<String> {
    let lines: Vec<String> = output.lines().map(comparable).collect();
    let mut kept = Vec::new();
    let mut rest = &lines[..];
    loop {
        rest = match rest {
            [] => return kept,
            // One column, one row, nothing in it: `void`.
            [_, rule, empty, after @ ..] if rule == "-" && empty.is_empty() => after,
            [line, after @ ..] => {
                if !line.is_empty() {
                    kept.push(line.clone());
                }
                after
            }
        }
    }
}

/// Whether an output is what the page shows.
fn is(shown: &[String], output: &[String]) -> bool {
    match shown.iter().position(|line| line == "…") {
        None => shown == output,
        Some(at) => {
            let (before, after) = (&shown[..at], &shown[at + 1..]);
            output.starts_with(before)
                && (before.len()..=output.len()).any(|from| is(after, &output[from..]))
        }
    }
}

fn is_error(line: &str) -> bool {
    line.starts_with("ERROR:")
}

/// Whether an output ends with what the page shows, and nothing went wrong before that.
fn agrees(shown: &[String], output: &[String]) -> bool {
    let is_message = |line: &String| line.starts_with("Asynchronous notification");
    let heard = shown.iter().any(is_message);
    let output: Vec<String> = output
        .iter()
        .filter(|line| heard || !is_message(line))
        .cloned()
        .collect();
    (0..=output.len()).any(|from| {
        let (before, end) = output.split_at(from);
        !before.iter().any(|line| is_error(line)) && is(shown, end)
    })
}

const MARK: &str = "-- end of block";

/// A line of psql's without the place in the script.
fn without_place(line: &str) -> &str {
    let severity = ["ERROR:  ", "WARNING:  ", "NOTICE:  "]
        .iter()
        .find_map(|word| line.find(word));
    match severity {
        Some(at) if line.starts_with("psql:") => &line[at..],
        _ => line,
    }
}

/// Runs a page's examples; what does not agree.
fn run(server: &Server, page: &Path, number: usize) -> String {
    let text = std::fs::read_to_string(page).unwrap();
    let examples = examples(&text);
    if examples.is_empty() {
        return String::new();
    }
    let database = format!("page_{number}");
    server.run_program("createdb", &[&database]);
    let creates = examples
        .iter()
        .any(|example| example.sql.contains("CREATE EXTENSION"));
    let mut script = String::from("\\pset footer off\n");
    if !creates {
        script.push_str("CREATE EXTENSION state_cache;\n");
    }
    writeln!(script, "\\echo {MARK}").unwrap();
    for example in &examples {
        writeln!(script, "{}\n\\echo {MARK}", example.sql).unwrap();
    }
    let mut psql = server.program("psql");
    psql.args(["--no-psqlrc", "--quiet", "--file=-"]);
    psql.env("PGDATABASE", &database);
    // Both to one pipe, so that errors stand where they belong.
    let (mut reader, writer) = std::io::pipe().unwrap();
    psql.stdin(Stdio::piped())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer);
    let mut child = psql.spawn().unwrap();
    drop(psql);
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let mut output = String::new();
    std::io::Read::read_to_string(&mut reader, &mut output).unwrap();
    feeder.join().unwrap().unwrap();
    child.wait().unwrap();
    // Its worker makes way for that of the next page.
    server.run_program("dropdb", &["--force", &database]);

    let outputs: Vec<&str> = output.split(MARK).skip(1).collect();
    let mut differences = String::new();
    for (example, output) in examples.iter().zip(outputs) {
        let place = format!(
            "{}:{}",
            page.strip_prefix(root()).unwrap().display(),
            example.line
        );
        let lines: Vec<_> = output.lines().map(without_place).collect();
        let output = essence(&lines.join("\n"));
        match &example.shows {
            Some(shows) if agrees(&essence(shows), &output) => {}
            Some(shows) => {
                writeln!(
                    differences,
                    "{place} shows\n{shows}\nand the server says\n{}\n",
                    output.join("\n")
                )
                .unwrap();
            }
            None => {
                if let Some(error) = output.iter().find(|line| is_error(line)) {
                    writeln!(differences, "{place}: {error}\n").unwrap();
                }
            }
        }
    }
    differences
}

#[test]
fn the_pages_show_what_the_server_answers() {
    let server = Server::new(&[]);
    let pages = pages();
    let differences = pages
        .iter()
        .enumerate()
        .map(|(number, page)| run(&server, page, number));
    let differences: String = differences.collect();
    assert!(differences.is_empty(), "{differences}");
}
