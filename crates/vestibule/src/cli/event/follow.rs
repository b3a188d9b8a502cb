//! `vestibule event follow`

use super::super::out::Out;
use super::super::words;
use super::Filter;
use crate::client::{Client, Follow, Followed, Route};

/// Print events as they come, until stopped, and which pictures of theirs have arrived
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule event follow
  vestibule event follow --device SN-0001 --json
  vestibule event follow --after 0

A lost connection is taken up again where it ended: no event is missed and none is shown twice.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Begin after this position instead of now; 0 begins with the oldest event kept
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut follow = Follow::open(client, args.filter.apply(Route::new("/v1/events/stream")), args.after)?;
    loop {
        let followed = follow.wait()?;
        if let Some(notice) = words::notice(&followed) {
            eprintln!("vestibule: {notice}");
        }
        match followed {
            Followed::Event(event) if out.is_json() => out.json(&event)?,
            Followed::Event(event) => out.line(words::event(&event))?,
            Followed::Amended(amendment) if out.is_json() => out.json(&amendment)?,
            Followed::Amended(amendment) => out.line(words::amendment(&amendment))?,
            _ => {}
        }
    }
}
