//! Numbers as text, compared by what they are worth. Nothing is rounded, and nothing is written out: `1e999999999` stays as short as it
//! is.

/// What a number is worth: the digits, without zeros at either end, behind a decimal point, times a power of ten.
#[derive(Debug, PartialEq, Eq)]
struct Worth {
    is_negative: bool,
    digits: String,
    exponent: i128,
}

impl Worth {
    /// Reads a number as JSON writes it, or with zeros in front. `None` for other text, and for an exponent that no number of this size
    /// can hold.
    fn of(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i128>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let leading = i128::try_from(all.len() - significant.len()).ok()?;
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            // Zero has no sign here.
            return Some(Worth { is_negative: false, digits, exponent: 0 });
        }
        let point = i128::try_from(whole.len()).ok()?;
        Some(Worth { is_negative, digits, exponent: exponent.checked_add(point - leading)? })
    }
}

/// Returns whether two texts are the same number: `1`, `01`, `1.0` and `1e0` are.
pub fn is_equal(left: &str, right: &str) -> bool {
    left == right || Worth::of(left).is_some_and(|worth| Some(worth) == Worth::of(right))
}

/// Returns the whole number that a text is, however it is written; `None` for what is none of 64 bits.
pub fn whole(text: &str) -> Option<u64> {
    let Worth { is_negative, digits, exponent } = Worth::of(text)?;
    let zeros = usize::try_from(exponent).ok()?.checked_sub(digits.len())?;
    if is_negative || zeros > 20 {
        return None;
    }
    format!("0{digits}{}", "0".repeat(zeros)).parse().ok()
}

/// Returns whether `answered` is the number that somebody sends back who read `sent` and keeps numbers as 64 bits of floating point:
/// the same one, or what those 64 bits are written as. JavaScript, PHP and most readers that are told nothing else do so.
pub fn is_echo(sent: &str, answered: &str) -> bool {
    if is_equal(sent, answered) {
        return true;
    }
    let Ok(kept) = sent.parse::<f64>() else { return false };
    if !kept.is_finite() {
        return false;
    }
    // In as few digits as tell it from all others, in the 17 that always do, or, of a large one, in all.
    let mut written = vec![format!("{kept:e}"), format!("{kept:.16e}")];
    if kept.abs() >= 9_007_199_254_740_992.0 {
        written.push(format!("{kept:.0}"));
    }
    written.iter().any(|written| is_equal(written, answered))
}

/// Returns whether a number is too large for 64 bits of floating point: who keeps it so has no number then.
pub fn is_beyond_floating_point(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_infinite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        for (left, right) in [
            ("1", "1.0"),
            ("1", "01"),
            ("100", "1E+2"),
            ("0.01", "1e-2"),
            ("-0", "0"),
            ("0e5", "0.000"),
            ("1e999999999", "10e999999998"),
            ("-1.50", "-15e-1"),
            ("1e99999999999999999999999999999999999999999999", "1e99999999999999999999999999999999999999999999"),
        ] {
            assert!(is_equal(left, right) && is_equal(right, left), "{left} {right}");
        }
        for (left, right) in [
            ("1", "-1"),
            ("1", "10"),
            ("1e999999999", "1e999999998"),
            ("117.63331139400017", "117.63331139400016"),
            ("9007199254740993", "9007199254740992"),
            ("1", "x"),
            ("x", "y"),
            ("", "0"),
        ] {
            assert!(!is_equal(left, right) && !is_equal(right, left), "{left} {right}");
        }
    }

    #[test]
    fn whole_numbers_are_read_from_any_way_to_write_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7.0", Some(7)),
            ("1.2e3", Some(1200)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0.5", None),
            ("-1", None),
            ("1e999999999", None),
            ("seven", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn an_echo_is_what_floating_point_makes_of_a_number_and_nothing_near_it() {
        for (sent, answered) in [
            ("117.63331139400017", "117.63331139400017"),
            ("0.1000000000000000055511151231257827", "0.1"),
            ("9007199254740993", "9007199254740992"),
            ("9223372036854775808", "9223372036854776000"),
            ("9223372036854775807", "9.2233720368547758e+18"),
            ("12345678901234567891", "12345678901234567168"),
            ("0.1", "0.10000000000000001"),
            ("1e-999999999", "0"),
        ] {
            assert!(is_echo(sent, answered), "{sent} {answered}");
        }
        for (sent, answered) in [
            ("117.63331139400017", "117.63331139400016"),
            ("9007199254740993", "9007199254740994"),
            ("12345678901234567891", "12345678901234567892"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1e999", "1e998"),
            ("1", "true"),
        ] {
            assert!(!is_echo(sent, answered), "{sent} {answered}");
        }
        assert!(is_beyond_floating_point("-1e999999999") && !is_beyond_floating_point("1e308"));
    }
}
