//! Tables and figures for people: aligned columns, three digits or so.

/// Names to the left, numbers to the right, each column as wide as its widest cell.
pub(crate) fn lines<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    columns_of_text: usize,
) -> Vec<String> {
    let header = header.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| all().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if column < columns_of_text {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            line.push_str(if column == 0 { "" } else { "  " });
            line.push_str(&cell);
        }
        line
    };
    all().map(line).collect()
}

/// A time in the unit that leaves two or three digits; nothing measured is a dash.
pub(crate) fn time(ns: Option<u64>) -> String {
    const UNITS: [(&str, u64); 3] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let Some(ns) = ns else { return "-".to_owned() };
    match UNITS.iter().find(|(_, unit)| ns >= *unit) {
        Some((name, unit)) if ns < 10 * unit => {
            format!("{}.{}{name}", ns / unit, ns % unit * 10 / unit)
        }
        Some((name, unit)) => format!("{}{name}", ns / unit),
        None => format!("{ns}ns"),
    }
}

/// A rate, with a decimal while it is small.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// The target concurrency; a gateway that does not tell it is a dash.
pub(crate) fn hint(hint: Option<f64>) -> String {
    hint.map_or("-".to_owned(), |hint| format!("{hint:.2}"))
}

/// A count; a gateway that does not tell it is a dash.
pub(crate) fn count(count: Option<u64>) -> String {
    count.map_or("-".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_or_three_digits_and_a_unit() {
        for (ns, expected) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.0us"),
            (9_999, "9.9us"),
            (10_000, "10us"),
            (999_999, "999us"),
            (1_250_000, "1.2ms"),
            (2_500_000_000, "2.5s"),
            (120_000_000_000, "120s"),
        ] {
            assert_eq!(time(Some(ns)), expected);
        }
        assert_eq!(time(None), "-");
    }

    #[test]
    fn small_rates_have_a_decimal() {
        assert_eq!(
            [0.0, 0.26, 9.94, 10.4, 123_456.7].map(rate),
            ["0", "0.3", "9.9", "10", "123457"]
        );
    }
}
