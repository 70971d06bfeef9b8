//! One validation for everybody, which reports every mistake by its field's path.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::manifest::{Manifest, Metadata, ProfilingPolicySpec, Redis, TaskQueueSpec};

const API_VERSION: &str = "brisq.dev/v1alpha1";
/// Names become parts of other names, which end at 63.
const NAME_MAX: usize = 40;
/// Largest manifest that is read.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Such as `spec.slo.claimLatency.percentile`; empty when the document as a whole is meant.
    pub path: String,
    /// What it must be, and what it is.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    metadata: Metadata,
    spec: T,
}

/// Reads one document and checks it.
///
/// # Errors
/// Every mistake, in the order of the fields. A document that cannot be read at all is one mistake, with its place.
pub fn parse(yaml: &str) -> Result<Manifest, Vec<Mistake>> {
    let whole = |message: String| vec![Mistake { path: String::new(), message }];
    if yaml.len() > MANIFEST_MAX_BYTES {
        return Err(whole(format!(
            "a manifest has at most {MANIFEST_MAX_BYTES} bytes, this one has {}",
            yaml.len()
        )));
    }
    let head: Head = serde_saphyr::from_str(yaml).map_err(|error| whole(error.to_string()))?;
    if head.api_version.as_deref() != Some(API_VERSION) {
        let is = head.api_version.unwrap_or_else(|| "missing".to_owned());
        return Err(vec![Mistake {
            path: "apiVersion".into(),
            message: format!("must be {API_VERSION}, is {is}"),
        }]);
    }
    let manifest = match head.kind.as_deref() {
        Some("TaskQueue") => {
            let Document { metadata, spec, .. } = read(yaml).map_err(whole)?;
            Manifest::TaskQueue { metadata, spec }
        }
        Some("ProfilingPolicy") => {
            let Document { metadata, spec, .. } = read(yaml).map_err(whole)?;
            Manifest::ProfilingPolicy { metadata, spec }
        }
        other => {
            let is = other.unwrap_or("missing");
            let message = format!("must be TaskQueue or ProfilingPolicy, is {is}");
            return Err(vec![Mistake { path: "kind".into(), message }]);
        }
    };
    let mistakes = validate(&manifest);
    if mistakes.is_empty() { Ok(manifest) } else { Err(mistakes) }
}

fn read<T: for<'de> Deserialize<'de>>(yaml: &str) -> Result<Document<T>, String> {
    serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
}

