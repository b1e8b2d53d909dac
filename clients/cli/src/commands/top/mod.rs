//! `top`: a screen of figures, each as a rate since the sample before, with what came before as sparklines.
//!
//! `figures` turns two samples of the views into rates, `screen` draws them. With `--json` each line has the same
//! rates, and nothing is drawn.

pub mod figures;
mod screen;

use crate::connect::Database;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use figures::{Figures, Sample};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Seconds between two samples
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub interval: f64,
    /// End after so many samples
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
}

/// Watches until it is told to end.
pub fn run(
    arguments: &Arguments,
    mut database: Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    if !(0.1..=3600.0).contains(&arguments.interval) {
        return Err(Failure::Usage(
            "--interval must be from 0.1 to 3600 seconds".to_owned(),
        ));
    }
    let interval = Duration::from_secs_f64(arguments.interval);
    if !output.json && !std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top needs a terminal; --json does not".to_owned(),
        ));
    }
    // Before the screen is taken: what is not permitted is said in the usual way.
    let mut figures = Figures::new(Sample::take(&mut database)?);
    if output.json {
        let mut taken = 0;
        while arguments.count.is_none_or(|count| taken < count) {
            std::thread::sleep(interval);
            figures.add(Sample::take(&mut database)?);
            output.line(&figures.json())?;
            taken += 1;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(
        &mut terminal,
        &mut database,
        &mut figures,
        interval,
        arguments.count,
    );
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    database: &mut Database,
    figures: &mut Figures,
    interval: Duration,
    count: Option<u64>,
) -> Result<(), Failure> {
    let (mut taken, mut paused) = (0, false);
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen::draw(frame, figures, interval, paused))?;
        let patience = next.saturating_duration_since(Instant::now());
        if event::poll(patience)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(());
                    }
                    KeyCode::Char('p') => paused = !paused,
                    _ => {}
                },
                // The next round draws anew whatever has changed.
                _ => {}
            }
            continue;
        }
        next = Instant::now() + interval;
        if paused {
            continue;
        }
        figures.add(Sample::take(database)?);
        taken += 1;
        if count.is_some_and(|count| taken >= count) {
            return Ok(());
        }
    }
}
