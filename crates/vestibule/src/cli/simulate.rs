//! `vestibule simulate`

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Deserialize;
use vestibule_device::Anchor;

use super::connect::Connect;
use super::out::Out;
use super::progress::Progress;
use crate::client::{Client, Token};
use crate::config::{Log, duration_from_text};
use crate::simulate::{self, ChosenRates, Faults, Fleet, MAX_CHILDREN, MAX_DEVICES, Options, rate_from_text};

/// The start of one device after the other, unless somebody says otherwise: a site does not come to life in one moment.
const APART: Duration = Duration::from_millis(5);
/// The longest prefix: with it and a number, a serial is short enough for every device's topics.
const MAX_PREFIX: usize = 32;

/// Load a running platform with simulated devices, and check that it lost nothing
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule simulate --lbs 127.0.0.1:8666 --devices 20 --profile mix
  vestibule simulate --lbs osaps://127.0.0.1:8665 --ca ca.pem --devices 20
  vestibule simulate --devices 100 --operations-per-minute 6 --fault drop=20,pause=10
  vestibule simulate --devices 20 --profile hub --children 8 --fault child=60
  vestibule simulate --ready-file ready.json --devices 5000 --duration 10m --json

The devices are made with the device SDK. They are registered over the HTTP API, under serials
with a prefix of their own, and removed at the end. One Ctrl-C ends it in order, a second one at once.

At the end the ids of the reported events are compared with those the platform has stored. Exit
status 1: an event that was acknowledged is missing, one is stored twice, or a device never came in.")]
pub(super) struct Args {
    /// File that `vestibule up --ready-file` has written: address, token and LBS are taken from it
    #[arg(long, value_name = "FILE", help_heading = "Platform")]
    ready_file: Option<PathBuf>,
    /// The LBS devices come in at: osaps://HOST:PORT over TLS, HOST:PORT by the legacy suite [default: of the ready file, or of
    /// the configuration found here]
    #[arg(long, value_name = "ADDRESS", help_heading = "Platform")]
    lbs: Option<String>,
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DEVICES)))]
    devices: u32,
    /// What they are
    #[arg(long, default_value = "mix", value_parser = PossibleValuesParser::new(Fleet::names())
        .try_map(|name| Fleet::named(&name).ok_or("no such profile")))]
    profile: Fleet,
    /// How many children each hub has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CHILDREN)))]
    children: u32,
    /// What their serials begin with
    #[arg(long, default_value = "SIM-", value_parser = prefix)]
    prefix: String,
    /// Leave the devices registered
    #[arg(long)]
    keep: bool,
    /// Have the devices keep below this directory what real ones keep without power: code, credentials, and the events that
    /// were not delivered. The next simulation with these serials goes on with it; together with --keep also after a kill
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Append to this file a line of JSON for each event when it is made, when it is safe (in the device's cache, or
    /// stored), and when it is acknowledged
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How long it goes on once all devices are started; until Ctrl-C when absent
    #[arg(long, value_parser = duration_from_text)]
    duration: Option<Duration>,
    /// Over how long the starts of the devices are spread [default: 5 ms for each]
    #[arg(long, value_name = "DURATION", value_parser = duration_from_text)]
    ramp: Option<Duration>,
    /// The same seed brings the same schedule; printed at the end [default: a random one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Events of each device in a minute [default: of its profile]
    #[arg(long, value_name = "RATE", value_parser = rate_from_text, help_heading = "Load")]
    events_per_minute: Option<f64>,
    /// Changed attributes of each device in a minute [default: of its profile]
    #[arg(long, value_name = "RATE", value_parser = rate_from_text, help_heading = "Load")]
    reports_per_minute: Option<f64>,
    /// Operations each device is asked for over the HTTP API in a minute [default: 0]
    #[arg(long, value_name = "RATE", value_parser = rate_from_text, help_heading = "Load")]
    operations_per_minute: Option<f64>,
    /// What goes wrong, for each device and hour: drop=RATE (the connection is cut), pause=RATE (silent for 2 to 10 s),
    /// reconnect=RATE (stops in order and starts again), child=RATE (a child is out of its hub's reach for 2 to 10 s)
    #[arg(
        long,
        value_name = "FAULT=RATE,…",
        help_heading = "Load",
        default_value = "drop=0",
        hide_default_value = true
    )]
    fault: Faults,
    // Last: what follows a flattened group stands under its heading in the help.
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    crate::logging::init(&Log { level: "warn".to_owned(), ..Log::default() })?;
    let chosen = args.connect.ca_file();
    let (client, lbs, known) = match &args.ready_file {
        Some(file) => by_ready_file(file, args.lbs)?,
        None => by_flags(args.connect, args.lbs)?,
    };
    let anchors = anchors(&lbs, chosen, known)?;
    let options = Options {
        devices: args.devices,
        fleet: args.profile,
        children: args.children,
        prefix: args.prefix,
        lbs,
        anchors,
        rates: ChosenRates {
            events_per_minute: args.events_per_minute,
            reports_per_minute: args.reports_per_minute,
            operations_per_minute: args.operations_per_minute,
        },
        faults: args.fault,
        duration: args.duration,
        ramp: args.ramp.unwrap_or(APART * args.devices),
        seed: args.seed.unwrap_or_else(random_seed),
        keep: args.keep,
        state: args.state,
        record: args.record,
    };
    let mut progress = Progress::new("devices");
    let summary = simulate::run(options, client, &mut |stage| progress.says(|| stage.to_string()));
    drop(progress);
    let summary = summary?;
    if out.is_json() {
        out.json(&serde_json::to_value(&summary)?)?;
    } else {
        out.line(&summary)?;
    }
    if summary.ok { Ok(()) } else { bail!("{}", summary.problems.join("\n  ")) }
}

