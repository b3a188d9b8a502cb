//! Ids of events that tell by themselves which run, which device and which of its events they belong to, so that a
//! simulation of any length remembers its events in bits.

use uuid::Uuid;

/// What tells the events of this run from those of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId([u8; 7]);

impl RunId {
    /// From bytes nobody else has. They are not of the seed: the platform stores an id once for each device, and two
    /// runs of one seed have to be stored as two.
    pub(crate) fn new(random: Uuid) -> RunId {
        let [a, b, c, d, e, f, .., g] = random.into_bytes();
        RunId([a, b, c, d, e, f, g])
    }

    /// The id of an event: a UUID of version 8 in the digits in which the SDK writes its own.
    pub(crate) fn event(self, device: u32, number: u32) -> String {
        let RunId([a, b, c, d, e, f, g]) = self;
        let [_, x, y, z] = device.to_be_bytes();
        let [k, l, m, n] = number.to_be_bytes();
        let bytes = [a, b, c, d, e, f, 0x80, g, 0x80, x, y, z, k, l, m, n];
        Uuid::from_bytes(bytes).simple().to_string()
    }

    /// Device and number of an event of this run.
    pub(crate) fn read(self, id: &str) -> Option<(u32, u32)> {
        let [a, b, c, d, e, f, 0x80, g, 0x80, x, y, z, k, l, m, n] = Uuid::try_parse(id).ok()?.into_bytes() else {
            return None;
        };
        let ours = RunId([a, b, c, d, e, f, g]) == self;
        ours.then(|| (u32::from_be_bytes([0, x, y, z]), u32::from_be_bytes([k, l, m, n])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_by_its_own_run_only() {
        let [run, other] = [1, 2].map(|n| RunId::new(Uuid::from_u128(n << 64 | n)));
        for (device, number) in [(0, 0), (1, 2), (0x00ff_ffff, u32::MAX)] {
            let id = run.event(device, number);
            assert_eq!(run.read(&id), Some((device, number)));
            assert_eq!(Uuid::try_parse(&id).expect("a UUID").get_version_num(), 8);
            assert_eq!(other.read(&id), None);
        }
        for foreign in ["", "door-7", "018f3a2c-0000-7000-8000-000000000000"] {
            assert_eq!(run.read(foreign), None, "{foreign}");
        }
    }
}
