//! Numbers, tables and bars for a terminal.

use std::time::Duration;

/// A side of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head, in columns that are as wide as they must be, each line indented by two spaces.
#[must_use]
pub fn table(head: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head[column].0.chars().count())
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::from(" ");
        for (cell, ((_, align), width)) in cells.zip(head.iter().zip(&widths)) {
            line.push(' ');
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
            line.push(' ');
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut text = line(&mut head.iter().map(|(name, _)| *name));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `18.5 MB`; powers of ten, three digits.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// `3.1 µs`, `12.4 ms`, `2.05 s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.999_5e-3 {
        format!("{} µs", three_digits(seconds * 1e6))
    } else if seconds < 0.999_5 {
        format!("{} ms", three_digits(seconds * 1e3))
    } else {
        format!("{} s", three_digits(seconds))
    }
}

/// A number with three digits that count, and never an exponent.
#[must_use]
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `4 652 008`
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A bar of `part` of `whole`, at most `width` characters, in eighths of a character.
#[must_use]
pub fn bar(part: f64, whole: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if whole <= 0.0 || part.is_nan() || part <= 0.0 {
        return String::new();
    }
    let eighths = ((part / whole).min(1.0) * width as f64 * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_times_have_the_unit_that_fits() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (18_534_231, "18.5 MB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (2_147_483_648, "2.15 GB"),
            (u64::MAX, "18447 PB"),
        ];
        for (number, text) in table {
            assert_eq!(bytes(number), text);
        }
        for (micros, text) in [
            (0, "0 µs"),
            (3, "3.00 µs"),
            (999, "999 µs"),
            (1000, "1.00 ms"),
            (12_431, "12.4 ms"),
            (999_600, "1.00 s"),
            (75_000_000, "75.0 s"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
        assert_eq!(count(4_652_008), "4 652 008");
        assert_eq!((count(12), count(1000)), ("12".into(), "1 000".into()));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "10.5".to_owned()],
            vec!["bü".to_owned(), "9".to_owned()],
        ];
        assert_eq!(
            table(&[("operator", Align::Left), ("n", Align::Right)], &rows),
            "  operator     n\n  a         10.5\n  bü           9\n"
        );
    }

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(1.0, 1.0, 4), "████");
        assert_eq!(bar(0.5, 1.0, 4), "██");
        assert_eq!(bar(1.0, 16.0, 4), "▎");
        assert_eq!(bar(0.0, 1.0, 4), "");
        assert_eq!(bar(f64::NAN, 1.0, 4), "");
    }

    proptest! {
        #[test]
        fn a_bar_never_grows_over_its_width(part in 0.0..10.0_f64, whole in 0.0..10.0_f64, width in 0..40_usize) {
            prop_assert!(bar(part, whole, width).chars().count() <= width);
        }
    }
}
