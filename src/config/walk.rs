//! A cursor over a JSON value that knows its path and writes its findings down.
//!
//! Readers ask a [`Node`] for what they expect. If it is something else, the node adds the finding and
//! answers `None`; the reader goes on, so that one pass finds everything. Whoever gets `None` need not report
//! again.

use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::nearest::nearest;
use super::shown::{holds_id, join, offer, quote};
use serde_json::Value;

/// The path of the whole text.
pub(super) const TOP: &str = "(top level)";

/// What stands for a section that is not there.
static ABSENT: Value = Value::Null;

/// A value in the config and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    findings: &'a Findings,
    secret: bool,
}

impl<'a> Node<'a> {
    /// The node of the whole text.
    pub(super) fn root(value: &'a Value, findings: &'a Findings) -> Self {
        Self { value, path: String::new(), findings, secret: false }
    }

    /// The value's path, as diagnostics give it.
    pub(super) fn path(&self) -> &str {
        if self.path.is_empty() { TOP } else { &self.path }
    }

    /// The value as it stands, for what is read in several forms.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Adds an error about this value, with the value found; the caller may complete the finding.
    pub(super) fn error(&self, text: impl Into<String>, complete: impl FnOnce(Diagnostic) -> Diagnostic) {
        self.findings.push(complete(Diagnostic::error(self.path(), text).found(self.shown())));
    }

    /// Adds a warning about this value, with the value found; the caller may complete the finding.
    pub(super) fn warning(&self, text: impl Into<String>, complete: impl FnOnce(Diagnostic) -> Diagnostic) {
        self.findings.push(complete(Diagnostic::warning(self.path(), text).found(self.shown())));
    }

    /// Adds the error that V2Ray has this and we do not, and that the user would get something else without
    /// it.
    pub(super) fn unsupported(&self, what: &str, hint: &str) {
        self.error(format!("{what} is not supported by this version"), |finding| finding.hint(hint));
    }

    /// Adds the warning that V2Ray has this and we do not, where it works without.
    pub(super) fn ignored(&self, what: &str, effect: &str) {
        self.warning(format!("{what} is not supported by this version and ignored"), |finding| {
            finding.hint(effect)
        });
    }

    /// Adds the warning that this value does nothing where it stands.
    pub(super) fn no_effect(&self, why: &str) {
        self.warning(format!("this has no effect: {why}"), |finding| finding);
    }

    /// Adds the error that the value has the wrong type.
    fn wrong_type(&self, allowed: &str) {
        let text = match self.value {
            Value::String(text) if allowed.contains("number") && text.trim().parse::<f64>().is_ok() => {
                "wrong type: the number is written as a text"
            }
            _ => "wrong type",
        };
        self.findings.push(Diagnostic::error(self.path(), text).found(self.kind()).allowed(allowed));
    }

    /// What kind of value it is, for a person; texts and containers without their content.
    fn kind(&self) -> String {
        match self.value {
            Value::String(_) if self.secret => "a text".to_owned(),
            Value::String(text) if text.len() <= 24 && !holds_id(text) => format!("the text {text:?}"),
            Value::Array(entries) => format!("a list of {}", entries.len()),
            _ => self.shown(),
        }
    }

