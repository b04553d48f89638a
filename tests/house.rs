//! The house holds: arrows point downward, files stay short, processes start in one room, drivers see their API only.
//!
//! The map is read from the table in `src/lib.rs`, so a new room is one word there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines after which a file must be split.
const LONGEST_FILE: usize = 400;

/// Where a developer's or a build machine's own paths would show. Split, so that this file does not find itself.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt/"),
    concat!("/tmp/", "setup"),
    concat!("/ro", "ot/"),
];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` (relative to the top) that `wanted` takes, sorted. Build output and version control are left out.
fn files(dir: &str, wanted: fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![top().join(dir)];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for entry in entries.map(|e| e.unwrap()) {
            let (path, name) = (entry.path(), entry.file_name());
            if ["target", ".git", "__pycache__", ".pytest_cache"]
                .iter()
                .any(|skip| name == *skip)
            {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            } else if entry.file_type().unwrap().is_file() && wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

fn short(path: &Path) -> String {
    path.strip_prefix(top()).unwrap_or(path).display().to_string()
}

/// The text of a Rust file with comments and the inside of string and character literals replaced by blanks. Lines stay.
fn code_of(text: &str) -> String {
    let src: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while i < src.len() {
        let rest = &src[i..];
        if rest.starts_with(&['/', '/']) {
            while i < src.len() && src[i] != '\n' {
                i += 1;
            }
        } else if rest.starts_with(&['/', '*']) {
            let mut depth = 0;
            while i < src.len() {
                if src[i..].starts_with(&['/', '*']) {
                    depth += 1;
                    i += 2;
                } else if src[i..].starts_with(&['*', '/']) {
                    depth -= 1;
                    i += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    out.push(blank(src[i]));
                    i += 1;
                }
            }
        } else if let Some(hashes) = raw_string(rest, i.checked_sub(1).map(|p| src[p])) {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            i += 2 + hashes;
            while i < src.len() && !src[i..].starts_with(&close) {
                out.push(blank(src[i]));
                i += 1;
            }
            i += close.len();
        } else if src[i] == '"' {
            i += 1;
            while i < src.len() && src[i] != '"' {
                out.push(blank(src[i]));
                i += if src[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if src[i] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
            i += if rest.get(1) == Some(&'\\') { 3 } else { 2 };
            while i < src.len() && src[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(src[i]);
            i += 1;
        }
    }
    out
}

/// The number of `#` of a raw string that starts here.
fn raw_string(rest: &[char], before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') && before != Some('b') || rest.first() != Some(&'r') {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    (rest.get(1 + hashes) == Some(&'"')).then_some(hashes)
}

/// First segments of every `crate::…` path in `code`: `crate::a::b` gives a, `crate::{a::b, c}` gives a and c.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let ident = |s: &str| {
        s.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let after = code[at + found.len()..].trim_start();
        let Some(group) = after.strip_prefix('{') else {
            used.insert(ident(after));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    used.insert(ident(&std::mem::take(&mut item)));
                }
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        used.insert(ident(&item));
    }
    used.remove("");
    used
}

/// Room name to level, from the table at the head of `src/lib.rs`.
fn map() -> BTreeMap<String, u32> {
    let lib = fs::read_to_string(top().join("src/lib.rs")).unwrap();
    let mut map = BTreeMap::new();
    for line in lib.lines().filter_map(|l| l.strip_prefix("//! ")) {
        let Some((level, rest)) = line
            .split_once("  ")
            .and_then(|(n, rest)| Some((n.parse::<u32>().ok()?, rest)))
        else {
            continue;
        };
        // Rooms are two blanks apart; what follows three or more is a remark.
        let rooms = rest.split("   ").next().unwrap_or("");
        for room in rooms.split("  ").map(str::trim).filter(|r| !r.is_empty()) {
            map.insert(room.to_owned(), level);
        }
    }
    assert!(
        map.contains_key("bus") && map.contains_key("app"),
        "no table of rooms at the head of src/lib.rs: {map:?}"
    );
    map
}

/// May `from` use `to`? Downward always; on level 6 `app` and `cli` see their neighbours, `main` everything.
fn allowed(map: &BTreeMap<String, u32>, from: &str, to: &str) -> bool {
    let (a, b) = (map[from], map[to]);
    a > b || from == to || from == "main" || (a == 6 && ["app", "cli"].contains(&from) && to != "main")
}

