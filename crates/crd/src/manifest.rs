//! One document, read strictly: what a cluster would drop or refuse is a mistake here, with its path.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::validate::{Mistake, name_mistakes, policy_mistakes, task_queue_mistakes};
use crate::{API_VERSION, ProfileCaptureSpec, ProfilingPolicySpec, TaskQueueSpec};

/// Largest manifest that is read.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;

/// A document, by its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// A queue service.
    TaskQueue {
        /// Its name.
        metadata: Metadata,
        /// What it is to be.
        spec: Box<TaskQueueSpec>,
    },
    /// How breaches are captured.
    ProfilingPolicy {
        /// Its name.
        metadata: Metadata,
        /// What it is to be.
        spec: ProfilingPolicySpec,
    },
    /// A capture that is asked for.
    ProfileCapture {
        /// Its name.
        metadata: Metadata,
        /// What it is to be.
        spec: ProfileCaptureSpec,
    },
}

impl Manifest {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TaskQueue { .. } => "TaskQueue",
            Self::ProfilingPolicy { .. } => "ProfilingPolicy",
            Self::ProfileCapture { .. } => "ProfileCapture",
        }
    }

    /// Its name and labels.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        match self {
            Self::TaskQueue { metadata, .. }
            | Self::ProfilingPolicy { metadata, .. }
            | Self::ProfileCapture { metadata, .. } => metadata,
        }
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = name_mistakes(&self.metadata().name);
        mistakes.extend(match self {
            Self::TaskQueue { spec, .. } => task_queue_mistakes(spec),
            Self::ProfilingPolicy { spec, .. } => policy_mistakes(spec),
            Self::ProfileCapture { .. } => Vec::new(),
        });
        mistakes
    }
}

/// Name and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name, at most 40 characters.
    #[serde(default)]
    pub name: String,
    /// Namespace; without effect on a laptop.
    pub namespace: Option<String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
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
/// Every mistake, in the order of the fields; unknown fields among them. A document that cannot be read at all is one
/// mistake, with its place.
pub fn parse(yaml: &str) -> Result<Manifest, Vec<Mistake>> {
    if yaml.len() > MANIFEST_MAX_BYTES {
        let message =
            format!("a manifest has at most {MANIFEST_MAX_BYTES} bytes, this one has {}", yaml.len());
        return Err(vec![Mistake::at("", message)]);
    }
    let head: Head = serde_saphyr::from_str(yaml).map_err(unreadable)?;
    if head.api_version.as_deref() != Some(API_VERSION) {
        let is = head.api_version.unwrap_or_else(|| "missing".to_owned());
        return Err(vec![Mistake::at("apiVersion", format!("must be {API_VERSION}, is {is}"))]);
    }
    let (manifest, unknown) = match head.kind.as_deref() {
        Some("TaskQueue") => read(yaml, |metadata, spec| Manifest::TaskQueue { metadata, spec })?,
        Some("ProfilingPolicy") => read(yaml, |metadata, spec| Manifest::ProfilingPolicy { metadata, spec })?,
        Some("ProfileCapture") => read(yaml, |metadata, spec| Manifest::ProfileCapture { metadata, spec })?,
        other => {
            let is = other.unwrap_or("missing");
            let message = format!("must be TaskQueue, ProfilingPolicy or ProfileCapture, is {is}");
            return Err(vec![Mistake::at("kind", message)]);
        }
    };
    let unknown = unknown.into_iter().map(|path| Mistake::at(&path, "there is no such field".to_owned()));
    let mistakes: Vec<Mistake> = unknown.chain(manifest.mistakes()).collect();
    if mistakes.is_empty() { Ok(manifest) } else { Err(mistakes) }
}

fn unreadable(error: impl std::fmt::Display) -> Vec<Mistake> {
    vec![Mistake::at("", error.to_string())]
}

/// The document, and the paths of fields that nobody knows.
fn read<T: for<'de> Deserialize<'de>>(
    yaml: &str,
    manifest: impl FnOnce(Metadata, T) -> Manifest,
) -> Result<(Manifest, Vec<String>), Vec<Mistake>> {
    let mut unknown = Vec::new();
    let Document { metadata, spec, .. } = serde_saphyr::with_deserializer_from_str(yaml, |deserializer| {
        serde_ignored::deserialize(deserializer, |path| unknown.push(plain(&path)))
    })
    .map_err(unreadable)?;
    Ok((manifest(metadata, spec), unknown))
}

/// A path as people write it: the library marks each optional field with a `?`.
fn plain(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}
