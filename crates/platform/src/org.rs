//! The tree of the organisation: where a device belongs, and how far somebody's rights reach.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// The longest path, in bytes.
const MAX_PATH: usize = 256;
/// The longest part of a path, in bytes.
const MAX_PART: usize = 64;

/// A place in the organisation, such as `/plant-1/hall-2`; `/` is the whole of it.
///
/// A path is `/`, or parts of 1 to 64 bytes with a `/` before each, 256 bytes in all at most. A part is any text without
/// control characters and without white space around it; upper and lower case differ.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgPath(Arc<str>);

/// Why a text is no place in the organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OrgPathError(&'static str);

impl OrgPathError {
    /// The rest of the sentence that the name of the field begins.
    pub fn reason(self) -> &'static str {
        self.0
    }
}

impl OrgPath {
    /// The whole organisation.
    pub fn root() -> OrgPath {
        static ROOT: LazyLock<OrgPath> = LazyLock::new(|| OrgPath("/".into()));
        ROOT.clone()
    }

    /// Reads a path; a `/` at its end does not count.
    ///
    /// # Errors
    /// [`OrgPathError`], which says what is wrong with it.
    pub fn parse(text: &str) -> Result<OrgPath, OrgPathError> {
        let Some(parts) = text.strip_prefix('/') else { return Err(OrgPathError("must begin with \"/\"")) };
        if parts.is_empty() {
            return Ok(OrgPath::root());
        }
        let parts = parts.strip_suffix('/').unwrap_or(parts);
        if parts.len() + 1 > MAX_PATH {
            return Err(OrgPathError("is longer than 256 bytes"));
        }
        for part in parts.split('/') {
            if part.is_empty() || part.len() > MAX_PART {
                return Err(OrgPathError("must have 1 to 64 bytes between one \"/\" and the next"));
            }
            if part.trim() != part || part.chars().any(char::is_control) || matches!(part, "." | "..") {
                return Err(OrgPathError("must not have control characters, \".\" or white space around a part"));
            }
        }
        Ok(OrgPath(format!("/{parts}").into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the whole organisation.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// This place and those above it, without the whole.
    pub(crate) fn with_those_above(&self) -> impl Iterator<Item = OrgPath> {
        let ends = self.0.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(end, _)| end);
        let above = ends.map(|end| OrgPath(self.0[..end].into()));
        above.chain((!self.is_root()).then(|| self.clone()))
    }

    /// Whether `other` is this place, or below it.
    pub fn covers(&self, other: &OrgPath) -> bool {
        self.is_root() || other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for OrgPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrgPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> OrgPath {
        OrgPath::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_path_is_read_in_one_way_only() {
        for (text, read) in [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/Werk 1/Halle ß", "/Werk 1/Halle ß")] {
            assert_eq!(path(text).as_str(), read);
        }
        let (part, long) = (format!("/{}", "p".repeat(65)), "/pppp".repeat(52));
        for wrong in ["", "a", "//", "/a//b", "/a//", "/ a", "/a /b", "/a/..", "/./a", "/a\nb", "/\u{0}", &part, &long]
        {
            assert!(OrgPath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(OrgPath::parse(&long[..256 - 1]).is_ok());
    }

    #[test]
    fn a_place_is_below_those_above_it() {
        let above = |text: &str| path(text).with_those_above().map(|path| path.to_string()).collect::<Vec<_>>();
        assert_eq!(above("/"), [""; 0]);
        assert_eq!(above("/a"), ["/a"]);
        assert_eq!(above("/Werk ß/b/c"), ["/Werk ß", "/Werk ß/b", "/Werk ß/b/c"]);
    }

    #[test]
    fn a_place_covers_itself_and_what_is_below_it() {
        for (above, below) in [("/", "/"), ("/", "/a/b"), ("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a/b/c/d")] {
            assert!(path(above).covers(&path(below)), "{above} {below}");
        }
        for (one, other) in [("/a", "/"), ("/a", "/b"), ("/a", "/ab"), ("/a", "/A"), ("/a/b", "/a"), ("/a/b", "/a/bc")]
        {
            assert!(!path(one).covers(&path(other)), "{one} {other}");
        }
    }
}
