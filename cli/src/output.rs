//! What is shown: tables without lines as of kubectl, ages, and colours where standard output is a terminal.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets::NOTHING};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is not known.
pub const UNKNOWN: &str = "-";

/// How a text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As any other.
    Plain,
    /// All is well.
    Good,
    /// It is on its way.
    Busy,
    /// Somebody has to do something.
    Bad,
}

impl Tone {
    fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Busy => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }
}

/// A text of a tone.
#[must_use]
pub fn paint(text: &str, tone: Tone, colours: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Busy => 33,
        Tone::Bad => 31,
    };
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether to use colours: on a terminal that has them, unless `NO_COLOR` is set.
#[must_use]
pub fn colours() -> bool {
    io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// A table that grows by rows.
pub struct Rows {
    table: Table,
    right: Vec<usize>,
}

impl Rows {
    /// Columns by name; those at the indices of `right` hold numbers.
    #[must_use]
    pub fn new(header: &[&str], right: &[usize], colours: bool) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
        if colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        Self { table, right: right.to_vec() }
    }

    /// Adds a row.
    pub fn add(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        self.table.add_row(cells.into_iter().map(|(text, tone)| {
            let cell = Cell::new(plain(&text));
            match tone.colour() {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }

    /// The table, two spaces between columns and none at the ends of lines.
    #[must_use]
    pub fn finish(mut self) -> String {
        let count = self.table.column_count();
        for (index, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, if index + 1 == count { 0 } else { 2 }));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: Vec<String> = self.table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        lines.concat()
    }
}

/// One line without control characters: what others wrote must not move the cursor.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Prints a text. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// How old something is, in kubectl's form.
#[must_use]
pub fn age(since: Option<&Time>, now: Timestamp) -> String {
    since.map_or_else(|| UNKNOWN.to_owned(), |time| duration(now.duration_since(time.0).as_secs()))
}

/// Seconds as kubectl shows them: `90s`, `5m30s`, `3h20m`, `2d3h`, `400d`.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if days < 2 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (5 * minute + 30, "5m30s"),
            (10 * minute + 30, "10m"),
            (179 * minute, "179m"),
            (3 * hour + 20 * minute, "3h20m"),
            (8 * hour + 1, "8h"),
            (47 * hour, "47h"),
            (2 * day + 3 * hour, "2d3h"),
            (400 * day, "400d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
