//! The platform's HTTP API, as far as a measurement needs it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::device::{AREA, ATTRIBUTES, OPERATION, PLACE, Provisioned};
use crate::metrics::Metrics;

/// Requests that are under way at once when devices are registered: they share commits.
const REGISTRARS: usize = 8;
/// Requests that are under way at once when devices are asked for something; one for each device where there are fewer.
pub const CALLERS: usize = 16;

/// How long many devices at once may take.
const LONG: Duration = Duration::from_secs(600);

/// How many requests are made: so many, or as many as fit into the time.
#[derive(Debug)]
pub struct Quota {
    requests: usize,
    until: Instant,
    begun: AtomicUsize,
    done: AtomicU64,
}

impl Quota {
    /// So many, as long as there is time.
    pub fn new(requests: usize, time: Duration) -> Quota {
        Quota { requests, until: Instant::now() + time, begun: AtomicUsize::new(0), done: AtomicU64::new(0) }
    }

    /// The number of the next request, if there is one.
    fn next(&self) -> Option<usize> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        (number < self.requests && Instant::now() < self.until).then_some(number)
    }
}

/// One request about the device with this serial, with the number of requests it had before.
pub type Ask = fn(&Http, &str, usize) -> anyhow::Result<()>;

/// A client with the administrator's token.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    address: SocketAddr,
    base: String,
    bearer: String,
}

