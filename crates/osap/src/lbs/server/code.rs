//! Which code, and in which case, a device has used.

use crate::id::Serial;
use crate::lbs::record::{Record, Standing};
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
/// A wrong code, a serial that nobody has registered and a device that is shut out cost the same two derivations and the
/// same two tries, because they take the same way (osap-wire 13.2.3).
pub(super) fn find<T>(
    serial: &Serial,
    record: Record,
    mut open: impl FnMut(&ShareKey) -> Option<T>,
) -> Result<Known<T>, CloseReason> {
    let Some(code) = &record.code else { return Err(CloseReason::CodeUnavailable) };
    let likely = record.code_case.unwrap_or_default();
    for code_case in [likely, likely.other()] {
        let share_key = share_key(code, serial, code_case);
        let opened = open(&share_key);
        if let (Standing::Known, Some(opened)) = (record.standing, opened) {
            return Ok(Known { record, code_case, share_key, opened });
        }
    }
    Err(match record.standing {
        Standing::Known => CloseReason::WrongCode,
        Standing::Disabled => CloseReason::Disabled,
        Standing::Unknown => CloseReason::UnknownSerial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Code;
    use crate::lbs::decoy::Decoy;
    use crate::random::SystemRandom;
    use crate::suite::CodeCase;

    /// What was tried, which is all the work there is.
    fn tries(record: Record, right: Option<&ShareKey>) -> (usize, CloseReason) {
        let mut tries = 0;
        let found = find(&Serial::new("SN0000001").unwrap(), record, |key| {
            tries += 1;
            right.filter(|right| right.s2() == key.s2()).map(|_| ())
        });
        (tries, found.map(|_| ()).expect_err("refused"))
    }

    #[test]
    fn osap_13_2_3_unknown_serial_wrong_code_and_disabled_device_cost_the_same_work() {
        let code = || Some(Code::new("ABCDEF").unwrap());
        let serial = Serial::new("SN0000001").unwrap();
        let right = share_key(&code().unwrap(), &serial, CodeCase::Upper);
        let decoy = Decoy::draw(&mut SystemRandom);
        let wrong = Record { code: code(), ..Record::default() };
        assert_eq!(tries(wrong, None), (2, CloseReason::WrongCode));
        assert_eq!(tries(decoy.record(&serial), None), (2, CloseReason::UnknownSerial));
        let disabled = || Record { standing: Standing::Disabled, code: code(), ..Record::default() };
        assert_eq!(tries(disabled(), None), (2, CloseReason::Disabled));
        assert_eq!(tries(disabled(), Some(&right)), (2, CloseReason::Disabled), "also with the right code");
    }
}
