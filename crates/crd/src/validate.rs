//! One validation for everybody, which reports every mistake by its field's path.

use std::fmt;
use std::ops::RangeInclusive;

use crate::{
    Artifacts, Capture, CaptureLimits, ClaimLatency, Profiling, ProfilingPolicySpec, Quantity, Redis,
    Resources, TaskQueueSpec,
};

/// Names become parts of other names, which end at 63.
const NAME_MAX: usize = 40;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Such as `spec.slo.claimLatency.percentile`; empty when the document as a whole is meant.
    pub path: String,
    /// What it must be, and what it is.
    pub message: String,
}

impl Mistake {
    pub(crate) fn at(path: &str, message: String) -> Self {
        Self { path: path.to_owned(), message }
    }
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

/// What is wrong with the name of an object of ours.
pub(crate) fn name_mistakes(name: &str) -> Vec<Mistake> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let whole =
        name.chars().all(|c| letter(c) || c == '-') && name.starts_with(letter) && name.ends_with(letter);
    if whole && name.len() <= NAME_MAX {
        return Vec::new();
    }
    let is = if name.is_empty() { "missing" } else { name };
    let message = format!(
        "must be 1 to {NAME_MAX} of a-z, 0-9 and -, beginning and ending with a letter or digit, is {is}"
    );
    vec![Mistake::at("metadata.name", message)]
}

/// What is wrong with a TaskQueue's spec, in the order of its fields.
#[must_use]
pub fn task_queue_mistakes(spec: &TaskQueueSpec) -> Vec<Mistake> {
    let mut check = Check::default();
    check.within("spec.replicas", spec.replicas, 1..=100);
    check.resources("spec.resources", spec.resources.as_ref());
    if let Some(redis) = &spec.redis {
        check.redis(redis);
    }
    if let Some(objective) = &spec.slo.claim_latency {
        check.objective(objective);
    }
    check.profiling(spec);
    check.mistakes
}

/// What is wrong with a ProfilingPolicy's spec, in the order of its fields.
#[must_use]
pub fn policy_mistakes(spec: &ProfilingPolicySpec) -> Vec<Mistake> {
    let mut check = Check::default();
    check.capture("spec", &spec.capture);
    check.limits("spec", &spec.limits);
    check.artifacts("spec", spec.artifacts.as_ref());
    check.mistakes
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn mistake(&mut self, path: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::at(path, message.into()));
    }

    fn within<T: PartialOrd + fmt::Display>(&mut self, path: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.mistake(path, format!("must be {} to {}, is {value}", range.start(), range.end()));
        }
    }

    fn either(&mut self, path: &str, one: (&str, bool), other: (&str, bool)) {
        if one.1 == other.1 {
            self.mistake(path, format!("must have {} or {}, and not both", one.0, other.0));
        }
    }

    fn quantity(&mut self, path: &str, quantity: &Quantity) {
        if quantity.value().is_none() {
            self.mistake(path, format!("must be a quantity such as 500m or 10Gi, is {quantity}"));
        }
    }

    fn resources(&mut self, path: &str, resources: Option<&Resources>) {
        let Some(Resources { requests, limits }) = resources else { return };
        for (kind, amounts) in [("requests", requests), ("limits", limits)] {
            for (name, amount) in amounts {
                self.quantity(&format!("{path}.{kind}.{name}"), amount);
            }
        }
    }

    fn objective(&mut self, objective: &ClaimLatency) {
        let path = |field| format!("spec.slo.claimLatency.{field}");
        if !(objective.percentile > 0.0 && objective.percentile < 100.0) {
            let message = format!("must be above 0 and below 100, is {}", objective.percentile);
            self.mistake(&path("percentile"), message);
        }
        self.within(&path("thresholdMs"), objective.threshold_ms, 1..=60_000);
        self.within(&path("windowSeconds"), objective.window_seconds, 5..=3_600);
        self.within(&path("minSamples"), objective.min_samples, 1..=1_000_000);
    }

    fn redis(&mut self, redis: &Redis) {
        let Redis { standalone, external } = redis;
        self.either("spec.redis", ("standalone", standalone.is_some()), ("external", external.is_some()));
        if let Some(standalone) = standalone {
            self.quantity("spec.redis.standalone.storage.size", &standalone.storage.size);
            self.resources("spec.redis.standalone.resources", standalone.resources.as_ref());
        }
        let Some(external) = external else { return };
        let secret = external.url_secret_ref.is_some();
        let path = "spec.redis.external";
        self.either(path, ("url", external.url.is_some()), ("urlSecretRef", secret));
        if let Some(url) = external.url.as_ref().filter(|url| !url.starts_with("redis://")) {
            self.mistake("spec.redis.external.url", format!("must begin with redis://, is {url}"));
        }
    }

    fn profiling(&mut self, spec: &TaskQueueSpec) {
        let Profiling { policy_ref, capture, limits, artifacts, suspend: _ } = &spec.profiling;
        let own = capture.is_some() || limits.is_some() || artifacts.is_some();
        if policy_ref.is_some() && own {
            self.mistake("spec.profiling", "must have policyRef or a policy of its own, and not both");
        }
        if let Some(capture) = capture {
            self.capture("spec.profiling", capture);
        }
        if let Some(limits) = limits {
            self.limits("spec.profiling", limits);
        }
        self.artifacts("spec.profiling", artifacts.as_ref());
    }

    fn capture(&mut self, path: &str, capture: &Capture) {
        self.within(&format!("{path}.capture.preSeconds"), capture.pre_seconds, 1..=60);
        self.within(&format!("{path}.capture.postSeconds"), capture.post_seconds, 1..=60);
    }

    fn limits(&mut self, path: &str, limits: &CaptureLimits) {
        self.within(&format!("{path}.limits.cooldownSeconds"), limits.cooldown_seconds, 10..=86_400);
        self.within(&format!("{path}.limits.perDay"), limits.per_day, 1..=1_000);
    }

    fn artifacts(&mut self, path: &str, artifacts: Option<&Artifacts>) {
        let Some(artifacts) = artifacts else { return };
        let path = format!("{path}.artifacts");
        let claim = artifacts.persistent_volume_claim.is_some();
        self.either(&path, ("s3", artifacts.s3.is_some()), ("persistentVolumeClaim", claim));
        let endpoint = artifacts.s3.as_ref().and_then(|s3| s3.endpoint.as_ref());
        if let Some(endpoint) =
            endpoint.filter(|url| !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)))
        {
            let message = format!("must begin with http:// or https://, is {endpoint}");
            self.mistake(&format!("{path}.s3.endpoint"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, parse};

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
            redis: {standalone: {storage: {size: much}}, external: {url: x}}\n  \
            slo: {claimLatency: {percentile: 100, thresholdMs: 0, windowSeconds: 1}}\n  \
            profiling: {capture: {preSeconds: 0}, limits: {cooldownSeconds: 1}}\n";
        let found = mistakes(yaml);
        for path in [
            "metadata.name",
            "spec.replicas",
            "spec.redis: must have standalone or external",
            "spec.redis.standalone.storage.size: must be a quantity",
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
