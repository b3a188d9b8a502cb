//! The figures of the modern suites.

use std::fmt;

use osap::Suite;
use serde::Serialize;

use super::figures::{EventFigure, Figure, column, grown_by};
use super::measure::Phase;
use super::modern::ModernRun;
use super::targets;
use crate::spread::Spread;
use crate::table::Table;

/// The figures of a fleet of a modern suite.
#[derive(Debug, Serialize)]
pub struct ModernFigures {
    #[serde(skip)]
    pub(super) suite: Suite,
    /// The protocol type: 4, 8 or 16.
    pub(super) r#type: u8,
    pub(super) devices: usize,
    /// What the cryptography of an authentication costs alone.
    pub(super) bare: BareFigure,
    /// `null` for types 8 and 16, whose devices are provisioned.
    pub(super) enrolment: Option<Authentication>,
    pub(super) r#return: Authentication,
    pub(super) login: Figure,
    /// The bare handshake as a share of a login; `null` for types 8 and 16, whose logins have none.
    pub(super) login_bare_share: Option<Spread>,
    pub(super) events: Vec<EventFigure>,
    pub(super) idle_cpu_us_per_second: Spread,
    pub(super) memory: ModernMemory,
}

/// The floor.
#[derive(Debug, Serialize)]
pub struct BareFigure {
    /// With the group that was negotiated.
    what: String,
    us: Spread,
}

/// A run at the LBS.
#[derive(Debug, Serialize)]
pub struct Authentication {
    #[serde(flatten)]
    pub(super) figure: Figure,
    /// The bare handshake or exchange as a share of the whole.
    pub(super) bare_share: Spread,
}

/// By how much the platform's process grew for each device, in bytes.
#[derive(Debug, Serialize)]
pub struct ModernMemory {
    /// From registered to connected.
    pub(super) idle_device_bytes: Spread,
    /// From authenticated to connected.
    pub(super) idle_connection_bytes: Spread,
    /// Heap and stacks in `idle_device_bytes`.
    idle_device_anonymous_bytes: Spread,
    /// The whole process with the fleet connected, in KiB.
    connected_pss_kib: Spread,
}

/// What TLS takes of an idle device: the difference between a fleet of type 4 and one of the same size over plain TCP.
#[derive(Debug, Serialize)]
pub struct TlsMemory {
    devices: usize,
    /// The type of the other fleet.
    less_type: u8,
    /// Run by run.
    bytes: Spread,
}

impl ModernFigures {
    /// From the runs of one fleet; `None` without any.
    pub fn of(suite: Suite, devices: usize, runs: &[ModernRun]) -> Option<ModernFigures> {
        let spread = |figure: fn(&ModernRun) -> f64| Spread::of(runs.iter().map(figure));
        let bytes = |kib: fn(&ModernRun) -> (u64, u64)| {
            Spread::of(runs.iter().map(kib).map(|(less, more)| grown_by(less, more, devices)))
        };
        let authentication = |phase: fn(&ModernRun) -> Option<Phase>| {
            let phases = runs.iter().filter_map(phase);
            let shares = runs.iter().filter_map(|run| Some(run.bare.us / phase(run)?.cpu_us()));
            Some(Authentication { figure: Figure::of(phases)?, bare_share: Spread::of(shares)? })
        };
        let windows = runs.first()?.events.len();
        let events = |window| EventFigure::of(runs.iter().filter_map(move |run| run.events.get(window)));
        let over_tls = (suite == Suite::Tls).then_some(());
        Some(ModernFigures {
            suite,
            r#type: suite.protocol_type(),
            devices,
            bare: BareFigure { what: runs.first()?.bare.what.clone(), us: spread(|run| run.bare.us)? },
            enrolment: authentication(|run| run.enrolment),
            r#return: authentication(|run| Some(run.back))?,
            login: Figure::of(runs.iter().map(|run| run.login))?,
            login_bare_share: over_tls.and_then(|()| spread(|run| run.bare.us / run.login.cpu_us())),
            events: (0..windows).map(events).collect::<Option<_>>()?,
            idle_cpu_us_per_second: spread(|run| run.idle_us_per_second)?,
            memory: ModernMemory {
                idle_device_bytes: bytes(|run| (run.registered.pss_kib, run.connected.pss_kib))?,
                idle_connection_bytes: bytes(|run| (run.authenticated.pss_kib, run.connected.pss_kib))?,
                idle_device_anonymous_bytes: bytes(|run| (run.registered.anonymous_kib, run.connected.anonymous_kib))?,
                connected_pss_kib: spread(|run| run.connected.pss_kib as f64)?,
            },
        })
    }
}

impl TlsMemory {
    /// From the largest fleet of type 4 that has a counterpart over plain TCP; of two counterparts the first.
    pub fn of(fleets: &[ModernFigures]) -> Option<TlsMemory> {
        let pairs = fleets.iter().filter(|fleet| fleet.suite == Suite::Tls).filter_map(|tls| {
            let plain = |fleet: &&ModernFigures| fleet.suite != Suite::Tls && fleet.devices == tls.devices;
            Some((tls, fleets.iter().find(plain)?))
        });
        let (tls, plain) = pairs.max_by_key(|(tls, _)| tls.devices).filter(|(tls, _)| tls.devices >= targets::SMALL)?;
        let samples = |fleet: &ModernFigures| fleet.memory.idle_device_bytes.samples.clone();
        let bytes = samples(tls).into_iter().zip(samples(plain)).map(|(tls, plain)| tls - plain);
        Some(TlsMemory { devices: tls.devices, less_type: plain.r#type, bytes: Spread::of(bytes)? })
    }
}

impl fmt::Display for TlsMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TlsMemory { devices, less_type, bytes } = self;
        write!(f, "TLS of an idle device: {bytes} bytes (type 4 less type {less_type}, {devices} devices)")
    }
}

