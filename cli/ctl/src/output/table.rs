//! A table on a terminal: columns with headings, and colours that say at a glance what is well.
//!
//! Rows come one by one and are printed as they come, so columns have widths of their own; a longer text pushes its row.
//!
//! **Invariant:** no control character from outside reaches the terminal.

/// What a cell says of what it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// It is as it should be.
    Good,
    /// It is under way.
    Busy,
    /// Somebody should look.
    Bad,
    /// It is of less interest.
    Faint,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// Ends a colour.
const END: &str = "\x1b[0m";
/// How headings look.
const HEADING: &str = "\x1b[1m";
/// What stands between columns.
const GAP: &str = "  ";

/// A text and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text that says no more than it says.
    pub(crate) fn plain(text: impl ToString) -> Self {
        Self::of(text, Tone::Plain)
    }

    /// A text with a tone.
    pub(crate) fn of(text: impl ToString, tone: Tone) -> Self {
        Self { text: text.to_string().replace(char::is_control, " "), tone }
    }

    /// An error; empty if there is none.
    pub(crate) fn error(text: &str) -> Self {
        Self::of(text, Tone::Bad)
    }

    fn padded(&self, width: usize) -> String {
        let gap = " ".repeat(width.saturating_sub(self.text.chars().count()));
        match self.tone.code() {
            "" => format!("{}{gap}", self.text),
            _ if self.text.is_empty() => gap,
            code => format!("{code}{}{END}{gap}", self.text),
        }
    }
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Headings and least widths.
    pub(crate) columns: &'static [(&'static str, usize)],
    /// A cell for each column.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The rows as text, with the heading above if they are the first.
    pub(crate) fn rendered(&self, with_heading: bool) -> String {
        let mut text = String::new();
        if with_heading {
            let heads = self.columns.iter().map(|(head, width)| format!("{head:<width$}"));
            text.push_str(&format!("{HEADING}{}{END}\n", heads.collect::<Vec<_>>().join(GAP).trim_end()));
        }
        for row in &self.rows {
            let cells = row.iter().zip(self.columns).map(|(cell, (_, width))| cell.padded(*width));
            text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_headings_and_colours_take_no_room() {
        let row = |name: &str, tone| vec![Cell::of(name, tone), Cell::plain("x"), Cell::error("")];
        let rows = vec![row("a", Tone::Good), row("long name", Tone::Plain), row("b\x1b[2J\n", Tone::Plain)];
        let table = Table { columns: &[("NAME", 6), ("WHAT", 4), ("ERROR", 0)], rows };
        let expected = "\x1b[1mNAME    WHAT  ERROR\x1b[0m\n\x1b[32ma\x1b[0m       x\nlong name  x\nb [2J   x\n";
        assert_eq!(table.rendered(true), expected);
        assert_eq!(table.rendered(false), expected.split_once('\n').unwrap().1);
    }
}
