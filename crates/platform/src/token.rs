//! The administrator's token: a file that only the owner of the data directory can read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::permission::Caller;
use crate::platform::Platform;

const RANDOM_BYTES: usize = 32;

/// Why the token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("token file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("token file {path} is readable by others (mode {mode:o}); run: chmod 600 {path}")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("token file {path} holds no token of at least 32 characters; remove it to have a new one made")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a new token")]
    NoRandomness,
}

/// The administrator's bearer token.
pub struct TokenFile {
    path: PathBuf,
    token: Zeroizing<String>,
}

impl TokenFile {
    /// Reads the token, or makes one with mode 0600.
    pub fn open(path: &Path) -> Result<TokenFile, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) => {
                let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(TokenError::Exposed { path: path.to_owned(), mode });
                }
                let token = Zeroizing::new(text.trim().to_owned());
                if token.len() < 32 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(TokenError::Malformed { path: path.to_owned() });
                }
                Ok(TokenFile { path: path.to_owned(), token })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = Zeroizing::new([0u8; RANDOM_BYTES]);
                aws_lc_rs::rand::fill(random.as_mut()).map_err(|_| TokenError::NoRandomness)?;
                let mut token = Zeroizing::new(String::with_capacity(4 + 2 * RANDOM_BYTES));
                token.push_str("vst_");
                for byte in random.iter() {
                    for nibble in [byte >> 4, byte & 15] {
                        token.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
                    }
                }
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
                file.write_all(token.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io)?;
                file.sync_all().map_err(io)?;
                Ok(TokenFile { path: path.to_owned(), token })
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Where the token is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token itself, to be handed to its owner only.
    pub fn reveal(&self) -> &str {
        &self.token
    }

    fn matches(&self, presented: &str) -> bool {
        self.token.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl Platform {
    /// Who a bearer token belongs to; `None` when nobody's.
    pub fn authorize(&self, bearer: &str) -> Option<Caller> {
        self.token().matches(bearer).then(Caller::administrator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let made = TokenFile::open(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let read = TokenFile::open(&path).expect("read");
        assert!(read.matches(made.reveal()));
        assert!(!read.matches(""));
        assert!(!read.matches(&made.reveal()[1..]));
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        TokenFile::open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(TokenFile::open(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("made");
        assert!(matches!(TokenFile::open(&path), Err(TokenError::Malformed { .. })));
    }
}
