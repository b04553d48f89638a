//! The running server's own catalogue of parameters, and values checked against it.

use crate::errors::invalid;
use crate::sql;
use datastore_api::DriverError;
use serde_json::Value;

/// What the catalogue is asked for, in the order of [`Variable`]'s fields.
pub(crate) const QUERY: &str = "SELECT LOWER(VARIABLE_NAME), VARIABLE_SCOPE, VARIABLE_TYPE, READ_ONLY, NUMERIC_MIN_VALUE, \
    NUMERIC_MAX_VALUE, ENUM_VALUE_LIST, GLOBAL_VALUE FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME IN";

/// A row of the catalogue.
pub(crate) type Row = (
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// One parameter as the server describes it.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    /// Name in small letters.
    pub name: String,
    /// Whether it has a global value at all.
    pub is_global: bool,
    /// Whether it changes by a restart only.
    pub read_only: bool,
    /// Global value in force.
    pub value: String,
    kind: Kind,
    choices: Vec<String>,
    least: Option<i128>,
    most: Option<i128>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Integer,
    Float,
    Choice,
    Text,
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Setting {
    /// Also booleans, as 1 and 0.
    Integer(i128),
    /// A decimal number, as it was written.
    Float(f64),
    /// Text, and names of choices.
    Text(String),
}

impl Setting {
    /// The literal in a `SET` statement.
    pub fn literal(&self) -> String {
        match self {
            Setting::Integer(number) => number.to_string(),
            Setting::Float(number) => number.to_string(),
            Setting::Text(value) => sql::text(value),
        }
    }
}

impl Variable {
    /// From a row of the catalogue.
    pub fn new(row: Row) -> Self {
        let (name, scope, kind, read_only, least, most, choices, value) = row;
        let choices = choices.filter(|list| !list.is_empty());
        let kind = match kind.as_str() {
            "BOOLEAN" => Kind::Boolean,
            "DOUBLE" => Kind::Float,
            // Character sets and collations are choices without a list.
            "ENUM" if choices.is_some() => Kind::Choice,
            number if number.contains("INT") => Kind::Integer,
            _ => Kind::Text,
        };
        let bound = |text: Option<String>| text.and_then(|text| text.parse::<i128>().ok());
        Self {
            name,
            is_global: scope != "SESSION ONLY",
            read_only: read_only == "YES",
            value: value.unwrap_or_default(),
            kind,
            choices: choices.unwrap_or_default().split(',').map(str::to_owned).collect(),
            least: bound(least),
            most: bound(most),
        }
    }

    /// Checks a wanted value. `Invalid` names the parameter and what it takes.
    pub fn check(&self, wanted: &Value) -> Result<Setting, DriverError> {
        if !self.is_global {
            return Err(invalid(format!("parameter {} exists only inside a session", self.name)));
        }
        match self.kind {
            Kind::Boolean => self.boolean(wanted),
            Kind::Integer => self.integer(wanted),
            Kind::Float => self.float(wanted),
            Kind::Choice => self.choice(wanted),
            Kind::Text => Ok(match wanted {
                Value::Number(number) if number.is_i64() || number.is_u64() => {
                    integer_of(wanted).map_or_else(|| Setting::Text(number.to_string()), Setting::Integer)
                }
                _ => Setting::Text(plain(wanted)),
            }),
        }
    }

    /// Whether a value is the one in force.
    pub fn is_now(&self, setting: &Setting) -> bool {
        let now = self.value.as_str();
        match setting {
            Setting::Integer(number) => match truth(now) {
                Some(on) if self.kind != Kind::Integer => i128::from(on) == *number,
                _ => now.parse() == Ok(*number) || self.choices.get(*number as usize).is_some_and(|choice| choice == now),
            },
            Setting::Float(number) => now.parse() == Ok(*number),
            Setting::Text(text) => now.eq_ignore_ascii_case(text),
        }
    }

    fn boolean(&self, wanted: &Value) -> Result<Setting, DriverError> {
        truth(&plain(wanted))
            .map(|on| Setting::Integer(i128::from(on)))
            .ok_or_else(|| self.refuse(wanted, "on or off"))
    }

    fn integer(&self, wanted: &Value) -> Result<Setting, DriverError> {
        let number = integer_of(wanted).ok_or_else(|| self.refuse(wanted, "a whole number, with K, M, G or T for a size"))?;
        let (least, most) = (self.least.unwrap_or(i128::MIN), self.most.unwrap_or(i128::MAX));
        // 0 and -1 mean "automatic" for some parameters whose range does not say so; the server judges them.
        if (number < least || number > most) && !matches!(number, 0 | -1) {
            return Err(self.refuse(wanted, &format!("a number from {least} to {most}")));
        }
        Ok(Setting::Integer(number))
    }

    fn float(&self, wanted: &Value) -> Result<Setting, DriverError> {
        let number = plain(wanted).parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| self.refuse(wanted, "a number"))?;
        let beyond = |bound: Option<i128>, wrong: fn(f64, f64) -> bool| bound.is_some_and(|bound| wrong(number, bound as f64));
        if beyond(self.least, |n, bound| n < bound) || beyond(self.most, |n, bound| n > bound) {
            let (least, most) = (self.least.unwrap_or_default(), self.most.unwrap_or_default());
            return Err(self.refuse(wanted, &format!("a number from {least} to {most}")));
        }
        Ok(Setting::Float(number))
    }

    fn choice(&self, wanted: &Value) -> Result<Setting, DriverError> {
        let text = plain(wanted);
        if let Some(choice) = self.choices.iter().find(|choice| choice.eq_ignore_ascii_case(&text)) {
            return Ok(Setting::Text(choice.clone()));
        }
        match text.parse::<usize>().ok().filter(|index| *index < self.choices.len()) {
            Some(index) => Ok(Setting::Integer(index as i128)),
            None => Err(self.refuse(wanted, &format!("one of {}", self.choices.join(", ")))),
        }
    }

    fn refuse(&self, wanted: &Value, takes: &str) -> DriverError {
        let shown: String = plain(wanted).chars().take(80).collect();
        invalid(format!(
            "parameter {} cannot be '{}': it takes {takes}",
            self.name,
            shown.escape_debug()
        ))
    }
}

