//! JSON as V2Ray writes it: with comments. Text in, a value out, and errors with line and column.

use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::shown::{join, quote};
use serde_json::Value;
use std::collections::HashSet;

/// Reads a text into a JSON value.
///
/// Comments (`//`, `#`, `/* */`) are allowed, a byte order mark and keys given twice are warned about.
/// `None` if the text is no JSON: then there is one error, whose path is a line and a column.
pub(super) fn read(text: &str, findings: &Findings) -> Option<Value> {
    let bare = match text.strip_prefix('\u{feff}') {
        Some(bare) => {
            findings.push(
                Diagnostic::warning(
                    "line 1, column 1",
                    "the text begins with a byte order mark, which V2Ray refuses",
                )
                .hint("save the file as UTF-8 without BOM"),
            );
            bare
        }
        None => text,
    };
    let plain = match blank_comments(bare) {
        Ok(plain) => plain,
        Err(opened) => {
            let place = Place::of_offset(bare, opened);
            let finding = Diagnostic::error(place.to_string(), "a comment is opened here and never closed");
            findings.push(finding.hint("close it with */"));
            return None;
        }
    };
    match serde_json::from_str(&plain) {
        Ok(value) => {
            for (path, key) in repeated_keys(&plain) {
                let text = format!("the key {} is given more than once; the last one counts", quote(&key));
                findings.push(Diagnostic::warning(path, text).hint("remove all but one"));
            }
            Some(value)
        }
        Err(error) => {
            findings.push(syntax_error(&plain, &error));
            None
        }
    }
}

/// Turns comments into blanks, so that every other character keeps its line and column.
///
/// # Errors
/// The byte offset of a `/*` that has no `*/`.
fn blank_comments(text: &str) -> Result<String, usize> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| matches!(b, b'"' | b'#' | b'/')) {
        let (before, here) = rest.split_at(at);
        plain.push_str(before);
        // How long the string or the comment is that begins here, in bytes.
        let (length, comment) = if let Some(inside) = here.strip_prefix('"') {
            (here.len().min(string_end(inside) + 2), false)
        } else if let Some(inside) = here.strip_prefix("/*") {
            let end = inside.find("*/").ok_or(text.len() - here.len())?;
            (end + 4, true)
        } else if here.starts_with('#') || here.starts_with("//") {
            (here.find('\n').unwrap_or(here.len()), true)
        } else {
            (1, false)
        };
        let (piece, after) = here.split_at(length);
        if comment {
            blank(&mut plain, piece);
        } else {
            plain.push_str(piece);
        }
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// Puts blanks for a comment: as many bytes as it has, so that the text keeps its length; line ends stay.
fn blank(plain: &mut String, comment: &str) {
    plain.extend(comment.bytes().map(|b| if matches!(b, b'\n' | b'\r') { char::from(b) } else { ' ' }));
}

/// A place in a text, for a person: lines and columns (characters, not bytes) from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    /// The place of the character that begins at the byte `offset`, or of the text's end.
    fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        Self { line: before.bytes().filter(|b| *b == b'\n').count() + 1, column: column + 1 }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Says what is wrong with a text that is no JSON. Comments are blanks here, so "the one before" skips them.
fn syntax_error(plain: &str, error: &serde_json::Error) -> Diagnostic {
    let offset = offset_of(plain, error.line(), error.column());
    let before = plain.get(..offset).unwrap_or(plain).trim_end();
    let found = plain.get(offset..).and_then(|rest| rest.chars().next());
    if plain.trim().is_empty() {
        return Diagnostic::error("line 1, column 1", "the text is empty").allowed("a JSON object: { ... }");
    }
    if error.is_eof() {
        let place = Place::of_offset(plain, plain.trim_end().len());
        return Diagnostic::error(place.to_string(), "the text ends too early")
            .hint("a closing }, ] or \" is missing");
    }
    if matches!(found, Some('}' | ']')) && before.ends_with(',') {
        let place = Place::of_offset(plain, before.len() - 1);
        let closing = found.unwrap_or('}');
        return Diagnostic::error(
            place.to_string(),
            format!("a trailing comma: nothing follows it but `{closing}`"),
        )
        .hint("remove the comma");
    }
    let mut text = error.to_string();
    if let Some(end) = text.rfind(" at line ") {
        text.truncate(end);
    }
    let finding =
        Diagnostic::error(Place::of_offset(plain, offset).to_string(), format!("no valid JSON: {text}"));
    match found {
        Some('\'') => finding.found("'").hint("JSON has double quotes only"),
        Some(c) if !c.is_control() => finding.found(c.to_string()),
        _ => finding,
    }
}

/// The byte offset of the character that serde_json means by `line` and `column` (both from 1, columns in
/// bytes; the column 0 is the line end before).
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut offset = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Finds the keys that an object holds more than once, each with its path. `text` is known to be valid JSON.
fn repeated_keys(text: &str) -> Vec<(String, String)> {
    /// An object or array that is open.
    enum Level<'t> {
        Object { seen: HashSet<&'t str>, key: &'t str, expect_key: bool },
        Array { index: usize },
    }
    let mut repeated = Vec::new();
    let mut open: Vec<Level<'_>> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '{', '}', '[', ']', ',']) {
        let (mark, after) = rest.split_at(at).1.split_at(1);
        rest = after;
        match mark {
            "{" => open.push(Level::Object { seen: HashSet::new(), key: "", expect_key: true }),
            "[" => open.push(Level::Array { index: 0 }),
            "}" | "]" => drop(open.pop()),
            "," => match open.last_mut() {
                Some(Level::Object { expect_key, .. }) => *expect_key = true,
                Some(Level::Array { index }) => *index += 1,
                None => {}
            },
            _ => {
                let end = string_end(rest);
                let (string, after) = rest.split_at(end);
                rest = after.get(1..).unwrap_or_default();
                let Some(Level::Object { seen, key, expect_key }) = open.last_mut() else { continue };
                if !std::mem::take(expect_key) {
                    continue;
                }
                *key = string;
                if seen.insert(string) {
                    continue;
                }
                let mut path = String::new();
                for level in &open {
                    path = match level {
                        Level::Object { key, .. } => join(&path, key),
                        Level::Array { index } => format!("{path}[{index}]"),
                    };
                }
                repeated.push((path, string.to_owned()));
            }
        }
    }
    repeated
}

