//! The figures of all runs, as JSON and as a table.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::measure::{Events, Phase, Run};
use super::modern_figures::{ModernFigures, Tables, TlsMemory};
use super::targets::{self, Target};
use crate::affinity::Cores;
use crate::machine::Machine;
use crate::spread::Spread;
use crate::storm::StormFigures;
use crate::table::Table;

/// Version of the JSON document; docs/benchmarks.md describes it.
const FORMAT: u32 = 2;

/// What a measurement prints.
#[derive(Debug, Serialize)]
pub struct Report {
    benchmark: &'static str,
    format: u32,
    version: &'static str,
    started: Timestamp,
    machine: Machine,
    settings: Settings,
    /// What devices of the legacy suite cost.
    fleets: Vec<FleetFigures>,
    /// What devices of the modern suites cost.
    modern: Vec<ModernFigures>,
    /// What TLS takes of an idle device, where the fleets tell.
    tls_memory: Option<TlsMemory>,
    /// All devices coming back at once.
    storm: Option<StormFigures>,
    targets: Vec<Target>,
}

/// What the figures depend on besides the machine.
#[derive(Debug, Serialize)]
pub struct Settings {
    /// Bytes of an event.
    pub event_bytes: usize,
    /// Events of one measurement at most.
    pub events: u64,
    /// Devices that authenticate or log in at once.
    pub lanes: usize,
    /// Runs.
    pub repeat: u32,
    /// Less of everything.
    pub quick: bool,
    /// `null`: nothing is pinned.
    pub cores: Option<Cores>,
    /// What was measured.
    pub binary: String,
}

/// The figures of a fleet.
#[derive(Debug, Serialize)]
pub struct FleetFigures {
    pub(super) devices: usize,
    pub(super) p384_exchange_us: Spread,
    pub(super) bare_conversation_us: Spread,
    pub(super) first_authentication: Figure,
    /// The P-384 exchange as a share of the whole: 1 would be the limit.
    pub(super) first_authentication_p384_share: Spread,
    pub(super) first_connect: Figure,
    pub(super) refresh: Figure,
    pub(super) login: Figure,
    pub(super) events: Vec<EventFigure>,
    pub(super) attribute: Figure,
    pub(super) operation: Figure,
    pub(super) desired: Figure,
    pub(super) idle_cpu_us_per_second: Spread,
    pub(super) memory: MemoryFigure,
}

/// What one kind of work costs.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Units in each run.
    units: Vec<u64>,
    /// The figure.
    pub(super) cpu_us: Spread,
    /// The same by the kernel's coarser account.
    cpu_us_by_ticks: Spread,
    /// Units in a second, as fast as the generator goes.
    pub(super) per_second: Spread,
}

/// What an event costs, opened, parsed, checked, committed and acknowledged.
#[derive(Debug, Serialize)]
pub struct EventFigure {
    /// Unacknowledged events of each device.
    pub(super) window: u64,
    #[serde(flatten)]
    pub(super) figure: Figure,
    /// Events in one commit, on average.
    pub(super) events_per_commit: Spread,
}

/// By how much the platform's process grew for each device, in bytes.
#[derive(Debug, Serialize)]
pub struct MemoryFigure {
    /// From registered to connected: with what its authentication left behind.
    pub(super) idle_device_bytes: Spread,
    /// From authenticated to connected: the connection and its session alone.
    pub(super) idle_connection_bytes: Spread,
    /// From connected to connected with five attributes reported: what these take, and what reporting them leaves behind.
    five_attributes_bytes: Spread,
    /// Heap and stacks in `idle_device_bytes`.
    idle_device_anonymous_bytes: Spread,
    /// The whole process with the fleet connected, in KiB.
    connected_pss_kib: Spread,
}

impl FleetFigures {
    /// From the runs of one fleet; `None` without any.
    pub fn of(devices: usize, runs: &[Run]) -> Option<FleetFigures> {
        let spread = |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(figure));
        let each = |phase: fn(&Run) -> Phase| Figure::of(runs.iter().map(phase));
        let bytes = |kib: fn(&Run) -> (u64, u64)| {
            Spread::of(runs.iter().map(kib).map(|(less, more)| grown_by(less, more, devices)))
        };
        let windows = runs.first()?.events.len();
        let events = |window| EventFigure::of(runs.iter().filter_map(move |run| run.events.get(window)));
        Some(FleetFigures {
            devices,
            p384_exchange_us: spread(|run| run.exchange_us)?,
            bare_conversation_us: spread(|run| run.conversation_us)?,
            first_authentication: each(|run| run.authentication)?,
            first_authentication_p384_share: spread(|run| run.exchange_us / run.authentication.cpu_us())?,
            first_connect: each(|run| run.first_connect)?,
            refresh: each(|run| run.refresh)?,
            login: each(|run| run.login)?,
            events: (0..windows).map(events).collect::<Option<_>>()?,
            attribute: each(|run| run.attribute)?,
            operation: each(|run| run.operation)?,
            desired: each(|run| run.desired)?,
            idle_cpu_us_per_second: spread(|run| run.idle_us_per_second)?,
            memory: MemoryFigure {
                idle_device_bytes: bytes(|run| (run.registered.pss_kib, run.connected.pss_kib))?,
                idle_connection_bytes: bytes(|run| (run.authenticated.pss_kib, run.connected.pss_kib))?,
                five_attributes_bytes: bytes(|run| (run.connected.pss_kib, run.described.pss_kib))?,
                idle_device_anonymous_bytes: bytes(|run| (run.registered.anonymous_kib, run.connected.anonymous_kib))?,
                connected_pss_kib: spread(|run| run.connected.pss_kib as f64)?,
            },
        })
    }
}

