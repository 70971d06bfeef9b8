use anyhow::{Context, bail};
use brisq_crd::{API_VERSION, DEFINITIONS, TaskQueue};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::{Where, is};

/// What the operator that leads holds.
const LEASE: &str = "brisq-operator";
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
            Ok(text) => brisq_telemetry::say(&format!("ok     {what:<12} {text}")),
            Err(text) => brisq_telemetry::say(&format!("wrong  {what:<12} {text}")),
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
    let missing = |what: &str| Err(format!("{what} not served: helm install brisq-crds charts/brisq-crds"));
    let served = match client.list_api_group_resources(API_VERSION).await {
        Ok(served) => served.resources,
        Err(error) if is_absent(&error) => return missing(API_VERSION),
        Err(error) => return Err(format!("{API_VERSION} cannot be looked at: {}", said(error))),
    };
    let absent: Vec<&str> =
        DEFINITIONS.into_iter().filter(|plural| !served.iter().any(|kind| kind.name == *plural)).collect();
    if !absent.is_empty() {
        return missing(&absent.join(", "));
    }
    Ok(format!("{API_VERSION}: {}", DEFINITIONS.join(", ")))
}

async fn operator(client: &Client, namespace: &str) -> Result<String, String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = match leases.get(LEASE).await {
        Ok(lease) => lease,
        Err(error) if is_absent(&error) => {
            return Err(format!(
                "no Lease {LEASE} in namespace {namespace}: helm install brisq charts/brisq -n {namespace}, or name the \
                 operator's own with --operator-namespace"
            ));
        }
        Err(error) => return Err(format!("its Lease cannot be looked at: {}", said(error))),
    };
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let ago = spec.renew_time.map(|time| jiff::Timestamp::now().duration_since(time.0).as_secs());
    match ago {
        Some(ago) if !holder.is_empty() && ago <= LEASE_MAX_SECONDS => {
            Ok(format!("{holder} leads, {ago} s ago"))
        }
        Some(ago) if !holder.is_empty() => {
            Err(format!("nobody leads, {holder} did {ago} s ago: kubectl -n {namespace} get pods"))
        }
        _ => Err(format!("nobody leads: kubectl -n {namespace} get pods")),
    }
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What the API server said, or why nothing came from it.
fn said(error: kube::Error) -> String {
    super::plain(&error.into()).to_string()
}

async fn queues(queues: &Api<TaskQueue>) -> Result<String, String> {
    let found = match queues.list(&ListParams::default()).await {
        Ok(found) => found.items,
        // Whoever may not look has nothing to fear from what is there.
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok("not allowed to look".to_owned()),
        // Without its definition, which is told above.
        Err(error) if is_absent(&error) => return Ok("none can be there".to_owned()),
        Err(error) => return Err(format!("they cannot be looked at: {}", said(error))),
    };
    let ready = |queue: &&TaskQueue| {
        let conditions = queue.status.as_ref().map(|status| status.conditions.as_slice());
        is(conditions.unwrap_or_default(), "Ready") == "True"
    };
    let not: Vec<String> = found.iter().filter(|queue| !ready(queue)).map(ResourceExt::name_any).collect();
    if !not.is_empty() {
        return Err(format!("not ready: {}: brisq status", not.join(", ")));
    }
    Ok(match found.len() {
        0 => "none in this namespace".to_owned(),
        count => format!("{count} in this namespace, all ready"),
    })
}
