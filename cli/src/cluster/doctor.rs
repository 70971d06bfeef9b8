use anyhow::{Context, bail};
use brisq_crd::TaskQueue;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::{Where, is};

const GROUP_VERSION: &str = "brisq.dev/v1alpha1";
/// Kinds that must be served.
const PLURALS: [&str; 3] = ["taskqueues", "profilingpolicies", "profilecaptures"];
/// A leader renews every 4 s; after this long there is none.
const LEASE_MAX_SECONDS: i64 = 20;
/// Lowest minor version of Kubernetes 1.
const MINOR_MIN: u32 = 30;

#[derive(clap::Args)]
pub struct Flags {
    /// Namespace of the operator
    #[arg(long, value_name = "NAME", default_value = "brisq-system")]
    operator_namespace: String,
    #[command(flatten)]
    at: Where,
}

/// What was found, and what to do about it.
struct Finding {
    what: &'static str,
    found: Result<String, String>,
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let client = &cluster.client;
    let version = client.apiserver_version().await.context("the API server cannot be reached")?;
    let findings = [
        Finding { what: "kubernetes", found: check_version(&version.minor, &version.git_version) },
        Finding { what: "resources", found: resources(client).await },
        Finding { what: "operator", found: operator(client, &flags.operator_namespace).await },
        Finding { what: "task queues", found: queues(&cluster.api()).await },
    ];
    for Finding { what, found } in &findings {
        match found {
            Ok(text) => println!("ok     {what:<12} {text}"),
            Err(text) => println!("wrong  {what:<12} {text}"),
        }
    }
    let wrong = findings.iter().filter(|finding| finding.found.is_err()).count();
    if wrong > 0 {
        bail!("{wrong} of {} checks failed", findings.len());
    }
    Ok(())
}

fn check_version(minor: &str, whole: &str) -> Result<String, String> {
    let number: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
    if number >= MINOR_MIN {
        Ok(whole.to_owned())
    } else {
        Err(format!("{whole}: 1.{MINOR_MIN} or later is needed: pods sleep before they stop"))
    }
}

async fn resources(client: &Client) -> Result<String, String> {
    let missing = |what: &str| format!("{what} not served: helm install brisq-crds charts/brisq-crds");
    let served = client.list_api_group_resources(GROUP_VERSION).await;
    let served = served.map_err(|_| missing(GROUP_VERSION))?;
    let absent: Vec<&str> =
        PLURALS.into_iter().filter(|plural| !served.resources.iter().any(|r| r.name == *plural)).collect();
    if absent.is_empty() {
        Ok(format!("{GROUP_VERSION}: {}", PLURALS.join(", ")))
    } else {
        Err(missing(&absent.join(", ")))
    }
}

async fn operator(client: &Client, namespace: &str) -> Result<String, String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get("brisq-operator").await.map_err(|error| {
        format!("no Lease in namespace {namespace} ({error}): helm install brisq charts/brisq -n {namespace}")
    })?;
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let renewed =
        spec.renew_time.map_or(i64::MAX, |time| jiff::Timestamp::now().duration_since(time.0).as_secs());
    if holder.is_empty() || renewed > LEASE_MAX_SECONDS {
        return Err(format!("nobody leads: kubectl -n {namespace} get pods"));
    }
    Ok(format!("{holder} leads, {renewed} s ago"))
}

async fn queues(queues: &Api<TaskQueue>) -> Result<String, String> {
    let found = match queues.list(&ListParams::default()).await {
        Ok(found) => found.items,
        // Whoever may not look has nothing to fear from what is there.
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok("not allowed to look".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let ready = |queue: &&TaskQueue| {
        let conditions = queue.status.as_ref().map(|status| status.conditions.as_slice());
        is(conditions.unwrap_or_default(), "Ready") == "True"
    };
    let not: Vec<String> = found.iter().filter(|queue| !ready(queue)).map(ResourceExt::name_any).collect();
    if not.is_empty() {
        return Ok(format!("{} in this namespace, all ready", found.len()));
    }
    Err(format!("not ready: {}: brisq status", not.join(", ")))
}
