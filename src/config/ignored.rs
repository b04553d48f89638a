//! Options nobody reads: an error in our own section, listed in all others.

use super::files::Fragment;
use super::report::{Ignored, Origin, Report, Severity};
use super::schema::{self, DATASTORE, DEFAULT, DRIVER, OWN};

/// Goes through every line of every file. `datastore` is the section named like the datastore manager.
pub(super) fn collect(fragments: &[Fragment], datastore: &str, report: &mut Report) {
    for fragment in fragments {
        let mut seen_lower_default = false;
        for entry in &fragment.entries {
            // Both are handed on to the driver, which knows its options.
            let is_driver = entry.section == DRIVER || entry.section == datastore;
            if is_driver || is_known(&entry.section, &entry.key) {
                continue;
            }
            if entry.section == OWN {
                let origin = Origin::File {
                    path: fragment.path.clone(),
                    line: entry.line,
                };
                let text = match nearest(&entry.key) {
                    Some(name) => format!("there is no such option; {name} is meant perhaps"),
                    None => "there is no such option".to_owned(),
                };
                report.of_option(Severity::Error, OWN, &entry.key, &origin, text);
                continue;
            }
            if entry.section == "default" && !seen_lower_default {
                let text = "section [default] is not [DEFAULT], which is written in capitals; its options are ignored";
                report.in_file(Severity::Warning, &fragment.path, Some(entry.line), text);
                seen_lower_default = true;
            }
            report.ignored.push(Ignored {
                file: fragment.path.clone(),
                line: entry.line,
                group: entry.section.clone(),
                option: entry.key.clone(),
            });
        }
    }
}

fn is_known(section: &str, name: &str) -> bool {
    // An engine's options that were found in [DEFAULT] have been warned of.
    let misplaced = section == DEFAULT && ["device_path", "mount_point", "volume_support"].contains(&name);
    misplaced
        || schema::options().any(|opt| {
            (opt.group != DATASTORE && opt.group == section && opt.name == name)
                || opt
                    .old
                    .iter()
                    .any(|(group, old)| *group == section && *old == name && *group != "mysql")
        })
}

/// One of our options that differs by a few letters.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |other: &str| edits(name.as_bytes(), other.as_bytes());
    schema::OURS
        .iter()
        .map(|opt| (distance(opt.name), opt.name))
        .min()
        .filter(|(edits, _)| *edits <= 2)
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
