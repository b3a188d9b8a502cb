//! The listeners: whether they answer, or could be opened.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Finding;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn examine(config: &Config, platform: Option<u32>) -> Vec<Finding> {
    let legacy = [("lbs.legacy_listen", config.lbs.legacy_listen), ("das.legacy_listen", config.das.legacy_listen)];
    let mut findings = Vec::new();
    let modern = [
        ("http.listen", Some(config.http.listen)),
        ("http.tls_listen", config.http.tls_address()),
        ("mqtt.listen", config.mqtt.listen),
        ("mqtt.tls_listen", config.mqtt.tls_listen),
        ("lbs.listen", config.lbs.listen),
        ("das.listen", config.das.listen),
        ("lbs.plain_listen", config.lbs.plain_listen),
        ("das.plain_listen", config.das.plain_listen),
    ];
    let all = modern.into_iter().chain(legacy);
    for (key, address) in all {
        let Some(address) = address else { continue };
        match platform {
            // Which one the system picked is not known here.
            Some(_) if address.port() == 0 => {}
            Some(_) => findings.push(answers(key, address)),
            None => findings.push(can_open(key, address)),
        }
    }
    for (key, address) in legacy {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            findings.push(Finding::doubtful(
                "confidential",
                format!("{key} is {address}: the legacy suite is not confidential"),
                "serve it on networks you trust only, by the address of that interface",
            ));
        }
    }
    if platform.is_some() && config.http.listen.port() != 0 {
        findings.extend(ready(config.http.listen));
    }
    if !config.das.is_on() {
        let words = "no listener for devices is on";
        findings.push(Finding::doubtful("listeners", words, "set lbs.listen and das.listen"));
    }
    findings
}

/// An address of this machine to reach a listener at.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn answers(key: &str, address: SocketAddr) -> Finding {
    match TcpStream::connect_timeout(&reachable(address), PATIENCE) {
        Ok(_) => Finding::good("listeners", format!("{key} answers at {address}")),
        Err(error) => Finding::wrong(
            "listeners",
            format!("{key} does not answer at {address}: {error}"),
            "see the platform's log; was it started with this configuration?",
        ),
    }
}

fn can_open(key: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good("listeners", format!("{key} can be opened at {address}")),
        Err(error) => Finding::wrong(
            "listeners",
            format!("{key} cannot be opened at {address}: {error}"),
            format!("end what uses the port, or set {key} to another one"),
        ),
    }
}

/// What the platform says of itself.
fn ready(address: SocketAddr) -> Option<Finding> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(PATIENCE));
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.get(format!("http://{}/readyz", reachable(address))).call().ok()?;
    let readiness: Value = answer.body_mut().read_json().ok()?;
    if readiness["ready"] == true {
        return Some(Finding::good("readiness", "the platform does its work"));
    }
    let problems = readiness["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words = problems.collect::<Vec<_>>().join("; ");
    Some(Finding::wrong("readiness", words, "mend what it names; it goes on by itself then"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_port_that_is_taken_cannot_be_opened_and_one_that_is_not_does_not_answer() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        assert_eq!((can_open("k", address).verdict, answers("k", address).verdict), (Verdict::Wrong, Verdict::Good));
        drop(taken);
        assert_eq!((can_open("k", address).verdict, answers("k", address).verdict), (Verdict::Good, Verdict::Wrong));
    }

    #[test]
    fn the_legacy_suite_on_other_interfaces_is_doubtful() {
        let mut config = Config::default();
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.das.legacy_listen = Some(([0, 0, 0, 0], 0).into());
        let found = examine(&config, None);
        assert!(found.iter().any(|found| found.part == "confidential" && found.verdict == Verdict::Doubtful));
        (config.lbs.listen, config.das.listen, config.das.legacy_listen) = (None, None, None);
        assert!(examine(&config, None).iter().any(|found| found.words.contains("no listener for devices")));
    }
}
