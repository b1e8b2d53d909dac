//! `completions` and `manual`: what a package puts beside the program.

use crate::failure::Failure;
use clap::{Args, Command};
use clap_complete::Shell;
use std::process::ExitCode;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    pub shell: Shell,
}

/// Prints the completions of a shell.
pub fn completions(arguments: &Arguments, mut definition: Command) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition, "state-cache", &mut text);
    print(&text)
}

/// Prints the manual page.
pub fn manual(definition: &Command) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(definition.clone()).render(&mut text)?;
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    use std::io::Write;
    std::io::stdout().lock().write_all(text)?;
    Ok(ExitCode::SUCCESS)
}
