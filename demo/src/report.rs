//! What the demo prints.

use crate::replay::{Cost, Kept};
use crate::script::Script;
use crate::swarm::Story;
use crate::trace::Recording;

/// Says what is about to be replayed.
pub fn heading(file: &str, recording: &Recording) {
    let steps = recording.steps.len();
    let bytes: usize = recording
        .steps
        .iter()
        .map(|step| step.state.to_string().len())
        .sum();
    let repeated = recording.steps.iter().filter(|step| step.repeated).count();
    println!(
        "{file}: {} of {steps} steps",
        count(recording.last_states().len(), "run")
    );
    println!(
        "  {} ({:.1} per step), documents of {} on average, {repeated} steps that changed nothing",
        count(recording.changes(), "change"),
        recording.changes() as f64 / steps as f64,
        size((bytes / steps) as u64),
    );
    println!();
}

/// Prints the two sides beside each other.
pub fn table(recording: &Recording, plain: &Cost, cached: &Cost, rounds: usize) {
    let line = |name: &str, plain: String, cached: String, ratio: String| {
        println!(
            "{}",
            format!("  {name:<26} {plain:>13} {cached:>13}   {ratio}").trim_end()
        );
    };
    let same =
        |name: &str, value: usize| line(name, value.to_string(), value.to_string(), String::new());
    let counts = |name: &str, plain: u64, cached: u64| {
        line(
            name,
            plain.to_string(),
            cached.to_string(),
            ratio(plain as f64, cached as f64, "fewer", "more"),
        );
    };
    line(
        "",
        "plain upserts".into(),
        "state_cache".into(),
        String::new(),
    );
    same("steps (transactions)", recording.steps.len());
    same("changes staged or sent", recording.changes());
    counts("documents written", plain.documents, cached.documents);
    counts("rows written in all tables", plain.rows, cached.rows);
    line(
        "duplicates skipped",
        plain.skipped.to_string(),
        cached.skipped.to_string(),
        String::new(),
    );
    line(
        "WAL",
        size(plain.wal),
        size(cached.wal),
        ratio(plain.wal as f64, cached.wal as f64, "less", "more"),
    );
    let milliseconds = |cost: &Cost| cost.time.as_secs_f64() * 1000.0;
    line(
        "time",
        format!("{:.1} ms", milliseconds(plain)),
        format!("{:.1} ms", milliseconds(cached)),
        ratio(
            milliseconds(plain),
            milliseconds(cached),
            "faster",
            "slower",
        ),
    );
    println!();
    println!(
        "  Medians of {rounds} alternating rounds after one that warms up; one connection, fsync on, one"
    );
    println!(
        "  transaction per step on both sides. Only state_cache sends notifications. Both sides ended with"
    );
    println!("  the recorded states.");
    println!();
}

/// Says what every step costs that can be gone back to.
pub fn kept(kept: &Kept) {
    println!(
        "Every step is kept: {} ({} read back) in {}, where whole documents take {}; the last alone",
        count(kept.versions.unsigned_abs() as usize, "version"),
        kept.readable,
        size(kept.stored),
        size(kept.whole),
    );
    println!(
        "takes {}. state_at(), state_diff() and state_restore() go back to any of them.",
        size(kept.last)
    );
    println!();
}

/// Shows what the second connection heard in one round.
pub fn invalidations(heard: &[String], shown: usize) {
    println!(
        "A second connection, listening on state_updated, received {}:",
        count(heard.len(), "invalidation")
    );
    for payload in heard.iter().take(shown) {
        println!("  {payload}");
    }
    if heard.len() > shown {
        println!("  … and {} more", heard.len() - shown);
    }
    println!();
}

/// Tells what the agents of a swarm did.
pub fn swarm(script: &Script, story: &Story, heard: &[String]) {
    runners(script, story);
    println!(
        "What came back to {}. Who is first, and so who finds the other's Notebook there, differs from run to run:",
        story.root
    );
    for one in &story.returns {
        let conflict = one
            .conflict
            .map_or(String::new(), |id| format!(": conflict {id}"));
        println!(
            "  {:<12} {:<24} {}{conflict}",
            one.variable,
            format!("{} {}", one.by, one.agent),
            one.reason
        );
    }
    println!(
        "  While that was open the root could not complete, {}: {}",
        story.undecided.code, story.undecided.message
    );
    println!();
    println!(
        "Decided, by the demo: {}. Then the root completed: {} of {} tool calls charged, variables as recorded.",
        story.decision, story.tool_calls, story.tool_call_limit
    );
    let sent: Vec<String> = story
        .sent
        .iter()
        .map(|(key, target)| format!("{key} for {target}"))
        .collect();
    println!("  outbox      {}; taken and acknowledged", sent.join(", "));
    println!(
        "  blackboard  {} in swarm {}, announced as",
        story.item, story.swarm
    );
    for payload in heard.iter().filter(|payload| payload.contains("\"items\"")) {
        println!("              {payload}");
    }
    println!();
}

/// Tells who made which steps, and which runner lost its lease.
fn runners(script: &Script, story: &Story) {
    println!(
        "Shared out among the agents of a swarm: the {} steps of demo/run.jsonl that change variables, made by \
            three at once,",
        script.steps()
    );
    println!(
        "each in a run of its own below {}, on a connection of its own and under a claim; a transaction per step.",
        story.root
    );
    let mut before = "";
    for runner in &story.runners {
        let steps: Vec<String> = runner.steps.iter().map(usize::to_string).collect();
        let steps = steps.join(" ");
        let shown = if runner.run == before {
            ""
        } else {
            &runner.run
        };
        let did = match runner.stopped_in {
            Some(step) => format!(
                "steps {steps}, then let its lease run out in the transaction of step {step}"
            ),
            None if shown.is_empty() => format!("claimed the run, steps {steps}"),
            None => format!("steps {steps}"),
        };
        println!("  {shown:<26} {:<9} {did}", runner.name);
        before = &runner.run;
    }
    // Until when the claim holds is nothing to be read here.
    let detail = &story.lost.detail;
    let owner = detail
        .split_once(" until ")
        .map_or(&**detail, |(owner, _)| owner);
    println!(
        "  COMMIT of {}, {}: {};",
        story.loser, story.lost.code, story.lost.message
    );
    println!("    {owner}");
    println!();
}

/// Says how to go on from here.
pub fn more() {
    println!("More:");
    println!("  make demo TRACE=file.jsonl[.gz]                    replay a recording of your own");
    println!(
        "  make demo DEMO_OPTIONS='--rounds 20 --payloads 50' more rounds, more of the invalidations"
    );
    println!(
        "  make run                                           psql on a throwaway server with the extension"
    );
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How the plain side's figure relates to the other's, in words.
fn ratio(plain: f64, cached: f64, better: &str, worse: &str) -> String {
    if plain <= 0.0 || cached <= 0.0 {
        String::new()
    } else if plain >= cached {
        format!("{:.1} x {better}", plain / cached)
    } else {
        format!("{:.1} x {worse}", cached / plain)
    }
}

/// Bytes as people read them; a kB is 1,024 bytes, as in PostgreSQL's pg_size_pretty.
fn size(bytes: u64) -> String {
    if bytes < 10 * 1024 {
        format!("{bytes} bytes")
    } else if bytes < 10 * 1024 * 1024 {
        format!("{} kB", bytes / 1024)
    } else {
        format!("{:.1} MB", bytes as f64 / (1024.0 * 1024.0))
    }
}
