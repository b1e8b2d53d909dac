//! The examples of `docs/operations/command-line.md`: what the page shows is what the program prints.
//!
//! A block in the language `console` holds commands, each on a line after `$ `, and the output of each below it.
//! Ages, times, sizes, and ids that differ from run to run are not compared, nor the widths of columns. With
//! `STATE_CACHE_WRITE_PAGE` set, the test writes into the page what the program prints.

use crate::support::{Database, database};
use state_cache_server_tests::Sql;
use std::path::PathBuf;

/// What the page speaks about.
const STATES: &str = r#"
    SELECT state_set('limits', '{"rows": 100}', class => 'config');
    SELECT state_set('run-42', '{"step": 1, "status": "running", "plan": {"goal": "report"}}');
    SELECT * FROM state_save('run-42', '{"step": 2, "status": "running", "plan": {"goal": "report"}}',
        'manual', recovery_point => true);
    SELECT state_set('run-42', '{"step": 3, "status": "done", "plan": {"goal": "report"}}');
    SELECT state_context_create('research', inputs => '{"plan": "first"}', resource_limits => '{"maxCredits": 20}');
    SELECT state_context_child('research', 'research/search', inputs => '{"plan": "first"}');
    SELECT state_context_child('research', 'research/write');
    SELECT state_context_claim('research/search', 'worker-7', '1 day');
    SELECT state_job_create('report', '["outline", {"task_id": "draft", "agent_name": "writer"}, "check"]');
    SELECT * FROM state_job_update_tasks('report',
        '[{"task_id": "outline", "status": "completed", "result": {"parts": 3}}]');
    SELECT state_budget_define('launch', 10, 'USD', agents => '{"critic": {"limit": 4, "price": 0.3}}');
    SELECT * FROM state_budget_reserve('launch', 'critic', hold_id => 'call-1', ttl => '1 day');
    SELECT state_context_set('research', 'plan', '"ours"');
    SELECT state_context_set('research/search', 'plan', '"theirs"');
    SELECT * FROM state_context_merge('research/search', 'manual_review');
"#;

fn path() -> PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .unwrap()
        .join("docs/operations/command-line.md")
}

/// A line without what differs from run to run, and without widths.
fn comparable(line: &str) -> String {
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let unit = ["s", "min", "h", "d", "B", "kB"].contains(&word);
        if unit && words.last().is_some_and(|last| is_number(last)) {
            // An age, what is left of a time, or a size: documents may hold times, whose length differs.
            words.pop();
            words.push("AMOUNT".to_owned());
        } else {
            words.push(without_numbers(word));
        }
    }
    words.join(" ")
}

/// A word without times, ids and cursors: whatever is long and begins with a digit.
fn without_numbers(word: &str) -> String {
    let part = |c: char| c.is_ascii_hexdigit() || "T:.+-".contains(c);
    let (mut result, mut rest) = (String::new(), word);
    while let Some(first) = rest.chars().next() {
        let length = match first.is_ascii_digit() {
            true => rest.find(|c| !part(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        match length >= 8 {
            true => result.push_str("NUMBER"),
            false => result.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    result
}

/// Runs a command of the page, as a shell would: words may stand in single quotes, CONFLICT is an id.
fn run(command: &str, database: &Database, conflict: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    assert_eq!(words.remove(0), "state-cache", "{command}");
    for word in &mut words {
        if word.len() > 12 && word.chars().all(|c| c.is_ascii_digit()) {
            *word = conflict;
        }
    }
    let ran = database.run(&words);
    assert!(ran.err.is_empty(), "{command}: {}", ran.err);
    ran.out.lines().map(str::to_owned).collect()
}

#[test]
fn what_the_page_shows_is_what_the_program_prints() {
    let mut database = database("page");
    for statement in STATES.split(";\n") {
        database.session.run(statement);
    }
    let conflict = database.session.text("SELECT max(id) FROM state_conflict");
    let page = std::fs::read_to_string(path()).unwrap();
    let mut written = String::new();
    let mut wrong = Vec::new();
    let mut commands = 0;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        if line != "```console" {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut rest = block.as_slice();
        while let Some((command, after)) = rest.split_first() {
            let end = after.iter().position(|line| line.starts_with("$ "));
            let (shown, next) = after.split_at(end.unwrap_or(after.len()));
            rest = next;
            let command = command.strip_prefix("$ ").unwrap();
            let printed = run(command, &database, &conflict);
            commands += 1;
            written.push_str(&format!("$ {command}\n"));
            for line in &printed {
                written.push_str(line);
                written.push('\n');
            }
            let shown: Vec<String> = shown.iter().map(|line| comparable(line)).collect();
            let now: Vec<String> = printed.iter().map(|line| comparable(line)).collect();
            if shown != now {
                wrong.push(format!("$ {command}\n{}", printed.join("\n")));
            }
        }
        written.push_str("```\n");
    }
    if std::env::var_os("STATE_CACHE_WRITE_PAGE").is_some() {
        std::fs::write(path(), written).unwrap();
        return;
    }
    assert!(commands >= 10, "the page has {commands} examples");
    assert!(
        wrong.is_empty(),
        "the page shows something else than\n{}",
        wrong.join("\n\n")
    );
}
