//! Kubernetes quantities, as far as the operator compares them: `500m` and `0.5` are the same.

/// Billionths of the base unit.
///
/// Suffixes as in the API: `n u m "" k M G T P E`, `Ki Mi Gi Ti Pi Ei`, and decimal exponents.
/// `None` when the text is no quantity or too large for 128 bits.
#[must_use]
pub fn parse_nano(text: &str) -> Option<i128> {
    let text = text.trim();
    let number_end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (numerator, exponent) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1_i128 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !(whole
        .chars()
        .chain(fraction.chars())
        .all(|c| c.is_ascii_digit()))
        || (whole.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let fraction = fraction.get(..fraction.len().min(18))?;
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = 9 + exponent - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(numerator)?;
    let power = |n: i32| 10_i128.checked_pow(u32::try_from(n).ok()?);
    let value = if shift >= 0 {
        scaled.checked_mul(power(shift)?)?
    } else {
        scaled / power(-shift)?
    };
    Some(sign * value)
}

/// Whether two texts are the same amount; texts that are no quantities are compared as they stand.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    a == b || matches!((parse_nano(a), parse_nano(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (a, b) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1Gi", "1024Mi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("12E2", "1200"),
            ("-1", "-1000m"),
            ("100u", "0.1m"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("1Gi", "1G"),
            ("abc", "abd"),
            ("", "0"),
            ("1Xi", "1"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "",
            ".",
            "abc",
            "1Zi",
            "1.2.3",
            "--1",
            "1e",
            "999999999999999999999999999999999999E",
        ] {
            assert_eq!(parse_nano(text), None, "{text}");
        }
    }
}