impl Http {
    /// A client of the platform that listens there.
    pub fn new(address: SocketAddr, token: &str) -> Http {
        let config = Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(60))).build();
        Http {
            agent: config.into(),
            address,
            base: format!("http://{address}"),
            bearer: format!("Bearer {}", token.trim()),
        }
    }

    /// Where the platform listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of the header that says who asks.
    pub fn bearer(&self) -> &str {
        &self.bearer
    }

    /// What is at an address.
    ///
    /// # Errors
    /// When it is refused.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let get = self.agent.get(format!("{}{path}", self.base)).header("authorization", &self.bearer);
        let answer = get.config().timeout_global(Some(LONG)).build().call();
        answer.and_then(|mut answer| answer.body_mut().read_json()).with_context(|| path.to_owned())
    }

    /// Sends something to an address; the answer.
    ///
    /// # Errors
    /// When it is refused.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let post = self.agent.post(format!("{}{path}", self.base)).header("authorization", &self.bearer);
        post.send_json(body).and_then(|mut answer| answer.body_mut().read_json()).with_context(|| path.to_owned())
    }

    /// Removes what is at an address.
    ///
    /// # Errors
    /// When it is refused.
    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        let delete = self.agent.delete(format!("{}{path}", self.base)).header("authorization", &self.bearer);
        delete.call().map(drop).with_context(|| path.to_owned())
    }

    /// Registers devices, given as serial and code.
    ///
    /// # Errors
    /// The first refusal.
    pub fn register(&self, devices: &[(String, &str)]) -> anyhow::Result<()> {
        let register = |(serial, code): &(String, &str)| {
            let url = format!("{}/v1/devices", self.base);
            let body = json!({ "serial": serial, "code": code });
            let posted = self.agent.post(url).header("authorization", &self.bearer).send_json(&body);
            let mut answer = posted.with_context(|| format!("device {serial} cannot be registered"))?;
            // Read to its end, so that the connection is used again.
            answer.body_mut().read_to_vec().with_context(|| format!("device {serial}"))
        };
        side_by_side(devices, register).map(drop)
    }

    /// Has each of the devices be given what it needs to come in without TLS, in their order.
    ///
    /// # Errors
    /// The first refusal.
    pub fn provision(&self, serials: &[String]) -> anyhow::Result<Vec<Provisioned>> {
        side_by_side(serials, |serial| {
            let url = format!("{}/v1/devices/{serial}/provision", self.base);
            let posted = self.agent.post(url).header("authorization", &self.bearer).send_empty();
            let given = posted.and_then(|mut answer| answer.body_mut().read_json());
            given.with_context(|| format!("device {serial} cannot be provisioned"))
        })
    }

    /// Asks the devices for something, one after the other and again, some at a time, as often as the quota says; how
    /// often that was.
    ///
    /// # Errors
    /// The first request that does not end well.
    pub fn call(&self, serials: &[String], quota: &Quota, ask: Ask) -> anyhow::Result<u64> {
        let devices = serials.len().max(1);
        let work = || -> anyhow::Result<()> {
            while let Some(number) = quota.next() {
                let serial = serials.get(number % devices).context("there is nobody to ask")?;
                ask(self, serial, number / devices)?;
                quota.done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS.min(devices)).map(|_| scope.spawn(work)).collect();
            callers
                .into_iter()
                .try_for_each(|caller| caller.join().unwrap_or_else(|_| bail!("a thread that asks devices broke off")))
        })?;
        Ok(quota.done.load(Ordering::Relaxed))
    }

    /// Has a device carry out its operation.
    ///
    /// # Errors
    /// When it was not done.
    pub fn invoke(&self, serial: &str, round: usize) -> anyhow::Result<()> {
        let [resource, index, area, name] = OPERATION;
        let url = format!("{}/v1/devices/{serial}/operations/{resource}/{index}/{area}/{name}", self.base);
        let body = json!({ "input": { "position": 1 + round % 8 } });
        let end = self.agent.post(url).header("authorization", &self.bearer).send_json(&body);
        let end: Value = end
            .and_then(|mut answer| answer.body_mut().read_json())
            .with_context(|| format!("an operation of {serial}"))?;
        if end["outcome"] != "done" { bail!("an operation of {serial} ended {end}") } else { Ok(()) }
    }

    /// Wishes one attribute of a device after the other to have a value, and waits until it has taken it.
    ///
    /// # Errors
    /// When it has not.
    pub fn set(&self, serial: &str, round: usize) -> anyhow::Result<()> {
        let (resource, index) = PLACE;
        let name = ATTRIBUTES.get(round % ATTRIBUTES.len()).context("an attribute")?;
        let url = format!("{}/v1/devices/{serial}/attributes/{resource}/{index}/{AREA}/{name}", self.base);
        let body = json!({ "value": round });
        let leaf = self.agent.put(url).header("authorization", &self.bearer).send_json(&body);
        let leaf: Value = leaf
            .and_then(|mut answer| answer.body_mut().read_json())
            .with_context(|| format!("a desired value of {serial}"))?;
        let desired = &leaf["desired"];
        if desired["outcome"] != "applied" { bail!("a desired value of {serial} became {desired}") } else { Ok(()) }
    }

    /// Imports a CSV file; the job as it ended.
    ///
    /// # Errors
    /// When it is refused.
    pub fn import(&self, file: &str) -> anyhow::Result<Value> {
        let post = self.agent.post(format!("{}/v1/imports", self.base)).header("authorization", &self.bearer);
        let post = post.config().timeout_global(Some(LONG)).build();
        let job = post.header("content-type", "text/csv").send(file);
        job.and_then(|mut answer| answer.body_mut().read_json()).context("devices cannot be imported")
    }

    /// How many lines are at an address.
    ///
    /// # Errors
    /// When they cannot be read to their end.
    pub fn lines(&self, path: &str) -> anyhow::Result<u64> {
        let get = self.agent.get(format!("{}{path}", self.base)).header("authorization", &self.bearer);
        let mut answer = get.config().timeout_global(Some(LONG)).build().call().context(path.to_owned())?;
        let mut lines = 0;
        for line in BufReader::new(answer.body_mut().as_reader()).lines() {
            line.with_context(|| format!("{path} broke off"))?;
            lines += 1;
        }
        Ok(lines)
    }

    /// One page of the devices that a query finds.
    ///
    /// # Errors
    /// When it is refused.
    pub fn page(&self, query: &str, cursor: Option<&str>) -> anyhow::Result<Value> {
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let get = self.agent.get(format!("{}/v1/devices?limit=100&{query}{cursor}", self.base));
        let page = get.header("authorization", &self.bearer).call();
        page.and_then(|mut answer| answer.body_mut().read_json()).with_context(|| format!("the list {query}"))
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
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/events?limit=1&device={serial}{cursor}"))?;
            // A page may be empty and not the last.
            match (page["items"].get(0), page["next"].as_str()) {
                (None, Some(next)) => cursor = format!("&cursor={next}"),
                (found, _) => return Ok(found.and_then(|event| event["id"].as_str()).map(str::to_owned)),
            }
        }
    }
}

/// Does one request for each item, some at a time; the answers, in the order of the items.
fn side_by_side<T: Sync, A: Send>(
    items: &[T],
    request: impl Fn(&T) -> anyhow::Result<A> + Sync,
) -> anyhow::Result<Vec<A>> {
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<Vec<(usize, A)>> {
        let mut answers = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(answers) };
            answers.push((number, request(item)?));
        }
    };
    let mut answers = std::thread::scope(|scope| {
        let registrars: Vec<_> = (0..REGISTRARS).map(|_| scope.spawn(work)).collect();
        let answers = registrars
            .into_iter()
            .map(|registrar| registrar.join().unwrap_or_else(|_| bail!("a thread that registers devices broke off")));
        answers.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut answers: Vec<_> = answers.drain(..).flatten().collect();
    answers.sort_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_what_was_asked() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(side_by_side(&items, |item| Ok(item + 1)).expect("answers"), (1..=100).collect::<Vec<_>>());
        assert!(side_by_side(&items, |item| if *item == 70 { bail!("no") } else { Ok(()) }).is_err());
    }
}
