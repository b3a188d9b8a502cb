//! `vestibule device add`

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use vestibule_platform::Secret;
use zeroize::Zeroizing;

use super::super::out::Out;
use super::super::words;
use super::describe::label;
use crate::client::{Client, Route};

/// More than any verification code has.
const MAX_CODE_FILE: u64 = 4_096;

/// Register a device, so that it is let in
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device add SN-0001 --code-file code.txt --name 'Front door'
  vestibule device add SN-0002 --code-file code.txt --one-time
  vestibule device add DOOR-1 --code-file code.txt --parent HUB-0001
  pass show devices/SN-0001 | vestibule device add SN-0001 --code-file -

A code on the command line (--code) is seen by other users of this machine
and kept by the shell; one in a file (--code-file) is not.")]
pub(in super::super) struct Args {
    /// Serial, as printed on the device
    serial: String,
    #[command(flatten)]
    code: Code,
    /// The code enrols the device once only; not of a sub-device, whose hub shows it each time
    #[arg(long, conflicts_with = "parent")]
    one_time: bool,
    /// Product, as the maker calls it
    #[arg(long)]
    product: Option<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Id or serial of the hub or gateway it is reached through
    #[arg(long, value_name = "D")]
    parent: Option<String>,
    /// Where it belongs in the organisation [default: where its hub belongs, or your own part]
    #[arg(long, value_name = "PATH")]
    org: Option<String>,
    /// A label on it; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Code {
    /// Verification code, as printed on the device
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// File with the verification code; `-` is standard input
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
}

impl Code {
    fn read(self) -> anyhow::Result<Zeroizing<String>> {
        let code = match (self.code, self.code_file) {
            (Some(code), _) => Zeroizing::new(code),
            (None, Some(path)) => {
                from_file(&path).with_context(|| format!("the code file {} cannot be read", path.display()))?
            }
            (None, None) => bail!("a verification code is needed: --code-file FILE"),
        };
        let code = code.trim();
        if code.is_empty() {
            bail!("the verification code is empty");
        }
        Ok(bare(code))
    }
}

/// A code as it is registered: people write those of ours in groups of four (osap-wire 13.5). What has another form stays.
fn bare(code: &str) -> Zeroizing<String> {
    let letters: Zeroizing<String> =
        Zeroizing::new(code.chars().filter(|letter| !matches!(letter, ' ' | '-')).collect());
    let is_ours = letters.len() == 16 && letters.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_ours {
        return Zeroizing::new(code.to_owned());
    }
    if Secret::new(letters.as_bytes()).is_mistyped_code() {
        eprintln!("The code does not fit its check letters: if this platform has made it, it is mistyped.");
    }
    letters
}

/// The verification code in a file; `-` is standard input.
pub(super) fn read_code(file: PathBuf) -> anyhow::Result<Zeroizing<String>> {
    Code { code: None, code_file: Some(file) }.read()
}

/// The secret in a file; `-` is standard input.
pub(in super::super) fn read_secret(file: PathBuf) -> anyhow::Result<Zeroizing<String>> {
    let text = from_file(&file).with_context(|| format!("the secret file {} cannot be read", file.display()))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn from_file(path: &Path) -> io::Result<Zeroizing<String>> {
    // As large as it can become: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_CODE_FILE as usize));
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_CODE_FILE).read_to_string(&mut text)?;
    } else {
        fs::File::open(path)?.take(MAX_CODE_FILE).read_to_string(&mut text)?;
    }
    Ok(text)
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut body = json!({ "serial": args.serial, "code": args.code.read()?.as_str() });
    for (member, value) in [("product", args.product), ("name", args.name), ("parent", args.parent), ("org", args.org)]
    {
        if let Some(value) = value {
            body[member] = Value::from(value);
        }
    }
    if args.one_time {
        body["one_time"] = Value::Bool(true);
    }
    if !args.label.is_empty() {
        body["labels"] = args.label.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    }
    let device: Value = client.post(&Route::new("/v1/devices"), &body)?;
    if out.is_json() {
        return out.json(&device);
    }
    let serial = words::text(&device, "/serial");
    out.line(format!("{} is registered as {}", words::printable(&serial), words::text(&device, "/id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_comes_from_the_flag_or_from_a_file_without_its_line_end() {
        let flag = Code { code: Some("ABCDEF".to_owned()), code_file: None };
        assert_eq!(flag.read().expect("a code").as_str(), "ABCDEF");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("code");
        fs::write(&path, "GHIJKL\r\n").expect("written");
        let file = Code { code: None, code_file: Some(path.clone()) };
        assert_eq!(file.read().expect("a code").as_str(), "GHIJKL");
        fs::write(&path, "\n").expect("written");
        assert!(Code { code: None, code_file: Some(path) }.read().is_err());
        let missing = Code { code: None, code_file: Some(dir.path().join("none")) };
        assert!(format!("{:#}", missing.read().expect_err("missing")).contains("none cannot be read"));
    }
}