impl Figure {
    pub(super) fn of(phases: impl Iterator<Item = Phase> + Clone) -> Option<Figure> {
        Some(Figure {
            units: phases.clone().map(|phase| phase.units).collect(),
            cpu_us: Spread::of(phases.clone().map(|phase| phase.cpu_us()))?,
            cpu_us_by_ticks: Spread::of(phases.clone().map(|phase| phase.ticks_us()))?,
            per_second: Spread::of(phases.map(|phase| phase.rate()))?,
        })
    }
}

impl EventFigure {
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a Events> + Clone) -> Option<EventFigure> {
        Some(EventFigure {
            window: runs.clone().next()?.window,
            figure: Figure::of(runs.clone().map(|events| events.phase))?,
            events_per_commit: Spread::of(runs.map(|events| events.phase.units as f64 / events.commits))?,
        })
    }
}

impl MemoryFigure {
    /// The kernel counts pages of 4 KiB: a few devices drown in them.
    fn shown(&self, figure: fn(&MemoryFigure) -> &Spread, devices: usize) -> Option<String> {
        Some(if devices < targets::SMALL { "–".to_owned() } else { figure(self).to_string() })
    }
}

impl Report {
    /// All of it, with the targets these figures can be held against.
    pub fn new(
        started: Timestamp,
        machine: Machine,
        settings: Settings,
        (fleets, modern): (Vec<FleetFigures>, Vec<ModernFigures>),
        storm: Option<StormFigures>,
    ) -> Report {
        Report {
            benchmark: "osap",
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            started,
            machine,
            settings,
            targets: targets::of(&fleets),
            fleets,
            tls_memory: TlsMemory::of(&modern),
            modern,
            storm,
        }
    }

    /// The table of the legacy suite.
    fn legacy(&self) -> Table {
        let name = |fleet: &FleetFigures| column(fleet.devices);
        let head = std::iter::once("type 1, CPU µs of the platform".to_owned()).chain(self.fleets.iter().map(name));
        let mut table = Table::new(head);
        let mut row = |name: &str, cell: &dyn Fn(&FleetFigures) -> Option<String>| {
            table.row(name, self.fleets.iter().map(|fleet| cell(fleet).unwrap_or_default()));
        };
        row("first authentication", &|fleet| Some(fleet.first_authentication.cpu_us.to_string()));
        row("  P-384 exchange alone", &|fleet| Some(fleet.p384_exchange_us.to_string()));
        row("  its share of the whole", &|fleet| Some(fleet.first_authentication_p384_share.to_string()));
        row("  bare conversation alone", &|fleet| Some(fleet.bare_conversation_us.to_string()));
        row("first CONNECT (answered 11)", &|fleet| Some(fleet.first_connect.cpu_us.to_string()));
        row("refresh", &|fleet| Some(fleet.refresh.cpu_us.to_string()));
        row("login, two subscriptions", &|fleet| Some(fleet.login.cpu_us.to_string()));
        let windows = self.fleets.first().map_or(0, |fleet| fleet.events.len());
        for index in 0..windows {
            let of = |fleet: &FleetFigures, show: fn(&EventFigure) -> &Spread| {
                Some(show(fleet.events.get(index)?).to_string())
            };
            let window = self.fleets.first().and_then(|fleet| fleet.events.get(index)).map_or(0, |event| event.window);
            row(&format!("event stored, window {window}"), &|fleet| of(fleet, |event| &event.figure.cpu_us));
            row("  events/s", &|fleet| of(fleet, |event| &event.figure.per_second));
            row("  events in a commit", &|fleet| of(fleet, |event| &event.events_per_commit));
        }
        row("attribute reported", &|fleet| Some(fleet.attribute.cpu_us.to_string()));
        row("operation, there and back", &|fleet| Some(fleet.operation.cpu_us.to_string()));
        row("desired value, applied", &|fleet| Some(fleet.desired.cpu_us.to_string()));
        row("idle fleet, for each second", &|fleet| Some(fleet.idle_cpu_us_per_second.to_string()));
        row("memory of an idle device, bytes", &|fleet| {
            fleet.memory.shown(|memory| &memory.idle_device_bytes, fleet.devices)
        });
        row("  its connection alone, bytes", &|fleet| {
            fleet.memory.shown(|memory| &memory.idle_connection_bytes, fleet.devices)
        });
        row("memory of five attributes, bytes", &|fleet| {
            fleet.memory.shown(|memory| &memory.five_attributes_bytes, fleet.devices)
        });
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.fleets.is_empty() {
            writeln!(f, "{}", self.legacy())?;
        }
        write!(f, "{}", Tables(&self.modern))?;
        if self.settings.repeat > 1 {
            writeln!(f, "median (least–greatest) of {} runs", self.settings.repeat)?;
        }
        if self.settings.quick {
            writeln!(f, "a quick run shows that it works, not what it costs")?;
        }
        writeln!(f)?;
        if let Some(tls) = &self.tls_memory {
            writeln!(f, "{tls}")?;
        }
        if let Some(storm) = &self.storm {
            writeln!(f, "{storm}")?;
        }
        self.targets.iter().try_for_each(|target| writeln!(f, "{target}"))
    }
}

