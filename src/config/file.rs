//! The layer of the file: finds keys and sections in TOML, with their places.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    fault::{Fault, Origin},
    key::{Element, Given, Key},
    load::Layers,
};

/// A text more similar than this is offered as what may have been meant (0 to 1).
const SIMILAR: f64 = 0.8;

/// Longest part of a refused value that is repeated in a message, in characters.
const SHOWN_CHARS: usize = 60;

/// The file while it is read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    /// Lines that are no TOML. What the parser made of them is not reported a second time.
    broken_lines: Vec<usize>,
}

/// Reads a file into the layers. Goes on after every fault.
pub(super) fn read(path: &Path, text: &str, layers: &mut Layers) {
    let earlier = layers.faults.len();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut file = File { path, text, broken_lines: Vec::new() };
    for error in errors {
        let origin = file.origin(&error.span().unwrap_or(0..0));
        if let Origin::File { line, .. } = origin {
            file.broken_lines.push(line);
        }
        let message = format!("not valid TOML: {}", error.message().replace('\n', "; "));
        layers.faults.push(Fault { origin: Some(origin), message });
    }
    let keys = layers.keys.clone();
    for (name, value) in table.get_ref() {
        file.top_level(&keys, name, value, layers);
    }
    // A table is sorted by name; people read from the top.
    layers.faults[earlier..].sort_by_key(|fault| match fault.origin {
        Some(Origin::File { line, column, .. }) => (line, column),
        _ => (0, 0),
    });
}

impl File<'_> {
    fn top_level(
        &self,
        keys: &[Key],
        name: &Spanned<DeString>,
        value: &Spanned<DeValue>,
        layers: &mut Layers,
    ) {
        let is_section = keys.iter().any(|key| key.section() == name.get_ref());
        match value.get_ref() {
            DeValue::Table(table) if is_section => {
                for (inner, value) in table {
                    let path = format!("{}.{}", name.get_ref(), inner.get_ref());
                    self.key(keys, &path, inner, value, layers);
                }
            }
            _ if is_section => {
                let message = format!(
                    "{} = {} is of the wrong type ({}); accepted: a section [{}]",
                    name.get_ref(),
                    shown(self.text_at(&value.span())),
                    value.get_ref().type_str(),
                    name.get_ref(),
                );
                self.fault(&value.span(), message, layers);
            }
            DeValue::Table(_) if !keys.iter().any(|key| key.path == name.get_ref()) => {
                let mut sections: Vec<_> = keys.iter().map(Key::section).collect();
                sections.retain(|section| !section.is_empty());
                sections.dedup();
                let meant = nearest(name.get_ref(), sections.iter().copied());
                let message = format!(
                    "unknown section [{}]{}; accepted: {}",
                    name.get_ref(),
                    did_you_mean(meant.map(|section| format!("[{section}]"))),
                    sections.join(", "),
                );
                self.fault(&name.span(), message, layers);
            }
            _ => self.key(keys, name.get_ref(), name, value, layers),
        }
    }

    fn key(
        &self,
        keys: &[Key],
        path: &str,
        name: &Spanned<DeString>,
        value: &Spanned<DeValue>,
        layers: &mut Layers,
    ) {
        let Some(at) = keys.iter().position(|key| key.path == path) else {
            let message = format!("unknown key {path}{}", did_you_mean(meant_key(keys, path)));
            return self.fault(&name.span(), message, layers);
        };
        let origin = self.origin(&value.span());
        let given = layers.give(at, Given::Toml(value.get_ref()), origin);
        for refused in given.err().unwrap_or_default() {
            let span = match refused.element {
                Some(Element::Span(span)) => span,
                _ => value.span(),
            };
            let message = refusal(&keys[at], self.text_at(&span), &refused.why);
            self.fault(&span, message, layers);
        }
    }

    fn fault(&self, span: &Range<usize>, message: String, layers: &mut Layers) {
        let origin = self.origin(span);
        let on_broken_line =
            matches!(&origin, Origin::File { line, .. } if self.broken_lines.contains(line));
        if !on_broken_line {
            layers.faults.push(Fault { origin: Some(origin), message });
        }
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Origin::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn text_at(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }
}

/// The message about a refused value.
pub(super) fn refusal(key: &Key, value: &str, why: &str) -> String {
    format!("{} = {} {why}; accepted: {}", key.path, shown(value), key.accepts)
}

/// A value for a message: on one line, not too long, without a password.
fn shown(value: &str) -> String {
    let value = super::without_password(value).replace('\n', " ");
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value,
    }
}

pub(super) fn did_you_mean(meant: Option<String>) -> String {
    meant.map(|meant| format!(", did you mean {meant}?")).unwrap_or_default()
}

/// The key that an unknown path is most likely to mean: a similar one, or the same name elsewhere.
pub(super) fn meant_key(keys: &[Key], path: &str) -> Option<String> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let section = path.split_once('.').map_or("", |(section, _)| section);
    let here = keys.iter().filter(|key| key.section() == section);
    if let Some(name) = nearest(name, here.map(Key::name)) {
        let separator = if section.is_empty() { "" } else { "." };
        return Some(format!("{section}{separator}{name}"));
    }
    keys.iter().find(|key| key.name() == name).map(|key| key.path.to_owned())
}

/// The most similar of some names, when it is similar enough to be meant.
fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = all.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|(left, _), (right, _)| left.total_cmp(right));
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, known)| known)
}