/// A table for each suite, a column for each fleet.
pub struct Tables<'a>(pub &'a [ModernFigures]);

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suite in Suite::ALL {
            let fleets: Vec<&ModernFigures> = self.0.iter().filter(|fleet| fleet.suite == suite).collect();
            if !fleets.is_empty() {
                writeln!(f, "{}", table(suite, &fleets))?;
            }
        }
        Ok(())
    }
}

fn table(suite: Suite, fleets: &[&ModernFigures]) -> Table {
    let head = format!("type {}, CPU µs of the platform", suite.protocol_type());
    let mut table = Table::new(std::iter::once(head).chain(fleets.iter().map(|fleet| column(fleet.devices))));
    let mut row = |name: &str, cell: &dyn Fn(&ModernFigures) -> Option<String>| {
        let cells: Vec<_> = fleets.iter().map(|fleet| cell(fleet)).collect();
        if cells.iter().any(Option::is_some) {
            table.row(name, cells.into_iter().map(Option::unwrap_or_default));
        }
    };
    let share = "  the bare one's share of it";
    let what = fleets.first().map_or("", |fleet| &fleet.bare.what);
    row(&format!("bare {what}"), &|fleet| Some(fleet.bare.us.to_string()));
    row("enrolment by code", &|fleet| Some(fleet.enrolment.as_ref()?.figure.cpu_us.to_string()));
    row(share, &|fleet| Some(fleet.enrolment.as_ref()?.bare_share.to_string()));
    row("return by ticket", &|fleet| Some(fleet.r#return.figure.cpu_us.to_string()));
    row(share, &|fleet| Some(fleet.r#return.bare_share.to_string()));
    row("login, report, two subscriptions", &|fleet| Some(fleet.login.cpu_us.to_string()));
    row(share, &|fleet| Some(fleet.login_bare_share.as_ref()?.to_string()));
    for index in 0..fleets.first().map_or(0, |fleet| fleet.events.len()) {
        let of =
            |fleet: &ModernFigures, show: fn(&EventFigure) -> &Spread| Some(show(fleet.events.get(index)?).to_string());
        let window = fleets.first().and_then(|fleet| fleet.events.get(index)).map_or(0, |event| event.window);
        row(&format!("event stored, window {window}"), &|fleet| of(fleet, |event| &event.figure.cpu_us));
        row("  events/s", &|fleet| of(fleet, |event| &event.figure.per_second));
        row("  events in a commit", &|fleet| of(fleet, |event| &event.events_per_commit));
    }
    row("idle fleet, for each second", &|fleet| Some(fleet.idle_cpu_us_per_second.to_string()));
    let shown = |fleet: &ModernFigures, figure: &Spread| {
        Some(if fleet.devices < targets::SMALL { "–".to_owned() } else { figure.to_string() })
    };
    row("memory of an idle device, bytes", &|fleet| shown(fleet, &fleet.memory.idle_device_bytes));
    row("  its connection alone, bytes", &|fleet| shown(fleet, &fleet.memory.idle_connection_bytes));
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::figures::tests::phase;
    use super::super::measure::Events;
    use super::*;
    use crate::bare::Bare;
    use crate::memory::Memory;

    /// A fleet that takes so many KiB for each device.
    pub fn fleet(suite: Suite, devices: usize, kib: u64) -> ModernFigures {
        let memory = |kib| Memory { pss_kib: kib, anonymous_kib: kib };
        let run = ModernRun {
            bare: Bare { what: "handshake".to_owned(), us: 80.0 },
            enrolment: (suite == Suite::Tls).then(|| phase(320)),
            back: phase(160),
            login: phase(200),
            events: vec![Events { window: 4, phase: phase(11), commits: 10.0 }],
            idle_us_per_second: 20.0,
            registered: memory(10_000),
            authenticated: memory(10_000 + devices as u64),
            connected: memory(10_000 + kib * devices as u64),
        };
        ModernFigures::of(suite, devices, &[run.clone(), run]).expect("runs")
    }

    #[test]
    fn shares_are_of_the_whole() {
        let tls = fleet(Suite::Tls, 100, 12);
        assert_eq!(tls.enrolment.as_ref().map(|enrolment| enrolment.bare_share.median), Some(0.25));
        assert_eq!(tls.r#return.bare_share.median, 0.5);
        assert_eq!(tls.login_bare_share.as_ref().map(|share| share.median), Some(0.4));
        let plain = fleet(Suite::P384, 100, 3);
        assert!(plain.enrolment.is_none() && plain.login_bare_share.is_none());
        assert_eq!((plain.r#type, plain.memory.idle_device_bytes.median), (8, 3_072.0));
    }

    #[test]
    fn what_tls_takes_is_the_difference_between_fleets_of_one_size() {
        let fleets = [fleet(Suite::Tls, 100, 12), fleet(Suite::Tls, 2_000, 10), fleet(Suite::X25519, 2_000, 3)];
        let tls = TlsMemory::of(&fleets).expect("a pair");
        assert_eq!((tls.devices, tls.less_type, tls.bytes.median), (2_000, 16, 7_168.0));
        assert!(TlsMemory::of(&fleets[..2]).is_none());
    }

    #[test]
    fn each_suite_has_a_table_with_the_rows_it_has() {
        let text = Tables(&[fleet(Suite::Tls, 2_000, 12), fleet(Suite::X25519, 100, 3)]).to_string();
        assert_eq!(text.matches("enrolment by code").count(), 1, "{text}");
        assert_eq!(text.matches("return by ticket").count(), 2, "{text}");
        assert!(text.contains("type 4") && text.contains("type 16") && text.contains("2,000 devices"), "{text}");
    }
}
