//! The base configuration: the control plane's text, made to include our layers last.

use crate::errors::invalid;
use datastore_api::DriverError;
use std::path::Path;

/// Longest text that is taken, in bytes.
const LONGEST: usize = 1 << 20;
/// The folder of layers as the control plane's templates name it.
const TEMPLATE_LAYERS: &str = "/etc/mysql/conf.d";

/// Refuses what cannot be an option file. Whether the server knows each option only the server can tell.
pub(crate) fn check(contents: &str) -> Result<(), DriverError> {
    if contents.len() > LONGEST {
        return Err(invalid(format!("the configuration text is longer than {LONGEST} bytes")));
    }
    let mut in_group = false;
    for (number, line) in contents.lines().enumerate() {
        let wrong = |what: &str| Err(invalid(format!("line {} of the configuration text {what}", number + 1)));
        let line = line.trim();
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return wrong("holds control characters");
        }
        if line.is_empty() || line.starts_with(['#', ';']) || line.starts_with("!include") {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if !group.contains(']') {
                return wrong("opens a group that it does not close");
            }
            in_group = true;
            continue;
        }
        let key = line.split(['=', '#']).next().unwrap_or_default().trim();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if key.is_empty() || !key.bytes().all(plain) {
            return wrong("is neither a group, an option, an include nor a comment");
        }
        if !in_group {
            return wrong("stands before the first group");
        }
    }
    Ok(())
}

/// The text with the inclusion of `layers` as its last line, and only there.
pub(crate) fn render(contents: &str, layers: &Path) -> String {
    let include = format!("!includedir {}/", layers.display());
    let names_layers = |line: &str| {
        let folder = line
            .trim()
            .strip_prefix("!includedir")
            .map(|rest| rest.trim().trim_end_matches('/'));
        folder.is_some_and(|folder| folder == TEMPLATE_LAYERS || Path::new(folder) == layers)
    };
    let mut text = String::with_capacity(contents.len() + include.len() + 1);
    for line in contents.lines().filter(|line| !names_layers(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&include);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_planes_template_stays_as_it_is() {
        let template = "[client]\nport = 3306\n\n[mysqld]\nskip-external-locking = 1\n\n!includedir /etc/mysql/conf.d/\n";
        assert_eq!(render(template, Path::new("/etc/mysql/conf.d")), template);
        check(template).unwrap();
    }

    #[test]
    fn the_layers_come_last_and_once() {
        let text = "!includedir /etc/mysql/conf.d\n[mysqld]\nport=1";
        assert_eq!(
            render(text, Path::new("/x/conf.d")),
            "[mysqld]\nport=1\n!includedir /x/conf.d/\n"
        );
        assert_eq!(
            render(&render(text, Path::new("/x/conf.d")), Path::new("/x/conf.d")),
            "[mysqld]\nport=1\n!includedir /x/conf.d/\n"
        );
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        for (text, line) in [
            ("[mysqld]\nport=1\u{0}", 2),
            ("port=1", 1),
            ("[mysqld\n", 1),
            ("[a]\n{\"x\": 1}", 2),
            ("<html>", 1),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line} ")), "{text:?}: {error}");
        }
        assert!(check(&"#".repeat(LONGEST + 1)).is_err());
    }
}
