use anyhow::Context;
use brisq_crd::TaskQueue;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{Where, age, is};
use crate::table;

#[derive(clap::Args)]
pub struct Flags {
    /// TaskQueue; all of the namespace by default
    name: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let api = cluster.api::<TaskQueue>();
    let queues = match &flags.name {
        Some(name) => vec![api.get(name).await.with_context(|| format!("TaskQueue {name}"))?],
        None => api.list(&ListParams::default()).await.context("TaskQueues")?.items,
    };
    if queues.is_empty() {
        brisq_telemetry::say(&format!(
            "no TaskQueue in namespace {}; `kubectl apply -f FILE` makes one",
            cluster.namespace
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = queues.iter().map(row).collect();
    table::print(&["NAME", "READY", "REPLICAS", "OBJECTIVE", "SLO", "EPISODE", "LAST CAPTURE", "AGE"], &rows);
    for queue in &queues {
        let conditions = queue.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let wrong = |kind: &str, status: &str| is(conditions, kind) == status;
        for condition in conditions {
            let bad =
                ["Stalled", "Degraded"].contains(&condition.type_.as_str()) && condition.status == "True";
            let late = condition.type_ == "Ready" && wrong("Ready", "False");
            if bad || late {
                let (name, kind) = (queue.name_any(), &condition.type_);
                brisq_telemetry::say(&format!(
                    "{name}: {kind}={}: {}: {}",
                    condition.status, condition.reason, condition.message
                ));
            }
        }
    }
    Ok(())
}

fn row(queue: &TaskQueue) -> Vec<String> {
    let status = queue.status.clone().unwrap_or_default();
    let profiling = status.profiling.unwrap_or_default();
    let episode = match profiling.episode {
        0 => "none".to_owned(),
        number => format!("{number} {:?}", profiling.phase),
    };
    vec![
        queue.name_any(),
        is(&status.conditions, "Ready"),
        queue.spec.replicas.to_string(),
        status.objective.unwrap_or_else(|| "none".to_owned()),
        status.slo.map_or_else(|| "Unknown".to_owned(), |slo| format!("{slo:?}")),
        episode,
        profiling.last_capture.map(|capture| capture.name).unwrap_or_default(),
        age(queue.metadata.creation_timestamp.as_ref()),
    ]
}
