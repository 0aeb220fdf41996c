//! A line that shows a recording at work: on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};
use profiler::format::escape;
use profiler::observe::Observer;
use std::io::IsTerminal;
use std::time::Duration;

/// Shows what happens.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    targets: String,
}

impl Progress {
    /// `targets`: what is being recorded, for people.
    pub fn new(targets: String) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, targets }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn progress(&mut self, elapsed: Duration, samples: u64, lost: u64) {
        let Some(bar) = &self.bar else { return };
        let seconds = elapsed.as_secs();
        let lost = if lost == 0 {
            String::new()
        } else {
            format!(", {lost} lost")
        };
        let targets = &self.targets;
        bar.set_message(format!(
            "recording {targets}: {seconds} s, {samples} samples{lost} (Ctrl-C ends)"
        ));
        bar.tick();
    }

    #[expect(clippy::print_stderr, reason = "warnings go to the terminal")]
    fn warning(&mut self, message: &str) {
        let message = format!("profiler: warning: {}", escape(message));
        match &self.bar {
            Some(bar) => bar.println(message),
            None => eprintln!("{message}"),
        }
    }
}
