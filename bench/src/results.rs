//! The results of one run, as they are kept beside the pages.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::Row;
use crate::wire::Connection;
use crate::{Failure, page, picture};

/// The file that holds the results.
const FILE: &str = "results.json";
/// The file that shows them.
const PICTURE: &str = "ratios.svg";

/// What one run measured, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The day on which it began, in UTC.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// Rounds that were measured, where a row has not fewer.
    pub rounds: usize,
    /// The machine.
    pub machine: Machine,
    /// The server.
    pub server: Server,
    /// The rows by the names that `--rows` takes.
    pub groups: Vec<Group>,
}

/// What the run ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that the run could use.
    pub cores: usize,
    /// Memory in gigabytes.
    pub memory_gb: u64,
    /// The distribution.
    pub system: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Version of PostgreSQL.
    pub postgresql: String,
    /// Version of the extension.
    pub state_cache: String,
    /// `state_cache.memory`.
    pub memory: String,
}

/// What one name of `--rows` measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The name.
    pub name: String,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// The first line of a file of `/proc` or `/etc` that begins so, without that; empty where there is none.
fn value_in(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let is_frame = |c: char| c.is_whitespace() || matches!(c, ':' | '=' | '"');
    value.unwrap_or_default().trim_matches(is_frame).to_owned()
}

impl Machine {
    /// This one.
    pub fn here() -> Result<Self, Failure> {
        let memory = value_in("/proc/meminfo", "MemTotal");
        let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Machine {
            processor: value_in("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: kilobytes.div_ceil(1 << 20),
            system: value_in("/etc/os-release", "PRETTY_NAME"),
            kernel: value_in("/proc/sys/kernel/osrelease", ""),
        })
    }
}

impl Server {
    /// The one of this connection; refuses one on which the figures would mean something else.
    pub fn of(connection: &mut Connection) -> Result<Self, Failure> {
        let l1: String =
            connection.value("SELECT l1 FROM state_cache_stats WHERE class IS NULL")?;
        if l1 != "on" {
            return Err(format!("L1 is {l1}").into());
        }
        let fsync: String = connection.value("SHOW fsync")?;
        if fsync != "on" {
            return Err("fsync is off".into());
        }
        Ok(Server {
            postgresql: connection.value("SHOW server_version")?,
            state_cache: connection
                .value("SELECT extversion FROM pg_extension WHERE extname = 'state_cache'")?,
            memory: connection.value("SHOW state_cache.memory")?,
        })
    }
}

impl Results {
    /// What a reader has to know beside the figures.
    pub fn described(&self) -> String {
        let Results {
            machine, server, ..
        } = self;
        // Not every machine says all of it.
        let known = |text: &str, name: &str| (!text.is_empty()).then(|| format!("{name}{text}"));
        let machine: Vec<String> = [
            known(&machine.processor, ""),
            Some(format!("{} cores", machine.cores)),
            (machine.memory_gb > 0).then(|| format!("{} GB", machine.memory_gb)),
            known(&machine.system, ""),
            known(&machine.kernel, "kernel "),
        ]
        .into_iter()
        .flatten()
        .collect();
        format!(
            "{}: PostgreSQL {}, state_cache {}, `state_cache.memory` = {}, fsync on; {}; medians of {} rounds",
            self.date,
            server.postgresql,
            server.state_cache,
            server.memory,
            machine.join(", "),
            self.rounds
        )
    }

    /// Reads what [`Results::write`] wrote.
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn json(&self) -> Result<String, Failure> {
        let figures = self.groups.iter().flat_map(|group| &group.rows);
        if let Some(row) = figures
            .into_iter()
            .find(|row| !row.figures.iter().all(|figure| figure.is_finite()))
        {
            // JSON has no number for that.
            return Err(format!("{}: a figure is no number", row.measured).into());
        }
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes the results and the picture of them.
    pub fn write(&self, directory: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join(FILE), self.json()?)?;
        self.draw(directory)
    }

