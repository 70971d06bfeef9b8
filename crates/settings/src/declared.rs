//! What a program can be told.

use clap::{Arg, ArgAction, Command};

/// A setting, declared once: flag, variable and name in the file follow from its name.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) secret: bool,
    pub(crate) many: bool,
    /// May be empty in the environment, which then does not give it.
    pub(crate) variable: Option<&'static str>,
    value: &'static str,
    help: &'static str,
    switch: bool,
}

impl Setting {
    /// A setting that takes one value, called `value` in `--help`.
    #[must_use]
    pub const fn new(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value, help, default: None, secret: false, many: false, switch: false, variable: None }
    }

    /// Its value when it is not given.
    #[must_use]
    pub const fn default(self, value: &'static str) -> Self {
        Self { default: Some(value), ..self }
    }

    /// It can be given several times, and several values stand between commas.
    #[must_use]
    pub const fn many(self) -> Self {
        Self { many: true, ..self }
    }

    /// Its value is never shown.
    #[must_use]
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// It is on or off, and on when it is given without a value.
    #[must_use]
    pub const fn switch(self) -> Self {
        Self { switch: true, value: "true|false", ..self }
    }

    /// It is read from this variable, which others set: an empty one does not give it.
    #[must_use]
    pub const fn from_variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    /// A command line that takes these settings, and `--config FILE` with any of them.
    pub fn command(
        name: &'static str,
        version: &'static str,
        about: &'static str,
        settings: &[Self],
    ) -> Command {
        let config =
            Self::new("config", "FILE", "File with any of these settings in YAML, named as the flags are");
        let args = settings.iter().chain([&config]).map(Self::arg);
        Command::new(name).version(version).about(about).args(args)
    }

    pub(crate) fn variable(&self) -> String {
        let own = || format!("BRISQ_{}", self.name.replace('-', "_").to_uppercase());
        self.variable.map_or_else(own, str::to_owned)
    }

    fn arg(&self) -> Arg {
        let help = match self.default {
            Some(default) => format!("{} [default: {default}]", self.help),
            None => self.help.to_owned(),
        };
        // Values of the environment stand in no `--help`: any of them may hold a secret by mistake.
        let arg = Arg::new(self.name).long(self.name).env(self.variable()).hide_env_values(true);
        let arg = arg.value_name(self.value).help(help).action(ArgAction::Set);
        match (self.many, self.switch) {
            (true, _) => arg.action(ArgAction::Append).value_delimiter(','),
            (_, true) => arg.num_args(0..=1).default_missing_value("true"),
            _ => arg,
        }
    }
}
