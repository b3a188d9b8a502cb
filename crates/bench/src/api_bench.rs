//! `bench api`: what an integrator's requests cost at a large registry.

mod fanout;
mod past;
mod questions;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;

use crate::affinity::{self, Cores};
use crate::machine::Machine;
use crate::server::{self, Server};
use crate::table::Table;
use past::{EventFigure, Past};
use questions::{QUESTIONS, Question};

/// What the platform that tells many is told: all of them come from this machine.
const SETTINGS: [&str; 3] = ["http.max_streams=4096", "http.max_connections=8192", "webhooks.allow=127.0.0.0/8"];

/// Registers devices by one import, asks for lists of them and for events in each way, and has events told to many
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench api
  cargo xtask bench api --devices 10000 --quick --json api.json

docs/benchmarks.md tells what the figures mean.")]
pub struct Args {
    /// Devices of the registry
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000))]
    pub devices: u64,
    /// Requests of each kind
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests: u32,
    /// Events of the journal that is asked; written before the platform starts
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(10_000..=50_000_000))]
    pub events: u64,
    /// Longest time in which they are written, in seconds; what does not fit is left out
    #[arg(long, value_name = "S", default_value_t = 900)]
    pub setup_time: u64,
    /// How many follow the event stream
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub subscribers: u32,
    /// Events that are told to each of them
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub told: u64,
    /// How long a webhook is told, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub webhook_time: u64,
    /// Less of everything: shows that it works, not what it costs
    #[arg(long)]
    pub quick: bool,
    /// Where the JSON goes; `-` is the standard output, and the table then goes to the standard error
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub json: PathBuf,
    /// The platform's binary [default: `vestibule` beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Directory in which the platform's data directory is made and removed
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    started: String,
    machine: Machine,
    devices: u64,
    requests: u32,
    quick: bool,
    cores: Option<Cores>,
    binary: String,
    /// All devices, by one import.
    import: Figure,
    /// The same file once more.
    import_again: Figure,
    /// All devices, as NDJSON.
    export: Figure,
    lists: Vec<ListFigure>,
    /// The journal that was asked.
    journal: Past,
    events: Vec<EventFigure>,
    /// How many followed the event stream.
    subscribers: u32,
    /// One event to one of them.
    stream: Figure,
    /// One event to a webhook.
    webhook: Figure,
}

/// CPU time of the platform, and how long its client waited, for so many units.
#[derive(Debug, Clone, Copy, Serialize)]
struct Figure {
    units: u64,
    cpu_us: f64,
    wall_ms: f64,
}

impl Figure {
    /// CPU time of one unit.
    fn cpu_each(&self) -> f64 {
        self.cpu_us / self.units.max(1) as f64
    }
}

/// A list that was asked for again and again.
#[derive(Debug, Serialize)]
struct ListFigure {
    name: &'static str,
    query: &'static str,
    /// CPU time of the platform for one page.
    cpu_us: f64,
    /// How long its client waited for one: half of the time, and 99 times out of a hundred, not longer.
    median_us: u64,
    p99_us: u64,
    /// Devices of a page.
    rows: f64,
    /// Devices that were looked at for each that was shown; none when none was.
    examined_per_row: Option<f64>,
}

/// Measures, and prints what came out.
///
/// # Errors
/// When the platform does not answer as it should; no figure is printed then.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = server::binary(args.binary.as_deref())?;
    let cores = Cores::pick()?;
    let machine = Machine::this(&args.dir);
    if let Some(cores) = cores {
        affinity::pin(cores.generator)?;
    }
    let requests = if args.quick { args.requests.min(20) } else { args.requests };
    let started = jiff::Timestamp::now().to_string();
    let server = Server::start(&binary, &args.dir, cores)?;
    let report = measure(&server, args.devices, requests).with_context(|| server.log_end())?;
    let (import, import_again, export, lists) = report;
    server.stop()?;
    let told = tell(args, &binary, cores, requests)?;
    let (journal, events, subscribers, stream, webhook) = told;
    let report = Report {
        started,
        machine,
        devices: args.devices,
        requests,
        quick: args.quick,
        cores,
        binary: binary.display().to_string(),
        import,
        import_again,
        export,
        lists,
        journal,
        events,
        subscribers,
        stream,
        webhook,
    };
    print(&report, &args.json)
}

