//! `vestibule device …`

mod add;
mod bulk;
mod children;
mod codes;
mod describe;
mod disable;
mod enable;
mod enrol;
mod export;
mod filter;
mod force_offline;
mod get;
mod history;
mod import;
mod invoke;
mod keep_alive;
mod list;
mod pass;
mod provision;
mod queue;
mod redirect;
mod remove;
mod rotate;
mod set;
mod sheet;
mod show;
mod silence;
mod strangers;
mod suites;
mod watch;
mod why;

pub(super) use add::read_secret;

use anyhow::bail;
use clap::Subcommand;

use super::connect::Connect;
use super::out::Out;
use crate::client::Route;

/// Register, list, watch and operate devices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device add SN-0001 --code-file code.txt
  vestibule device list
  vestibule device why SN-0001

A device is addressed by its id or its serial.")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Args),
    Import(import::Args),
    Export(export::Args),
    Bulk(bulk::Args),
    Describe(describe::Args),
    Enrol(enrol::Args),
    Rotate(rotate::Args),
    Codes(codes::Args),
    Sheet(sheet::Args),
    Strangers(strangers::Args),
    Provision(provision::Args),
    Suites(suites::Args),
    Disable(disable::Args),
    Enable(enable::Args),
    List(list::Args),
    Show(show::Args),
    Children(children::Args),
    Get(get::Args),
    History(history::Args),
    Set(set::Args),
    Invoke(invoke::Args),
    Queue(queue::Args),
    Pass(pass::Args),
    Watch(watch::Args),
    Why(why::Args),
    Redirect(redirect::Args),
    KeepAlive(keep_alive::Args),
    Silence(silence::Args),
    ForceOffline(force_offline::Args),
    Remove(remove::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    // These need no platform.
    let command = match args.command {
        Command::Codes(args) => return codes::run(args),
        Command::Sheet(args) => return sheet::run(args),
        command => command,
    };
    let client = &args.connect.client()?;
    match command {
        // Done above.
        Command::Codes(_) | Command::Sheet(_) => Ok(()),
        Command::Strangers(args) => strangers::run(args, client, out),
        Command::Add(args) => add::run(args, client, out),
        Command::Import(args) => import::run(args, client, out),
        Command::Export(args) => export::run(args, client, out),
        Command::Bulk(args) => bulk::run(args, client, out),
        Command::Describe(args) => describe::run(args, client, out),
        Command::Enrol(args) => enrol::run(args, client, out),
        Command::Rotate(args) => rotate::run(args, client, out),
        Command::Provision(args) => provision::run(args, client, out),
        Command::Suites(args) => suites::run(args, client, out),
        Command::Disable(args) => disable::run(args, client, out),
        Command::Enable(args) => enable::run(args, client, out),
        Command::List(args) => list::run(args, client, out),
        Command::Show(args) => show::run(args, client, out),
        Command::Children(args) => children::run(args, client, out),
        Command::Get(args) => get::run(args, client, out),
        Command::History(args) => history::run(args, client, out),
        Command::Set(args) => set::run(args, client, out),
        Command::Invoke(args) => invoke::run(args, client, out),
        Command::Queue(args) => queue::run(args, client, out),
        Command::Pass(args) => pass::run(args, client, out),
        Command::Watch(args) => watch::run(args, client, out),
        Command::Why(args) => why::run(args, client, out),
        Command::Redirect(args) => redirect::run(args, client, out),
        Command::KeepAlive(args) => keep_alive::run(args, client, out),
        Command::Silence(args) => silence::run(args, client, out),
        Command::ForceOffline(args) => force_offline::run(args, client, out),
        Command::Remove(args) => remove::run(args, client, out),
    }
}

/// `/v1/devices/{device}`
fn route_of(device: &str) -> Route {
    Route::new("/v1/devices").segment(device)
}

/// Adds a part of a device, written as `resource/index/area/name` or, for the device itself, as `area/name`.
fn part_of(route: Route, part: &str) -> anyhow::Result<Route> {
    let levels: Vec<&str> = part.trim_start_matches('/').split('/').collect();
    let levels = match levels[..] {
        [area, name] => ["global", "0", area, name],
        [resource, index, area, name] => [resource, index, area, name],
        _ => bail!("`{part}` is not a part of a device; write it as resource/index/area/name, or area/name"),
    };
    if levels.contains(&"") {
        bail!("`{part}` has an empty level; write it as resource/index/area/name, or area/name");
    }
    Ok(levels.into_iter().fold(route, Route::segment))
}

/// What goes into a header as it is.
fn header_text(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    if fits { Ok(text.to_owned()) } else { Err("expected printable ASCII without spaces around it".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_header_cannot_end_it() {
        assert_eq!(header_text("text/plain; charset=utf-8").as_deref(), Ok("text/plain; charset=utf-8"));
        for wrong in ["", " a", "a\r\nb: c", "ä"] {
            assert!(header_text(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_part_is_written_with_four_levels_or_two() {
        let route = |part: &str| part_of(Route::new("/v1"), part).map(|route| route.as_str().to_owned()).ok();
        assert_eq!(route("Lamp/0/Light/Blink").as_deref(), Some("/v1/Lamp/0/Light/Blink"));
        assert_eq!(route("/Lamp/0/Light/a b").as_deref(), Some("/v1/Lamp/0/Light/a%20b"));
        assert_eq!(route("Light/Blink").as_deref(), Some("/v1/global/0/Light/Blink"));
        for wrong in ["", "Blink", "a/b/c", "a/b/c/d/e", "a//b/c", "/"] {
            assert_eq!(route(wrong), None, "{wrong}");
        }
    }
}
