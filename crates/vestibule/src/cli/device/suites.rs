//! `vestibule device suites`

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::{Client, Route};

/// Open suites to a device, or close them; demand a certificate of it, or of a product
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device suites SN-0001 --legacy open
  vestibule device suites SN-0001 --plain closed
  vestibule device suites SN-0001 --certificate demanded
  vestibule device suites --product hub --certificate demanded

A device that has come in by a modern suite is refused by the legacy ones, which are not
confidential: somebody may stand between. Opened again, they stay so until it comes in by a modern
one the next time.

Where a certificate is demanded, a device that never showed one still comes in over TLS with its
code or its ticket, if it asks for a certificate in that run and gets it. Then the certificate alone lets
it in, or a window in which it may ask again (`vestibule device enrol`). A device that speaks a
legacy suite is shut out from its next login on. So is one from the store room whose certificate was
shown there and has ended since, until it gets a window: mind both before demanding it of a product.
What is said of a device goes before what is said of its product; `product` goes back to that.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    #[arg(required_unless_present = "product")]
    device: Option<String>,
    /// All devices of this product, those to come included
    #[arg(long, conflicts_with_all = ["device", "legacy", "plain"], requires = "certificate")]
    product: Option<String>,
    /// The legacy suites
    #[arg(long, required_unless_present_any = ["plain", "certificate"])]
    legacy: Option<State>,
    /// The suites over plain TCP
    #[arg(long)]
    plain: Option<State>,
    /// Whether a certificate has to be shown
    #[arg(long)]
    certificate: Option<Demand>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Open,
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Demand {
    Demanded,
    Optional,
    Product,
}

impl Demand {
    fn as_str(self) -> &'static str {
        match self {
            Demand::Demanded => "demanded",
            Demand::Optional => "optional",
            Demand::Product => "product",
        }
    }
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    if let (Some(product), Some(demand)) = (&args.product, args.certificate) {
        return of_product(product, demand, client, out);
    }
    let named = [("legacy", args.legacy), ("plain", args.plain)];
    let mut body: Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, state)| state.map(|state| (name.to_owned(), Value::Bool(state == State::Open))))
        .collect();
    if let Some(demand) = args.certificate {
        body.insert("certificate".to_owned(), Value::from(demand.as_str()));
    }
    let name = args.device.unwrap_or_default();
    let device: Value = client.put(&super::route_of(&name).segment("suites"), &Value::Object(body))?;
    if out.is_json() {
        return out.json(&device);
    }
    out.line(format!("{}: {}", words::printable(&name), words::suites(&device)))
}

fn of_product(product: &str, demand: Demand, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let demanded = demand == Demand::Demanded;
    let rule: Value =
        client.put(&Route::new("/v1/product-rules").segment(product), &json!({ "certificate": demanded }))?;
    if out.is_json() {
        return out.json(&rule);
    }
    let state = if demanded { "demanded" } else { "not demanded" };
    out.line(format!("devices of the product {}: certificate {state}", words::printable(product)))
}
