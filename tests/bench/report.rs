//! How figures are printed: one line each, beside the goal where there is one.

use std::fmt;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// Prints a figure.
pub(crate) fn line(what: &str, figure: &str) {
    println!("  {what:<42} {figure}");
}

/// A figure and what it comes to: `value`, told in `unit`.
pub(crate) fn compared(figure: &str, value: f64, unit: &str) -> String {
    format!("{figure:<42} {value:>7.2} {unit}")
}

/// Prints a figure, what it comes to, and whether that meets the goal.
pub(crate) fn judged(what: &str, figure: &str, value: f64, unit: &str, goal: Goal) {
    let met = if goal.is_met(value) { "met" } else { "NOT met" };
    line(what, &format!("{} (goal: {goal}: {met})", compared(figure, value, unit)));
}