#[test]
fn arrows_point_downward() {
    let map = map();
    let mut wrong = Vec::new();
    for file in files("src", is_rust) {
        let inner = file.strip_prefix(top().join("src")).unwrap();
        let first = inner.iter().next().unwrap().to_string_lossy();
        let room = first.strip_suffix(".rs").unwrap_or(&first);
        if room == "lib" {
            continue;
        }
        if !map.contains_key(room) {
            wrong.push(format!("{}: room {room} is not in the table of src/lib.rs", short(&file)));
            continue;
        }
        let code = code_of(&fs::read_to_string(&file).unwrap());
        for used in rooms_used(&code) {
            match map.contains_key(&used) {
                false => wrong.push(format!("{}: crate::{used} is not a room", short(&file))),
                true if !allowed(&map, room, &used) => wrong.push(format!("{}: {room} must not use {used}", short(&file))),
                true => {}
            }
        }
        // A chain of `super` that climbs out of the room would be an arrow that the paths above do not show.
        let is_mod = inner.file_name().is_some_and(|n| n == "mod.rs");
        let depth = inner.components().count() - usize::from(is_mod);
        let nested = code.contains("mod tests {");
        if code.contains(&"super::".repeat(depth.max(1) + usize::from(nested))) && depth > 0 {
            wrong.push(format!("{}: a super:: path leaves room {room}; write crate::…", short(&file)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for file in ["src", "datastores"].iter().flat_map(|dir| files(dir, is_rust)) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        if lines > LONGEST_FILE {
            long.push(format!("{}: {lines} lines, the end is {LONGEST_FILE}", short(&file)));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn processes_start_in_the_host_room_only() {
    let mut wrong = Vec::new();
    for file in ["src", "datastores"].iter().flat_map(|dir| files(dir, is_rust)) {
        let name = short(&file);
        // The contract suite brings the small machine its servers run on.
        let is_suite = name == "datastores/api/src/contract/host.rs";
        if name.starts_with("src/host") || name.contains("tests") || is_suite {
            continue;
        }
        let code: String = code_of(&fs::read_to_string(&file).unwrap()).split_whitespace().collect();
        let grouped = code
            .split("process::{")
            .skip(1)
            .any(|g| g.split('}').next().unwrap_or("").contains("Command"));
        if grouped
            || ["process::Command", "unistd::fork", "unistd::exec", "posix_spawn"]
                .iter()
                .any(|p| code.contains(p))
        {
            wrong.push(name);
        }
    }
    assert!(
        wrong.is_empty(),
        "only src/host starts processes, but see:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn drivers_see_the_api_and_nothing_else_of_ours() {
    let mut wrong = Vec::new();
    for manifest in files("datastores", |p| p.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(&manifest).unwrap();
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
            }
            let key = line.split(['=', '.', ' ']).next().unwrap_or("");
            let ours =
                (key.starts_with("datastore-") && key != "datastore-api") || key.starts_with("trove") || line.contains("path");
            if section.ends_with("dependencies") && ours {
                wrong.push(format!("{}: [{section}] {line}", short(&manifest)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_path_of_a_workplace_is_in_the_tree() {
    let mut wrong = Vec::new();
    for file in files(".", |_| true) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for path in MACHINE_PATHS.iter().filter(|p| line.contains(**p)) {
                wrong.push(format!("{}:{}: {path}", short(&file), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_method_that_is_built_has_a_real_request_of_upstreams_client() {
    use trove_guestagent::rpc::{METHODS, MethodKind, MethodOrigin};
    let mut wrong = Vec::new();
    for entry in METHODS.iter().filter(|entry| entry.origin == MethodOrigin::Upstream) {
        let Some(built) = &entry.built else { continue };
        let path = top().join("tests/fixtures/rpc").join(entry.name).join("request.json");
        let Ok(text) = fs::read_to_string(&path) else {
            wrong.push(format!("{}: record it with tests/upstream/record.py", short(&path)));
            continue;
        };
        let request: serde_json::Value = serde_json::from_str(&text).unwrap();
        let version = format!("{}.{}", entry.version.major, entry.version.minor);
        let kind = if entry.kind == MethodKind::Call { "call" } else { "cast" };
        if (request["method"].as_str(), request["version"].as_str()) != (Some(entry.name), Some(version.as_str())) {
            wrong.push(format!("{}: method or version differs from METHODS", short(&path)));
        }
        if request["kind"] != kind {
            wrong.push(format!("{}: METHODS says it is a {kind}", short(&path)));
        }
        for name in request["args"].as_object().unwrap().keys() {
            if !built.args.iter().any(|arg| arg.name == name) {
                wrong.push(format!("{}: METHODS does not know the argument {name}", short(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_reads() {
    let code = code_of(
        "use crate::{bus::{a, b}, host, journal::Journal as J};\n// crate::no1\n/* crate::no2 /* x */ */ let s = \"crate::no3\";\n\
         let r = r#\"crate::no4 \" \"#; let c = '\"'; pub(crate) fn f(x: &'static str) -> crate::rpc::X { $crate::config::y!() }",
    );
    assert_eq!(
        rooms_used(&code).into_iter().collect::<Vec<_>>(),
        ["bus", "config", "host", "journal", "rpc"]
    );
}
