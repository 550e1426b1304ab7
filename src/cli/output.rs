//! What commands print: one document on stdout, everything else on stderr.
//!
//! In: values, rows. Out: aligned columns, JSON or YAML. A reader that went away (a closed pipe) is no error.

use std::fmt::Display;
use std::io::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::failure::{Failure, Outcome};

/// The form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For people with room: more columns where there are any.
    Wide,
    /// One JSON document.
    Json,
    /// The same as YAML.
    Yaml,
    /// KIND/NAME, one a line.
    Name,
}

impl Output {
    /// Prints `value` as JSON or YAML, else what `text` makes for people.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Outcome {
        match self {
            Self::Json => print(serde_json::to_string_pretty(value).map_err(Failure::on("print JSON"))?),
            Self::Yaml => print(yaml(value)?.trim_end()),
            Self::Text | Self::Wide | Self::Name => {
                let text = text();
                if !text.is_empty() {
                    print(text.trim_end_matches('\n'));
                }
            }
        }
        Ok(())
    }
}

/// A value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Outcome<String> {
    // By way of JSON values, so that what is absent there is absent here.
    let value: Value = serde_json::to_value(value).map_err(Failure::on("print YAML"))?;
    serde_saphyr::to_string(&value).map_err(|e| Failure::failed(format!("print YAML: {e}")))
}

/// One line, or several, on stdout.
pub(crate) fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A word about what goes on, on stderr.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Rows under headings, aligned as kubectl aligns them.
pub(crate) fn columns<H: Display, C: Display>(headings: &[H], rows: impl IntoIterator<Item = Vec<C>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !headings.is_empty() {
        table.set_header(headings.iter().map(|h| h.to_string().to_uppercase()));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| cell.to_string().replace('\n', " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}

/// How long ago, in the largest unit that says enough.
pub(crate) fn age(since: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    let Some(since) = since else { return "<unknown>".into() };
    let s = now.duration_since(since).as_secs().max(0);
    match s {
        0..120 => format!("{s}s"),
        120..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_under_their_headings_without_blanks_at_the_end() {
        let text = columns(&["Name", "Ready"], [vec!["prod-eu", "True"], vec!["dr", "False"]]);
        assert_eq!(text, "NAME      READY\nprod-eu   True\ndr        False");
    }

    #[test]
    fn ages_are_short() {
        let now: jiff::Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
        for (since, age_is) in [
            ("2026-01-02T23:59:59Z", "1s"),
            ("2026-01-02T23:50:00Z", "10m"),
            ("2026-01-02T12:00:00Z", "12h"),
            ("2025-12-31T00:00:00Z", "3d"),
        ] {
            assert_eq!(age(since.parse().ok(), now), age_is);
        }
        assert_eq!(age(None, now), "<unknown>");
    }
}
