//! Option files: parameters in, text out, and back. Quoting of file values is here and nowhere else.

use crate::errors::invalid;
use datastore_api::DriverError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Parameters of one group: name and value as text.
pub(crate) type Parameters = BTreeMap<String, String>;

/// Before the name of a parameter that the server may not know in a file, so that it still starts.
const LOOSE: &str = "loose_";
/// Longest value, in bytes.
const LONGEST: usize = 4096;

/// The values of a request as parameters. `Invalid` names a bad name or a value that is no number, text or boolean.
/// Names in `live_only` are marked as optional, for the server refuses them in a file.
pub(crate) fn parameters(values: &Map<String, Value>, live_only: &[&str]) -> Result<Parameters, DriverError> {
    let mut parameters = Parameters::new();
    for (name, value) in values {
        check_name(name)?;
        let text = match value {
            Value::Bool(on) => u8::from(*on).to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => return Err(invalid(format!("parameter {name} needs a number, text or boolean"))),
        };
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(invalid(format!(
                "the value of parameter {name} is too long or holds control characters"
            )));
        }
        let loose = if live_only.contains(&name.as_str()) { LOOSE } else { "" };
        parameters.insert(format!("{loose}{name}"), text);
    }
    Ok(parameters)
}

/// `Invalid` if it cannot be the name of a parameter.
pub(crate) fn check_name(name: &str) -> Result<(), DriverError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(invalid(format!("'{}' is not the name of a parameter", name.escape_debug())));
    }
    Ok(())
}

/// One group with its parameters.
pub(crate) fn render(group: &str, parameters: &Parameters) -> String {
    let mut text = format!("[{group}]\n");
    for (name, value) in parameters {
        text.push_str(&format!("{name} = {}\n", quote(value)));
    }
    text
}

/// The parameters of a text that [`render`] made (or the control plane's own agent did), all groups together.
pub(crate) fn parse(text: &str) -> Parameters {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquote(value.trim())))
        .collect()
}

/// Plain values stay bare; others are quoted, because outside quotes `#` begins a comment and a backslash escapes.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+.,:/@%()*".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::btree_map("[a-z_]{1,12}", "\\PC{0,30}", 0..6)) {
            let text = render("mysqld", &values);
            prop_assert_eq!(text.lines().count(), values.len() + 1);
            prop_assert_eq!(parse(&text), values);
        }
    }

    #[test]
    fn values_of_all_json_kinds() {
        let values = json!({"max_connections": 200, "autocommit": true, "sql_mode": "ANSI", "long_query_time": 0.5});
        let parameters = parameters(values.as_object().unwrap(), &["sql_mode"]).unwrap();
        let text = render("mysqld", &parameters);
        assert_eq!(
            text,
            "[mysqld]\nautocommit = 1\nlong_query_time = 0.5\nloose_sql_mode = ANSI\nmax_connections = 200\n"
        );
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let bad = [
            json!({"a\nb": 1}),
            json!({"A": 1}),
            json!({"": 1}),
            json!({"a b": 1}),
            json!({"a": "x\ny"}),
            json!({"a": null}),
            json!({"a": [1]}),
            json!({"a": "\u{0}"}),
            json!({"a-b": 1}),
        ];
        for values in bad {
            assert!(parameters(values.as_object().unwrap(), &[]).is_err(), "{values}");
        }
        assert_eq!(quote("a # b"), "\"a # b\"");
    }
}
