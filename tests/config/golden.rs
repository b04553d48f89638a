//! Our reading against upstream's: what `tests/upstream/config_golden.py` recorded from the real oslo.config.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use trove_guestagent::config::{self, Origin, Report, Severity, Source, Sources, parser, types};

/// Cases of one file; those of another run of the generator if the environment names its folder.
fn cases(name: &str) -> Vec<Value> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/golden");
    let folder = std::env::var_os("TROVE_CONFIG_GOLDEN").map_or(committed, PathBuf::from);
    let text = std::fs::read_to_string(folder.join(name)).expect("recorded cases");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a case is JSON"))
        .collect()
}

#[test]
fn files_are_parsed_as_upstream_parses_them() {
    let cases = cases("parse.jsonl");
    assert!(cases.len() > 300);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let parsed = parser::parse(text);
        if case["sections"].is_null() {
            assert!(!parsed.errors.is_empty(), "upstream refuses {text:?}");
            continue;
        }
        assert_eq!(parsed.errors, [], "upstream reads {text:?}");
        let mut ours: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for entry in &parsed.entries {
            ours.entry(&entry.section)
                .or_default()
                .entry(&entry.key)
                .or_default()
                .push(&entry.value);
        }
        let theirs: BTreeMap<String, BTreeMap<String, Vec<String>>> = serde_json::from_value(case["sections"].clone()).unwrap();
        // A section without assignments says nothing.
        let theirs: BTreeMap<_, _> = theirs.into_iter().filter(|(_, options)| !options.is_empty()).collect();
        assert_eq!(
            serde_json::to_value(&ours).unwrap(),
            serde_json::to_value(&theirs).unwrap(),
            "{text:?}"
        );
    }
}

#[test]
fn values_are_read_by_type_as_upstream_reads_them() {
    let cases = cases("types.jsonl");
    assert!(cases.len() > 300);
    for case in cases {
        let (kind, text) = (case["type"].as_str().unwrap(), case["text"].as_str().unwrap());
        let ours = typed(kind, text);
        match case.get("value") {
            Some(theirs) => assert!(same(&ours, theirs), "{kind} {text:?}: {ours:?} here, {theirs} there"),
            None => assert_eq!(ours, None, "{kind} {text:?}: upstream refuses it"),
        }
    }
}

/// A text read by a type; `None` if it is refused.
fn typed(kind: &str, text: &str) -> Option<Value> {
    match kind {
        "bool" => types::boolean(text).ok().map(Value::from),
        "int" => types::integer(text, i64::MIN, i64::MAX).ok().map(Value::from),
        "float" => types::float(text, f64::MIN, f64::MAX).ok().map(Value::from),
        "list" => Some(Value::from(types::list(text))),
        "dict" => types::dict(text)
            .ok()
            .map(|pairs| Value::from_iter(pairs.into_iter().map(|(k, v)| Value::from(vec![k, v])))),
        _ => unreachable!("the generator knows these types"),
    }
}

fn same(ours: &Option<Value>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Some(Value::Number(a)), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Some(ours), theirs) => ours == theirs,
        (None, _) => false,
    }
}

#[test]
fn options_get_the_value_that_upstream_gives_them() {
    let cases = cases("values.jsonl");
    assert!(cases.len() > 100);
    let defaults = cases[0]["values"].as_object().unwrap().clone();
    for case in cases {
        let report = load(&case);
        let values = case["values"].as_object().unwrap();
        for (name, default) in &defaults {
            let theirs = values.get(name).unwrap_or(default);
            let (group, option) = name.split_once('.').unwrap();
            if group == "mariadb" && values.len() == defaults.len() {
                continue; // without files there is no datastore, and no section of it
            }
            let wrong = |p: &&config::Problem| {
                p.severity == Severity::Error && p.group.as_deref() == Some(group) && p.option.as_deref() == Some(option)
            };
            let refused = report.problems.iter().find(wrong);
            match theirs.get("value") {
                None => assert!(refused.is_some(), "upstream refuses {name} of {case:#}"),
                Some(theirs) => {
                    assert_eq!(refused, None, "upstream reads {name} of {case:#}");
                    check(&report, group, option, theirs, &case);
                }
            }
        }
    }
}

fn check(report: &Report, group: &str, option: &str, theirs: &Value, case: &Value) {
    let found = report
        .values
        .iter()
        .find(|value| value.group == group && value.option == option)
        .expect("listed");
    if option == "ignore_dbs" && found.origin == Origin::Default {
        return; // upstream forgets that MariaDB has a `sys` too
    }
    let kind = match theirs {
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::Array(items) if items.iter().any(Value::is_array) => "dict",
        Value::Array(_) => "list",
        _ => "",
    };
    let ours = match (&found.value, kind) {
        (Some(text), "") => Some(Value::from(text.as_str())),
        (Some(text), _) => typed(kind, text),
        (None, _) => Some(if theirs.is_array() {
            Value::Array(Vec::new())
        } else {
            Value::Null
        }),
    };
    assert!(
        same(&ours, theirs),
        "{group}.{option}: {ours:?} here, {theirs} there, of {case:#}"
    );
}

fn load(case: &Value) -> Report {
    let texts: Vec<String> = serde_json::from_value(case["files"].clone()).expect("texts of files");
    let env: HashMap<String, String> = serde_json::from_value(case["env"].clone()).expect("an environment");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut files = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{number}.conf"));
        std::fs::write(&path, text).expect("a file");
        files.push(Source::File(path));
    }
    let sources = Sources {
        files,
        overrides: Vec::new(),
        env: Box::new(move |name| env.get(name).cloned()),
        program: "no-such-program".into(),
        home: folder.path().into(),
    };
    config::load(&sources).report
}
