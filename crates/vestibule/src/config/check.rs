//! Rules no single value can break by itself: ranges, and values that do not go together.

use super::Config;

/// A broken rule.
pub(super) struct Broken {
    /// The key to change.
    pub(super) key: &'static str,
    /// All keys the rule reads.
    pub(super) reads: Vec<&'static str>,
    /// What is wrong and what to write.
    pub(super) message: String,
}

/// All rules the configuration breaks.
pub(super) fn rules(config: &Config) -> Vec<Broken> {
    let mut broken = ranges(config);
    broken.extend(plain_http(config));
    broken.extend(empty_data(config));
    broken.extend(time_zone(config));
    broken.extend(media_url(config));
    broken.extend(upload_ttl(config));
    broken.extend(bucket(config));
    broken.extend(own_certificate(config));
    broken.extend(one_envelope_key(config));
    broken.extend(acme(config));
    broken
}

/// Devices read the zone in one form only.
fn time_zone(config: &Config) -> Option<Broken> {
    let ntp = config.das.time()?;
    (ntp.offset_minutes().is_none() || ntp.write(&mut Vec::new()).is_err()).then(|| Broken {
        key: "das.time_zone",
        reads: vec!["das.time_zone", "das.time_server"],
        message: "must be written like \"UTC+08:00\", with a time server of at most 253 characters".to_owned(),
    })
}

