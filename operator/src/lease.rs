//! Leader election: the I/O around [`ortolan_core::lease::evaluate`].

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use ortolan_core::lease::{Memory, Terms, Verdict, evaluate};
use tokio::{sync::watch, time};

use crate::{gate::Tenure, outage::Outage};

/// A candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    terms: Terms,
    leads: watch::Sender<Tenure>,
    outage: Outage,
    last: Option<Lease>,
    changed: Instant,
    renewed: Instant,
}

impl Candidate {
    /// `me` has to differ between replicas and between restarts of one.
    pub fn new(
        api: Api<Lease>,
        name: String,
        me: String,
        leads: watch::Sender<Tenure>,
        outage: Outage,
    ) -> Self {
        let now = Instant::now();
        Self {
            api,
            name,
            me,
            terms: Terms::default(),
            leads,
            outage,
            last: None,
            changed: now,
            renewed: now,
        }
    }

    /// Runs for the Lease until `stop` turns true, then gives it back.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let look = time::timeout(self.terms.retry * 2, self.look());
            match look.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if Outage::is(&error) {
                        self.outage.seen();
                    }
                    tracing::warn!(%error, lease = self.name, "the lease cannot be used");
                }
                Err(_) => {
                    self.outage.seen();
                    tracing::warn!(lease = self.name, "the API server does not answer");
                }
            }
            if self.is_leading() && self.renewed.elapsed() >= self.terms.renew_deadline {
                self.lose("it could not be renewed in time");
            }
            tokio::select! {
                () = time::sleep(self.terms.retry) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if self.is_leading() {
            self.leads.send_replace(Tenure::None);
            match time::timeout(Duration::from_secs(2), self.write(true)).await {
                Ok(Ok(())) => tracing::info!(lease = self.name, "the lease was given back"),
                _ => tracing::warn!(
                    lease = self.name,
                    "the lease could not be given back: others wait until it ends"
                ),
            }
        }
    }

    fn is_leading(&self) -> bool {
        *self.leads.borrow() != Tenure::None
    }

    fn lose(&self, why: &str) {
        self.leads.send_replace(Tenure::None);
        tracing::warn!(lease = self.name, "the lease is no longer ours: {why}");
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        // A leader knows the record: it writes over it, and hears of any change by a conflict.
        if !self.is_leading() || self.last.is_none() {
            let seen = self.api.get_opt(&self.name).await?;
            self.saw(seen);
        }
        let memory = Memory {
            unchanged_for: self.changed.elapsed(),
            leading: self.is_leading(),
            since_renewal: self.renewed.elapsed(),
        };
        let record = self.last.as_ref().and_then(|lease| lease.spec.as_ref());
        match evaluate(record, &self.me, &memory, &self.terms) {
            Verdict::Wait => Ok(()),
            Verdict::Lost => {
                self.lose("another replica holds it, or it was not renewed in time");
                self.last = None;
                Ok(())
            }
            Verdict::Acquire | Verdict::Renew => match self.write(false).await {
                Ok(()) => {
                    if !self.is_leading() {
                        tracing::info!(lease = self.name, me = self.me, "this replica leads");
                    }
                    let end = self.renewed + self.terms.renew_deadline;
                    self.leads.send_replace(Tenure::Until(end));
                    Ok(())
                }
                // Somebody was faster: look at what they wrote.
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    let seen = self.api.get_opt(&self.name).await?;
                    self.saw(seen);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        }
    }

    fn saw(&mut self, lease: Option<Lease>) {
        let version = |lease: &Option<Lease>| lease.as_ref()?.metadata.resource_version.clone();
        if version(&lease) != version(&self.last) {
            self.changed = Instant::now();
        }
        self.last = lease;
    }

    async fn write(&mut self, release: bool) -> Result<(), kube::Error> {
        let now = MicroTime(Timestamp::now());
        let started = Instant::now();
        let before = self
            .last
            .as_ref()
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(self.me.as_str());
        let spec = LeaseSpec {
            holder_identity: Some(if release {
                String::new()
            } else {
                self.me.clone()
            }),
            lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
            acquire_time: if ours {
                before.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..LeaseSpec::default()
        };
        let params = PostParams::default();
        let answer = match &self.last {
            Some(last) => {
                let lease = Lease {
                    spec: Some(spec),
                    ..last.clone()
                };
                self.api.replace(&self.name, &params, &lease).await?
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                self.api
                    .create(
                        &params,
                        &Lease {
                            metadata,
                            spec: Some(spec),
                        },
                    )
                    .await?
            }
        };
        self.renewed = started;
        self.changed = started;
        self.last = Some(answer);
        Ok(())
    }
}
