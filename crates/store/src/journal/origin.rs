//! The id of a journal: what tells it from another one that is copied to the same place.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;

use crate::OpenError;
use crate::directory::{create_dir, write_new};

/// The id of the journal in this directory, given now when it has none.
pub(super) fn of(dir: &Path) -> Result<Uuid, OpenError> {
    create_dir(dir)?;
    let path = dir.join("ID");
    let failed = |source| OpenError::Io { action: "read the journal's id from", path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| failed(std::io::Error::new(ErrorKind::InvalidData, error))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            write_new(&path, format!("{id}\n").as_bytes(), 0o600)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_and_is_not_guessed_from_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a/journal"), dir.path().join("b"));
        let id = of(&one).unwrap();
        assert_eq!(of(&one).unwrap(), id);
        assert_ne!(of(&other).unwrap(), id);
        fs::write(one.join("ID"), "nothing").unwrap();
        assert!(matches!(of(&one), Err(OpenError::Io { .. })));
    }
}
