//! The addresses the platform listens at.

use std::net::SocketAddr;

use serde::Serialize;

use crate::config::{Advertise, Config};

/// The addresses in use; what is off is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Listeners {
    /// HTTP API and console.
    pub http: SocketAddr,
    /// The same over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// LBS, modern suites over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lbs: Option<SocketAddr>,
    /// LBS, modern suites over plain TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lbs_plain: Option<SocketAddr>,
    /// DAS, modern suites over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub das: Option<SocketAddr>,
    /// DAS, modern suites over plain TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub das_plain: Option<SocketAddr>,
    /// LBS, legacy suites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lbs_legacy: Option<SocketAddr>,
    /// DAS, legacy suites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub das_legacy: Option<SocketAddr>,
    /// MQTT for applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<SocketAddr>,
    /// The same over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtts: Option<SocketAddr>,
}

impl Listeners {
    /// What the addresses of pictures and files begin with for who came in without TLS, and for devices that came in over it.
    /// Plain HTTP is for this machine alone where `http.insecure` does not open it.
    pub(super) fn urls(&self, config: &Config) -> (String, String) {
        let plain = match self.http {
            everywhere if everywhere.ip().to_canonical().is_unspecified() => reached(everywhere, config, |_| true),
            one => one.to_string(),
        };
        let plain = format!("http://{plain}");
        // Devices trust the platform's own certificate, which is not shown where there is one of the operator's, and not by a
        // name for which there is one of an ACME server.
        let acme = config.tls.acme.directory.as_ref().map_or(&[][..], |_| &config.tls.acme.names[..]);
        let shows_own = |name: &str| !acme.iter().any(|acme| acme.eq_ignore_ascii_case(name));
        let https = self.https.filter(|_| config.tls.own().is_none());
        let device =
            https.map_or_else(|| plain.clone(), |https| format!("https://{}", reached(https, config, shows_own)));
        (plain, device)
    }

    pub(super) fn only_http(http: SocketAddr) -> Listeners {
        Listeners {
            http,
            https: None,
            lbs: None,
            lbs_plain: None,
            das: None,
            das_plain: None,
            lbs_legacy: None,
            das_legacy: None,
            mqtt: None,
            mqtts: None,
        }
    }
}

/// Host and port by which others reach a listener, of the names those that will do.
fn reached(listener: SocketAddr, config: &Config, will_do: impl Fn(&str) -> bool) -> String {
    let advertised = config.das.advertise.as_ref().map(Advertise::host).filter(|name| will_do(name));
    let names = config.tls.names.iter().map(String::as_str);
    let named = names.filter(|name| !name.contains('*')).find(|name| will_do(name));
    let (ip, port) = (listener.ip().to_canonical(), listener.port());
    let host = advertised.filter(|_| !ip.is_loopback()).or(named.filter(|_| ip.is_unspecified()));
    match host {
        Some(address) if address.contains(':') => format!("[{address}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None if ip.is_unspecified() => format!("localhost:{port}"),
        None => listener.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_in_without_tls_is_told_no_wildcard() {
        let at = |http: &str, advertise: Option<&str>, names: &[&str]| {
            let mut config = Config::default();
            config.das.advertise = advertise.map(|host| host.parse().expect("a host"));
            config.tls.names = names.iter().map(|&name| name.to_owned()).collect();
            Listeners::only_http(http.parse().expect("an address")).urls(&config).0
        };
        assert_eq!(at("127.0.0.1:8080", Some("hall.example"), &[]), "http://127.0.0.1:8080");
        assert_eq!(at("0.0.0.0:8080", None, &[]), "http://localhost:8080");
        assert_eq!(at("0.0.0.0:8080", Some("hall.example"), &["other.example"]), "http://hall.example:8080");
        assert_eq!(at("[::]:8080", None, &["*.hall.example", "hall.example"]), "http://hall.example:8080");
        assert_eq!(at("[::ffff:0.0.0.0]:8080", None, &[]), "http://localhost:8080");
        // It is reached where it is bound, whatever devices are told of the DAS.
        assert_eq!(at("192.0.2.7:8080", Some("hall.example"), &["hall.example"]), "http://192.0.2.7:8080");
    }

    #[test]
    fn devices_over_tls_are_told_where_they_reach_the_platforms_own_certificate() {
        type Change = fn(&mut Config);
        let as_is: Change = |_| ();
        let advertised: Change = |config| config.das.advertise = Some("hall.example".parse().expect("a host"));
        let named: Change = |config| config.tls.names = vec!["hall.example".to_owned()];
        let at = |https: Option<&str>, change: Change| {
            let mut config = Config::default();
            change(&mut config);
            let https = https.map(|address| address.parse().expect("an address"));
            let http = SocketAddr::from(([127, 0, 0, 1], 8080));
            let (plain, device) = Listeners { https, ..Listeners::only_http(http) }.urls(&config);
            assert_eq!(plain, "http://127.0.0.1:8080");
            device
        };
        assert_eq!(at(None, as_is), "http://127.0.0.1:8080");
        // What is bound to one address is reached there, and by the name that devices are told; not so what others cannot reach.
        assert_eq!(at(Some("127.0.0.1:8443"), advertised), "https://127.0.0.1:8443");
        assert_eq!(at(Some("192.0.2.7:8443"), named), "https://192.0.2.7:8443");
        assert_eq!(at(Some("192.0.2.7:8443"), advertised), "https://hall.example:8443");
        assert_eq!(at(Some("0.0.0.0:8443"), as_is), "https://localhost:8443");
        assert_eq!(at(Some("0.0.0.0:8443"), named), "https://hall.example:8443");
        let address: Change = |config| config.das.advertise = Some("2001:db8::1".parse().expect("an address"));
        assert_eq!(at(Some("[::]:8443"), address), "https://[2001:db8::1]:8443");
        // By the name of another certificate the platform's own is not shown, and beside one of the operator's never.
        let acme: Change = |config| {
            config.das.advertise = Some("hall.example".parse().expect("a host"));
            config.tls.acme.names = vec!["Hall.example".to_owned()];
            config.tls.acme.directory = Some("https://acme.example/dir".to_owned());
        };
        let no_acme: Change = |config| {
            config.das.advertise = Some("hall.example".parse().expect("a host"));
            config.tls.acme.names = vec!["hall.example".to_owned()];
        };
        assert_eq!(at(Some("192.0.2.7:8443"), no_acme), "https://hall.example:8443");
        assert_eq!(at(Some("0.0.0.0:8443"), acme), "https://localhost:8443");
        let wild: Change = |config| config.tls.names = vec!["*.hall.example".to_owned(), "hall.example".to_owned()];
        assert_eq!(at(Some("0.0.0.0:8443"), wild), "https://hall.example:8443");
        assert_eq!(at(Some("192.0.2.7:8443"), acme), "https://192.0.2.7:8443");
        let own: Change = |config| {
            config.tls.certificate_file = Some("cert.pem".into());
            config.tls.key_file = Some("key.pem".into());
        };
        assert_eq!(at(Some("192.0.2.7:8443"), own), "http://127.0.0.1:8080");
    }
}
