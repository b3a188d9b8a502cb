//! What a simulation has found out.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::actor::Gauges;
use super::diary::{Count, Diary, Entry, FaultCount, Life};
use super::latency::Quantiles;
use super::ledger::Comparison;
use super::orders::OperationFigures;

/// How many devices that never came in are named.
const NAMED: usize = 3;

/// The outcome.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Nothing is missing or doubled, and every device came in.
    pub ok: bool,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// A signal ended it.
    interrupted: bool,
    seed: u64,
    /// From the first start to the last goodbye.
    seconds: f64,
    devices: DeviceFigures,
    events: MessageFigures,
    reports: MessageFigures,
    operations: OperationFigures,
    faults: FaultFigures,
    /// What the platform stored; `null` when it could not be asked.
    stored: Option<StoredFigures>,
}

#[derive(Debug, Serialize)]
struct DeviceFigures {
    asked_for: u64,
    /// Those whose turn had come when it ended.
    started: u64,
    came_in: u64,
    by_profile: BTreeMap<&'static str, u64>,
    children: ChildFigures,
    authentications: u64,
    logins: u64,
    /// From the start of a device to its first login.
    entry_ms: Option<Quantiles>,
}

/// Of the children of all hubs.
#[derive(Debug, Serialize)]
struct ChildFigures {
    asked_for: u64,
    /// Those whose code the platform has found proven.
    accepted: u64,
}

#[derive(Debug, Serialize)]
struct MessageFigures {
    sent: u64,
    acknowledged: u64,
    /// Sent, and given up without an acknowledgement.
    failed: u64,
    /// Not sent, because too many waited in the device.
    not_sent: u64,
    /// From the report to the acknowledgement.
    latency_ms: Option<Quantiles>,
}

#[derive(Debug, Serialize)]
struct FaultFigures {
    drop: u64,
    pause: u64,
    reconnect: u64,
    child: u64,
}

#[derive(Debug, Serialize)]
struct StoredFigures {
    events: u64,
    missing: u64,
    doubled: u64,
    never_acknowledged: u64,
    never_sent: u64,
}

impl From<Comparison> for StoredFigures {
    fn from(found: Comparison) -> StoredFigures {
        let Comparison { stored: events, missing, doubled, never_acknowledged, never_sent } = found;
        StoredFigures { events, missing, doubled, never_acknowledged, never_sent }
    }
}

/// What the summary is made of.
pub(super) struct Findings<'a> {
    pub seed: u64,
    pub seconds: f64,
    pub interrupted: bool,
    /// What each device of the fleet is, and its serial.
    pub fleet: Vec<(&'static str, &'a str)>,
    pub diaries: &'a [Diary],
    pub gauges: &'a Gauges,
    pub operations: OperationFigures,
    /// Why the platform could not be asked, if so.
    pub stored: Result<(), String>,
}

impl Summary {
    pub(super) fn of(findings: Findings<'_>) -> Summary {
        let Findings { seed, seconds, interrupted, fleet, diaries, gauges, operations, stored } = findings;
        let mut by_profile = BTreeMap::new();
        for (profile, _) in &fleet {
            *by_profile.entry(*profile).or_default() += 1;
        }
        let absent = diaries.iter().filter_map(|diary| match &diary.entry {
            Entry::Refused(why) => Some((diary.number, why.as_str())),
            // Somebody ended it before this one could know.
            Entry::UnderWay if !interrupted => Some((diary.number, "it was not in yet")),
            Entry::UnderWay | Entry::NotStarted | Entry::In => None,
        });
        let absent: Vec<(u32, &str)> = absent.collect();
        let count = |wanted: fn(&Entry) -> bool| diaries.iter().filter(|diary| wanted(&diary.entry)).count() as u64;
        let mut found = Comparison::default();
        diaries.iter().flat_map(|diary| &diary.lives).for_each(|life| found += life.ledger.compare());
        let children: Vec<&Life> = diaries.iter().flat_map(|diary| diary.lives.iter().skip(1)).collect();
        let accepted = children.iter().filter(|child| child.accepted).count();
        let mut problems = Vec::new();
        if !absent.is_empty() {
            problems.push(absence(&absent, &fleet));
        }
        // As with the hubs: somebody may have ended it before.
        if !interrupted {
            let hubs = diaries.iter().filter(|diary| diary.entry == Entry::In);
            problems.extend(rejection(hubs.flat_map(|hub| hub.lives.iter().skip(1))));
        }
        match &stored {
            Ok(()) => problems.extend(losses(&found)),
            Err(why) => problems.push(format!("what is stored could not be read back: {why}")),
        }
        let sum = |of: fn(&Diary) -> u64| diaries.iter().map(of).sum();
        Summary {
            ok: problems.is_empty(),
            problems,
            interrupted,
            seed,
            seconds,
            devices: DeviceFigures {
                asked_for: fleet.len() as u64,
                started: count(|entry| *entry != Entry::NotStarted),
                came_in: count(|entry| *entry == Entry::In),
                by_profile,
                children: ChildFigures { asked_for: children.len() as u64, accepted: accepted as u64 },
                authentications: sum(|diary| diary.authentications),
                logins: sum(|diary| diary.logins),
                entry_ms: gauges.entries.quantiles(),
            },
            events: MessageFigures::of(diaries.iter().map(|diary| diary.events), gauges.events.quantiles()),
            reports: MessageFigures::of(diaries.iter().map(|diary| diary.reports), gauges.reports.quantiles()),
            operations,
            faults: FaultFigures::of(diaries.iter().map(|diary| diary.faults)),
            stored: stored.is_ok().then(|| found.into()),
        }
    }
}

