//! A module for each command.

mod budgets;
mod conflicts;
mod diff;
mod doctor;
mod export;
mod history;
mod import;
mod jobs;
mod ls;
mod maintenance;
mod runs;
mod serve;
mod shell;
mod show;
mod tail;
mod top;

use crate::connect::{Database, Options};
use crate::failure::Failure;
use crate::output::Output;
use clap::Subcommand;
use std::process::ExitCode;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List classes, or the states of a class
    Ls(ls::Arguments),
    /// Show a document, now or at a kept version
    Show(show::Arguments),
    /// List the kept versions of a state
    History(history::Arguments),
    /// Compare two kept versions of a state
    Diff(diff::Arguments),
    /// Print changes as they are committed
    Tail(tail::Arguments),
    /// List runs, or show the tree of one
    Runs(runs::Arguments),
    /// List jobs, or show the tasks of one
    Jobs(jobs::Arguments),
    /// List budgets, or show one
    Budgets(budgets::Arguments),
    /// List, show and decide what merges of runs left open
    Conflicts(conflicts::Arguments),
    /// Check that every kept version can be read
    Verify(maintenance::Verify),
    /// Delete kept versions
    Prune(maintenance::Prune),
    /// Write the states of a class as JSON lines
    Export(export::Arguments),
    /// Read states from JSON lines
    Import(import::Arguments),
    /// Find what is not as it should be, and say what to do
    Doctor(doctor::Arguments),
    /// Watch reads, writes, memory, messages and workers on a screen
    Top(top::Arguments),
    /// Show runs, their versions and the cache's figures on a page for a browser
    Serve(serve::Arguments),
    /// Print the completions of a shell
    Completions(shell::Arguments),
    /// Print the manual page
    Manual,
}

impl Command {
    /// The profile of `state_grant` that has what the command needs.
    pub fn profile(&self) -> &'static str {
        match self {
            Self::Budgets(_) => "runner",
            Self::Conflicts(_) | Self::Doctor(_) | Self::Top(_) => "operator",
            Self::Prune(_) | Self::Import(_) => "application",
            Self::Verify(maintenance::Verify { repair: true, .. }) => "application",
            _ => "reader",
        }
    }

    /// Runs it; the code that it gives is for findings. `definition` is that of the whole command line.
    pub fn run(
        self,
        connection: &Options,
        output: &Output,
        definition: fn() -> clap::Command,
    ) -> Result<ExitCode, Failure> {
        let open = || Database::open(connection);
        match self {
            Self::Ls(arguments) => ls::run(&arguments, &mut open()?, output),
            Self::Show(arguments) => show::run(&arguments, &mut open()?, output),
            Self::History(arguments) => history::run(&arguments, &mut open()?, output),
            Self::Diff(arguments) => diff::run(&arguments, &mut open()?, output),
            Self::Tail(arguments) => tail::run(&arguments, open()?, output),
            Self::Verify(arguments) => maintenance::verify(&arguments, &mut open()?, output),
            Self::Prune(arguments) => maintenance::prune(&arguments, &mut open()?, output),
            Self::Export(arguments) => export::run(&arguments, &mut open()?, output),
            Self::Import(arguments) => import::run(&arguments, &mut open()?, output),
            Self::Runs(arguments) => runs::run(&arguments, &mut open()?, output),
            Self::Jobs(arguments) => jobs::run(&arguments, &mut open()?, output),
            Self::Budgets(arguments) => budgets::run(&arguments, &mut open()?, output),
            Self::Conflicts(arguments) => conflicts::run(arguments, &mut open()?, output),
            Self::Doctor(arguments) => doctor::run(&arguments, &mut open()?, output),
            Self::Top(arguments) => top::run(&arguments, open()?, output),
            Self::Serve(arguments) => serve::run(&arguments, open()?, output),
            Self::Completions(arguments) => shell::completions(&arguments, definition()),
            Self::Manual => shell::manual(&definition()),
        }
    }
}

/// The error of a state that is not there.
fn no_state(class: &str, key: &str) -> Failure {
    Failure::NotFound(format!("class \"{class}\" has no state \"{key}\""))
}