fn measure(server: &Server, devices: u64, requests: u32) -> anyhow::Result<(Figure, Figure, Figure, Vec<ListFigure>)> {
    let file = file(devices);
    let import = figure(server, devices, || imported(server, &file, "added", devices))?;
    let import_again = figure(server, devices, || imported(server, &file, "unchanged", devices))?;
    let export = figure(server, devices, || {
        let lines = server.http().lines("/v1/devices/export")?;
        if lines != devices { bail!("{lines} of {devices} devices were exported") } else { Ok(()) }
    })?;
    let lists = QUESTIONS.iter().map(|question| list(server, question, requests)).collect::<anyhow::Result<_>>()?;
    Ok((import, import_again, export, lists))
}

/// The second platform: on a journal that has grown, with many who follow it.
fn tell(
    args: &Args,
    binary: &Path,
    cores: Option<Cores>,
    requests: u32,
) -> anyhow::Result<(Past, Vec<EventFigure>, u32, Figure, Figure)> {
    let quick = |figure: u64, less: u64| if args.quick { figure.min(less) } else { figure };
    let (events, told) = (quick(args.events, 50_000), quick(args.told, 50));
    let subscribers = if args.quick { args.subscribers.min(50) } else { args.subscribers };
    let time = Duration::from_secs(args.setup_time);
    eprintln!("bench: {events} events are written, not measured");
    let prepare = |data: &Path| past::write(data, events, time);
    let (server, journal) = Server::prepared(binary, &args.dir, cores, &SETTINGS, prepare)?;
    let measured = || -> anyhow::Result<_> {
        let events = past::ask(&server, &journal, requests)?;
        let stream = fanout::streams(&server, subscribers as usize, told)?;
        let webhook = fanout::webhook(&server, Duration::from_secs(quick(args.webhook_time, 2)))?;
        Ok((journal, events, subscribers, stream, webhook))
    };
    let measured = measured().with_context(|| server.log_end())?;
    server.stop()?;
    Ok(measured)
}

/// A registry: a hundred products, ten plants with a hundred halls each, and a serial in another order than that of the file.
fn file(devices: u64) -> String {
    let mut file = "serial,code,product,name,org,label:floor,label:line\n".to_owned();
    for n in 0..devices {
        let shuffled = n * 7_919 % 100_003;
        // Into memory, which takes everything.
        let _ = writeln!(
            file,
            "BENCH-{shuffled:06},ABCDEF,P{},Device {n},/plant-{}/hall-{},{},{}",
            n % 100,
            n / 100 % 10,
            n / 1_000 % 100,
            n % 7,
            n % 1_000
        );
    }
    file
}

fn imported(server: &Server, file: &str, count: &str, devices: u64) -> anyhow::Result<()> {
    let job = server.http().import(file)?;
    if job["state"] != "done" || job[count] != devices { bail!("the import ended as {job}") } else { Ok(()) }
}

