//! What the examples take on the command line.

use std::error::Error;

use vestibule_device::{Anchor, Builder, Device, FileStorage};

/// What an example was called with.
pub struct Arguments {
    /// What follows serial, code and LBS.
    #[allow(dead_code, reason = "not every example takes more")]
    pub rest: Vec<String>,
    pub builder: Builder,
}

/// Reads `SERIAL CODE LBS [--ca FILE]` and begins a device. At `osaps://` it comes in over TLS and trusts the authority in the
/// file, or, with a code of 64 bits or more, the first platform that knows the code; an address without a scheme is one of the
/// legacy suite.
pub fn arguments(name: &str, more: &str) -> Result<Arguments, Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut anchors = Vec::new();
    if let Some(at) = words.iter().position(|word| word == "--ca") {
        let taken: Vec<String> = words.drain(at..words.len().min(at + 2)).collect();
        let file = taken.get(1).ok_or("--ca FILE")?;
        anchors = Anchor::from_pem(&std::fs::read(file)?)?;
    }
    let [serial, code, lbs, rest @ ..] = words.as_slice() else {
        eprintln!("usage: {name} SERIAL CODE LBS{more} [--ca FILE]   (LBS: osaps://host:port, or host:port)");
        std::process::exit(2);
    };
    let builder = Device::builder(serial, code).lbs(lbs).storage(FileStorage::new("state")?);
    let builder = match (lbs.starts_with("osaps://"), anchors.is_empty()) {
        (false, _) => builder.legacy(),
        (true, true) => builder.first_use(),
        (true, false) => builder.anchors(anchors),
    };
    Ok(Arguments { rest: rest.to_vec(), builder })
}
