//! The addresses the platform listens at.

use std::net::SocketAddr;

use serde::Serialize;

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
    /// What addresses begin with for who speaks no TLS, and for who does. Other machines know this one by the name that
    /// devices are told, and plain HTTP is for this one alone.
    pub(super) fn urls(&self, advertised: Option<&str>) -> (String, String) {
        let plain = format!("http://{}", self.http);
        let Some(https) = self.https else { return (plain.clone(), plain) };
        let secure = match (advertised, https.ip()) {
            (Some(address), _) if address.contains(':') => format!("https://[{address}]:{}", https.port()),
            (Some(host), _) => format!("https://{host}:{}", https.port()),
            (None, ip) if ip.is_unspecified() => format!("https://localhost:{}", https.port()),
            (None, _) => format!("https://{https}"),
        };
        (plain, secure)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_tls_is_told_the_name_this_machine_is_known_by() {
        let at = |https: Option<&str>, advertised| {
            let https = https.map(|address| address.parse().expect("an address"));
            let http = SocketAddr::from(([127, 0, 0, 1], 8080));
            Listeners { https, ..Listeners::only_http(http) }.urls(advertised)
        };
        let plain = "http://127.0.0.1:8080";
        for (https, advertised, secure) in [
            (None, Some("hall.example"), plain),
            (Some("127.0.0.1:8443"), None, "https://127.0.0.1:8443"),
            (Some("0.0.0.0:8443"), None, "https://localhost:8443"),
            (Some("0.0.0.0:8443"), Some("hall.example"), "https://hall.example:8443"),
            (Some("[::]:8443"), Some("2001:db8::1"), "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(at(https, advertised), (plain.to_owned(), secure.to_owned()), "{https:?} {advertised:?}");
        }
    }
}
