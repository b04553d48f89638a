//! Reads options by type. A value that is wrong becomes a problem of the report and the default is taken, so that loading
//! goes on and finds the next one.

use super::merge::{Found, Holds, Inputs};
use super::report::{Origin, Report, Resolved, SECRET, Severity};
use super::schema::{self, DATASTORE, Kind, Opt};
use super::types;
use datastore_api::Secret;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A converted value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unset,
    Text(String),
    Bool(bool),
    Int(i64),
    Seconds(f64),
    List(Vec<String>),
    Dict(Vec<(String, String)>),
}

/// An option that has been read.
#[derive(Debug, Clone)]
struct Cell {
    value: Value,
    origin: Origin,
    shown: Option<String>,
    lost: Vec<Origin>,
}

/// Reads, remembers, reports.
pub(super) struct Reader<'a> {
    pub inputs: Inputs<'a>,
    pub report: Report,
    cells: BTreeMap<(&'static str, &'static str), Cell>,
    /// Files already found to be readable by everybody although they hold a secret.
    exposed: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    pub fn new(inputs: Inputs<'a>, report: Report) -> Self {
        Self {
            inputs,
            report,
            cells: BTreeMap::new(),
            exposed: Vec::new(),
        }
    }

    /// Whether somebody set the option.
    pub fn is_set(&mut self, group: &str, name: &str) -> bool {
        self.cell(group, name).origin != Origin::Default
    }

    pub fn text(&mut self, group: &str, name: &str) -> Option<String> {
        match self.cell(group, name).value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn secret(&mut self, group: &str, name: &str) -> Option<Secret> {
        self.text(group, name).map(Secret::from)
    }

    pub fn path(&mut self, group: &str, name: &str) -> Option<PathBuf> {
        self.text(group, name).map(PathBuf::from)
    }

    pub fn bool(&mut self, group: &str, name: &str) -> bool {
        matches!(self.cell(group, name).value, Value::Bool(true))
    }

    pub fn int(&mut self, group: &str, name: &str) -> Option<i64> {
        match self.cell(group, name).value {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// A whole number as an unsigned one; a negative one is 0, unset is 0.
    pub fn count<T: TryFrom<i64> + Default>(&mut self, group: &str, name: &str) -> T {
        self.int(group, name)
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or_default()
    }

    /// A whole number of seconds, or one with a fraction.
    pub fn seconds(&mut self, group: &str, name: &str) -> Option<Duration> {
        match self.cell(group, name).value {
            Value::Int(number) => u64::try_from(number).ok().map(Duration::from_secs),
            Value::Seconds(number) => Duration::try_from_secs_f64(number).ok(),
            _ => None,
        }
    }

    pub fn list(&mut self, group: &str, name: &str) -> Option<Vec<String>> {
        match self.cell(group, name).value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn dict(&mut self, group: &str, name: &str) -> Vec<(String, String)> {
        match self.cell(group, name).value {
            Value::Dict(items) => items,
            _ => Vec::new(),
        }
    }

    /// Reports a problem of an option at the place its value comes from.
    pub fn problem(&mut self, severity: Severity, group: &str, name: &str, text: impl Into<String>) {
        let origin = self.cell(group, name).origin;
        let section = self.inputs.section(group).to_owned();
        self.report.of_option(severity, &section, name, &origin, text);
    }

    pub fn error(&mut self, group: &str, name: &str, text: impl Into<String>) {
        self.problem(Severity::Error, group, name, text);
    }

    pub fn warning(&mut self, group: &str, name: &str, text: impl Into<String>) {
        self.problem(Severity::Warning, group, name, text);
    }

    /// Reads what has not been read yet and answers the report, values in the order of the schema.
    pub fn finish(mut self) -> Report {
        for opt in schema::options() {
            let cell = self.cell(opt.group, opt.name);
            // Options of long ago and those that do nothing are listed only if somebody set them.
            let quiet = matches!(opt.kind, Kind::NoEffect(_)) || schema::MITAKA.iter().any(|old| old.name == opt.name);
            if quiet && cell.origin == Origin::Default {
                continue;
            }
            self.report.values.push(Resolved {
                group: self.inputs.section(opt.group).to_owned(),
                option: opt.name.to_owned(),
                value: cell.shown,
                origin: cell.origin,
                overridden: cell.lost,
            });
        }
        super::ignored::collect(&self.inputs.fragments, &self.inputs.datastore, &mut self.report);
        self.report
    }

    fn cell(&mut self, group: &str, name: &str) -> Cell {
        let opt = schema::find(group, name).expect("rooms read only options of the schema");
        if let Some(cell) = self.cells.get(&(opt.group, opt.name)) {
            return cell.clone();
        }
        let cell = self.read(opt);
        self.cells.insert((opt.group, opt.name), cell.clone());
        cell
    }

    fn read(&mut self, opt: &'static Opt) -> Cell {
        let default_text = self.inputs.default(opt);
        let default = default_text.map_or(Value::Unset, |text| convert(opt.kind, text).unwrap_or(Value::Unset));
        let default_shown = default_text.map(|text| {
            if opt.kind == Kind::Secret {
                SECRET.to_owned()
            } else {
                text.to_owned()
            }
        });
        let Some(found) = self.inputs.find(opt) else {
            return Cell {
                value: default,
                origin: Origin::Default,
                shown: default_shown,
                lost: Vec::new(),
            };
        };
        self.remark(opt, &found);
        let section = self.inputs.section(opt.group).to_owned();
        // Options of transport_url are already in their final form.
        let expanded = match found.origin {
            Origin::TransportUrl => Ok((found.value.clone(), Holds::Plain)),
            _ => self.inputs.interpolate(&found.value, &section, opt.name),
        };
        let lost = found.lost.into_iter().map(|(origin, _)| origin).collect();
        let expanded = expanded.map_err(|unresolved| match opt.kind {
            // The name may be a piece of a password.
            Kind::Secret => "a $ begins a name that is no option; write $$ for a dollar sign".to_owned(),
            _ => unresolved.to_string(),
        });
        let expanded = expanded.and_then(|(text, holds)| match holds {
            // It would show wherever this option shows.
            Holds::Secret if opt.kind != Kind::Secret => Err("refers to a secret, which only a secret option may".to_owned()),
            _ => Ok((text, holds != Holds::Plain || opt.kind == Kind::Secret)),
        });
        let (text, secret) = match expanded {
            Ok(expanded) => expanded,
            Err(text) => {
                self.report
                    .of_option(Severity::Error, &section, opt.name, &found.origin, text);
                return Cell {
                    value: default,
                    origin: found.origin,
                    shown: None,
                    lost,
                };
            }
        };
        let shown = Some(if secret { SECRET.to_owned() } else { text.clone() });
        let value = convert(opt.kind, &text).unwrap_or_else(|expected| {
            let text = if secret {
                expected
            } else {
                format!("{expected}, found {text:?}")
            };
            self.report
                .of_option(Severity::Error, &section, opt.name, &found.origin, text);
            default.clone()
        });
        // An empty value is upstream's way to say "not set".
        let (value, shown) = match value {
            Value::Unset => (default, default_shown),
            value => (value, shown),
        };
        Cell {
            value,
            origin: found.origin,
            shown,
            lost,
        }
    }

    /// Warns of an old name, of an option without effect, of several files that disagree, of a secret everybody can read.
    fn remark(&mut self, opt: &Opt, found: &Found) {
        let section = self.inputs.section(opt.group).to_owned();
        let mut warn = |text: String| {
            self.report
                .of_option(Severity::Warning, &section, opt.name, &found.origin, text)
        };
        if let Some((group, name)) = &found.old_name {
            warn(format!("set by its old name [{group}] {name}"));
        }
        if let Kind::NoEffect(why) = opt.kind
            && Some(found.value.as_str()) != opt.default
        {
            warn(format!("has no effect: {why}"));
        }
        let differing: Vec<String> = found
            .lost
            .iter()
            .filter(|(_, differs)| *differs)
            .map(|(o, _)| o.to_string())
            .collect();
        if !differing.is_empty() {
            warn(format!("this value wins over another one in {}", differing.join(", ")));
        }
        if let (Kind::Secret, Origin::File { path, .. }) = (opt.kind, &found.origin)
            && self
                .inputs
                .fragments
                .iter()
                .any(|fragment| fragment.path == *path && fragment.world_readable)
            && !self.exposed.contains(path)
        {
            warn("every user of this machine can read the file and so this secret (chmod o-r)".to_owned());
            self.exposed.push(path.clone());
        }
    }

    /// The options of a section that the schema does not know, newest value each; interpolated. For the driver.
    pub fn unknown_of(&mut self, section: &str) -> BTreeMap<String, String> {
        let mut names: Vec<String> = Vec::new();
        for entry in self.inputs.fragments.iter().flat_map(|fragment| &fragment.entries) {
            let known = schema::find(DATASTORE, &entry.key).is_some() && section == self.inputs.datastore;
            if entry.section == section && !known && !names.contains(&entry.key) {
                names.push(entry.key.clone());
            }
        }
        let mut values = BTreeMap::new();
        for name in names {
            let Some(found) = self.inputs.find_by(&[(section, &name)]) else {
                continue;
            };
            match self.inputs.interpolate(&found.value, section, &name) {
                Ok((text, holds)) => {
                    let secret = holds != Holds::Plain || looks_secret(&name);
                    self.report.values.push(Resolved {
                        group: section.to_owned(),
                        option: name.clone(),
                        value: Some(if secret { SECRET.to_owned() } else { text.clone() }),
                        origin: found.origin,
                        overridden: found.lost.into_iter().map(|(origin, _)| origin).collect(),
                    });
                    values.insert(name, text);
                }
                Err(unresolved) => {
                    let text = if looks_secret(&name) {
                        "a $ begins a name that is no option".to_owned()
                    } else {
                        unresolved.to_string()
                    };
                    self.report.of_option(Severity::Error, section, &name, &found.origin, text);
                }
            }
        }
        values
    }
}

/// Whether an option we do not know may hold a secret, by its name.
fn looks_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["pass", "secret", "key", "token", "credential"]
        .iter()
        .any(|word| name.contains(word))
}

/// Reads a text by its kind, or says what was expected.
pub(super) fn convert(kind: Kind, text: &str) -> Result<Value, String> {
    let filled = |text: &str| {
        if text.is_empty() {
            Value::Unset
        } else {
            Value::Text(text.to_owned())
        }
    };
    Ok(match kind {
        Kind::Text | Kind::Secret | Kind::NoEffect(_) => filled(text),
        Kind::Bool => Value::Bool(types::boolean(text)?),
        Kind::Int(min, max) => types::integer(text, min, max)?.map_or(Value::Unset, Value::Int),
        Kind::Seconds(min, max) => types::float(text, min, max)?.map_or(Value::Unset, Value::Seconds),
        Kind::List => Value::List(types::list(text)),
        Kind::Dict => Value::Dict(types::dict(text)?),
        Kind::Path if text.is_empty() || text.starts_with('/') => filled(text),
        Kind::Path => return Err("expected an absolute path".to_owned()),
        Kind::Choice(words) if words.contains(&text) => filled(text),
        Kind::Choice(words) => return Err(format!("expected one of {}", words.join(", "))),
    })
}
