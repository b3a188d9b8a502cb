//! The platform's HTTP API, as far as a measurement needs it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use ureq::Agent;

use crate::metrics::Metrics;

/// Requests that are under way at once when devices are registered: they share commits.
const REGISTRARS: usize = 8;

/// A client with the administrator's token.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    base: String,
    bearer: String,
}

impl Http {
    /// A client of the platform that listens there.
    pub fn new(address: SocketAddr, token: &str) -> Http {
        let config = Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(60))).build();
        Http { agent: config.into(), base: format!("http://{address}"), bearer: format!("Bearer {}", token.trim()) }
    }

    /// Registers devices, given as serial and code.
    ///
    /// # Errors
    /// The first refusal.
    pub fn register(&self, devices: &[(String, &str)]) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            while let Some((serial, code)) = devices.get(next.fetch_add(1, Ordering::Relaxed)) {
                let url = format!("{}/v1/devices", self.base);
                let body = json!({ "serial": serial, "code": code });
                let posted = self.agent.post(url).header("authorization", &self.bearer).send_json(&body);
                let mut answer = posted.with_context(|| format!("device {serial} cannot be registered"))?;
                // Read to its end, so that the connection is used again.
                answer.body_mut().read_to_vec().with_context(|| format!("device {serial}"))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let registrars: Vec<_> = (0..REGISTRARS).map(|_| scope.spawn(work)).collect();
            registrars.into_iter().try_for_each(|registrar| {
                registrar.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that registers broke off")))
            })
        })
    }

    /// The platform's counters.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let get = self.agent.get(format!("{}/metrics", self.base)).header("authorization", &self.bearer);
        let text = get.call().and_then(|mut answer| answer.body_mut().read_to_string());
        text.map(Metrics::new).context("the platform's metrics cannot be read")
    }

    /// The id of the last event of a device; `None` when it has reported nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_event(&self, serial: &str) -> anyhow::Result<Option<String>> {
        let url = format!("{}/v1/events?limit=1&device={serial}", self.base);
        let get = self.agent.get(url).header("authorization", &self.bearer);
        let page: Value = get
            .call()
            .and_then(|mut answer| answer.body_mut().read_json())
            .with_context(|| format!("the events of {serial} cannot be read"))?;
        Ok(page["items"][0]["id"].as_str().map(str::to_owned))
    }
}
