//! An amount of storage: absolute, or a share of the volume.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// `10GiB`, or `80%` of the volume that holds the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the volume, 1 to 100.
    Percent(u8),
}

/// The text is neither an amount nor a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapacityError;

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a size such as \"10GiB\" or a share of the volume from \"1%\" to \"100%\"")
    }
}

impl std::error::Error for CapacityError {}

impl Capacity {
    /// 80 % of the volume.
    pub const DEFAULT: Capacity = Capacity::Percent(80);

    /// The amount in bytes on a volume of the given size.
    pub fn on_volume(self, volume_bytes: u64) -> u64 {
        match self {
            Capacity::Bytes(bytes) => bytes,
            // The product needs the wide type; a share of at most 100 % fits the narrow one again.
            Capacity::Percent(percent) => (u128::from(volume_bytes) * u128::from(percent) / 100) as u64,
        }
    }

    /// The amount in bytes, a share being taken of the volume that holds `dir`.
    ///
    /// # Errors
    /// When the system cannot tell the size of the volume, as when `dir` does not exist.
    pub fn resolve(self, dir: &Path) -> std::io::Result<u64> {
        match self {
            Capacity::Bytes(bytes) => Ok(bytes),
            Capacity::Percent(_) => {
                let volume = rustix::fs::statvfs(dir)?;
                Ok(self.on_volume(volume.f_blocks.saturating_mul(volume.f_frsize)))
            }
        }
    }
}

impl FromStr for Capacity {
    type Err = CapacityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(share) = text.strip_suffix('%') {
            return match share.trim_end().parse() {
                Ok(percent @ 1..=100) => Ok(Capacity::Percent(percent)),
                _ => Err(CapacityError),
            };
        }
        bytes_from_text(text).filter(|&bytes| bytes > 0).map(Capacity::Bytes).ok_or(CapacityError)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Capacity::Bytes(bytes) => f.write_str(&bytes_text(bytes)),
            Capacity::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The units a size may carry; `MB` and its like are powers of ten, as on the box of a disk.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads `128KiB`, `10 GiB`, `500MB` or a bare number of bytes.
pub(super) fn bytes_from_text(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The shortest exact text of a number of bytes, in binary units.
pub(super) fn bytes_text(bytes: u64) -> String {
    match UNITS[..4].iter().rev().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read() {
        for (text, capacity) in [
            ("10GiB", Capacity::Bytes(10 << 30)),
            ("10 GiB", Capacity::Bytes(10 << 30)),
            ("500MB", Capacity::Bytes(500_000_000)),
            ("4096", Capacity::Bytes(4_096)),
            ("80%", Capacity::Percent(80)),
            ("100 %", Capacity::Percent(100)),
        ] {
            assert_eq!(text.parse(), Ok(capacity), "{text}");
        }
        for text in ["", "0", "0%", "101%", "-1", "1.5GiB", "10 parsec", "GiB", "99999999999TiB"] {
            assert_eq!(text.parse::<Capacity>(), Err(CapacityError), "{text}");
        }
    }

    #[test]
    fn a_share_is_taken_of_the_volume() {
        assert_eq!(Capacity::Percent(80).on_volume(1_000), 800);
        assert_eq!(Capacity::Percent(100).on_volume(u64::MAX), u64::MAX);
        assert_eq!(Capacity::Bytes(7).on_volume(1_000), 7);
        let here = Capacity::Percent(100).resolve(Path::new(".")).expect("the working directory has a volume");
        assert!(here > 0);
        assert!(Capacity::Percent(50).resolve(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn text_of_a_size_reads_back() {
        for bytes in [0, 1, 1_023, 1_024, 131_072, 1 << 20, 3 << 30, 1 << 40] {
            assert_eq!(bytes_from_text(&bytes_text(bytes)), Some(bytes));
        }
        assert_eq!(bytes_text(131_072), "128KiB");
    }
}
