//! What a start was given by flags and environment.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Deserialize;

use crate::resolved::{Source, Value};
use crate::{EXIT_USAGE, Files, Setting, Settings, without_credentials};

/// Flags and environment of a start; they do not change while the program runs, as the file may.
#[derive(Clone, Debug)]
pub struct Given {
    settings: &'static [Setting],
    values: BTreeMap<&'static str, Value>,
    config: Option<Value>,
}

/// A line of the file.
#[derive(Deserialize)]
#[serde(untagged)]
enum OfFile {
    One(Scalar),
    Many(Vec<Scalar>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(u64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Switch(on) => on.to_string(),
            Self::Number(n) => n.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Given {
    /// Reads the command line of this process. Ends it for `--help` and `--version`, and with [`EXIT_USAGE`] for what is
    /// no flag.
    #[must_use]
    pub fn by_this_process(command: Command, settings: &'static [Setting]) -> (Self, ArgMatches) {
        let matches = command.try_get_matches().unwrap_or_else(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            // A URL that stands where no value is taken would be quoted with its password.
            use std::io::Write;
            let _ = write!(std::io::stderr(), "{}", without_credentials(&error.render().to_string()));
            std::process::exit(EXIT_USAGE.into())
        });
        (Self::of(settings, &matches), matches)
    }

    /// What `matches` hold of `settings`.
    #[must_use]
    pub fn of(settings: &'static [Setting], matches: &ArgMatches) -> Self {
        let value = |setting: &Setting| {
            let texts: Vec<String> =
                matches.get_many::<String>(setting.name).into_iter().flatten().cloned().collect();
            let by_environment = matches.value_source(setting.name) == Some(ValueSource::EnvVariable);
            // What others set may be empty, and says nothing then.
            let said = setting.variable.is_none() || texts.iter().any(|text| !text.is_empty());
            let source = if by_environment { Source::Environment } else { Source::Flag };
            (said && !texts.is_empty()).then_some(Value { source, texts })
        };
        let values = settings.iter().filter_map(|setting| Some((setting.name, value(setting)?))).collect();
        Self { settings, values, config: value(&Setting::new("config", "", "")) }
    }

    /// Lays what was given over the file that it names, and that over the defaults.
    #[must_use]
    pub fn resolve(&self, files: &mut Files) -> Settings {
        let mut resolved = Settings::new(self.settings, self.values.clone());
        let Some(config) = &self.config else { return resolved };
        let path = config.texts.first().map(String::as_str).unwrap_or_default();
        match self.of_file(path, files) {
            Ok((values, mistakes)) => {
                for (name, texts) in values {
                    resolved.lay_under(name, Value { source: Source::File(path.to_owned()), texts });
                }
                mistakes.into_iter().for_each(|mistake| resolved.mistake(format!("{path}: {mistake}")));
            }
            Err(mistake) => resolved.mistake(format!("--config {path}: {mistake}")),
        }
        resolved
    }

    #[expect(clippy::type_complexity, reason = "values by name, and mistakes")]
    fn of_file(
        &self,
        path: &str,
        files: &mut Files,
    ) -> Result<(Vec<(&'static str, Vec<String>)>, Vec<String>), String> {
        let text = files.read(path)?;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Default::default());
        }
        let read = brisq_yaml::read::<BTreeMap<String, OfFile>>(&text, brisq_yaml::Echo::Nothing);
        let read = read.map_err(|mistakes| {
            let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            format!("is not a file of settings: {}", told.join("; "))
        })?;
        let (mut values, mut mistakes) = (Vec::new(), Vec::new());
        for (name, value) in read {
            let Some(setting) = self.settings.iter().find(|setting| setting.name == name) else {
                mistakes.push(format!("there is no setting `{name}`"));
                continue;
            };
            match value {
                OfFile::One(one) => values.push((setting.name, vec![one.text()])),
                OfFile::Many(many) if setting.many => {
                    values.push((setting.name, many.iter().map(Scalar::text).collect()));
                }
                _ if setting.many => mistakes.push(format!("`{name}` takes a value or a list of them")),
                _ => mistakes.push(format!("`{name}` takes one value")),
            }
        }
        Ok((values, mistakes))
    }
}
