//! Who of several operators works: the holder of a Lease. Judged by how long the record was seen unchanged, by the local
//! clock alone, so that skewed wall clocks never make two leaders.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;

use crate::health::Health;
use crate::secrets::is_conflict;

const NAME: &str = "brisq-operator";
/// A record that does not change for so long is nobody's any more.
const LEASE: Duration = Duration::from_secs(15);
/// The holder renews this often.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// A holder that could not renew for so long stops its work: well before anybody else begins.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Others look this often: a takeover takes [`LEASE`] and this at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody holds the Lease.
    Take,
    Hold,
    Wait,
}

/// What was seen of the record, and since when it looks so.
#[derive(Clone, Debug)]
struct Seen {
    holder: String,
    version: String,
    since: Instant,
}

/// Counts from when a request was sent: the API server may have taken it at once, and others count from then.
async fn hold(taken: Instant, mut renew: impl AsyncFnMut() -> kube::Result<bool>) -> anyhow::Error {
    let mut since = taken;
    loop {
        let renewed = tokio::time::timeout_at(since + GIVE_UP, async {
            tokio::time::sleep(RENEW_EVERY).await;
            loop {
                let sent = Instant::now();
                match tokio::time::timeout(RENEW_EVERY, renew()).await {
                    Ok(Ok(true)) => return Some(sent),
                    Ok(Ok(false)) => return None,
                    Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                    Err(_) => tracing::warn!("the Lease could not be renewed in time"),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        match renewed.await {
            Ok(Some(sent)) => since = sent,
            Ok(None) => return anyhow::anyhow!("another operator holds the Lease"),
            Err(_) => return anyhow::anyhow!("the Lease could not be renewed for {GIVE_UP:?}"),
        }
    }
}

fn evaluate(seen: Option<&Seen>, me: &str, now: Instant) -> Step {
    match seen {
        None => Step::Take,
        Some(seen) if seen.holder.is_empty() => Step::Take,
        Some(seen) if seen.holder == me => Step::Hold,
        Some(seen) if now.duration_since(seen.since) >= LEASE => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// A Lease that this process may come to hold.
pub struct Leadership {
    leases: Api<Lease>,
    me: String,
    health: Health,
}

impl Leadership {
    pub fn new(leases: Api<Lease>, me: String, health: Health) -> Self {
        Self { leases, me, health }
    }

    /// Returns once the Lease is ours, with the time since which it is.
    pub async fn acquire(&self) -> Instant {
        let mut seen: Option<Seen> = None;
        loop {
            self.health.progressed();
            let sent = Instant::now();
            let tried = tokio::time::timeout(RENEW_EVERY, self.try_acquire(&mut seen)).await;
            match tried.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {RENEW_EVERY:?}"))) {
                Ok(true) => return sent,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the Lease cannot be read or taken");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> anyhow::Result<bool> {
        let found = self.leases.get_opt(NAME).await.context("reading")?;
        let now = Instant::now();
        *seen = found.as_ref().map(|lease| look(lease, seen.take(), now));
        if evaluate(seen.as_ref(), &self.me, now) == Step::Wait {
            return Ok(false);
        }
        let result = match found {
            Some(lease) => {
                self.leases.replace(NAME, &PostParams::default(), &self.record(Some(&lease))).await
            }
            None => self.leases.create(&PostParams::default(), &self.record(None)).await,
        };
        match result {
            Ok(_) => Ok(true),
            // Somebody was faster.
            Err(kube::Error::Api(error)) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error).context("taking"),
        }
    }

    /// Renews until that fails for too long or the Lease is somebody else's, and says which. `taken` is when the request
    /// was sent that took it.
    pub async fn keep(&self, taken: Instant) -> anyhow::Error {
        hold(taken, || self.renew()).await
    }

    async fn renew(&self) -> kube::Result<bool> {
        let lease = self.leases.get(NAME).await?;
        if holder(&lease) != self.me {
            return Ok(false);
        }
        match self.leases.replace(NAME, &PostParams::default(), &self.record(Some(&lease))).await {
            Err(kube::Error::Api(error)) if is_conflict(&error) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Lets the next one begin at once.
    pub async fn release(&self) {
        let released = async {
            let mut lease = self.leases.get(NAME).await?;
            if holder(&lease) == self.me {
                lease.spec.get_or_insert_default().holder_identity = Some(String::new());
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(LOOK_EVERY, released).await {
            tracing::warn!(%error, "the Lease could not be given back; it runs out by itself");
        }
    }

    fn record(&self, before: Option<&Lease>) -> Lease {
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.me);
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: before.map_or_else(
                || ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: Some(LEASE.as_secs() as i32),
                acquire_time: if ours { spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!ours)),
                ..spec
            }),
        }
    }
}

fn holder(lease: &Lease) -> String {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
}

/// The record as it is now; its age goes on only while nothing about it changes.
fn look(lease: &Lease, before: Option<Seen>, now: Instant) -> Seen {
    let (holder, version) = (holder(lease), lease.metadata.resource_version.clone().unwrap_or_default());
    let since = before.filter(|seen| seen.version == version).map_or(now, |seen| seen.since);
    Seen { holder, version, since }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, since: Instant) -> Seen {
        Seen { holder: holder.to_owned(), version: "1".to_owned(), since }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_holds_it_or_its_record_stands_still() {
        let start = Instant::now();
        let later = start + LEASE;
        assert_eq!(evaluate(None, "a", start), Step::Take);
        assert_eq!(evaluate(Some(&seen("", start)), "a", start), Step::Take);
        assert_eq!(evaluate(Some(&seen("a", start)), "a", later), Step::Hold);
        assert_eq!(evaluate(Some(&seen("b", start)), "a", later - Duration::from_millis(1)), Step::Wait);
        assert_eq!(evaluate(Some(&seen("b", start)), "a", later), Step::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_cannot_renew_stops_well_before_anybody_else_begins() {
        let taken = Instant::now();
        hold(taken, async || std::future::pending().await).await;
        assert_eq!(taken.elapsed(), GIVE_UP);

        // What was renewed counts from its request, however late its answer came.
        let (taken, mut renewals) = (Instant::now(), 0);
        let slowly_once = async || {
            renewals += 1;
            if renewals > 1 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RENEW_EVERY - LOOK_EVERY).await;
            Ok(true)
        };
        hold(taken, slowly_once).await;
        assert_eq!(taken.elapsed(), RENEW_EVERY + GIVE_UP);
        assert!(GIVE_UP + LOOK_EVERY < LEASE);
    }

    #[test]
    fn a_change_of_the_record_starts_its_age_anew() {
        let start = Instant::now();
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some("1".into());
        let first = look(&lease, None, start);
        let same = look(&lease, Some(first), start + LEASE);
        assert_eq!(same.since, start);
        lease.metadata.resource_version = Some("2".into());
        assert_eq!(look(&lease, Some(same), start + LEASE).since, start + LEASE);
    }
}
