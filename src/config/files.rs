//! Finds and reads the files, in the order in which they are applied.

use super::parser::{self, Entry};
use super::report::{FileRead, Report, Severity};
use super::{Source, Sources};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Largest configuration file read, bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// A file as it is.
#[derive(Debug)]
pub(super) struct Fragment {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    /// Whether every user of the machine may read it.
    pub world_readable: bool,
}

/// Reads everything the sources name; `etc` is `/etc` but in tests. What cannot be read is in the report.
pub(super) fn read_all(sources: &Sources, etc: &Path, report: &mut Report) -> Vec<Fragment> {
    let mut paths = Vec::new();
    // Upstream looks at the defaults of files even when folders are given, and the other way round.
    if !sources.files.iter().any(|source| matches!(source, Source::File(_))) {
        paths.extend(defaults(sources, etc, ".conf"));
    }
    if !sources.files.iter().any(|source| matches!(source, Source::Dir(_))) {
        for dir in defaults(sources, etc, ".conf.d") {
            paths.extend(list(&dir, report));
        }
    }
    for source in &sources.files {
        match source {
            Source::File(path) => paths.push(absolute(path, &sources.home)),
            Source::Dir(path) => paths.extend(list(&absolute(path, &sources.home), report)),
        }
    }
    let mut fragments = Vec::new();
    for path in paths {
        match read(&path) {
            Ok((text, mode)) => {
                let parsed = parser::parse(&text);
                for error in parsed.errors {
                    report.in_file(Severity::Error, &path, Some(error.line), error.text);
                }
                report.files.push(FileRead {
                    path: path.clone(),
                    status: "read".to_owned(),
                });
                fragments.push(Fragment {
                    path,
                    entries: parsed.entries,
                    world_readable: mode & 0o004 != 0,
                });
            }
            Err(text) => {
                report.in_file(Severity::Error, &path, None, &text);
                report.files.push(FileRead { path, status: text });
            }
        }
    }
    fragments
}

/// At most one path for `trove` and one for the program, each from the first folder that has it.
fn defaults(sources: &Sources, etc: &Path, suffix: &str) -> Vec<PathBuf> {
    let home = &sources.home;
    let folders = [home.join(".trove"), home.clone(), etc.join("trove"), etc.to_owned()];
    let mut names = vec!["trove", sources.program.as_str()];
    names.dedup();
    let first = |name: &str| {
        folders
            .iter()
            .map(|folder| folder.join(format!("{name}{suffix}")))
            .find(|path| path.exists())
    };
    names.into_iter().filter_map(first).collect()
}

/// `*.conf` of a folder, sorted by name; hidden files do not count.
fn list(dir: &Path, report: &mut Report) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match entries {
        Ok(entries) => {
            let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
            names.retain(|name| {
                let name = name.as_encoded_bytes();
                name.ends_with(b".conf") && !name.starts_with(b".")
            });
            names.sort();
            names.into_iter().map(|name| dir.join(name)).collect()
        }
        Err(error) => {
            report.in_file(Severity::Error, dir, None, format!("the folder cannot be read: {error}"));
            Vec::new()
        }
    }
}

/// `~` is the home folder, and a relative path is relative to the working folder.
fn absolute(path: &Path, home: &Path) -> PathBuf {
    let path = match path.strip_prefix("~") {
        Ok(rest) => home.join(rest),
        Err(_) => path.to_owned(),
    };
    std::path::absolute(&path).unwrap_or(path)
}

/// Text and mode of a file, or why it cannot be used.
pub(super) fn read(path: &Path) -> Result<(String, u32), String> {
    let cannot = |error: std::io::Error| format!("the file cannot be read: {error}");
    let meta = std::fs::metadata(path).map_err(cannot)?;
    // A FIFO or a device could block us or never end.
    if !meta.is_file() {
        return Err("this is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("the file is larger than {MAX_FILE} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("the file is not UTF-8 (line {line})")
    })?;
    Ok((text, meta.permissions().mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths read, relative to a folder that holds `home` and `etc`, with these files in it.
    fn read_with(files: &[&str], sources: Vec<Source>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "[DEFAULT]\n").unwrap();
        }
        let place = |source: Source| match source {
            Source::File(path) if path.starts_with("~") => Source::File(path),
            Source::File(path) => Source::File(folder.path().join(path)),
            Source::Dir(path) => Source::Dir(folder.path().join(path)),
        };
        let sources = Sources {
            files: sources.into_iter().map(place).collect(),
            overrides: Vec::new(),
            env: Box::new(|_| None),
            program: "trove-guestagent".into(),
            home: folder.path().join("home"),
        };
        let mut report = Report::default();
        let fragments = read_all(&sources, &folder.path().join("etc"), &mut report);
        assert_eq!(report.problems, []);
        let relative = |fragment: Fragment| fragment.path.strip_prefix(folder.path()).unwrap().display().to_string();
        fragments.into_iter().map(relative).collect()
    }

    const ALL: &[&str] = &[
        "home/.trove/trove.conf",
        "home/trove.conf",
        "etc/trove/trove.conf",
        "etc/trove/trove-guestagent.conf",
        "etc/trove-guestagent.conf",
        "etc/trove/trove-guestagent.conf.d/b.conf",
        "etc/trove/trove-guestagent.conf.d/a.conf",
        "conf.d/1.conf",
    ];

    #[test]
    fn without_arguments_the_first_default_of_each_name_is_read() {
        let defaults = ["home/.trove/trove.conf", "etc/trove/trove-guestagent.conf"];
        let folder = [
            "etc/trove/trove-guestagent.conf.d/a.conf",
            "etc/trove/trove-guestagent.conf.d/b.conf",
        ];
        assert_eq!(read_with(ALL, Vec::new()), [defaults, folder].concat());
        assert_eq!(read_with(&[], Vec::new()), [""; 0]);
    }

    #[test]
    fn a_folder_does_not_replace_the_default_files_but_a_file_does() {
        let dir = Source::Dir("conf.d".into());
        let with_dir = ["home/.trove/trove.conf", "etc/trove/trove-guestagent.conf", "conf.d/1.conf"];
        assert_eq!(read_with(ALL, vec![dir.clone()]), with_dir);
        let file = Source::File("etc/trove-guestagent.conf".into());
        assert_eq!(
            read_with(ALL, vec![dir, file]),
            ["conf.d/1.conf", "etc/trove-guestagent.conf"]
        );
    }

    #[test]
    fn a_tilde_is_the_home_folder() {
        let sources = vec![Source::File("~/trove.conf".into()), Source::Dir("conf.d".into())];
        assert_eq!(read_with(ALL, sources), ["home/trove.conf", "conf.d/1.conf"]);
    }
}
