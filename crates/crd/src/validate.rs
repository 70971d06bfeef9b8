//! One validation for everybody, which reports every mistake by its field's path.

use std::fmt;
use std::ops::RangeInclusive;

use crate::names::{TASK_QUEUE_NAME_MAX, task_queue_name_mistakes};
use crate::queues::{self, DELAY_MAX_MS, DELAYS_MAX};
use crate::task_queue::GENERATION_MAX;
use crate::{
    Artifacts, Capture, CaptureLimits, ClaimLatency, External, ProfileCaptureSpec, Profiling,
    ProfilingPolicySpec, Quantity, QueueSpec, Redis, Resources, S3, SecretKeyRef, Standalone, TaskQueueSpec,
};

/// Longest name of an object that is referred to.
const REFERENCE: RangeInclusive<usize> = 1..=253;
/// Of an image's name.
const IMAGE: RangeInclusive<usize> = 1..=512;
/// Of a URL.
const URL: RangeInclusive<usize> = 0..=1024;
/// Longest window of a capture, ms.
const WINDOW_MAX_MS: u64 = 240_000;
/// Most pods of a capture.
const PODS_MAX: usize = 10;
/// Most resources of a container.
const RESOURCES_MAX: usize = 100;

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

/// What is wrong with a TaskQueue, in the order of its fields.
#[must_use]
pub fn task_queue_mistakes(name: &str, spec: &TaskQueueSpec) -> Vec<Mistake> {
    let mut mistakes = task_queue_name_mistakes("metadata.name", name);
    mistakes.extend(task_queue_spec_mistakes(spec));
    mistakes
}

