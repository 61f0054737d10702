//! How far something is, in one line on the standard error that goes away at the end.
//!
//! **Invariant:** nothing is drawn unless the standard error is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two turns of the wheel.
const TICK: Duration = Duration::from_millis(200);

/// A line that says how far something is; may be invisible.
#[derive(Debug, Default)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Bytes: a bar if it is known how many there will be, with the time that is left.
    pub fn of_bytes(total: Option<u64>, wanted: bool) -> Self {
        let known = "{bytes}/{total_bytes} [{bar:30}] {percent}% ({bytes_per_sec}, {eta} left) {wide_msg}";
        Self::new(total, wanted, known, "{spinner} {bytes} ({bytes_per_sec}) {wide_msg}")
    }

    /// Things of a kind, like pins or peers.
    pub fn of_items(kind: &str, total: Option<u64>, wanted: bool) -> Self {
        let known = format!("{{pos}}/{{len}} {kind} [{{bar:30}}] {{percent}}% ({{eta}} left) {{wide_msg}}");
        Self::new(total, wanted, &known, &format!("{{spinner}} {{pos}} {kind} ({{per_sec}}) {{wide_msg}}"))
    }

    /// A wheel and a text.
    pub fn of_waiting(wanted: bool) -> Self {
        Self::new(None, wanted, "", "{spinner} {wide_msg} ({elapsed})")
    }

    fn new(total: Option<u64>, wanted: bool, known: &str, unknown: &str) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(if total.is_some() { known } else { unknown }) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// So much is done.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// More is done.
    pub fn add(&self, more: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(more);
        }
    }

    /// What is being done; control characters do not reach the terminal.
    pub fn say(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.replace(char::is_control, " "));
        }
    }

    /// Does `print` while the line is out of the way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound_and_nothing_is_drawn_unasked() {
        for total in [None, Some(5)] {
            for progress in [Progress::of_bytes(total, false), Progress::of_items("pins", total, false)] {
                assert!(!progress.is_shown());
                progress.set(1);
                assert_eq!(progress.aside(|| 7), 7);
            }
        }
        let items = "{pos}/{len} pins [{bar:30}] {percent}% ({eta} left) {wide_msg}";
        let bytes = "{bytes}/{total_bytes} [{bar:30}] {percent}% ({bytes_per_sec}, {eta} left) {wide_msg}";
        for template in
            [items, bytes, "{spinner} {pos} pins ({per_sec}) {wide_msg}", "{spinner} {wide_msg} ({elapsed})"]
        {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
