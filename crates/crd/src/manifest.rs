//! Manifests of our kinds, and what is wrong with one.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::names::{name_mistakes, task_queue_name_mistakes};
use crate::validate::{Mistake, capture_mistakes, policy_mistakes, task_queue_spec_mistakes};
use crate::{ProfileCaptureSpec, ProfilingPolicySpec, TaskQueueSpec};

/// What the API server puts behind a `generateName`, after it has cut that.
const GENERATED: (usize, &str) = (58, "aaaaa");

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

    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let (path, name) = self.metadata().name_to_be();
        let (mut mistakes, of_spec) = match self {
            Self::TaskQueue { spec, .. } => {
                (task_queue_name_mistakes(path, &name), task_queue_spec_mistakes(spec))
            }
            Self::ProfilingPolicy { spec, .. } => (name_mistakes(path, &name), policy_mistakes(spec)),
            Self::ProfileCapture { spec, .. } => (name_mistakes(path, &name), capture_mistakes(spec)),
        };
        mistakes.extend(of_spec);
        mistakes
    }
}

/// Name and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name; empty where the API server is to make one up.
    #[serde(default)]
    pub name: String,
    /// How a name that is made up begins.
    pub generate_name: Option<String>,
    /// Namespace; without effect on a laptop.
    pub namespace: Option<String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl fmt::Display for Metadata {
    /// Its name, or `BEGIN...` where that is made up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.generate_name {
            Some(begin) if self.name.is_empty() => write!(f, "{begin}..."),
            _ => f.write_str(&self.name),
        }
    }
}

impl Metadata {
    /// The name that it will have, or one like it, and the field that it comes from.
    fn name_to_be(&self) -> (&'static str, String) {
        match &self.generate_name {
            Some(begin) if self.name.is_empty() => {
                let (kept, end) = GENERATED;
                ("metadata.generateName", begin.chars().take(kept).chain(end.chars()).collect())
            }
            _ => ("metadata.name", self.name.clone()),
        }
    }
}