impl Summary {
    /// Something else is wrong.
    pub(super) fn fail(&mut self, problem: String) {
        self.ok = false;
        self.problems.push(problem);
    }
}

/// Who never came in, and why.
fn absence(absent: &[(u32, &str)], fleet: &[(&'static str, &str)]) -> String {
    let named = absent.iter().take(NAMED).map(|(number, why)| {
        let serial = fleet.get(*number as usize).map_or("", |(_, serial)| serial);
        format!("{serial} ({why})")
    });
    let more = if absent.len() > NAMED { ", …" } else { "" };
    let devices = if absent.len() == 1 { "device" } else { "devices" };
    format!("{} {devices} never came in: {}{more}", absent.len(), named.collect::<Vec<_>>().join(", "))
}

/// Which children were never accepted, of hubs that came in.
fn rejection<'a>(children: impl Iterator<Item = &'a Life>) -> Option<String> {
    let refused: Vec<&str> = children.filter(|child| !child.accepted).map(|child| child.serial.as_str()).collect();
    let children = if refused.len() == 1 { "child was" } else { "children were" };
    let more = if refused.len() > NAMED { ", …" } else { "" };
    let named = refused.get(..NAMED).unwrap_or(&refused).join(", ");
    (!refused.is_empty()).then(|| format!("{} {children} never accepted: {named}{more}", refused.len()))
}

fn losses(found: &Comparison) -> impl Iterator<Item = String> {
    let losses = [
        (found.missing, "acknowledged and not stored"),
        (found.doubled, "stored more than once"),
        (found.never_sent, "stored under ids of this run that were never used"),
    ];
    losses.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("events {what}: {count}"))
}

impl MessageFigures {
    fn of(counts: impl Iterator<Item = Count>, latency_ms: Option<Quantiles>) -> MessageFigures {
        let mut figures = MessageFigures { sent: 0, acknowledged: 0, failed: 0, not_sent: 0, latency_ms };
        for Count { sent, acknowledged, given_up, not_sent } in counts {
            figures.sent += sent;
            figures.acknowledged += acknowledged;
            figures.failed += given_up;
            figures.not_sent += not_sent;
        }
        figures
    }
}

impl FaultFigures {
    fn of(counts: impl Iterator<Item = FaultCount>) -> FaultFigures {
        let mut figures = FaultFigures { drop: 0, pause: 0, reconnect: 0, child: 0 };
        for FaultCount { drop, pause, reconnect, child } in counts {
            figures.drop += drop;
            figures.pause += pause;
            figures.reconnect += reconnect;
            figures.child += child;
        }
        figures
    }
}

/// `median 1.2 ms, 99 % within 8.4 ms, longest 12 ms`.
struct Took(Option<Quantiles>);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Quantiles { median, p99, max }) = self.0 else { return Ok(()) };
        write!(f, "; median {median:.1} ms, 99 % within {p99:.1} ms, longest {max:.1} ms")
    }
}

impl fmt::Display for MessageFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} acknowledged, {} failed", self.sent, self.acknowledged, self.failed)?;
        if self.not_sent > 0 {
            write!(f, ", {} not sent because too many waited", self.not_sent)?;
        }
        write!(f, "{}", Took(self.latency_ms))
    }
}

/// What operations came to, without the outcomes that did not occur.
struct Outcomes<'a>(&'a OperationFigures);

impl fmt::Display for Outcomes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.0;
        write!(f, "{} asked for, {} done", figures.sent, figures.done)?;
        let others = [
            (figures.failed, "failed"),
            (figures.timed_out, "timed out"),
            (figures.offline, "offline"),
            (figures.unknown, "unknown"),
            (figures.refused, "refused"),
            (figures.skipped, "skipped because too many waited"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        write!(f, "{}", Took(figures.latency_ms))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = &self.devices;
        let kinds: Vec<String> = devices.by_profile.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let (asked_for, kinds) = (devices.asked_for, kinds.join(", "));
        write!(f, "devices     {asked_for} ({kinds}), ")?;
        if devices.started < asked_for {
            write!(f, "{} started, ", devices.started)?;
        }
        writeln!(f, "{} came in{}", devices.came_in, Took(devices.entry_ms))?;
        let ChildFigures { asked_for, accepted } = devices.children;
        if asked_for > 0 {
            writeln!(f, "            {asked_for} children of hubs, {accepted} accepted")?;
        }
        writeln!(
            f,
            "            {} authentications, {} logins in {:.0} s, seed {}",
            devices.authentications, devices.logins, self.seconds, self.seed
        )?;
        writeln!(f, "events      {}", self.events)?;
        writeln!(f, "attributes  {}", self.reports)?;
        if self.operations.sent + self.operations.skipped > 0 {
            writeln!(f, "operations  {}", Outcomes(&self.operations))?;
        }
        let FaultFigures { drop, pause, reconnect, child } = self.faults;
        if drop + pause + reconnect + child > 0 {
            write!(f, "faults      {drop} connections cut, {pause} silences, {reconnect} restarts")?;
            writeln!(f, ", {child} absences of children")?;
        }
        match &self.stored {
            Some(stored) => write!(
                f,
                "stored      {} events: {} acknowledged and missing, {} twice, {} without having been acknowledged",
                stored.events, stored.missing, stored.doubled, stored.never_acknowledged
            ),
            None => write!(f, "stored      not known"),
        }
    }
}

#[cfg(test)]
mod tests;
