//! `vestibule device sheet`

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use qrcode::{Color, QrCode};
use zeroize::Zeroizing;

/// Side of the margin of a QR code, in modules.
const QUIET: usize = 4;

/// Print serials and codes, with QR codes, as labels
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device sheet devices.csv --out sheet.html
  vestibule device sheet devices.csv --qr-dir labels

Reads CSV with the columns serial and code, as `device import` does, and writes a page that a browser
prints, 24 labels on a sheet of A4, or one SVG file for each device. A QR code says
osap://enrol?serial=SERIAL&code=CODE. Nothing is sent anywhere; the files are for their owner only.")]
pub(in super::super) struct Args {
    /// CSV file with the columns serial and code; `-` is standard input
    #[arg(value_name = "FILE")]
    devices: PathBuf,
    /// Page to write
    #[arg(long, value_name = "FILE", required_unless_present = "qr_dir")]
    out: Option<PathBuf>,
    /// Directory to write one QR code for each device to, SERIAL.svg
    #[arg(long, value_name = "DIR")]
    qr_dir: Option<PathBuf>,
}

struct Label {
    serial: String,
    code: Zeroizing<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let labels = read(&args.devices)?;
    if let Some(page) = &args.out {
        write_private(page, &sheet(&labels)?)?;
    }
    if let Some(directory) = &args.qr_dir {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        for label in &labels {
            let name = label.serial.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-', "_");
            write_private(&directory.join(format!("{name}.svg")), &svg(label)?)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<Label>> {
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("{} cannot be read", path.display()))?)
    };
    let mut csv = csv::Reader::from_reader(source);
    let heading = csv.headers().context("the heading cannot be read")?.clone();
    let column = |name: &str| heading.iter().position(|column| column.trim() == name);
    let (Some(serial), Some(code)) = (column("serial"), column("code")) else {
        bail!("the file needs a heading with the columns serial and code");
    };
    let mut labels = Vec::new();
    for (at, row) in csv.records().enumerate() {
        let row = row.with_context(|| format!("row {} cannot be read", at + 2))?;
        let field = |column: usize| row.get(column).unwrap_or_default().trim();
        ensure!(!field(serial).is_empty() && !field(code).is_empty(), "row {} lacks its serial or its code", at + 2);
        labels.push(Label { serial: field(serial).to_owned(), code: Zeroizing::new(field(code).to_owned()) });
    }
    Ok(labels)
}

/// A file that nobody else reads: it holds codes.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// What a QR code says.
fn uri(label: &Label) -> Zeroizing<String> {
    let mut uri = Zeroizing::new("osap://enrol?serial=".to_owned());
    percent(&label.serial, &mut uri);
    uri.push_str("&code=");
    percent(&label.code, &mut uri);
    uri
}

fn percent(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The QR code of a label, as an SVG image that scales.
fn svg(label: &Label) -> anyhow::Result<Zeroizing<String>> {
    let code = QrCode::new(uri(label).as_bytes()).context("the serial and the code are too long for a QR code")?;
    let width = code.width();
    let side = width + 2 * QUIET;
    let mut path = Zeroizing::new(String::new());
    for (at, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let _ = write!(path, "M{} {}h1v1h-1z", at % width + QUIET, at / width + QUIET);
        }
    }
    Ok(Zeroizing::new(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{}\"/></svg>\n",
        path.as_str()
    )))
}

/// The page of all labels.
fn sheet(labels: &[Label]) -> anyhow::Result<Zeroizing<String>> {
    let mut page = Zeroizing::new(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Device labels</title><style>\
         @page{size:A4;margin:10mm}body{margin:0;font:10pt monospace;display:grid;grid-template-columns:repeat(3,1fr);gap:2mm}\
         div{height:32mm;display:flex;align-items:center;gap:2mm;border:.1mm solid #999;padding:1mm;box-sizing:border-box;\
         break-inside:avoid;overflow:hidden}svg{height:28mm;width:28mm;flex:none}p{margin:0;overflow-wrap:anywhere}</style>"
            .to_owned(),
    );
    for label in labels {
        let image = svg(label)?;
        let _ = write!(page, "<div>{}<p><b>{}</b><br>", image.as_str(), escaped(&label.serial));
        page.push_str(&Zeroizing::new(escaped(&grouped(&label.code))));
        page.push_str("</p></div>");
    }
    page.push_str("</html>\n");
    Ok(page)
}

/// A code of ours in groups of four, as people read it; any other as it is.
fn grouped(code: &str) -> String {
    if code.len() != 16 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return code.to_owned();
    }
    [&code[..4], &code[4..8], &code[8..12], &code[12..]].join("-")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(serial: &str, code: &str) -> Label {
        Label { serial: serial.to_owned(), code: Zeroizing::new(code.to_owned()) }
    }

    #[test]
    fn a_sheet_shows_serials_codes_and_images_and_runs_nothing() {
        let labels = [label("SN-1", "ABCDEFGHJKLMNPQR"), label("<b>&", "x")];
        let page = sheet(&labels).expect("a page");
        assert!(page.contains("ABCD-EFGH-JKLM-NPQR") && page.contains("&lt;b&gt;&amp;") && !page.contains("<b>&<"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(uri(&labels[1]).as_str(), "osap://enrol?serial=%3Cb%3E%26&code=x");
    }

    #[test]
    fn the_image_is_the_code_of_the_library() {
        let label = label("SN-1", "ABCDEFGHJKLMNPQR");
        let code = QrCode::new(uri(&label).as_bytes()).expect("a code");
        let dark = code.to_colors().iter().filter(|color| **color == Color::Dark).count();
        assert_eq!(svg(&label).expect("an image").matches("h1v1h-1z").count(), dark);
    }
}