    /// Draws the picture of results that are written already.
    pub fn draw(&self, directory: &Path) -> Result<(), Failure> {
        Ok(std::fs::write(
            directory.join(PICTURE),
            picture::draw(self),
        )?)
    }

    /// Puts the table into the page that shows it.
    pub fn publish(&self) -> Result<(), Failure> {
        let path = workspace().join(page::PAGE);
        let page = std::fs::read_to_string(&path)?;
        Ok(std::fs::write(&path, page::with_results(&page, self)?)?)
    }
}

/// The root of the checkout: cargo run says where this crate stands; else it is the working directory.
fn workspace() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, |bench| {
        Path::new(&bench)
            .parent()
            .map_or_else(PathBuf::new, Path::to_owned)
    })
}

/// Where the results that the pages show are.
pub fn published() -> PathBuf {
    workspace().join("docs/benchmarks")
}

/// Where the results of part of the rows, or of few rounds, go.
pub fn trial() -> PathBuf {
    workspace().join("target/bench")
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::report::{Target, Unit};

    /// Results with a row of every kind.
    pub fn every_kind() -> Results {
        let row = |measured: &str, target, unit, figures: &[f64]| Row {
            measured: measured.to_owned(),
            against: "what <that> & \"this\" is".to_owned(),
            target,
            unit,
            figures: figures.to_vec(),
            sides: "1 | 2".to_owned(),
        };
        Results {
            date: "2026-11-30".to_owned(),
            command: "make bench".to_owned(),
            rounds: 3,
            machine: Machine {
                processor: "A processor".to_owned(),
                cores: 2,
                memory_gb: 8,
                system: "Debian GNU/Linux 12".to_owned(),
                kernel: "6.1".to_owned(),
            },
            server: Server {
                postgresql: "15.20".to_owned(),
                state_cache: "0.1.0".to_owned(),
                memory: "64MB".to_owned(),
            },
            groups: vec![
                Group {
                    name: "ratios".to_owned(),
                    rows: vec![
                        row(
                            "`reached` < 1",
                            Target::AtLeast(2.0),
                            Unit::Times,
                            &[1.9, 2.1, 2.25],
                        ),
                        row(
                            "missed",
                            Target::AtMost(1.5),
                            Unit::Times,
                            &[1.6, 1.7, 17.0],
                        ),
                        row("control", Target::None, Unit::Times, &[0.03]),
                        row("share", Target::AtLeast(0.8), Unit::Share, &[0.9]),
                        row("nothing", Target::AtLeast(0.8), Unit::Times, &[]),
                    ],
                },
                Group {
                    name: "others".to_owned(),
                    rows: vec![
                        row("bytes", Target::Zero, Unit::Bytes, &[0.0, 0.0, 40.0]),
                        row("counted", Target::AtMost(60.0), Unit::Count, &[50.0]),
                        row(
                            "time",
                            Target::None,
                            Unit::Millis,
                            &[0.1, 0.30000000000000004],
                        ),
                    ],
                },
            ],
        }
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let results = every_kind();
        let json = results.json().unwrap();
        assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), results);
        assert!(json.contains(r#""at_least": 2.0"#), "{json}");
    }

    #[test]
    fn a_figure_that_is_no_number_is_an_error() {
        let mut results = every_kind();
        results.groups[0].rows[0].figures[1] = f64::NAN;
        assert!(
            results
                .json()
                .unwrap_err()
                .to_string()
                .contains("`reached` < 1")
        );
    }

    /// Whoever measures anew publishes all three, and whoever changes one by hand is told.
    #[test]
    fn page_and_picture_are_those_of_the_published_results() {
        let results = Results::read(&published()).unwrap();
        let picture = std::fs::read_to_string(published().join(PICTURE)).unwrap();
        assert!(
            picture == picture::draw(&results),
            "make bench BENCH_OPTIONS=--draw"
        );
        let page = std::fs::read_to_string(workspace().join(page::PAGE)).unwrap();
        assert!(
            page == page::with_results(&page, &results).unwrap(),
            "make bench BENCH_OPTIONS=--draw"
        );
    }
}