/// The text of a JSON value; booleans as 1 and 0.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Bool(on) => u8::from(*on).to_string(),
        other => other.to_string(),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" | "yes" => Some(true),
        "0" | "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// A whole number; text may end in a size suffix of either case.
fn integer_of(value: &Value) -> Option<i128> {
    if let Value::Number(number) = value {
        let whole = number
            .as_f64()
            .filter(|number| number.fract() == 0.0)
            .map(|number| number as i128);
        return number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)).or(whole);
    }
    let text = plain(value);
    let shift = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        'E' => 60,
        _ => 0,
    };
    let digits = if shift == 0 { text.as_str() } else { &text[..text.len() - 1] };
    digits
        .trim()
        .parse::<i64>()
        .ok()
        .map(i128::from)
        .or(digits.trim().parse::<u64>().ok().map(i128::from))
        .map(|n| n << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variable(kind: &str, least: &str, most: &str, choices: &str, now: &str) -> Variable {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let row = (
            "x".into(),
            "GLOBAL".into(),
            kind.into(),
            "NO".into(),
            some(least),
            some(most),
            some(choices),
            some(now),
        );
        Variable::new(row)
    }

    #[test]
    fn sizes_of_either_case() {
        let size = variable("BIGINT UNSIGNED", "0", "18446744073709551615", "", "16777216");
        for text in ["16M", "16m", "16384K", "16777216"] {
            let setting = size.check(&json!(text)).unwrap();
            assert_eq!(setting, Setting::Integer(16 << 20));
            assert!(size.is_now(&setting));
        }
        for bad in [json!("16X"), json!("M"), json!("1.5"), json!(""), json!(1.5), json!("16M;")] {
            assert!(size.check(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        let connections = variable("BIGINT UNSIGNED", "10", "100000", "", "151");
        assert!(
            connections
                .check(&json!(5))
                .unwrap_err()
                .to_string()
                .contains("from 10 to 100000")
        );
        assert!(connections.check(&json!(200)).is_ok());
    }

    #[test]
    fn booleans_and_choices_by_word_and_number() {
        let switch = variable("BOOLEAN", "", "", "OFF,ON", "ON");
        for on in [json!(true), json!(1), json!("on"), json!("1")] {
            assert!(switch.is_now(&switch.check(&on).unwrap()), "{on}");
        }
        assert!(switch.check(&json!("perhaps")).is_err());
        let choice = variable("ENUM", "", "", "OFF,ON,DEMAND", "DEMAND");
        assert_eq!(choice.check(&json!("demand")).unwrap(), Setting::Text("DEMAND".into()));
        assert!(choice.is_now(&choice.check(&json!(2)).unwrap()));
        assert!(choice.check(&json!(3)).is_err());
    }

    #[test]
    fn text_is_quoted() {
        let text = variable("VARCHAR", "", "", "", "");
        assert_eq!(text.check(&json!("a'b")).unwrap().literal(), "'a''b'");
    }
}