/// Limits of zero switch a thing off in disguise, and some sizes have a floor below which nothing works.
fn ranges(config: &Config) -> Vec<Broken> {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Config { http, lbs, das, mqtt, store, media, registry, webhooks, .. } = config;
    let least: [(&'static str, u64, u64); 40] = [
        ("http.max_connections", http.max_connections as u64, 1),
        ("http.max_streams", http.max_streams as u64, 1),
        ("http.max_body_bytes", http.max_body_bytes as u64, 1_024),
        ("http.request_timeout", ms(http.request_timeout), 1),
        ("lbs.max_connections", lbs.max_connections as u64, 1),
        ("lbs.run_timeout", ms(lbs.run_timeout), 1),
        ("lbs.ticket_lifetime", ms(lbs.ticket_lifetime), 3_600_000),
        ("lbs.certificate_life", ms(lbs.certificate_life), 3_600_000),
        ("das.session_life", ms(das.session_life), 60_000),
        ("lbs.max_frame_bytes", lbs.max_frame_bytes as u64, 512),
        ("lbs.max_failures_per_serial", lbs.max_failures_per_serial.into(), 1),
        ("lbs.max_failures_per_address", lbs.max_failures_per_address.into(), 1),
        ("lbs.max_failures_per_network", lbs.max_failures_per_network.into(), 1),
        ("das.max_connections", das.max_connections as u64, 1),
        ("das.max_frame_bytes", das.max_frame_bytes as u64, 2_048),
        ("das.max_queue_bytes", das.max_queue_bytes as u64, das.max_frame_bytes as u64),
        ("mqtt.max_connections", mqtt.max_connections as u64, 1),
        ("mqtt.max_frame_bytes", mqtt.max_frame_bytes as u64, 128),
        ("mqtt.max_queue_bytes", mqtt.max_queue_bytes as u64, mqtt.max_frame_bytes as u64),
        ("store.retention", ms(store.retention), 60_000),
        ("store.audit_retention", ms(store.audit_retention), 60_000),
        ("store.segment_rows", store.segment_rows, 1),
        ("store.queue_records", store.queue_records as u64, 1),
        ("store.queue_bytes", store.queue_bytes as u64, das.max_frame_bytes as u64),
        ("store.commit_records", store.commit_records as u64, 1),
        ("store.commit_delay", ms(store.commit_delay), 0),
        ("store.tail_records", store.tail_records as u64, 1),
        ("media.retention", ms(media.retention), 60_000),
        ("media.device_max_bytes", media.device_max_bytes as u64, 4_096),
        ("media.picture_max_bytes", media.picture_max_bytes as u64, 1_024),
        ("media.picture_max_pixels", media.picture_max_pixels, 1),
        ("media.file_max_bytes", media.file_max_bytes as u64, 1_024),
        ("media.max_uploads", media.max_uploads as u64, 1),
        ("media.upload_ttl", ms(media.upload_ttl), 60_000),
        ("registry.max_devices", registry.max_devices as u64, 1),
        ("webhooks.timeout", ms(webhooks.timeout), 1),
        ("webhooks.give_up_after", ms(webhooks.give_up_after), 1),
        ("webhooks.max_webhooks", webhooks.max_webhooks as u64, 1),
        ("webhooks.max_deliveries", webhooks.max_deliveries as u64, webhooks.max_webhooks as u64),
        ("webhooks.max_dead_letters", webhooks.max_dead_letters as u64, 1),
    ];
    least
        .into_iter()
        .filter(|(_, value, least)| value < least)
        .map(|(key, value, least)| {
            let floor = match key {
                "das.max_queue_bytes" | "store.queue_bytes" => Some("das.max_frame_bytes"),
                "mqtt.max_queue_bytes" => Some("mqtt.max_frame_bytes"),
                "webhooks.max_deliveries" => Some("webhooks.max_webhooks"),
                _ => None,
            };
            let unit = match key {
                key if key.ends_with("_bytes") => " bytes",
                "http.request_timeout"
                | "lbs.run_timeout"
                | "lbs.ticket_lifetime"
                | "lbs.certificate_life"
                | "das.session_life"
                | "store.retention"
                | "store.audit_retention"
                | "media.retention"
                | "media.upload_ttl"
                | "webhooks.timeout"
                | "webhooks.give_up_after" => " ms",
                _ => "",
            };
            let why = floor.map(|floor| format!(", the value of {floor}")).unwrap_or_default();
            Broken {
                key,
                reads: std::iter::once(key).chain(floor).collect(),
                message: format!("must be at least {least}{unit}{why}; it is {value}"),
            }
        })
        .collect()
}

/// Plain HTTP carries tokens in the clear, so that only this machine may use it unless the operator says otherwise.
fn plain_http(config: &Config) -> Option<Broken> {
    let listen = config.http.listen;
    (!listen.ip().to_canonical().is_loopback() && !config.http.insecure).then(|| Broken {
        key: "http.listen",
        reads: vec!["http.listen", "http.insecure"],
        message: format!(
            "{} can be reached by other machines and plain HTTP shows them tokens; set http.tls_listen and leave this at 127.0.0.1, or \
             set http.insecure = true",
            listen.ip()
        ),
    })
}

/// Paths are put behind it.
fn media_url(config: &Config) -> Option<Broken> {
    (!config.media.has_url()).then(|| Broken {
        key: "media.url",
        reads: vec!["media.url"],
        message: "must be \"auto\", or scheme and host such as \"https://vestibule.example\", without a path"
            .to_owned(),
    })
}

/// The key that signed the ticket of an upload is sure to be there for a day.
fn upload_ttl(config: &Config) -> Option<Broken> {
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);
    let value = config.media.upload_ttl;
    (value > DAY).then(|| Broken {
        key: "media.upload_ttl",
        reads: vec!["media.upload_ttl"],
        message: format!("must be at most {} ms, a day; it is {}", DAY.as_millis(), value.as_millis()),
    })
}

