//! The objective, and how breaches of it are captured: from flags, or from a file that is followed.

use std::sync::Arc;

use brisq_profiler::Settings;
use brisq_settings::Files;
use brisq_slo::Objective;
use brisq_yaml::Echo;
use serde::Deserialize;

use crate::Flags;
use crate::captures::{Captures, Followed};

pub const PERCENTILE: f64 = 99.0;
pub const WINDOW_SECONDS: u32 = 60;
pub const MIN_SAMPLES: u64 = 200;
/// Most seconds before the onset and after the freeze, each.
pub const EDGE_SECONDS_MAX: u32 = 60;

/// As in a TaskQueue's `spec.slo.claimLatency`, its policy's `capture` and `suspend`; without `thresholdMs` there is no
/// objective.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    percentile: Option<f64>,
    threshold_ms: Option<u64>,
    window_seconds: Option<u32>,
    min_samples: Option<u64>,
    pre_seconds: Option<u32>,
    post_seconds: Option<u32>,
    suspend: bool,
}

impl File {
    fn objective(&self) -> Result<Option<Objective>, String> {
        let Self { percentile, threshold_ms, window_seconds, min_samples, .. } = self;
        let Some(ms) = threshold_ms else {
            let alone = percentile.is_some() || window_seconds.is_some() || min_samples.is_some();
            return if alone { Err("thresholdMs is missing".to_owned()) } else { Ok(None) };
        };
        Objective::new(
            percentile.unwrap_or(PERCENTILE),
            ms.saturating_mul(1_000),
            window_seconds.unwrap_or(WINDOW_SECONDS),
            min_samples.unwrap_or(MIN_SAMPLES),
        )
        .map(Some)
        .map_err(|error| error.to_string())
    }
}

/// What the flags or the file they name say.
pub fn of_flags(flags: &Flags, files: &mut Files) -> Result<Followed, String> {
    if let Some(path) = &flags.objective {
        let text = files.read(path).map_err(|error| format!("{path}: {error}"))?;
        return parse(&text, flags);
    }
    let micros = flags.threshold_ms.map(|ms| ms.saturating_mul(1_000));
    let objective = micros
        .map(|us| Objective::new(flags.percentile, us, flags.window_seconds, flags.min_samples))
        .transpose()
        .map_err(|error| error.to_string())?;
    Ok(Followed { objective, settings: settings_of(&File::default(), flags)? })
}

/// What the file leaves out is as the flags say.
fn parse(text: &str, flags: &Flags) -> Result<Followed, String> {
    let file = match text.trim() {
        "" => File::default(),
        text => brisq_yaml::read(text, Echo::Values).map_err(|mistakes| {
            let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            told.join("; ")
        })?,
    };
    Ok(Followed { objective: file.objective()?, settings: settings_of(&file, flags)? })
}

fn settings_of(file: &File, flags: &Flags) -> Result<Settings, String> {
    let bounded = |name, seconds: Option<u32>, of_flags| match seconds {
        Some(seconds) if !(1..=EDGE_SECONDS_MAX).contains(&seconds) => {
            Err(format!("{name} is 1 to {EDGE_SECONDS_MAX}"))
        }
        seconds => Ok(seconds.unwrap_or(of_flags)),
    };
    Ok(Settings {
        pre_seconds: bounded("preSeconds", file.pre_seconds, flags.pre_seconds)?,
        post_seconds: bounded("postSeconds", file.post_seconds, flags.post_seconds)?,
        suspended: file.suspend,
    })
}

/// Does what the file says whenever it changes. One with mistakes changes nothing.
pub fn follow(
    files: Files,
    flags: Flags,
    captures: Arc<Captures>,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    brisq_settings::follow(files, move |files| match of_flags(&flags, files) {
        Ok(followed) => {
            if followed != captures.followed() {
                tracing::info!(?followed, "the changed objective is in use");
                captures.follow(followed);
            }
            true
        }
        Err(error) => {
            tracing::error!(error, "the changed objective is not in use");
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn said(text: &str) -> Result<Followed, String> {
        let args = ["brisq-profiler", "--socket", "s", "--data", "d", "--pre-seconds", "20"];
        parse(text, &Flags::try_parse_from(args).unwrap())
    }

    #[test]
    fn what_a_file_leaves_out_is_as_the_flags_say() {
        let settings = Settings { pre_seconds: 20, post_seconds: 10, suspended: false };
        let objective = Some(Objective::new(99.0, 50_000, 60, 200).unwrap());
        for (text, expected) in [
            ("", Followed { objective: None, settings }),
            ("thresholdMs: 50", Followed { objective, settings }),
            (
                "thresholdMs: 50\npreSeconds: 5\npostSeconds: 60\n",
                Followed { objective, settings: Settings { pre_seconds: 5, post_seconds: 60, ..settings } },
            ),
            (
                "thresholdMs: 50\nsuspend: true\n",
                Followed { objective, settings: Settings { suspended: true, ..settings } },
            ),
            (
                "suspend: true",
                Followed { objective: None, settings: Settings { suspended: true, ..settings } },
            ),
        ] {
            assert_eq!(said(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_file_with_a_mistake_says_nothing() {
        for (text, mistake) in [
            ("threshold: 50", "threshold"),
            ("percentile: 99", "thresholdMs"),
            ("thresholdMs: 50\npreSeconds: 61", "preSeconds"),
            ("thresholdMs: 50\npostSeconds: 0", "postSeconds"),
            ("thresholdMs: 50\nsuspend: perhaps", "suspend"),
            ("thresholdMs: 0", "threshold"),
        ] {
            assert!(said(text).is_err_and(|error| error.contains(mistake)), "{text}: {:?}", said(text));
        }
    }
}
