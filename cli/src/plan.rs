//! What a manifest asks of a laptop.

use brisq_crd::{Document, Manifest, Metadata, TaskQueueSpec};
use brisq_settings::Files;
use brisq_slo::Objective;

use crate::Failed;
use crate::validate::{self, Placed, named};

/// Objective without a manifest: P99 of claim latency, ms. An outer limit that a laptop's disk can keep.
pub const THRESHOLD_DEFAULT_MS: u64 = 100;

/// A TaskQueue as this process runs it.
pub struct Plan {
    pub name: String,
    pub spec: TaskQueueSpec,
    pub objective: Option<Objective>,
    /// Documents and fields that have no effect here.
    pub ignored: Vec<String>,
}

impl Plan {
    /// Without a manifest. The demo arms an objective of its own, once it knows what calm is here.
    pub fn without_manifest(demo: bool) -> anyhow::Result<Self> {
        let objective =
            (!demo).then(|| Objective::new(99.0, THRESHOLD_DEFAULT_MS * 1_000, 60, 200)).transpose()?;
        let name = if demo { "demo" } else { "local" }.to_owned();
        Ok(Self { name, spec: TaskQueueSpec::default(), objective, ignored: Vec::new() })
    }

    /// From the one TaskQueue of a file, which can be followed then; `-` is standard input.
    pub fn of_file(file: &str, demo: bool, files: &mut Files) -> Result<Self, Failed> {
        let text = match file {
            "-" => validate::read(file).map_err(|error| format!("{error:#}")),
            file => files.read(file).map_err(|why| format!("{file} {why}")),
        };
        let text = text.map_err(Failed::usage)?;
        let (mut queues, mut ignored, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        for Placed { place, document } in validate::documents(file, &text) {
            match document {
                Ok(Document::Ours(Manifest::TaskQueue { metadata, spec })) => queues.push((metadata, spec)),
                Ok(Document::Ours(other)) => ignored.push(named(&other)),
                Ok(Document::Foreign(what)) => ignored.push(what),
                Err(found) => mistakes.extend(found.iter().map(|mistake| format!("{place}: {mistake}"))),
            }
        }
        if !mistakes.is_empty() {
            return Err(Failed::Usage(mistakes));
        }
        let count = queues.len();
        match (queues.pop(), count) {
            (Some((metadata, spec)), 1) => Self::of(file, metadata, *spec, demo, ignored),
            (None, _) => Err(Failed::usage(format!("{file}: has no TaskQueue, and `up` runs one"))),
            (Some(_), n) => Err(Failed::usage(format!("{file}: has {n} TaskQueues, and `up` runs one"))),
        }
    }

    fn of(
        file: &str,
        metadata: Metadata,
        spec: TaskQueueSpec,
        demo: bool,
        mut ignored: Vec<String>,
    ) -> Result<Self, Failed> {
        if metadata.name.is_empty() {
            return Err(Failed::usage(format!(
                "{file}: metadata.name: must be there; `up` makes no name up"
            )));
        }
        // The demo arms an objective of its own.
        let latency = spec.slo.claim_latency.as_ref().filter(|_| !demo && !spec.profiling.suspend);
        let objective = latency
            .map(|l| Objective::new(l.percentile, l.threshold_ms * 1_000, l.window_seconds, l.min_samples))
            .transpose()?;
        ignored.extend(spec.ignored_on_a_laptop().into_iter().map(str::to_owned));
        Ok(Self { name: metadata.name, spec, objective, ignored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.yaml");
        std::fs::write(&file, text).unwrap();
        Plan::of_file(file.to_str().unwrap(), false, &mut Files::default()).map_err(|failed| match failed {
            Failed::Usage(mistakes) => mistakes.join("\n"),
            Failed::Work(error) => error.to_string(),
        })
    }

    #[test]
    fn a_file_for_a_cluster_runs_on_a_laptop_which_says_what_it_leaves_out() {
        let head = "apiVersion: brisq.dev/v1alpha1\nmetadata: {name: orders}\nkind:";
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
        let whole = format!(
            "{secret}---\n{head} ProfilingPolicy\nspec: {{}}\n---\n{head} TaskQueue\nspec: {{replicas: 2}}\n---\n"
        );
        let planned = plan(&whole).unwrap();
        assert_eq!(planned.name, "orders");
        assert_eq!(planned.ignored, ["Secret s", "ProfilingPolicy orders", "spec.replicas"]);
        for (text, part) in [
            (secret.to_owned(), "has no TaskQueue"),
            (
                format!("{head} TaskQueue\nspec: {{}}\n---\n{head} TaskQueue\nspec: {{}}\n"),
                "has 2 TaskQueues",
            ),
            (format!("{head} TaskQueue\nspec: {{replicas: '2'}}\n"), "must be a whole number"),
            (format!("{secret}---\n{head} TaskQueue\nspec: {{replica: 2}}\n"), "document 2: spec.replica"),
        ] {
            assert!(plan(&text).is_err_and(|told| told.contains(part)), "{text}");
        }
        assert!(Plan::without_manifest(false).unwrap().ignored.is_empty());
    }
}
