//! The dialect of INI that oslo.config reads. Pure: text in, entries and all syntax errors out.
//!
//! Rules (oslo.config 10.7, `iniparser.py` and `ConfigParser`): the first `=` or `:` of a line splits it; key and value are
//! stripped; a value that begins and ends with the same quote loses that pair; a line that begins with a blank or tab
//! continues the value above it (joined with a newline) until an empty line, a comment or the next assignment; `#` and `;` in
//! column 0 begin a comment, and there are no others; section names are case-insensitive except `DEFAULT`.
//!
//! Upstream stops at the first error; we go on with the next line, so that all of them are reported.

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Section, in lower case unless it is `DEFAULT`.
    pub section: String,
    /// Option, as written.
    pub key: String,
    /// Value, before interpolation.
    pub value: String,
    /// Line of the key, counted from 1.
    pub line: usize,
}

/// A line that is not in the dialect. The text never quotes the line: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub text: &'static str,
}

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// Assignments in the order of the file.
    pub entries: Vec<Entry>,
    /// Everything that is wrong; upstream would refuse a file that has any.
    pub errors: Vec<SyntaxError>,
}

/// Where the following assignments belong.
enum Section {
    /// No section yet.
    None,
    /// This one.
    Named(String),
    /// The header was wrong and is reported; its assignments are dropped without further errors.
    Broken,
}

/// Parses the text of a file.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let mut parser = Parser {
        out: Parsed::default(),
        section: Section::None,
        open: None,
    };
    for (index, line) in lines(text).enumerate() {
        parser.line(index + 1, line);
    }
    parser.flush();
    parser.out
}

struct Parser {
    out: Parsed,
    section: Section,
    /// The assignment that a continuation line would extend.
    open: Option<Open>,
}

struct Open {
    key: String,
    value: String,
    line: usize,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) {
        let line = strip_end(line);
        if line.is_empty() {
            self.flush();
        } else if line.starts_with([' ', '\t']) {
            match &mut self.open {
                Some(open) => {
                    open.value.push('\n');
                    open.value.push_str(strip_start(line));
                }
                None => self.error(
                    number,
                    "a continuation line with nothing to continue (it begins with a blank)",
                ),
            }
        } else {
            self.flush();
            if line.starts_with('[') {
                self.header(number, line);
            } else if !line.starts_with(['#', ';']) {
                self.assignment(number, line);
            }
        }
    }

    fn header(&mut self, number: usize, line: &str) {
        self.section = Section::Broken;
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            None => self.error(number, "a section header must end with ]"),
            Some("") => self.error(number, "a section header without a name"),
            Some(name) => self.section = Section::Named(section_name(name)),
        }
    }

    fn assignment(&mut self, number: usize, line: &str) {
        let Some((key, value)) = line.split_once(['=', ':']) else {
            let text = if line.starts_with('\u{feff}') {
                "the file begins with a byte order mark; save it as UTF-8 without one"
            } else {
                "an assignment has neither = nor :"
            };
            // After a spoiled first header everything would be "before any section": one error is enough.
            if line.starts_with('\u{feff}') {
                self.section = Section::Broken;
            }
            return self.error(number, text);
        };
        let key = strip(key);
        if key.is_empty() {
            return self.error(number, "an assignment without a name before = or :");
        }
        self.open = Some(Open {
            key: key.to_owned(),
            value: unquote(strip(value)).to_owned(),
            line: number,
        });
    }

    fn flush(&mut self) {
        let Some(Open { key, value, line }) = self.open.take() else {
            return;
        };
        match &self.section {
            Section::None => self.error(line, "an assignment before any [section]"),
            Section::Broken => {}
            Section::Named(section) => self.out.entries.push(Entry {
                section: section.clone(),
                key,
                value,
                line,
            }),
        }
    }

    fn error(&mut self, line: usize, text: &'static str) {
        self.out.errors.push(SyntaxError { line, text });
    }
}

/// A section's name as options are looked up by it.
#[must_use]
pub fn section_name(name: &str) -> String {
    if name == "DEFAULT" {
        name.to_owned()
    } else {
        name.to_lowercase()
    }
}