fn validate(manifest: &Manifest) -> Vec<Mistake> {
    let mut check = Check::default();
    match manifest {
        Manifest::TaskQueue { metadata, spec } => {
            check.name(&metadata.name);
            check.task_queue(spec);
        }
        Manifest::ProfilingPolicy { metadata, spec } => {
            check.name(&metadata.name);
            check.profiling("spec", spec);
        }
    }
    check.mistakes
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn mistake(&mut self, path: &str, message: String) {
        self.mistakes.push(Mistake { path: path.to_owned(), message });
    }

    fn within<T: PartialOrd + fmt::Display>(&mut self, path: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.mistake(path, format!("must be {} to {}, is {value}", range.start(), range.end()));
        }
    }

    fn one_of(&mut self, path: &str, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value.filter(|value| !allowed.contains(value)) {
            self.mistake(path, format!("must be {}, is {value}", allowed.join(" or ")));
        }
    }

    fn name(&mut self, name: &str) {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let whole =
            name.chars().all(|c| letter(c) || c == '-') && name.starts_with(letter) && name.ends_with(letter);
        if !whole || name.len() > NAME_MAX {
            let is = if name.is_empty() { "missing" } else { name };
            self.mistake(
                "metadata.name",
                format!("must be 1 to {NAME_MAX} of a-z, 0-9 and -, beginning and ending with a letter or digit, is {is}"),
            );
        }
    }

    fn task_queue(&mut self, spec: &TaskQueueSpec) {
        if let Some(replicas) = spec.replicas {
            self.within("spec.replicas", replicas, 1..=100);
        }
        if let Some(redis) = &spec.redis {
            self.redis(redis);
        }
        if let Some(objective) = &spec.slo.claim_latency {
            let path = |field| format!("spec.slo.claimLatency.{field}");
            if !(objective.percentile > 0.0 && objective.percentile < 100.0) {
                let message = format!("must be above 0 and below 100, is {}", objective.percentile);
                self.mistake(&path("percentile"), message);
            }
            self.within(&path("thresholdMs"), objective.threshold_ms, 1..=60_000);
            self.within(&path("windowSeconds"), objective.window_seconds, 5..=3_600);
            self.within(&path("minSamples"), objective.min_samples, 1..=1_000_000);
        }
        self.profiling("spec.profiling", &spec.profiling);
    }

    fn redis(&mut self, redis: &Redis) {
        match (&redis.standalone, &redis.external) {
            (Some(standalone), None) => {
                let path = "spec.redis.standalone.appendfsync";
                self.one_of(path, standalone.appendfsync.as_deref(), &["always", "everysec"]);
                let on_delete = standalone.storage.as_ref().and_then(|storage| storage.on_delete.as_deref());
                self.one_of("spec.redis.standalone.storage.onDelete", on_delete, &["Retain", "Delete"]);
            }
            (None, Some(external)) => {
                if !["redis://", "rediss://"].iter().any(|scheme| external.url.starts_with(scheme)) {
                    let is = if external.url.is_empty() { "missing" } else { &external.url };
                    let message = format!("must begin with redis:// or rediss://, is {is}");
                    self.mistake("spec.redis.external.url", message);
                }
            }
            _ => self.mistake("spec.redis", "must have standalone or external, and not both".to_owned()),
        }
    }

    fn profiling(&mut self, path: &str, spec: &ProfilingPolicySpec) {
        let field = |name: &str| format!("{path}.{name}");
        self.within(&field("capture.preSeconds"), spec.capture.pre_seconds, 1..=60);
        self.within(&field("capture.postSeconds"), spec.capture.post_seconds, 1..=60);
        self.within(&field("limits.cooldownSeconds"), spec.limits.cooldown_seconds, 10..=86_400);
        self.within(&field("limits.perDay"), spec.limits.per_day, 1..=1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: orders}\n";

    fn mistakes(yaml: &str) -> Vec<String> {
        parse(yaml)
            .map(|_| Vec::new())
            .unwrap_or_else(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn the_example_is_valid_and_says_what_a_laptop_ignores() {
        let Manifest::TaskQueue { metadata, spec } =
            parse(include_str!("../../../examples/orders.yaml")).unwrap()
        else {
            panic!("a TaskQueue");
        };
        assert_eq!(metadata.name, "orders");
        assert_eq!(spec.ignored_on_a_laptop(), ["spec.replicas", "spec.redis.standalone"]);
        assert!(spec.slo.claim_latency.is_some());
    }

    #[test]
    fn every_mistake_is_reported_by_its_path() {
        let yaml = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: Orders}\nspec:\n  replicas: 0\n  \
            redis: {standalone: {appendfsync: sometimes}, external: {url: x}}\n  \
            slo: {claimLatency: {percentile: 100, thresholdMs: 0, windowSeconds: 1}}\n  \
            profiling: {capture: {preSeconds: 0}, limits: {cooldownSeconds: 1}}\n";
        let found = mistakes(yaml);
        for path in [
            "metadata.name",
            "spec.replicas",
            "spec.redis",
            "spec.slo.claimLatency.percentile: must be above 0 and below 100, is 100",
            "spec.slo.claimLatency.thresholdMs",
            "spec.slo.claimLatency.windowSeconds",
            "spec.profiling.capture.preSeconds",
            "spec.profiling.limits.cooldownSeconds",
        ] {
            assert!(found.iter().any(|mistake| mistake.starts_with(path)), "{path}: {found:#?}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_a_reason() {
        for yaml in [
            "",
            "42",
            "[]",
            "apiVersion: brisq.dev/v1alpha1",
            "apiVersion: v1\nkind: Pod",
            "apiVersion: brisq.dev/v1alpha1\nkind: Pod",
            "a: b: c",
            "a: &a [*a]",
            "\u{0}",
        ] {
            assert!(!mistakes(yaml).is_empty(), "{yaml:?}");
        }
        for (spec, part) in [
            ("spec: {replica: 1}", "replica"),
            ("spec: {replicas: many}", "replicas"),
            ("spec: {replicas: 1, replicas: 2}", "replicas"),
            ("spec: {}\nspecs: {}", "specs"),
            ("spec: {}\n---\nspec: {}", ""),
        ] {
            let found = mistakes(&format!("{HEAD}{spec}\n"));
            assert!(found.iter().any(|mistake| mistake.contains(part)), "{spec}: {found:?}");
        }
    }

    #[test]
    fn a_bomb_of_anchors_is_refused_and_not_built() {
        let mut yaml = format!("{HEAD}spec:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            yaml.push_str(&format!("  a{n}: &a{n} [{list}]\n"));
        }
        assert!(!mistakes(&yaml).is_empty());
    }

    #[test]
    fn policies_stand_alone_too() {
        let yaml = "apiVersion: brisq.dev/v1alpha1\nkind: ProfilingPolicy\nmetadata: {name: p}\nspec: {limits: {perDay: 0}}";
        assert!(mistakes(yaml)[0].starts_with("spec.limits.perDay"));
    }
}
