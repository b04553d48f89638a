//! What must hold for any text of a configuration file. The fuzz target and the suite's property test call this; it panics if
//! it does not hold.

use super::files::Fragment;
use super::merge::Inputs;
use super::reader::Reader;
use super::report::Report;
use super::{Sources, build, parser};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Never in a report, whatever the file says.
const SECRET: &str = "Sq7secret9vQ";

/// A file, read after the control plane's own.
pub fn oslo_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.split(['\n', '\r']).count();
    let parsed = parser::parse(text);
    for line in parsed
        .entries
        .iter()
        .map(|entry| entry.line)
        .chain(parsed.errors.iter().map(|error| error.line))
    {
        assert!(line >= 1 && line <= lines, "a line of the file");
    }
    let info = format!("[DEFAULT]\nguest_id = g\ndatastore_manager = mariadb\ninstance_rpc_encr_key = {SECRET}\n");
    let report = settle(vec![("info.conf", parser::parse(&info)), ("fuzzed.conf", parsed)]);
    let shown = format!("{report:?}");
    assert!(
        text.contains(SECRET) || !shown.contains(SECRET),
        "a secret shows in the report"
    );
}

fn settle(files: Vec<(&str, parser::Parsed)>) -> Report {
    let sources = Sources {
        files: Vec::new(),
        overrides: Vec::new(),
        env: Box::new(|_| None),
        program: "fuzzed".to_owned(),
        home: PathBuf::from("/nonexistent"),
    };
    let fragment = |(name, parsed): (&str, parser::Parsed)| Fragment {
        path: PathBuf::from(name),
        entries: parsed.entries,
        world_readable: true,
    };
    let inputs = Inputs {
        fragments: files.into_iter().map(fragment).collect(),
        overrides: &[],
        env: &*sources.env,
        url: Vec::new(),
        datastore: String::new(),
        defaults: BTreeMap::new(),
    };
    let mut reader = Reader::new(inputs, Report::default());
    build::build(&mut reader, &sources);
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;
    use proptest::prelude::*;

    fn line() -> impl Strategy<Value = String> {
        let names: Vec<&str> = schema::options().map(|opt| opt.name).collect();
        let value = prop_oneof![
            Just("$instance_rpc_encr_key".to_owned()),
            Just("${instance_rpc_encr_key}:x".to_owned()),
            Just("rabbit://u:$instance_rpc_encr_key@h/?x=y".to_owned()),
            "[a-z0-9:,$./]{0,12}",
        ];
        prop_oneof![
            4 => (proptest::sample::select(names), value).prop_map(|(name, value)| format!("{name} = {value}")),
            1 => proptest::sample::select(vec!["[DEFAULT]", "[oslo_messaging_rabbit]", "[mariadb]", "[trove_guestagent]", "[datastore]", ""])
                .prop_map(str::to_owned),
            1 => "\\PC{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn any_file_is_settled_and_no_secret_shows(lines in proptest::collection::vec(line(), 0..12)) {
            oslo_config(format!("[DEFAULT]\n{}", lines.join("\n")).as_bytes());
        }
    }
}
