//! Between the platform's stored credentials and the record the OSAP machines work on.

use osap::id::DevId;
use osap::key::{Code, MasterKey, SessionKey};
use osap::lbs::{Credential as OsapCredential, Record, Standing};
use osap::suite::{CodeCase, Suite};
use vestibule_platform::{Credential, Credentials, Device, Secret, Secrets};

/// The record of a device as the LBS machine reads it. A credential that cannot be read is treated as absent: the
/// device gets in again by the way that is left to it. `steady` is the steady clock's.
pub(crate) fn of(secrets: &Secrets, device: &Device, steady: i64) -> Record {
    let mut record = credentials(&secrets.credentials);
    record.code = secrets.code.as_ref().and_then(|code| Code::new(code.expose()).ok());
    record.standing = if device.is_disabled() { Standing::Disabled } else { Standing::Known };
    record.may_enrol_again = device.may_enrol_again(steady);
    record.modern = secrets.credentials.modern;
    record
}

/// The part of a record that is stored.
pub(crate) fn credentials(stored: &Credentials) -> Record {
    let newest = stored.candidate.as_ref().or(stored.committed.as_ref());
    Record {
        standing: Standing::Known,
        code: None,
        code_case: newest.map(|held| if held.code_case_lower { CodeCase::Lower } else { CodeCase::Upper }),
        committed: stored.committed.as_ref().and_then(credential),
        candidate: stored.candidate.as_ref().and_then(credential),
        may_enrol_again: false,
        modern: stored.modern,
    }
}

/// What is to be stored of a record in place of what is stored at present. A session key keeps its age.
pub(crate) fn stored(record: &Record, present: &Credentials, now: i64) -> Credentials {
    let made = |session_key: &Option<Secret>| {
        let held = present.committed.iter().chain(&present.candidate);
        let mut same = held.filter(|held| session_key.is_some() && held.session_key == *session_key);
        same.next().map_or(now, |held| held.created)
    };
    let lower = record.code_case == Some(CodeCase::Lower);
    let store = |credential: &OsapCredential| {
        let session_key = credential.session_key.as_ref().map(|key| Secret::new(key.as_bytes().as_slice()));
        Credential {
            suite: credential.suite.as_str().to_owned(),
            epoch: i64::try_from(credential.epoch).unwrap_or(i64::MAX),
            dev_id: credential.dev_id.as_str().to_owned(),
            master_key: Secret::new(credential.master_key.as_bytes().as_slice()),
            created: made(&session_key),
            session_key,
            code_case_lower: lower,
        }
    };
    Credentials {
        committed: record.committed.as_ref().map(store),
        candidate: record.candidate.as_ref().map(store),
        tickets: present.tickets.clone(),
        modern: present.modern,
        code: present.code,
    }
}

fn credential(stored: &Credential) -> Option<OsapCredential> {
    Some(OsapCredential {
        suite: Suite::from_name(&stored.suite)?,
        epoch: u64::try_from(stored.epoch).ok()?,
        dev_id: DevId::parse(stored.dev_id.as_bytes()).ok()?,
        master_key: MasterKey::from_bytes(stored.master_key.expose()).ok()?,
        session_key: stored.session_key.as_ref().and_then(|key| SessionKey::from_bytes(key.expose()).ok()),
    })
}