pub(crate) fn task_queue_spec_mistakes(spec: &TaskQueueSpec) -> Vec<Mistake> {
    let mut check = Check::default();
    check.within("spec.replicas", spec.replicas, 1..=100);
    check.text("spec.image", spec.image.as_ref(), IMAGE);
    check.resources("spec.resources", spec.resources.as_ref());
    if let Some(redis) = &spec.redis {
        check.redis(redis);
    }
    check.queues(&spec.queues);
    if let Some(auth) = &spec.auth {
        if let Some(key) = &auth.tokens_secret_ref {
            check.secret_key("spec.auth.tokensSecretRef", key);
        }
        check.within("spec.auth.generation", auth.generation, 0..=GENERATION_MAX);
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

/// What is wrong with a ProfileCapture's spec, in the order of its fields.
#[must_use]
pub fn capture_mistakes(spec: &ProfileCaptureSpec) -> Vec<Mistake> {
    let mut check = Check::default();
    check.text("spec.taskQueueRef.name", Some(&spec.task_queue_ref.name), 1..=TASK_QUEUE_NAME_MAX);
    if let Some(window) = &spec.window {
        check.within("spec.window.fromMs", window.from_ms, 1..=i64::MAX as u64);
        check.within("spec.window.toMs", window.to_ms, 1..=i64::MAX as u64);
        let length = window.to_ms.checked_sub(window.from_ms);
        if !length.is_some_and(|length| (1..=WINDOW_MAX_MS).contains(&length)) {
            let (from, to) = (window.from_ms, window.to_ms);
            let message =
                format!("must end after it begins, and be at most 240 s long; is from {from} to {to} ms");
            check.mistake("spec.window", message);
        }
    }
    if spec.pods.len() > PODS_MAX {
        check.mistake("spec.pods", format!("must have at most {PODS_MAX}, has {}", spec.pods.len()));
    }
    for (index, pod) in spec.pods.iter().enumerate() {
        check.text(&format!("spec.pods[{index}]"), Some(pod), REFERENCE);
    }
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

    fn text(&mut self, path: &str, text: Option<&String>, length: RangeInclusive<usize>) {
        let has = text.map_or(*length.start(), |text| text.chars().count());
        if !length.contains(&has) {
            let (least, most) = (length.start(), length.end());
            self.mistake(path, format!("must have {least} to {most} characters, has {has}"));
        }
    }

    fn scheme(&mut self, path: &str, url: Option<&String>, schemes: &[&str]) {
        self.text(path, url, URL);
        let Some(url) = url else { return };
        if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
            self.mistake(path, format!("must begin with {}, is {url}", schemes.join(" or ")));
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

    fn secret_key(&mut self, path: &str, key: &SecretKeyRef) {
        self.text(&format!("{path}.name"), Some(&key.name), REFERENCE);
        self.text(&format!("{path}.key"), Some(&key.key), REFERENCE);
    }

    fn resources(&mut self, path: &str, resources: Option<&Resources>) {
        let Some(Resources { requests, limits }) = resources else { return };
        for (kind, amounts) in [("requests", requests), ("limits", limits)] {
            let path = format!("{path}.{kind}");
            if amounts.len() > RESOURCES_MAX {
                self.mistake(&path, format!("must have at most {RESOURCES_MAX}, has {}", amounts.len()));
            }
            for (name, amount) in amounts {
                self.quantity(&format!("{path}.{name}"), amount);
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
            self.standalone(standalone);
        }
        if let Some(external) = external {
            self.external(external);
        }
    }

    fn standalone(&mut self, standalone: &Standalone) {
        let path = |field| format!("spec.redis.standalone.{field}");
        self.text(&path("image"), standalone.image.as_ref(), IMAGE);
        self.quantity(&path("storage.size"), &standalone.storage.size);
        self.text(
            &path("storage.storageClassName"),
            standalone.storage.storage_class_name.as_ref(),
            REFERENCE,
        );
        self.resources(&path("resources"), standalone.resources.as_ref());
    }

    fn external(&mut self, external: &External) {
        let secret = external.url_secret_ref.as_ref();
        self.either(
            "spec.redis.external",
            ("url", external.url.is_some()),
            ("urlSecretRef", secret.is_some()),
        );
        self.scheme("spec.redis.external.url", external.url.as_ref(), &["redis://"]);
        if let Some(secret) = secret {
            self.secret_key("spec.redis.external.urlSecretRef", secret);
        }
    }

    fn queues(&mut self, queues: &[QueueSpec]) {
        for mistake in queues::declared(queues).err().into_iter().flatten() {
            let mut path = "spec.queues".to_owned();
            path.extend(mistake.index.map(|index| format!("[{index}]")));
            if !mistake.field.is_empty() {
                path = format!("{path}.{}", mistake.field);
            }
            self.mistake(&path, mistake.message);
        }
        // A call that puts a policy passes over the fields of another kind of retry; the API server does not.
        for (index, retry) in queues.iter().enumerate() {
            let Some(retry) = &retry.retry else { continue };
            let path = |field| format!("spec.queues[{index}].retry.{field}");
            self.within(&path("delayMs"), retry.delay_ms.unwrap_or(0), 0..=DELAY_MAX_MS);
            self.within(&path("maxDelayMs"), retry.max_delay_ms.unwrap_or(0), 0..=DELAY_MAX_MS);
            let Some(delays) = &retry.delays_ms else { continue };
            self.within(&path("delaysMs"), delays.len(), 1..=DELAYS_MAX);
            self.within(&path("delaysMs"), delays.iter().copied().max().unwrap_or(0), 0..=DELAY_MAX_MS);
        }
    }

    fn profiling(&mut self, spec: &TaskQueueSpec) {
        let Profiling { policy_ref, capture, limits, artifacts, suspend: _ } = &spec.profiling;
        let own = capture.is_some() || limits.is_some() || artifacts.is_some();
        if policy_ref.is_some() && own {
            self.mistake("spec.profiling", "must have policyRef or a policy of its own, and not both");
        }
        let policy = policy_ref.as_ref().map(|policy| &policy.name);
        self.text("spec.profiling.policyRef.name", policy, REFERENCE);
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
        let Some(Artifacts { s3, persistent_volume_claim, prefix }) = artifacts else { return };
        let path = format!("{path}.artifacts");
        let claim = persistent_volume_claim.as_ref().map(|claim| &claim.claim_name);
        self.either(&path, ("s3", s3.is_some()), ("persistentVolumeClaim", claim.is_some()));
        if let Some(s3) = s3 {
            self.s3(&format!("{path}.s3"), s3);
        }
        self.text(&format!("{path}.persistentVolumeClaim.claimName"), claim, REFERENCE);
        let path = format!("{path}.prefix");
        self.text(&path, prefix.as_ref(), 1..=200);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part = |part: &str| !part.is_empty() && part.chars().all(plain);
        if let Some(prefix) = prefix.as_ref().filter(|prefix| !prefix.split('/').all(part)) {
            let message =
                format!("must be parts of A-Z, a-z, 0-9, ., _ and -, with / between them, is {prefix}");
            self.mistake(&path, message);
        }
    }

    fn s3(&mut self, path: &str, s3: &S3) {
        self.text(&format!("{path}.bucket"), Some(&s3.bucket), 3..=63);
        self.scheme(&format!("{path}.endpoint"), s3.endpoint.as_ref(), &["http://", "https://"]);
        self.text(&format!("{path}.region"), Some(&s3.region), 1..=64);
        let secret = s3.secret_ref.as_ref().map(|secret| &secret.name);
        self.text(&format!("{path}.secretRef.name"), secret, REFERENCE);
    }
}
