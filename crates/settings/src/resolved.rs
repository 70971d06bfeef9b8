//! Settings as they are in force, for a program to make values of.

use std::collections::{BTreeMap, BTreeSet};

use crate::Setting;

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File(String),
    Environment,
    Flag,
}

#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) source: Source,
    pub(crate) texts: Vec<String>,
}

impl std::fmt::Debug for Value {
    /// Any setting may hold a secret, if only by mistake.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Value").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Settings with the mistakes that were found so far.
#[derive(Debug)]
pub struct Settings {
    settings: &'static [Setting],
    values: BTreeMap<&'static str, Value>,
    mistakes: Vec<String>,
    /// Settings of which it was said that they are empty.
    empty: BTreeSet<&'static str>,
}

impl Settings {
    pub(crate) fn new(settings: &'static [Setting], values: BTreeMap<&'static str, Value>) -> Self {
        Self { settings, values, mistakes: Vec::new(), empty: BTreeSet::new() }
    }

    pub(crate) fn lay_under(&mut self, name: &'static str, value: Value) {
        self.values.entry(name).or_insert(value);
    }

    /// Notes a mistake that concerns several settings, or none.
    pub fn mistake(&mut self, text: impl Into<String>) {
        self.mistakes.push(text.into());
    }

    /// Notes a mistake about a setting, by the name under which it was given.
    pub fn wrong(&mut self, name: &'static str, text: &str) {
        let setting = self.declared(name);
        let value = self.value(name);
        let said = value.texts.first().filter(|_| !setting.secret);
        let said = said.map_or(String::new(), |said| format!(" {said}"));
        self.mistakes.push(format!("{}{said}: {text}", place(setting, &value.source)));
    }

    /// Whether somebody gave it.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of a setting, by default or as it was given. `None` also when `parse` refuses it, which is noted.
    pub fn get<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.all(name, parse).pop()
    }

    /// All values of a setting.
    pub fn all<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let (Value { source, texts }, setting) = (self.value(name), self.declared(name));
        let place = place(setting, &source);
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            if text.is_empty() {
                if self.empty.insert(name) {
                    self.mistakes.push(format!("{place}: is empty; leave it out, or give it a value"));
                }
                continue;
            }
            match parse(&text) {
                Ok(value) => values.push(value),
                Err(must) if setting.secret => self.mistakes.push(format!("{place}: {must}")),
                Err(must) => self.mistakes.push(format!("{place} {text}: {must}")),
            }
        }
        values
    }

    /// The text of a setting.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.get(name, |text| Ok(text.to_owned()))
    }

    /// A setting that is one of these.
    pub fn one_of(&mut self, name: &'static str, allowed: &[&str]) -> Option<String> {
        self.get(name, |text| {
            if allowed.contains(&text) {
                Ok(text.to_owned())
            } else {
                Err(format!("is one of {}", allowed.join(", ")))
            }
        })
    }

    /// Whether a switch is on.
    pub fn is_on(&mut self, name: &'static str) -> bool {
        self.one_of(name, &["true", "false"]).is_some_and(|value| value == "true")
    }

    /// A whole number within its bounds.
    pub fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        self.get(name, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("is a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// Ends the resolving.
    ///
    /// # Errors
    /// Every mistake that was noted.
    pub fn finish(self) -> Result<(), Vec<String>> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }

    fn declared(&self, name: &str) -> &'static Setting {
        self.settings
            .iter()
            .find(|setting| setting.name == name)
            .expect("invariant: programs use settings that they declare")
    }

    fn value(&self, name: &'static str) -> Value {
        self.values.get(name).cloned().unwrap_or_else(|| {
            let texts = self.declared(name).default.map(str::to_owned).into_iter().collect();
            Value { source: Source::Default, texts }
        })
    }
}

fn place(setting: &Setting, source: &Source) -> String {
    let name = setting.name;
    match source {
        Source::Default | Source::Flag => format!("--{name}"),
        Source::Environment => setting.variable(),
        Source::File(path) => format!("{path}: {name}"),
    }
}