/// Where a string ends whose opening quote is just before `rest`: the offset of its closing quote.
fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> Diagnostic {
        let findings = Findings::default();
        assert_eq!(read(text, &findings), None, "{text}");
        findings.into_vec().pop().expect("an error")
    }

    #[test]
    fn comments_become_blanks() {
        let text = "{ // one \"quoted\"\n# zwei ä\n\"a//b\": /* */ \"#\\\"/*\" }";
        let plain = blank_comments(text).expect("closed");
        assert_eq!(plain.len(), text.len());
        assert_eq!(plain.lines().count(), text.lines().count());
        let value: Value = serde_json::from_str(&plain).expect("json");
        assert_eq!(value, serde_json::json!({ "a//b": "#\"/*" }));
    }

    #[test]
    fn a_comment_must_end() {
        assert_eq!(blank_comments("{}\n/* x *"), Err(3));
        assert_eq!(blank_comments("/*/"), Err(0), "the star counts once");
        assert_eq!(error_of("{}\n  /* x").path, "line 2, column 3");
    }

    #[test]
    fn places_count_characters() {
        let error = error_of("{\n  \"ä\": \"ö\", /* ü */ oops }");
        assert_eq!(error.path, "line 2, column 22");
        assert_eq!(error_of("{\"a\": 1,\n}").path, "line 1, column 8");
        assert!(error_of("{\"a\": 1,\n}").text.contains("trailing comma"));
        assert!(error_of("[1, /* c */ ]").text.contains("trailing comma"));
        assert!(error_of("{\"a\": [1").text.contains("ends too early"));
        assert!(error_of(" \n ").text.contains("empty"));
        assert!(error_of("{'a': 1}").hint.contains("double quotes"));
    }

    #[test]
    fn repeated_keys_have_paths() {
        let text = r#"{"a": {"b": [1, {"c": "x,{", "d": 2, "c": 3}]}, "\"a": 1, "a": 2, "e": ["a", "a"]}"#;
        let found = repeated_keys(text);
        assert_eq!(found, [("a.b[1].c".to_owned(), "c".to_owned()), ("a".to_owned(), "a".to_owned())]);
    }
}
