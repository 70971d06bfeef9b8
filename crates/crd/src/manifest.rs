//! The documents of a file, read strictly: what a cluster would drop or refuse is a mistake here, with its path.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::documents::documents;
use crate::names::{name_mistakes, task_queue_name_mistakes};
use crate::validate::{Mistake, capture_mistakes, policy_mistakes, task_queue_spec_mistakes};
use crate::{API_VERSION, ProfileCaptureSpec, ProfilingPolicySpec, TaskQueueSpec};

/// Largest manifest that is read.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;
/// Most documents of a file.
const DOCUMENTS_MAX: usize = 100;
/// What the API server writes itself, and stands in what `kubectl get -o yaml` prints.
const OF_THE_SERVER: [&str; 10] = [
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.finalizers",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.uid",
    "status",
];
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

    fn mistakes(&self) -> Vec<Mistake> {
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

fn too_large(yaml: &str) -> Mistake {
    let message = format!("a manifest has at most {MANIFEST_MAX_BYTES} bytes, this one has {}", yaml.len());
    Mistake::at("", message)
}

/// Reads the documents of a file and checks each. One without content is passed over, as `kubectl` does, unless there is
/// no other.
///
/// # Errors
/// When the file as a whole is too large; a mistake in a document stands at its place.
pub fn parse_all(yaml: &str) -> Result<Vec<Result<Manifest, Vec<Mistake>>>, Mistake> {
    if yaml.len() > MANIFEST_MAX_BYTES {
        return Err(too_large(yaml));
    }
    let documents = documents(yaml);
    if documents.len() > DOCUMENTS_MAX {
        let message =
            format!("a file has at most {DOCUMENTS_MAX} documents, this one has {}", documents.len());
        return Err(Mistake::at("", message));
    }
    if documents.is_empty() {
        return Ok(vec![parse(yaml)]);
    }
    // Lines keep their numbers.
    Ok(documents.into_iter().map(|(line, text)| parse(&("\n".repeat(line) + &text))).collect())
}

/// Reads one document and checks it.
///
/// # Errors
/// Every mistake, in the order of the fields; unknown fields among them. A document that cannot be read at all is one
/// mistake, with its place.
pub fn parse(yaml: &str) -> Result<Manifest, Vec<Mistake>> {
    if yaml.len() > MANIFEST_MAX_BYTES {
        return Err(vec![too_large(yaml)]);
    }
    let documents = documents(yaml).len();
    if documents > 1 {
        return Err(vec![Mistake::at("", format!("must be one document, is {documents}"))]);
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
    let unknown = unknown
        .into_iter()
        .filter(|path| !OF_THE_SERVER.contains(&path.as_str()))
        .map(|path| Mistake::at(&path, "there is no such field".to_owned()));
    let mistakes: Vec<Mistake> = unknown.chain(manifest.mistakes()).collect();
    if mistakes.is_empty() { Ok(manifest) } else { Err(mistakes) }
}

fn unreadable(error: impl fmt::Display) -> Vec<Mistake> {
    vec![Mistake::at("", error.to_string())]
}

/// The document, and the paths of fields that nobody knows.
fn read<T: for<'de> Deserialize<'de>>(
    yaml: &str,
    manifest: impl FnOnce(Metadata, T) -> Manifest,
) -> Result<(Manifest, Vec<String>), Vec<Mistake>> {
    // The mistake is told by the text as it was written, which has lines.
    let read = typed(yaml).or_else(|mistakes| {
        let spared = without_nulls(yaml).ok_or(mistakes.clone())?;
        typed(&spared).map_err(|_| mistakes)
    });
    read.map(|(Document { metadata, spec, .. }, unknown)| (manifest(metadata, spec), unknown))
}

/// The same document without its nulls, which the API server drops before it looks at anything, if it has any.
fn without_nulls(yaml: &str) -> Option<String> {
    let document: Value = serde_saphyr::from_str(yaml).ok()?;
    let mut spared = document.clone();
    drop_nulls(&mut spared);
    (spared != document).then(|| spared.to_string())
}

/// Those of fields, not those of lists.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn typed<T: for<'de> Deserialize<'de>>(yaml: &str) -> Result<(Document<T>, Vec<String>), Vec<Mistake>> {
    let mut unknown = Vec::new();
    // An unquoted `5` or `true` reaches the API server as a number or truth, and it refuses that for a string.
    let options = serde_saphyr::options! { no_schema: true };
    let document = serde_saphyr::with_deserializer_from_str_with_options(yaml, options, |deserializer| {
        serde_ignored::deserialize(deserializer, |path| unknown.push(plain(&path)))
    })
    .map_err(unreadable)?;
    Ok((document, unknown))
}

/// A path as people write it: the library marks each optional field with a `?`.
fn plain(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
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
            ("spec: {}\n---\nspec: {}", "must be one document, is 2"),
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

    #[test]
    fn what_kubectl_prints_of_an_object_is_read() {
        let yaml = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: q, namespace: shop, uid: u, generation: 1, \
            resourceVersion: '5', creationTimestamp: null, ownerReferences: [], managedFields: [{manager: kubectl}], finalizers: []}\n\
            spec: {replicas: 1}\nstatus: {replicas: 1, conditions: []}\n";
        assert_eq!(mistakes(yaml), Vec::<String>::new());
        assert!(mistakes(&yaml.replace("status", "statu"))[0].starts_with("statu: "));
    }

    #[test]
    fn a_fraction_is_told_how_to_be_written() {
        let told = mistakes(&format!("{HEAD}spec: {{resources: {{limits: {{cpu: 0.5}}}}}}\n"));
        assert!(told[0].contains("\"0.5\", or 500m"), "{told:?}");
    }

    #[test]
    fn every_document_of_a_file_is_read_and_its_lines_keep_their_numbers() {
        let file = include_str!("../../../examples/orders-s3.yaml");
        let kinds: Vec<&str> =
            parse_all(file).unwrap().iter().map(|read| read.as_ref().unwrap().kind()).collect();
        assert_eq!(kinds, ["ProfilingPolicy", "TaskQueue"]);

        let file = format!(
            "# first\n---\n{HEAD}spec: {{}}\n--- # empty\n\n---\n{HEAD}spec: {{replicas: many}}\n---\n"
        );
        let read = parse_all(&file).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read[0].is_ok());
        let told = read[1].as_ref().unwrap_err()[0].to_string();
        assert!(told.contains("line 13"), "{told}");
        assert_eq!(parse_all("# nothing").unwrap().len(), 1);
        assert!(parse_all("# nothing").unwrap()[0].is_err());
        assert!(parse_all(&"a\n---\n".repeat(DOCUMENTS_MAX + 1)).is_err());
    }
}