/// Short enough to be typed again.
fn random_seed() -> u64 {
    u64::from(uuid::Uuid::new_v4().as_fields().0)
}

/// What the ready file says, as far as it is of use here.
#[derive(Deserialize)]
struct Ready {
    token_file: PathBuf,
    ca_file: Option<PathBuf>,
    listeners: Listeners,
}

#[derive(Deserialize)]
struct Listeners {
    http: SocketAddr,
    lbs: Option<SocketAddr>,
    lbs_legacy: Option<SocketAddr>,
}

/// What vouches for the platform where devices come in over TLS: what was chosen, or what is known.
fn anchors(lbs: &str, chosen: Option<PathBuf>, known: Option<PathBuf>) -> anyhow::Result<Vec<Anchor>> {
    if !lbs.starts_with("osaps://") {
        return Ok(Vec::new());
    }
    let file =
        chosen.or(known).context("nothing vouches for the platform; name the file of its authority with --ca FILE")?;
    let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    Anchor::from_pem(&text).with_context(|| format!("{} is not usable", file.display()))
}

fn by_ready_file(file: &Path, lbs: Option<String>) -> anyhow::Result<(Client, String, Option<PathBuf>)> {
    let text = fs::read(file).with_context(|| {
        format!("the ready file {} cannot be read; it is there while the platform runs", file.display())
    })?;
    let ready: Ready =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a ready file", file.display()))?;
    let token = Token::read(&ready.token_file).map_err(|sentence| anyhow!(sentence))?;
    let client = Client::new(&format!("http://{}", reachable(ready.listeners.http)), token)?;
    let Listeners { lbs: tls, lbs_legacy, .. } = ready.listeners;
    // Over TLS by itself only where it is said whom to trust.
    let tls = tls.filter(|_| ready.ca_file.is_some()).map(|address| format!("osaps://{}", reachable(address)));
    let lbs = lbs.or_else(|| lbs_legacy.map(|address| reachable(address).to_string())).or(tls);
    let lbs = lbs.context("this platform lets no devices in; --set lbs.legacy_listen=127.0.0.1:8666 --set das.legacy_listen=127.0.0.1:8668 opens its listeners")?;
    Ok((client, lbs, ready.ca_file))
}

fn by_flags(connect: Connect, lbs: Option<String>) -> anyhow::Result<(Client, String, Option<PathBuf>)> {
    let lbs = match lbs {
        Some(lbs) => lbs,
        None => connect.lbs()?.map(|address| reachable(address).to_string()).context(
            "it is not known where devices come in\n  \
             name the LBS with --lbs host:port (`vestibule demo` and `vestibule up` say where it is),\n  \
             or the file of `vestibule up --ready-file FILE` with --ready-file FILE",
        )?,
    };
    Ok((connect.client()?, lbs, None))
}

/// Nobody can connect to "any address of this machine"; its loopback is one of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What a serial can begin with.
fn prefix(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_PREFIX {
        return Err(format!("a prefix has 1 to {MAX_PREFIX} characters"));
    }
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'+' | b'#');
    if text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a prefix is ASCII without spaces, /, + and #".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_makes_serials() {
        assert_eq!(prefix("LOAD-7."), Ok("LOAD-7.".to_owned()));
        for wrong in ["", "a b", "a/", "é", "+", &"x".repeat(33)] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_everywhere_is_reached_on_this_machine() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:8666"), "127.0.0.1:8666");
        assert_eq!(reached("[::]:8666"), "[::1]:8666");
        assert_eq!(reached("192.0.2.1:1"), "192.0.2.1:1");
    }

    #[test]
    fn somebody_vouches_for_a_platform_over_tls() {
        assert!(anchors("127.0.0.1:1", None, Some("/ca.pem".into())).expect("not needed").is_empty());
        let error = anchors("osaps://127.0.0.1:1", None, None).expect_err("nobody").to_string();
        assert!(error.contains("--ca"), "{error}");
        assert!(anchors("osaps://127.0.0.1:1", Some("/none.pem".into()), None).is_err());
    }

    #[test]
    fn a_ready_file_names_platform_and_lbs() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, token) = (directory.path().join("ready.json"), directory.path().join("token"));
        fs::write(&token, "secret").expect("written");
        let ready = |lbs: &str| {
            format!(r#"{{"pid":1,"version":"0","token_file":{token:?},"listeners":{{"http":"127.0.0.1:1"{lbs}}}}}"#)
        };
        fs::write(&file, ready(r#","lbs_legacy":"0.0.0.0:2""#)).expect("written");
        assert_eq!(by_ready_file(&file, None).expect("complete").1, "127.0.0.1:2");
        assert_eq!(by_ready_file(&file, Some("hall:3".to_owned())).expect("complete").1, "hall:3");
        let with_ca = ready(r#","lbs":"0.0.0.0:4""#).replacen('{', r#"{"ca_file":"/ca.pem","#, 1);
        fs::write(&file, with_ca).expect("written");
        let (_, lbs, ca) = by_ready_file(&file, None).expect("complete");
        assert_eq!((&*lbs, ca), ("osaps://127.0.0.1:4", Some("/ca.pem".into())));
        fs::write(&file, ready(r#","lbs":"0.0.0.0:4""#)).expect("written");
        let error = by_ready_file(&file, None).err().expect("no LBS").to_string();
        assert!(error.contains("lbs.legacy_listen"), "{error}");
        fs::write(&file, "{}").expect("written");
        assert!(by_ready_file(&file, None).is_err());
        assert!(by_ready_file(&directory.path().join("none"), None).is_err());
    }
}
