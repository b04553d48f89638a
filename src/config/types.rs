//! Values as oslo.config's types read them. Pure; each function answers what was expected when it cannot.

use super::parser::strip;

/// `true`, `1`, `on`, `yes` and their opposites, in any case. No white space is forgiven.
///
/// # Errors
/// What was expected.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err("expected true, 1, on, yes, false, 0, off or no".to_owned()),
    }
}

/// A whole number as Python's `int()` reads one (sign, and single underscores between digits). Empty is `None`: unset.
///
/// # Errors
/// What was expected.
pub fn integer(text: &str, min: i64, max: i64) -> Result<Option<i64>, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(None);
    }
    without_underscores(text)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit() || b == b'+' || b == b'-'))
        .and_then(|digits| digits.parse::<i64>().ok())
        .filter(|number| (min..=max).contains(number))
        .map(Some)
        .ok_or_else(|| match (min, max) {
            (i64::MIN, i64::MAX) => "expected a whole number".to_owned(),
            (_, i64::MAX) => format!("expected a whole number of at least {min}"),
            _ => format!("expected a whole number from {min} to {max}"),
        })
}

/// A number as Python's `float()` reads one, but finite. Empty is `None`: unset.
///
/// # Errors
/// What was expected.
pub fn float(text: &str, min: f64, max: f64) -> Result<Option<f64>, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(None);
    }
    without_underscores(text)
        .and_then(|digits| digits.parse::<f64>().ok())
        .filter(|number| number.is_finite() && (min..=max).contains(number))
        .map(Some)
        .ok_or_else(|| match (min, max) {
            (f64::MIN, f64::MAX) => "expected a number".to_owned(),
            (_, f64::MAX) => format!("expected a number of at least {min}"),
            _ => format!("expected a number from {min} to {max}"),
        })
}

/// Python allows one underscore between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        if *byte == b'_' && !(digit(at.checked_sub(1)) && digit(at.checked_add(1))) {
            return None;
        }
    }
    Some(text.replace('_', ""))
}

/// Items between commas, stripped; commas at the end are dropped.
#[must_use]
pub fn list(text: &str) -> Vec<String> {
    let text = strip(text).trim_end_matches(',');
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| strip(item).to_owned()).collect()
}

/// `key:value` pairs between commas, in their order. A part without a colon belongs to the key after it (upstream's rule).
///
/// # Errors
/// What was expected.
pub fn dict(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = strip(text);
    let mut found: Vec<(String, String)> = Vec::new();
    if text.is_empty() {
        return Ok(found);
    }
    let mut parts = text.split(',');
    while let Some(part) = parts.next() {
        let mut pair = part.to_owned();
        while !pair.contains(':') {
            let next = parts.next().ok_or("expected name:value pairs between commas")?;
            pair.push(',');
            pair.push_str(next);
        }
        let (key, value) = pair.split_once(':').unwrap_or((&pair, ""));
        let (key, value) = (strip(key), strip(value));
        if key.is_empty() {
            return Err("expected a name before each colon".to_owned());
        }
        if found.iter().any(|(known, _)| known == key) {
            return Err(format!("expected each name once, found {key} twice"));
        }
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        let int = |text| integer(text, i64::MIN, i64::MAX);
        assert_eq!(int(" 1_000 "), Ok(Some(1000)));
        assert_eq!(int("+5"), Ok(Some(5)));
        assert_eq!(int(""), Ok(None));
        for bad in ["_1", "1__0", "1_", "0x10", "1.0", "5 5", "+-5", "-", "99999999999999999999"] {
            assert!(int(bad).is_err(), "{bad}");
        }
        assert!(integer("0", 1, 10).unwrap_err().contains("from 1 to 10"));
        assert_eq!(float("1e3", f64::MIN, f64::MAX), Ok(Some(1000.0)));
        assert!(float("nan", f64::MIN, f64::MAX).is_err());
    }

    #[test]
    fn lists_and_dicts_follow_upstream_to_the_letter() {
        assert_eq!(list(" a, b ,,c,, "), ["a", "b", "", "c"]);
        assert!(list(" ,, ").is_empty());
        assert_eq!(
            dict("a:b:c, d : e"),
            Ok(vec![("a".into(), "b:c".into()), ("d".into(), "e".into())])
        );
        assert_eq!(dict("a,b:c"), Ok(vec![("a,b".into(), "c".into())]));
        for bad in ["a", "a:b,c", ":x", "a:1,a:2"] {
            assert!(dict(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_boolean_forgives_case_but_no_blank() {
        assert_eq!(boolean("YES"), Ok(true));
        assert_eq!(boolean("Off"), Ok(false));
        assert!(boolean(" true").is_err() && boolean("").is_err() && boolean("2").is_err());
    }
}