/// A bucket is described whole, and its key does not travel in the clear unless the operator says so.
fn bucket(config: &Config) -> Option<Broken> {
    let s3 = &config.media.s3;
    s3.bucket.as_ref()?;
    let secrets = usize::from(s3.secret_access_key.is_some()) + usize::from(s3.secret_access_key_file.is_some());
    let endpoint = s3.endpoint.as_deref().unwrap_or("https://");
    let broken = |key, reads, message: &str| Some(Broken { key, reads, message: message.to_owned() });
    if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
        let message = "must be \"auto\", or scheme and host such as \"https://minio.example:9000\"";
        return broken("media.s3.endpoint", vec!["media.s3.endpoint"], message);
    }
    if endpoint.starts_with("http://") && !s3.allow_http {
        let message =
            "has no TLS: whoever is on the way sees the pictures; write https://, or set media.s3.allow_http = true";
        return broken("media.s3.endpoint", vec!["media.s3.endpoint", "media.s3.allow_http"], message);
    }
    let reads = vec!["media.s3.access_key_id", "media.s3.secret_access_key", "media.s3.secret_access_key_file"];
    match (s3.access_key_id.is_some(), secrets) {
        (_, 2) => {
            broken("media.s3.secret_access_key_file", reads, "is set beside media.s3.secret_access_key; leave out one")
        }
        (true, 0) => broken(
            "media.s3.access_key_id",
            reads,
            "needs its secret part: name a file in media.s3.secret_access_key_file, or put it into the environment as \
             VESTIBULE_MEDIA__S3__SECRET_ACCESS_KEY",
        ),
        (false, 1) => broken("media.s3.access_key_id", reads, "is not set, and its secret part is"),
        _ => None,
    }
}

/// A certificate without its key, or the other way round, proves nothing.
fn own_certificate(config: &Config) -> Option<Broken> {
    let (key, other) = match (&config.tls.certificate_file, &config.tls.key_file) {
        (Some(_), None) => ("tls.key_file", "tls.certificate_file"),
        (None, Some(_)) => ("tls.certificate_file", "tls.key_file"),
        _ => return None,
    };
    let message = format!("must name a file, since {other} does");
    Some(Broken { key, reads: vec!["tls.certificate_file", "tls.key_file"], message })
}

/// Of two places for the key one would not count, and nobody would know which.
fn one_envelope_key(config: &Config) -> Option<Broken> {
    let places = config.store.key_places();
    let [first, other, ..] = places[..] else { return None };
    let key = if other == "store.envelope_key_command" { other } else { "store.envelope_key_file" };
    Some(Broken {
        key,
        reads: vec!["store.envelope_key_file", "store.envelope_key_command"],
        message: format!("{first} and {other} are both set, and there is one key; leave out one"),
    })
}

/// A certificate is ordered for names, under terms, over TLS, and not beside one of the operator's own.
fn acme(config: &Config) -> Option<Broken> {
    let acme = &config.tls.acme;
    let directory = acme.directory.as_ref()?;
    let (key, message) = if !directory.starts_with("https://") {
        ("tls.acme.directory", "must be an https:// address")
    } else if acme.names.is_empty() {
        ("tls.acme.names", "must name what the certificate is for")
    } else if acme.names.iter().any(|name| name.starts_with("*.")) {
        ("tls.acme.names", "cannot have a name with *: HTTP-01 proves none")
    } else if acme.names.iter().any(|name| name.parse::<std::net::IpAddr>().is_ok()) {
        ("tls.acme.names", "must be hosts: who comes by an address asks for no name, and is shown the platform's own")
    } else if !acme.accept_terms {
        ("tls.acme.accept_terms", "must be true: read the terms of the server, and agree to them")
    } else if config.tls.certificate_file.is_some() {
        ("tls.acme.directory", "cannot be set beside tls.certificate_file; take one of the two")
    } else if acme.eab_key_id.is_some() != acme.eab_key.is_some() {
        ("tls.acme.eab_key_id", "and tls.acme.eab_key go together")
    } else {
        return None;
    };
    Some(Broken { key, reads: vec![key, "tls.acme.directory"], message: message.to_owned() })
}

fn empty_data(config: &Config) -> Option<Broken> {
    config.data.as_os_str().is_empty().then(|| Broken {
        key: "data",
        reads: vec!["data"],
        message: "expected a directory, found an empty path".to_owned(),
    })
}
