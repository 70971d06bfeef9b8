use anyhow::Context;
use brisq_crd::ProfileCapture;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Where, age, is};
use crate::table;

#[derive(clap::Args)]
pub struct Flags {
    /// Of this TaskQueue; all of the namespace by default
    queue: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let mut captures =
        cluster.api::<ProfileCapture>().list(&ListParams::default()).await.context("ProfileCaptures")?.items;
    captures
        .retain(|capture| flags.queue.as_ref().is_none_or(|name| capture.spec.task_queue_ref.name == *name));
    captures.sort_by_key(|capture| capture.metadata.creation_timestamp.as_ref().map(|time| time.0));
    if captures.is_empty() {
        let (of, queue) = match &flags.queue {
            Some(name) => (format!(" of {name}"), name.as_str()),
            None => (String::new(), "QUEUE"),
        };
        brisq_telemetry::say(&format!(
            "no captures{of} in namespace {}; `brisq capture {queue}` makes one",
            cluster.namespace
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = captures.iter().map(row).collect();
    table::print(&["NAME", "QUEUE", "REASON", "CAUSE", "P99", "COMPLETE", "AGE"], &rows);
    Ok(())
}

fn row(capture: &ProfileCapture) -> Vec<String> {
    let status = capture.status.clone().unwrap_or_default();
    vec![
        capture.name_any(),
        capture.spec.task_queue_ref.name.clone(),
        capture.spec.reason.name().to_owned(),
        status.cause.unwrap_or_default(),
        status.observed.and_then(|observed| observed.p99).unwrap_or_default(),
        is(&status.conditions, "Complete"),
        age(capture.metadata.creation_timestamp.as_ref()),
    ]
}