    /// The value for a person, shortened. Secrets and everything that looks like an id are only described.
    fn shown(&self) -> String {
        match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) | Value::Number(_) if self.secret => "a value that is not shown".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) if self.secret => {
                format!("a text of {} characters, not shown", text.chars().count())
            }
            Value::String(text) => quote(text),
            Value::Array(entries) => format!("a list of {}", entries.len()),
            Value::Object(_) => "an object".to_owned(),
        }
    }

    /// The object with the `known` keys. Keys outside it are warned about, keys in another case are taken.
    pub(super) fn object(&self, known: &'static [&'static str]) -> Option<Object<'a>> {
        let Value::Object(map) = self.value else {
            self.wrong_type("an object: { ... }");
            return None;
        };
        let mut fields: Vec<(&'static str, Self)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            let node = self.child(key, value);
            if let Some(name) = known.iter().find(|name| **name == key) {
                // The exact name counts before one in another case.
                fields.retain(|(field, _)| field != name);
                fields.push((name, node));
            } else if let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
                let text = format!("the key is written `{name}`; it is read all the same");
                self.findings.push(Diagnostic::warning(node.path(), text));
                if !fields.iter().any(|(field, _)| field == name) {
                    fields.push((name, node));
                }
            } else if !value.is_null() {
                let near = if self.findings.is_full() { None } else { nearest(key, known.iter().copied()) };
                self.findings
                    .push(Diagnostic::warning(node.path(), "unknown key, ignored").hint(offer(near)));
            }
        }
        fields.retain(|(_, node)| !node.value.is_null());
        Some(Object { node: self.clone(), fields })
    }

    /// The member `key` of an object whose keys are checked elsewhere; adds no finding.
    pub(super) fn peek(&self, key: &str) -> Option<Self> {
        let map = self.value.as_object()?;
        let exact = map.get_key_value(key);
        let found = exact.or_else(|| map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)));
        found.filter(|(_, value)| !value.is_null()).map(|(name, value)| self.child(name, value))
    }

    /// The members of an object whose keys are free; members that are `null` are left out.
    pub(super) fn members(&self) -> Option<Vec<(&'a str, Self)>> {
        let Value::Object(map) = self.value else {
            self.wrong_type("an object: { ... }");
            return None;
        };
        let present = map.iter().filter(|(_, value)| !value.is_null());
        Some(present.map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// The entries of a list.
    pub(super) fn entries(&self) -> Option<Vec<Self>> {
        let Value::Array(entries) = self.value else {
            self.wrong_type("a list: [ ... ]");
            return None;
        };
        Some(self.numbered(entries))
    }

    /// The texts of a list, or of one text with commas between: V2Ray's StringList. Each is trimmed.
    pub(super) fn texts(&self) -> Option<Vec<(String, Self)>> {
        match self.value {
            Value::String(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(|part| (part.to_owned(), self.clone())).collect())
            }
            Value::Array(entries) => {
                let read = |node: Self| Some((node.text()?.trim().to_owned(), node));
                Some(self.numbered(entries).into_iter().filter_map(read).collect())
            }
            _ => {
                self.wrong_type("a list of texts, or one text with commas between");
                None
            }
        }
    }

    /// The text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            _ => {
                self.wrong_type("a text");
                None
            }
        }
    }

    /// The flag.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.wrong_type("true or false");
                None
            }
        }
    }

    /// The whole number, which must lie between `least` and `most`.
    pub(super) fn number(&self, least: u64, most: u64) -> Option<u64> {
        let allowed = format!("a whole number, {least} to {most}");
        let Value::Number(number) = self.value else {
            self.wrong_type(&allowed);
            return None;
        };
        match number.as_u64() {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                let text = if number.is_f64() { "not a whole number" } else { "out of range" };
                self.error(text, |finding| finding.allowed(allowed));
                None
            }
        }
    }

    /// The whole number, which must fit 32 bits: seconds, levels.
    pub(super) fn number_u32(&self) -> Option<u32> {
        self.number(0, u32::MAX.into()).and_then(|number| u32::try_from(number).ok())
    }

    /// The whole number, which must fit 16 bits and be at least `least`: ports, alter ids.
    pub(super) fn number_u16(&self, least: u16) -> Option<u16> {
        self.number(least.into(), u16::MAX.into()).and_then(|number| u16::try_from(number).ok())
    }

    /// What the text stands for in `table`, without regard to case. `what` names the thing in the error.
    pub(super) fn choice<T: Copy>(&self, what: &str, table: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        if found.is_none() {
            let names: Vec<&str> =
                table.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            let near = nearest(text.trim(), names.iter().copied());
            self.error(format!("unknown {what}"), |finding| {
                finding.allowed(names.join(", ")).hint(offer(near))
            });
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// How many errors have been found so far, here and elsewhere.
    pub(super) fn errors(&self) -> usize {
        self.findings.errors()
    }

    /// Whether it is there to no purpose: `false`, 0, an empty text, list or object.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.trim().is_empty(),
            Value::Array(entries) => entries.is_empty(),
            Value::Object(map) => map.is_empty(),
        }
    }

    fn numbered(&self, entries: &'a [Value]) -> Vec<Self> {
        let path = |index| format!("{}[{index}]", self.path);
        let node =
            |(index, value)| Self { value, path: path(index), findings: self.findings, secret: self.secret };
        entries.iter().enumerate().map(node).collect()
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        Self { value, path: join(&self.path, key), findings: self.findings, secret: false }
    }
}

