//! `state-cache`: looks inside state_cache from a shell. `docs/operations/command-line.md` is its page.
//!
//! A module for each command in `commands`; `connect` finds the server as libpq does, `output` prints, `failure` says
//! which exit code stands for which error.

#![forbid(unsafe_code)]

mod commands;
mod connect;
mod failure;
mod output;

use clap::{ArgAction, CommandFactory, Parser};
use commands::Command;
use failure::Failure;
use output::Output;
use std::process::ExitCode;

/// Look inside state_cache: states, versions, changes, runs, jobs, budgets, health.
#[derive(Debug, Parser)]
#[command(
    name = "state-cache",
    version,
    disable_help_flag = true,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 fine, 1 findings or differences, 2 usage, 3 no connection, 4 not permitted, \
    5 not found, 6 conflict (try again), 7 refused by the server, 8 file or output."
)]
struct Arguments {
    /// Print help
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    connection: connect::Options,
    #[command(flatten)]
    output: output::Options,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(&arguments.output);
    let profile = arguments.command.profile();
    let connection = arguments.connection;
    let outcome = arguments
        .command
        .run(&connection, &output, Arguments::command);
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            report(&failure, profile, &connection);
            failure.code()
        }
    }
}

/// Says on standard error what went wrong, and who can put that right.
fn report(failure: &Failure, profile: &str, connection: &connect::Options) {
    if matches!(failure, Failure::Closed) {
        return;
    }
    eprintln!("state-cache: {}", output::clean_lines(&failure.to_string()));
    if let Failure::NotPermitted(_) = failure {
        let role = connection.username.as_deref().unwrap_or("ROLE");
        eprintln!(
            "hint: this command needs what the profile \"{profile}\" has: SELECT state_grant('{}', '{profile}') by \
             the owner of the tables",
            output::clean(role)
        );
    }
}
