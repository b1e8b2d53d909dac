//! What L1 makes of its memory: which states it keeps, and how much of it holds them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::document::Document;
use crate::report::{Row, Target, Unit};
use crate::wire::{Connection, literal};
use crate::{Failure, SMALL, size};

/// States written between two looks at the number of evictions.
const STEP: usize = 500;
/// What part of the keys fits in L1 in the traces that have a target, as the example prints it.
const CAPACITY: &str = "10 % of keys";

/// Fills L1 with states until it begins to evict, and returns the part of the memory given to it that
/// holds documents.
pub fn payload(connection: &mut Connection, target: f64) -> Result<Vec<Row>, Failure> {
    let document = literal(Document::with_size(connection, SMALL)?.text());
    let evictions = "SELECT evictions FROM state_cache_stats WHERE class IS NULL";
    let given: f64 =
        connection.value("SELECT pg_size_bytes(current_setting('state_cache.memory'))")?;
    connection.query("SELECT state_cache_clear()")?;
    let before: u64 = connection.value(evictions)?;
    // Twice what could fit: an L1 that never evicts must not fill the disk.
    let most = 2 * given as usize / SMALL;
    let mut written = 0;
    while connection.value::<u64>(evictions)? == before {
        if written > most {
            return Err(format!("{written} states were written and none was evicted").into());
        }
        connection.query(&format!(
            "SET state_cache.notify = off;
             SELECT count(state_set('fill-' || number, {document}))
             FROM generate_series({written}, {}) number",
            written + STEP - 1
        ))?;
        written += STEP;
    }
    let held =
        connection.query("SELECT coalesce(sum(bytes), 0), count(*) FROM state_cache_entries")?;
    let [row] = held.as_slice() else {
        return Err("state_cache_entries gave no sum".into());
    };
    let [Some(bytes), Some(count)] = row.as_slice() else {
        return Err("state_cache_entries gave no sum".into());
    };
    let bytes: f64 = bytes.parse()?;
    Ok(vec![Row {
        measured: format!("L1 bytes that hold payload, {} states", size(SMALL)),
        against: "memory given".to_owned(),
        target: Target::AtLeast(target),
        unit: Unit::Share,
        figures: vec![bytes / given],
        sides: format!(
            "{count} states, {:.1} of {:.1} MB",
            bytes / 1e6,
            given / 1e6
        ),
    }])
}

/// Runs the example of the L1 crate that replays traces against an exact LRU, and returns what it says of
/// the traces that have a target.
pub fn hit_rate(target: f64) -> Result<Vec<Row>, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args([
        "run",
        "--quiet",
        "--release",
        "-p",
        "state_cache_l1",
        "--example",
        "hit_rate",
    ]);
    // cargo run says where this crate stands; else the working directory must be in the workspace.
    if let Some(directory) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command
            .arg("--manifest-path")
            .arg(PathBuf::from(directory).join("Cargo.toml"));
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!(
            "the example hit_rate failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let rows = hit_rate_rows(&String::from_utf8(output.stdout)?, target)?;
    if rows.is_empty() {
        return Err(format!("the example hit_rate has no trace with {CAPACITY}").into());
    }
    Ok(rows)
}

/// Reads the lines of the example: name and capacity of a trace; partitions, entries, hit rate of L1, hit
/// rate of the exact LRU, their ratio.
fn hit_rate_rows(printed: &str, target: f64) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for line in printed.lines() {
        let Some((trace, figures)) = line.split_once(CAPACITY) else {
            continue;
        };
        let figures: Vec<&str> = figures.split_whitespace().collect();
        let [partitions, capacity, l1, lru, _] = figures.as_slice() else {
            return Err(format!("the example hit_rate printed: {line}").into());
        };
        let (l1, lru): (f64, f64) = (l1.parse()?, lru.parse()?);
        rows.push(Row {
            measured: format!(
                "hit rate, {}, L1 = 10 %, {capacity} states in {partitions} partitions",
                trace.trim().trim_end_matches(',')
            ),
            against: "exact LRU on the same trace".to_owned(),
            target: Target::AtLeast(target),
            unit: Unit::Times,
            figures: vec![l1 / lru],
            sides: format!("{l1:.3} against {lru:.3}"),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_traces_with_a_target_become_rows() {
        let printed = "\
trace                              partitions  capacity       L1      LRU  ratio
Zipf 0.99, 10 % of keys                    16      1000   0.7000   0.5000  1.400
Zipf 0.99, 1 % of keys                      1       100   0.3000   0.5000  0.600
";
        let rows = hit_rate_rows(printed, 1.0).unwrap();
        assert_eq!(rows.len(), 1);
        assert!(rows[0].measured.contains("Zipf 0.99, L1 = 10 %"));
        assert!((rows[0].figures[0] - 1.4).abs() < 1e-9);
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        assert!(hit_rate_rows("Zipf, 10 % of keys 0.7 0.5", 1.0).is_err());
    }
}