/// An object whose keys have been checked.
#[derive(Debug)]
pub(super) struct Object<'a> {
    node: Node<'a>,
    fields: Vec<(&'static str, Node<'a>)>,
}

impl<'a> Object<'a> {
    /// The member `key`; `None` if it is absent or `null`.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        self.fields.iter().find(|(name, _)| *name == key).map(|(_, node)| node.clone())
    }

    /// The member `key`, whose value (or whose entries, if it is a list) no finding may show.
    pub(super) fn secret(&self, key: &str) -> Option<Node<'a>> {
        self.get(key).map(|node| Node { secret: true, ..node })
    }

    /// The object `key` with the `known` keys, an empty one if it is absent. `None` only if it is no object.
    pub(super) fn section(&self, key: &'static str, known: &'static [&'static str]) -> Option<Object<'a>> {
        match self.get(key) {
            Some(node) => node.object(known),
            None => Some(Object { node: self.node.child(key, &ABSENT), fields: Vec::new() }),
        }
    }

    /// The member `key`, or the error that it is missing.
    pub(super) fn required(&self, key: &str, allowed: &str) -> Option<Node<'a>> {
        let member = self.get(key);
        if member.is_none() {
            self.missing(key, allowed);
        }
        member
    }

    /// Adds the error that the member `key` is missing.
    pub(super) fn missing(&self, key: &str, allowed: &str) {
        let finding = Diagnostic::error(self.path_of(key), format!("`{key}` is missing"));
        self.node.findings.push(finding.allowed(allowed));
    }

    /// The path that the member `key` has or would have.
    pub(super) fn path_of(&self, key: &str) -> String {
        self.get(key).map_or_else(|| join(&self.node.path, key), |node| node.path)
    }

    /// The flag `key`; `default` if it is absent or wrong.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(|node| node.flag()).unwrap_or(default)
    }

    /// The text `key`, trimmed; empty if it is absent or wrong.
    pub(super) fn text(&self, key: &str) -> &'a str {
        self.get(key).and_then(|node| node.text()).unwrap_or_default().trim()
    }

    /// The policy level `key`; 0 if it is absent or wrong.
    pub(super) fn level(&self, key: &str) -> u32 {
        self.get(key).and_then(|node| node.number_u32()).unwrap_or_default()
    }

    /// The entries of the list `key`; none if it is absent or wrong.
    pub(super) fn entries(&self, key: &str) -> Vec<Node<'a>> {
        self.get(key).and_then(|node| node.entries()).unwrap_or_default()
    }

    /// Adds a finding about the object or a member of it.
    pub(super) fn report(&self, finding: Diagnostic) {
        self.node.findings.push(finding);
    }
}

/// What a member that may be absent came to: `None` if it is there and wrong.
///
/// Readers read every member before the first of them gives up, so that all findings are made.
pub(super) fn given<T>(member: Option<Option<T>>) -> Option<Option<T>> {
    match member {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}
