//! Documents, read strictly: what a cluster would drop or refuse is a mistake here, with its path and line.

use brisq_yaml::Echo;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::manifest::{Manifest, Metadata};
use crate::validate::Mistake;
use crate::{API_VERSION, documents};

/// Largest manifest that is read.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;
/// Most documents of a file.
const DOCUMENTS_MAX: usize = 100;
/// Our kinds.
const KINDS: [&str; 3] = ["TaskQueue", "ProfilingPolicy", "ProfileCapture"];
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

/// A document of a file.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a file holds few: a box would only be in the way of who matches"
)]
pub enum Document {
    /// A manifest of one of our kinds.
    Ours(Manifest),
    /// Something else that a cluster takes, by kind and name.
    Foreign(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed<T> {
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
        return Err(vec![too_large(yaml)]);
    }
    let mut documents = documents::split(yaml);
    let text = match documents.len() {
        0 => yaml.to_owned(),
        1 => documents.remove(0),
        n => return Err(vec![Mistake::at("", format!("must be one document, is {n}"))]),
    };
    match document(&text)? {
        Document::Ours(manifest) => Ok(manifest),
        Document::Foreign(_) => {
            Err(vec![Mistake::at("apiVersion", format!("must be {API_VERSION}, is another"))])
        }
    }
}

/// Reads the documents of a file and checks each. One without content is passed over, as `kubectl` does, unless there is
/// no other.
///
/// # Errors
/// When the file as a whole is too large; a mistake in a document stands at its place.
pub fn parse_all(yaml: &str) -> Result<Vec<Result<Document, Vec<Mistake>>>, Mistake> {
    if yaml.len() > MANIFEST_MAX_BYTES {
        return Err(too_large(yaml));
    }
    let documents = documents::split(yaml);
    if documents.len() > DOCUMENTS_MAX {
        let message =
            format!("a file has at most {DOCUMENTS_MAX} documents, this one has {}", documents.len());
        return Err(Mistake::at("", message));
    }
    if documents.is_empty() {
        return Ok(vec![document(yaml)]);
    }
    Ok(documents.iter().map(|text| document(text)).collect())
}

fn too_large(yaml: &str) -> Mistake {
    let message = format!("a manifest has at most {MANIFEST_MAX_BYTES} bytes, this one has {}", yaml.len());
    Mistake::at("", message)
}

fn document(text: &str) -> Result<Document, Vec<Mistake>> {
    let document = brisq_yaml::Document::parse(text).map_err(|mistake| vec![of_yaml(mistake)])?;
    let (version, kind) = (document.text_of("apiVersion"), document.text_of("kind"));
    let (group, _) = API_VERSION.split_once('/').unwrap_or((API_VERSION, ""));
    if let (Some(version), Some(kind)) = (version, kind)
        && !KINDS.contains(&kind)
        && version.split('/').next() != Some(group)
    {
        let name = document.text_within("metadata", "name").unwrap_or("without a name");
        return Ok(Document::Foreign(format!("{kind} {name}")));
    }
    if version != Some(API_VERSION) {
        let is = version.unwrap_or("missing");
        return Err(vec![Mistake::at("apiVersion", format!("must be {API_VERSION}, is {is}"))]);
    }
    let manifest = match kind {
        Some("TaskQueue") => read(&document, |metadata, spec| Manifest::TaskQueue { metadata, spec }),
        Some("ProfilingPolicy") => {
            read(&document, |metadata, spec| Manifest::ProfilingPolicy { metadata, spec })
        }
        Some("ProfileCapture") => {
            read(&document, |metadata, spec| Manifest::ProfileCapture { metadata, spec })
        }
        other => {
            let is = other.unwrap_or("missing");
            Err(vec![Mistake::at("kind", format!("must be one of {}, is {is}", KINDS.join(", ")))])
        }
    };
    manifest.map(Document::Ours)
}

fn read<T: DeserializeOwned>(
    document: &brisq_yaml::Document,
    manifest: impl FnOnce(Metadata, T) -> Manifest,
) -> Result<Manifest, Vec<Mistake>> {
    let read = document.read::<Typed<T>>(Echo::Values);
    let (Typed { metadata, spec, .. }, unknown) = read.map_err(|mistake| vec![of_yaml(mistake)])?;
    let manifest = manifest(metadata, spec);
    let unknown = unknown.into_iter().filter(|mistake| !OF_THE_SERVER.contains(&mistake.path.as_str()));
    let mistakes: Vec<Mistake> = unknown.map(of_yaml).chain(manifest.mistakes()).collect();
    if mistakes.is_empty() { Ok(manifest) } else { Err(mistakes) }
}

fn of_yaml(mistake: brisq_yaml::Mistake) -> Mistake {
    let brisq_yaml::Mistake { path, message, line } = mistake;
    let line = line.map_or(String::new(), |line| format!(" (line {line})"));
    Mistake { path, message: message + &line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskQueueSpec;

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
            (
                "spec: {slo: {claimLatency: {thresholdMs: \"5\"}}}",
                "thresholdMs: must be a whole number, is the text \"5\"",
            ),
            ("spec: {replicas: '2'}", "spec.replicas: must be a whole number, is the text \"2\" (line 4)"),
            ("spec: {profiling: {suspend: 'true'}}", "suspend: must be true or false"),
            (
                "spec: {slo: {claimLatency: {thresholdMs: 5, percentile: '99'}}}",
                "percentile: must be a number",
            ),
            ("spec: []", "spec: must be a mapping, is a list"),
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
        let kinds = |file: &str| -> Vec<String> {
            let told = |read: Result<Document, Vec<Mistake>>| match read {
                Ok(Document::Ours(manifest)) => manifest.kind().to_owned(),
                Ok(Document::Foreign(what)) => format!("skipped {what}"),
                Err(mistakes) => mistakes[0].to_string(),
            };
            parse_all(file).unwrap().into_iter().map(told).collect()
        };
        let file = include_str!("../../../examples/orders-s3.yaml");
        assert_eq!(kinds(file), ["ProfilingPolicy", "TaskQueue"]);
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n";
        let file = format!(
            "# first\n---\n{HEAD}spec: {{}}\n--- # empty\n\n---\n{HEAD}spec: {{replicas: many}}\n---\n{secret}---\n"
        );
        let read = kinds(&file);
        assert_eq!(read.len(), 3);
        assert_eq!(read[0], "TaskQueue");
        assert!(read[1].contains("spec.replicas") && read[1].contains("line 13"), "{read:?}");
        assert_eq!(read[2], "skipped Secret s");
        // What is meant to be ours is never skipped for a misspelt group or version.
        for head in [
            "apiVersion: brisq.dev/v1\nkind: TaskQueue",
            "apiVersion: brisk.dev/v1alpha1\nkind: TaskQueue",
            "kind: Pod",
        ] {
            assert!(parse_all(head).unwrap()[0].is_err(), "{head}");
        }
        assert_eq!(parse_all("# nothing").unwrap().len(), 1);
        assert!(parse_all("# nothing").unwrap()[0].is_err());
        assert!(parse_all(&"a\n---\n".repeat(DOCUMENTS_MAX + 1)).is_err());
    }

    #[test]
    fn one_document_may_end_with_the_mark_of_another() {
        for yaml in [format!("{HEAD}spec: {{}}\n---\n"), format!("---\n{HEAD}spec: {{}}\n--- # none\n")] {
            assert_eq!(mistakes(&yaml), Vec::<String>::new(), "{yaml}");
        }
    }

    #[test]
    fn what_is_left_out_is_what_the_default_says() {
        let Manifest::TaskQueue { spec, .. } = parse(&format!("{HEAD}spec: {{}}\n")).unwrap() else {
            panic!("a TaskQueue");
        };
        assert_eq!(*spec, TaskQueueSpec::default());
        assert_eq!(spec.ignored_on_a_laptop(), Vec::<&str>::new());
    }
}
