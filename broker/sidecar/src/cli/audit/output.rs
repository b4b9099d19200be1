//! Output of commands: results to stdout, notes to stderr.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::Failure;

/// Writes to stdout.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Unavailable(format!("cannot write to stdout: {error}")),
    })
}

/// Writes a verdict's report. If its reader closes the pipe, the verdict still decides the exit code.
pub(super) fn write_report(text: &str) -> Result<(), Failure> {
    match write(text.as_bytes()) {
        Err(Failure::NobodyReads) => Ok(()),
        other => other,
    }
}

/// Says something beside the output.
pub(super) fn note(text: impl std::fmt::Display) {
    eprintln!("key-broker: {text}");
}

/// Text that may come from a workload, fit for a terminal: control characters and those that turn the direction of writing are
/// shown by their number.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(plain, "{}", c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Columns that line up. They widen as wider cells come.
pub(super) struct Columns {
    widths: Vec<usize>,
    /// Columns from this one on hold numbers.
    numbers_from: usize,
}

impl Columns {
    pub(super) fn new(widths: &[usize]) -> Self {
        Self { widths: widths.to_vec(), numbers_from: usize::MAX }
    }

    /// A whole table, with numbers from the column `numbers_from` on.
    pub(super) fn table(rows: &[Vec<String>], numbers_from: usize) -> String {
        let mut columns = Self { widths: Vec::new(), numbers_from };
        for row in rows {
            columns.widen(row);
        }
        rows.iter().map(|row| columns.line(row)).collect()
    }

    /// One line, with its line feed.
    pub(super) fn line(&mut self, cells: &[String]) -> String {
        self.widen(cells);
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if at >= self.numbers_from { (padding, String::new()) } else { (String::new(), padding) };
            let _ = write!(line, "{gap}{before}{cell}{after}");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    /// Makes room for these cells.
    pub(super) fn widen(&mut self, cells: &[String]) {
        self.widths.resize(cells.len().max(self.widths.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
}

#[cfg(test)]
mod tests {
    //! Lines are aligned, and nothing of a record moves a terminal's cursor.

    use super::*;

    #[test]
    fn columns_line_up_and_widen() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = Columns::table(&[row(&["a", "", "10"]), row(&["long", "x", "5"])], 2);
        assert_eq!(table, "a        10\nlong  x   5\n");
        let mut columns = Columns::new(&[3, 1]);
        assert_eq!(columns.line(&row(&["a", "b"])), "a    b\n");
        assert_eq!(columns.line(&row(&["wider", ""])), "wider\n");
        assert_eq!(columns.line(&row(&["a", "b"])), "a      b\n");
    }

    #[test]
    fn control_characters_are_shown_as_numbers() {
        assert_eq!(plain("alias/ä\u{1b}[2J\r\n\u{202e}x"), "alias/ä\\u{1b}[2J\\u{d}\\u{a}\\u{202e}x");
    }
}