/// The head of a fleet's column.
pub(super) fn column(devices: usize) -> String {
    match devices {
        1 => "1 device".to_owned(),
        devices => format!("{} devices", thousands(devices)),
    }
}

/// Bytes for each device, from KiB of the whole.
pub(super) fn grown_by(less_kib: u64, more_kib: u64, devices: usize) -> f64 {
    (more_kib as f64 - less_kib as f64) * 1024.0 / devices as f64
}

/// `5,000`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use osap::Suite;
    use serde_json::json;

    use super::super::modern_figures::tests::fleet as modern_fleet;
    use super::*;
    use crate::cpu::Spent;
    use crate::memory::Memory;

    /// A phase of 1,000 units that cost so much each.
    pub fn phase(cpu_us: u64) -> Phase {
        let cpu = Duration::from_micros(cpu_us * 1_000);
        Phase { units: 1_000, spent: Spent { cpu, ticks: cpu }, wall: Duration::from_secs(2) }
    }

    /// A fleet whose events cost so much, on a machine with an exchange of 100 µs, and with 2 KiB for each device.
    pub fn fleet(devices: usize, event_us: u64) -> FleetFigures {
        let memory = |kib| Memory { pss_kib: kib, anonymous_kib: kib };
        let run = Run {
            exchange_us: 100.0,
            conversation_us: 25.0,
            authentication: phase(160),
            first_connect: phase(30),
            refresh: phase(40),
            login: phase(50),
            events: vec![Events { window: 4, phase: phase(event_us), commits: 10.0 }],
            attribute: phase(12),
            operation: phase(90),
            desired: phase(110),
            idle_us_per_second: 20.0,
            registered: memory(10_000),
            authenticated: memory(10_000 + devices as u64),
            connected: memory(10_000 + 2 * devices as u64),
            described: memory(10_000 + 3 * devices as u64),
        };
        FleetFigures::of(devices, &[run.clone(), run]).expect("runs")
    }

    #[test]
    fn a_fleet_sums_its_runs_up() {
        let fleet = fleet(100, 20);
        assert_eq!(fleet.first_authentication.cpu_us.median, 160.0);
        assert_eq!(fleet.first_authentication_p384_share.median, 0.625);
        assert_eq!(fleet.events[0].events_per_commit.median, 100.0);
        assert_eq!(fleet.events[0].figure.per_second.median, 500.0);
        assert_eq!(fleet.memory.idle_device_bytes.median, 2_048.0);
        assert_eq!(fleet.memory.idle_connection_bytes.median, 1_024.0);
        assert_eq!(fleet.memory.five_attributes_bytes.median, 1_024.0);
        assert_eq!([&fleet.attribute, &fleet.operation, &fleet.desired].map(|f| f.cpu_us.median), [12.0, 90.0, 110.0]);
        assert!(FleetFigures::of(100, &[]).is_none());
    }

    #[test]
    fn the_report_has_a_column_for_each_fleet_and_is_json() {
        let settings = Settings {
            event_bytes: 256,
            events: 1_000,
            lanes: 32,
            repeat: 2,
            quick: false,
            cores: None,
            binary: "vestibule".to_owned(),
        };
        let machine = Machine::this(std::path::Path::new("/"));
        let modern = vec![modern_fleet(Suite::Tls, 2_000, 12)];
        let fleets = (vec![fleet(1, 400), fleet(5_000, 20)], modern);
        let report = Report::new(Timestamp::UNIX_EPOCH, machine, settings, fleets, None);
        let text = report.to_string();
        let head = text.lines().next().expect("a line");
        assert!(head.contains("1 device") && head.contains("5,000 devices"), "{head}");
        let line = text.lines().find(|line| line.starts_with("event stored, window 4")).expect("a row");
        assert!(line.contains("400 (400–400)") && line.contains("20.0 (20.0–20.0)"), "{line}");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["fleets"][1]["events"][0]["cpu_us"]["median"], 20.0);
        assert_eq!(json["fleets"][1]["events"][0]["window"], 4);
        assert_eq!(
            (&json["modern"][0]["type"], &json["modern"][0]["return"]["bare_share"]["median"]),
            (&json!(4), &json!(0.5))
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([1, 100, 5_000, 1_234_567].map(thousands), ["1", "100", "5,000", "1,234,567"]);
    }
}
