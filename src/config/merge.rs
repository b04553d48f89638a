//! Which of several values wins, and `$name` in values.
//!
//! Order, the strongest first: query of `transport_url` (messaging options only), command line, environment, files (a later
//! file wins), default. Within one file the present name of an option wins over its older ones, and of several lines the last.

use super::files::Fragment;
use super::report::Origin;
use super::schema::{self, DATASTORE, DEFAULT, Kind, Opt, RABBIT};
use super::types;
use super::{Override, parser};
use std::collections::BTreeMap;

/// All inputs, as they are.
pub(super) struct Inputs<'a> {
    /// In the order of application.
    pub fragments: Vec<Fragment>,
    pub overrides: &'a [Override],
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Options of `transport_url`, empty until it has been read.
    pub url: Vec<(String, String)>,
    /// Section that [`DATASTORE`] stands for.
    pub datastore: String,
    /// Defaults that follow from other options, by section of the schema and name; they win over the schema's.
    pub defaults: BTreeMap<(&'static str, &'static str), String>,
}

/// A value somebody set.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub value: String,
    pub origin: Origin,
    /// Name it was found under, if that is an old one.
    pub old_name: Option<(String, String)>,
    /// Places in files that set it too and lost, newest first, and whether their text differs.
    pub lost: Vec<(Origin, bool)>,
}

/// How deep references may lead; it bounds the work on a file that is made to be expensive.
const MAX_DEPTH: usize = 8;

/// The way down through references.
struct Path {
    above: Vec<(String, String)>,
    holds: Holds,
}

/// What became part of a value by references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    /// Nothing that must be hidden.
    Plain,
    /// An option that we do not know; it may be a secret.
    Unknown,
    /// A secret.
    Secret,
}

/// Why `$name` in a value cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// There is no such option.
    Unknown(String),
    /// It leads back to itself.
    Loop(String),
    /// Its value is itself wrong.
    Invalid(String),
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "${name} names no option; write $$ for a dollar sign"),
            Self::Loop(name) => write!(f, "${name} leads back to this option"),
            Self::Invalid(name) => write!(f, "${name} has a value that is wrong itself"),
        }
    }
}