/// One pair of the same quotes around a value goes; a lone quote counts as both of its ends.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote)
            && value.ends_with(quote)
        {
            return rest.strip_suffix(quote).unwrap_or("");
        }
    }
    value
}

/// Lines as Python's text mode sees them: `\n`, `\r\n` and `\r` end one, nothing else does.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let skip = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + skip..]).filter(|text| !text.is_empty());
        Some(&text[..end])
    })
}

/// White space as Python's `str.strip` sees it: Unicode's, and the four separators from U+001C to U+001F.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip()`.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String, String)> {
        let parsed = parse(text);
        assert_eq!(parsed.errors, [], "{text:?}");
        parsed
            .entries
            .into_iter()
            .map(|entry| (entry.section, entry.key, entry.value))
            .collect()
    }

    fn one(line: &str) -> String {
        values(&format!("[DEFAULT]\n{line}\n")).remove(0).2
    }

    #[test]
    fn the_first_equals_sign_or_colon_splits() {
        assert_eq!(one("a = b=c:d"), "b=c:d");
        assert_eq!(one("a: b=c"), "b=c");
        assert_eq!(one("transport_url = rabbit://u:p@h:1/"), "rabbit://u:p@h:1/");
    }

    #[test]
    fn one_pair_of_quotes_goes() {
        assert_eq!(one("a = ' b '"), " b ");
        assert_eq!(one("a = \"'b'\""), "'b'");
        assert_eq!(one("a = \"b'"), "\"b'");
        assert_eq!(one("a = \""), "");
        assert_eq!(one("a ="), "");
    }

    #[test]
    fn comments_begin_in_column_0_only() {
        assert_eq!(one("a = b # c ; d"), "b # c ; d");
        assert_eq!(values("# x\n[DEFAULT]\n; y\na=1\n#z\n").len(), 1);
    }

    #[test]
    fn a_blank_line_ends_a_continuation_and_a_comment_does_too() {
        assert_eq!(one("a = b\n   c\n\td"), "b\nc\nd");
        let parsed = parse("[DEFAULT]\na = b\n\n c\n");
        assert_eq!(
            parsed.errors,
            [SyntaxError {
                line: 4,
                text: parsed.errors[0].text
            }]
        );
        assert_eq!(parse("[DEFAULT]\na = b\n# x\n c\n").errors.len(), 1);
    }

    #[test]
    fn all_errors_of_a_file_are_found_and_the_rest_is_read() {
        let parsed = parse("a = 1\n[x\nb = 2\n[DEFAULT]\nc\n= 3\nd = 4\n[]\n");
        let lines: Vec<usize> = parsed.errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 2, 5, 6, 8]);
        assert_eq!(parsed.entries.len(), 1);
        assert_eq!(parsed.entries[0].line, 7);
    }

    #[test]
    fn sections_fold_their_case_except_default() {
        let sections: Vec<String> = values("[MySQL]\na=1\n[default]\na=1\n[DEFAULT]\na=1\n")
            .into_iter()
            .map(|v| v.0)
            .collect();
        assert_eq!(sections, ["mysql", "default", "DEFAULT"]);
    }

    #[test]
    fn a_carriage_return_ends_a_line() {
        assert_eq!(values("[DEFAULT]\r\na=1\r\nb=2\rc=3").len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*|[\\[\\]=:#; \t\r\n'\"a-c$]{0,80}") {
            let parsed = parse(&text);
            let count = lines(&text).count();
            prop_assert!(parsed.entries.iter().all(|entry| entry.line >= 1 && entry.line <= count && !entry.key.is_empty()));
            prop_assert!(parsed.errors.iter().all(|error| error.line >= 1 && error.line <= count));
        }

        #[test]
        fn what_is_written_plainly_is_read_back(key in "[a-z_]{1,12}", value in "[!-~]([ -~]{0,20}[!-~])?") {
            prop_assume!(!value.starts_with(['"', '\'']));
            prop_assert_eq!(values(&format!("[s]\n{key} = {value}\n")), [("s".to_owned(), key, value)]);
        }
    }
}
