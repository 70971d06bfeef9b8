//! What a start was given by flags and environment.

use std::collections::BTreeMap;
use std::io::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Parser};
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

/// Reads the command line of a program that declares its flags as a type. Values of the environment stand in no `--help`.
/// Ends the process as [`Given::by_this_process`] does.
#[must_use]
pub fn flags<T: Parser>() -> T {
    let matches = without_values(T::command()).try_get_matches();
    matches.and_then(|matches| T::from_arg_matches(&matches)).unwrap_or_else(|error| end_by(&error))
}

/// Of the environment, in the help of the command and of those within.
fn without_values(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(without_values)
}

fn end_by(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    // A URL that stands where no value is taken would be quoted with its password. A standard error that nobody reads is
    // no reason to end otherwise.
    let _ = write!(std::io::stderr(), "{}", without_credentials(&error.render().to_string()));
    std::process::exit(EXIT_USAGE.into())
}

impl Given {
    /// Reads the command line of this process. Ends it for `--help` and `--version`, and with [`EXIT_USAGE`] for what is
    /// no flag.
    #[must_use]
    pub fn by_this_process(command: Command, settings: &'static [Setting]) -> (Self, ArgMatches) {
        let matches = command.try_get_matches().unwrap_or_else(|error| end_by(&error));
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