impl Inputs<'_> {
    /// The section an option's values stand in.
    pub fn section<'b>(&'b self, group: &'b str) -> &'b str {
        if group == DATASTORE { &self.datastore } else { group }
    }

    /// The default of an option, if it has one.
    pub fn default(&self, opt: &Opt) -> Option<&str> {
        self.defaults.get(&(opt.group, opt.name)).map(String::as_str).or(opt.default)
    }

    /// The value of an option as it was written, if anybody set it.
    pub fn find(&self, opt: &Opt) -> Option<Found> {
        let group = self.section(opt.group);
        let mut names = vec![(group, opt.name)];
        names.extend_from_slice(opt.old);
        self.find_by(&names).or_else(|| self.find_by(&[(opt.inherits?, opt.name)]))
    }

    pub fn find_by(&self, names: &[(&str, &str)]) -> Option<Found> {
        let (group, name) = names[0];
        let files = self.in_files(names);
        let lost = |files: Vec<Found>, value: &str| files.into_iter().map(|f| (f.origin, f.value != value)).collect();
        let outside = |value: String, origin: Origin, files: Vec<Found>| {
            let lost = lost(files, &value);
            Some(Found {
                value,
                origin,
                old_name: None,
                lost,
            })
        };
        if group == RABBIT
            && let Some((_, value)) = self.url.iter().find(|(key, _)| key == name)
        {
            return outside(value.clone(), Origin::TransportUrl, files);
        }
        let given = |o: &&Override| names.contains(&(parser::section_name(&o.group).as_str(), o.option.as_str()));
        if let Some(Override { value, .. }) = self.overrides.iter().rev().find(given) {
            return outside(value.clone(), Origin::CommandLine, files);
        }
        let variable = format!("OS_{}__{}", group.to_uppercase(), name.to_uppercase());
        if let Some(value) = (self.env)(&variable) {
            return outside(value, Origin::Env(variable), files);
        }
        let mut files = files.into_iter();
        let mut winner = files.next()?;
        winner.lost = lost(files.collect(), &winner.value);
        Some(winner)
    }

    /// Every line that sets one of the names, the strongest first.
    fn in_files(&self, names: &[(&str, &str)]) -> Vec<Found> {
        let mut found = Vec::new();
        for fragment in self.fragments.iter().rev() {
            for (rank, (group, name)) in names.iter().enumerate() {
                for entry in fragment.entries.iter().rev() {
                    if entry.section == *group && entry.key == *name {
                        let origin = Origin::File {
                            path: fragment.path.clone(),
                            line: entry.line,
                        };
                        let old_name = (rank > 0).then(|| (entry.section.clone(), entry.key.clone()));
                        found.push(Found {
                            value: entry.value.clone(),
                            origin,
                            old_name,
                            lost: Vec::new(),
                        });
                    }
                }
            }
        }
        found
    }

    /// A value with every `$name` and `${group.name}` replaced, `$$` and `\$` made `$`. What does not look like a name stays.
    pub fn interpolate(&self, value: &str, group: &str, name: &str) -> Result<(String, Holds), Unresolved> {
        let mut path = Path {
            above: vec![(group.to_owned(), name.to_owned())],
            holds: Holds::Plain,
        };
        let text = self.expand(value, group, &mut path)?;
        Ok((text, path.holds))
    }

    fn expand(&self, value: &str, group: &str, path: &mut Path) -> Result<String, Unresolved> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let value = value.replace("\\$", "$$");
        let mut out = String::with_capacity(value.len());
        let mut rest = value.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                out.push_str(&self.refer(name, group, path)?);
                rest = after;
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What a reference stands for: an option of the same section, or else of `DEFAULT`; a dot names another section.
    fn refer(&self, reference: &str, group: &str, path: &mut Path) -> Result<String, Unresolved> {
        let candidates = match reference.split_once('.') {
            Some((group, name)) => vec![(group, name)],
            None => vec![(group, reference), (DEFAULT, reference)],
        };
        for (group, name) in candidates {
            let schema_group = if group == self.datastore { DATASTORE } else { group };
            let known = schema::find(schema_group, name).or_else(|| schema::find(group, name));
            let found = match known {
                Some(opt) => self.find(opt),
                None => self.find_by(&[(group, name)]),
            };
            let text = match (&found, known) {
                (Some(found), _) => found.value.as_str(),
                (None, Some(opt)) => self.default(opt).unwrap_or_default(),
                (None, None) => continue,
            };
            let here = (group.to_owned(), name.to_owned());
            if path.above.contains(&here) || path.above.len() > MAX_DEPTH {
                return Err(Unresolved::Loop(reference.to_owned()));
            }
            path.holds = path.holds.max(match known {
                Some(opt) if opt.kind == Kind::Secret => Holds::Secret,
                Some(_) => Holds::Plain,
                None => Holds::Unknown,
            });
            path.above.push(here);
            let text = self.expand(text, group, path)?;
            path.above.pop();
            return match known {
                Some(opt) => canonical(opt.kind, text).ok_or_else(|| Unresolved::Invalid(reference.to_owned())),
                None => Ok(text),
            };
        }
        Err(Unresolved::Unknown(reference.to_owned()))
    }
}

/// Upstream replaces by the converted value, as Python prints it; `None` if it does not convert.
fn canonical(kind: Kind, text: String) -> Option<String> {
    match kind {
        Kind::Int(min, max) => types::integer(&text, min, max)
            .ok()
            .map(|number| number.map_or(String::new(), |n| n.to_string())),
        Kind::Bool => types::boolean(&text)
            .ok()
            .map(|on| if on { "True" } else { "False" }.to_owned()),
        _ => Some(text),
    }
}

/// A name (letters, digits, `_`, `.`; a letter or `_` first), bare or in braces, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let bare = |text: &str| {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let length = text
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'.')
            .count();
        first.then_some(length)
    };
    if let Some(inside) = text.strip_prefix('{') {
        let length = bare(inside)?;
        let after = inside[length..].strip_prefix('}')?;
        return Some((&inside[..length], after));
    }
    let length = bare(text)?;
    Some((&text[..length], &text[length..]))
}