fn figure(server: &Server, units: u64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Figure> {
    let before = server.cpu().read()?;
    let begun = Instant::now();
    work()?;
    let waited = begun.elapsed();
    server.cpu().settle()?;
    let spent = server.cpu().since(&before)?;
    Ok(Figure { units, cpu_us: micros(spent.cpu), wall_ms: waited.as_secs_f64() * 1e3 })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What so many of a hundred waits, sorted, are not longer than, in µs.
fn wait(waits: &[Duration], part: usize) -> u64 {
    waits.get(waits.len() * part / 100).map_or(0, |wait| wait.as_micros() as u64)
}

/// The same list again and again, each time the page after, from the beginning after the last.
fn list(server: &Server, question: &Question, requests: u32) -> anyhow::Result<ListFigure> {
    let counted = |name: &str| server.http().metrics().map(|metrics| metrics.sum(name));
    let (mut waits, mut rows, mut cursor) = (Vec::new(), 0_u64, None::<String>);
    let examined = counted("vestibule_devices_examined_total")?;
    let before = server.cpu().read()?;
    for _ in 0..requests {
        let begun = Instant::now();
        let page: Value = server.http().page(question.query, cursor.as_deref())?;
        waits.push(begun.elapsed());
        rows += page["items"].as_array().map_or(0, |items| items.len() as u64);
        cursor = page["next"].as_str().map(str::to_owned);
    }
    let spent = server.cpu().since(&before)?;
    let examined = counted("vestibule_devices_examined_total")? - examined;
    if (rows > 0) != question.finds {
        bail!("{} showed {rows} devices", question.name);
    }
    waits.sort_unstable();
    Ok(ListFigure {
        name: question.name,
        query: question.query,
        cpu_us: micros(spent.cpu) / f64::from(requests),
        median_us: wait(&waits, 50),
        p99_us: wait(&waits, 99),
        rows: rows as f64 / f64::from(requests),
        examined_per_row: (rows > 0).then(|| examined / rows as f64),
    })
}

fn print(report: &Report, json: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report).context("the figures cannot be written as JSON")?;
    let tables = tables(report);
    if json == Path::new("-") {
        eprint!("\n{tables}");
        println!("{text}");
    } else {
        fs::write(json, text + "\n").with_context(|| format!("{} cannot be written", json.display()))?;
        print!("\n{tables}");
    }
    Ok(())
}

fn tables(report: &Report) -> String {
    let head = [format!("{} devices", report.devices), "CPU µs each".into(), "wall ms in all".into()];
    let mut all = Table::new(head);
    for (name, figure) in
        [("import", &report.import), ("import again", &report.import_again), ("export", &report.export)]
    {
        all.row(name, [format!("{:.1}", figure.cpu_each()), format!("{:.0}", figure.wall_ms)]);
    }
    let head = ["a page of", "rows", "CPU µs", "median µs", "p99 µs", "looked at per row"];
    let mut lists = Table::new(head.map(str::to_owned));
    for list in &report.lists {
        let cells = [
            format!("{:.0}", list.rows),
            format!("{:.0}", list.cpu_us),
            list.median_us.to_string(),
            list.p99_us.to_string(),
            list.examined_per_row.map_or("–".to_owned(), |examined| format!("{examined:.1}")),
        ];
        lists.row(list.name, cells);
    }
    let head = [format!("of {} events, a page of", report.journal.events), "rows".into(), "CPU µs".into()];
    let head = head.into_iter().chain(["median µs".into(), "p99 µs".into()]).collect::<Vec<String>>();
    let mut events = Table::new(head);
    for figure in &report.events {
        let cells = [
            format!("{:.0}", figure.rows),
            format!("{:.0}", figure.cpu_us),
            figure.median_us.to_string(),
            figure.p99_us.to_string(),
        ];
        events.row(figure.name(), cells);
    }
    let head = ["events told", "deliveries", "CPU µs each", "each second"];
    let mut told = Table::new(head.map(str::to_owned));
    let streams = format!("to {} who follow", report.subscribers);
    for (name, figure) in [(streams.as_str(), &report.stream), ("to a webhook", &report.webhook)] {
        let each_second = figure.units as f64 / (figure.wall_ms / 1e3).max(f64::MIN_POSITIVE);
        told.row(name, [figure.units.to_string(), format!("{:.1}", figure.cpu_each()), format!("{each_second:.0}")]);
    }
    format!("{all}\n{lists}\n{events}\n{told}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_each_device_once() {
        let file = file(2_000);
        let mut serials: Vec<&str> = file.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        serials.sort_unstable();
        serials.dedup();
        assert_eq!(serials.len(), 2_000);
        assert!(file.lines().all(|line| line.split(',').count() == 7));
    }

    #[test]
    fn figures_are_shown_for_one_of_many() {
        let figure = Figure { units: 4, cpu_us: 10.0, wall_ms: 1.0 };
        assert!((figure.cpu_each() - 2.5).abs() < 1e-9);
    }
}
