//! Which code, and in which case, a device has used.

use crate::id::Serial;
use crate::key::Code;
use crate::lbs::record::Record;
use crate::suite::CodeCase;
use crate::suite::legacy::{ShareKey, share_key};

use super::CloseReason;

/// A device that has shown its code.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) record: Record,
    pub(super) code_case: CodeCase,
    pub(super) share_key: ShareKey,
    /// What the share key opened.
    pub(super) opened: T,
}

/// Tries the registered code, in the case the device is known to use first.
///
/// An unknown serial and a wrong code cost two derivations each (osap-wire 13.2.3).
pub(super) fn find<T>(
    serial: &Serial,
    record: Option<Record>,
    open: impl Fn(&ShareKey) -> Option<T>,
) -> Result<Known<T>, CloseReason> {
    let Some(record) = record else {
        let decoy = Code::new("AAAAAA").expect("six letters are a code");
        for case in [CodeCase::Upper, CodeCase::Lower] {
            let _ = std::hint::black_box(open(&share_key(&decoy, serial, case)));
        }
        return Err(CloseReason::UnknownSerial);
    };
    let Some(code) = &record.code else { return Err(CloseReason::CodeUnavailable) };
    let likely = record.code_case.unwrap_or_default();
    for code_case in [likely, likely.other()] {
        let share_key = share_key(code, serial, code_case);
        if let Some(opened) = open(&share_key) {
            return Ok(Known { record, code_case, share_key, opened });
        }
    }
    Err(CloseReason::WrongCode)
}
