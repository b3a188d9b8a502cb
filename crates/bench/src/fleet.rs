//! Many devices that do the same.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, LocalSet};

use crate::device::Device;

/// No phase of a measurement takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Devices, and the one thread they all run on.
pub struct Fleet {
    devices: Vec<Device>,
    runtime: Runtime,
}

impl Fleet {
    /// The devices with these numbers, of the legacy suite.
    ///
    /// # Errors
    /// When there are too many of them.
    pub fn new(numbers: std::ops::Range<usize>) -> anyhow::Result<Fleet> {
        Fleet::made_of(numbers.map(Device::new).collect::<anyhow::Result<_>>()?)
    }

    /// These devices.
    ///
    /// # Errors
    /// When there is no runtime for them.
    pub fn made_of(devices: Vec<Device>) -> anyhow::Result<Fleet> {
        let runtime = Builder::new_current_thread().enable_all().build().context("a runtime for the devices")?;
        Ok(Fleet { devices, runtime })
    }

    /// Its devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Does something to every device, at once.
    pub fn for_each(&mut self, work: impl FnMut(&mut Device)) {
        // Sockets and timers of a device belong to the runtime.
        let _inside = self.runtime.enter();
        self.devices.iter_mut().for_each(work);
    }

    /// Has every device do the work once, `lanes` of them at a time; how many did.
    ///
    /// # Errors
    /// The first failure of a device; the fleet is of no use after it.
    pub fn each(
        &mut self,
        lanes: usize,
        work: impl AsyncFn(&mut Device) -> anyhow::Result<()> + 'static,
    ) -> anyhow::Result<u64> {
        self.each_within(PATIENCE, lanes, work)
    }

    /// The same, in so much time.
    ///
    /// # Errors
    /// As above.
    pub fn each_within(
        &mut self,
        patience: Duration,
        lanes: usize,
        work: impl AsyncFn(&mut Device) -> anyhow::Result<()> + 'static,
    ) -> anyhow::Result<u64> {
        let work = Rc::new(work);
        let crews = crews(std::mem::take(&mut self.devices), lanes);
        let all = async {
            let mut running = JoinSet::new();
            for mut crew in crews {
                let work = Rc::clone(&work);
                running.spawn_local(async move {
                    for device in &mut crew {
                        work(device).await?;
                    }
                    anyhow::Ok(crew)
                });
            }
            let mut devices = Vec::new();
            while let Some(ended) = running.join_next().await {
                devices.extend(ended.context("a device broke off")??);
            }
            anyhow::Ok(devices)
        };
        let local = LocalSet::new();
        let finished = local.block_on(&self.runtime, async { tokio::time::timeout(patience, all).await });
        let Ok(finished) = finished else { bail!("the devices were not done within {} s", patience.as_secs()) };
        self.devices = finished?;
        Ok(self.devices.len() as u64)
    }
}

/// Deals the devices out to so many crews.
fn crews<T>(devices: Vec<T>, lanes: usize) -> Vec<Vec<T>> {
    let lanes = lanes.clamp(1, devices.len().max(1));
    let mut crews: Vec<Vec<T>> = (0..lanes).map(|_| Vec::new()).collect();
    for (number, device) in devices.into_iter().enumerate() {
        if let Some(crew) = crews.get_mut(number % lanes) {
            crew.push(device);
        }
    }
    crews
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn everybody_is_in_one_crew() {
        assert_eq!(crews(vec![1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(crews(vec![1, 2], 8), [vec![1], vec![2]]);
        assert_eq!(crews(Vec::<u8>::new(), 8), [Vec::<u8>::new()]);
    }

    #[test]
    fn every_device_works_once_and_stays() {
        let mut fleet = Fleet::new(0..5).expect("a fleet");
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&seen);
        let done = fleet.each(2, async move |device| {
            log.borrow_mut().push(device.serial().to_owned());
            Ok(())
        });
        assert_eq!((done.expect("work"), fleet.devices().len()), (5, 5));
        seen.borrow_mut().sort();
        assert_eq!(*seen.borrow(), (0..5).map(crate::device::serial).collect::<Vec<_>>());
        assert!(fleet.each(2, async |device| bail!("{} is tired", device.serial())).is_err());
    }
}
