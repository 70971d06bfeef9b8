use std::time::Duration;

use anyhow::{Context, bail};
use brisq_crd::{CaptureReason, ProfileCapture, ProfileCaptureSpec, TaskQueue, TaskQueueRef};
use kube::ResourceExt;
use kube::api::PostParams;

use super::{Where, is, say_partial};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a capture.
const WAIT_MAX: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub struct Flags {
    /// TaskQueue to capture
    queue: String,
    /// Pods to capture, the one that writes the bundle first; by default the operator chooses
    #[arg(long = "pod", value_name = "NAME")]
    pods: Vec<String>,
    /// Return once it is ordered
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    at: Where,
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let queue = &flags.queue;
    cluster.api::<TaskQueue>().get(queue).await.with_context(|| format!("TaskQueue {queue}"))?;
    let spec = ProfileCaptureSpec {
        task_queue_ref: TaskQueueRef { name: queue.clone() },
        reason: CaptureReason::Manual,
        window: None,
        pods: flags.pods,
    };
    let mut capture = ProfileCapture::new("", spec);
    capture.metadata.name = None;
    capture.metadata.generate_name = Some(format!("{queue}-manual-"));
    let api = cluster.api::<ProfileCapture>();
    let made = api.create(&PostParams::default(), &capture).await.context("the capture cannot be ordered")?;
    let name = made.name_any();
    brisq_telemetry::say(&format!("ordered    {name}"));
    if flags.no_wait {
        return Ok(());
    }
    let began = std::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = api.get(&name).await?.status.unwrap_or_default();
        let state = |kind| is(&status.conditions, kind) == "True";
        if state("Complete") {
            brisq_telemetry::say(&format!("cause      {}", status.cause.as_deref().unwrap_or("Unknown")));
            say_partial(&status.conditions);
            brisq_telemetry::say(&format!("bundle     {}", status.uri.as_deref().unwrap_or_default()));
            brisq_telemetry::say(&format!("           brisq open {name}"));
            return Ok(());
        }
        if let Some(condition) = status
            .conditions
            .iter()
            .find(|c| ["Failed", "Suppressed"].contains(&c.type_.as_str()) && c.status == "True")
        {
            bail!("{name}: {}: {}", condition.reason, condition.message);
        }
        if began.elapsed() > WAIT_MAX {
            bail!("{name} is not complete after {} s: kubectl describe pcap {name}", WAIT_MAX.as_secs());
        }
    }
}
