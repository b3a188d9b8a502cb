//! Devices that are logged in and lie, beside one that does not: what they say is refused or held to its limit, counted,
//! and shown to whoever asks why; and the good one keeps its session all the time.

mod bodies;
mod children;
mod flood;
mod replies;

use serde_json::Value;

use crate::support::{self, Das, Platform, QoS, minted, until};

const CODE: &str = "ABCDEF";
const BODY: &str = r#"{"level":1}"#;

/// A platform with a good device, which goes on reporting.
struct Site {
    platform: Platform,
    good: Device,
    reported: usize,
}

/// A device that is in.
struct Device {
    serial: String,
    das: Das,
    seq: u64,
}

impl Device {
    fn on(platform: &Platform, prefix: &str) -> Device {
        let serial = minted(prefix);
        platform.add(&serial, CODE);
        let (_, das) = support::enrol(platform, &serial, CODE);
        Device { serial, das, seq: 0 }
    }

    /// A topic of its own.
    fn topic(&self, rest: &str) -> String {
        self.topic_of("global", rest)
    }

    /// A topic in the name of a child.
    fn topic_of(&self, child: &str, rest: &str) -> String {
        format!("/iot/{}/{child}/0-Lamp/{rest}", self.serial)
    }

    fn tell(&mut self, topic: &str, body: impl AsRef<[u8]>) -> u16 {
        self.seq += 1;
        self.das.publish(topic, self.seq, QoS::AtLeastOnce, body)
    }

    /// Says something, which is acknowledged like everything: from outside nothing tells a lie that was seen.
    #[track_caller]
    fn say(&mut self, topic: &str, body: impl AsRef<[u8]>) {
        let id = self.tell(topic, body);
        self.das.acknowledged(id);
    }

    /// Answers a request under a number.
    #[track_caller]
    fn reply(&mut self, topic: &str, seq: u64, body: &str) {
        let id = self.das.publish(topic, seq, QoS::AtLeastOnce, body);
        self.das.acknowledged(id);
    }
}

impl Site {
    fn start() -> Site {
        let platform = Platform::start();
        let good = Device::on(&platform, "GOOD");
        Site { platform, good, reported: 0 }
    }

    fn liar(&self) -> Device {
        Device::on(&self.platform, "LIAR")
    }

    /// The good device reports, and is answered, over the connection it has had from the start.
    #[track_caller]
    fn good_goes_on(&mut self) {
        let topic = self.good.topic("model/event/report/Alarm/Smoke");
        self.good.say(&topic, BODY);
        self.reported += 1;
    }

    /// Of all devices the good one alone is believed, and nothing in the platform has broken.
    #[track_caller]
    fn only_the_good_one_is_believed(&mut self) {
        self.good_goes_on();
        assert_eq!(self.platform.events(None).len(), self.reported, "{:?}", self.platform.events(None));
        self.good_is_unharmed();
    }

    #[track_caller]
    fn good_is_unharmed(&mut self) {
        self.good_goes_on();
        let shown = self.platform.device(&self.good.serial);
        assert_eq!(shown["presence"]["state"], "online", "{shown}");
        assert_eq!(shown["presence"]["peer"], self.good.das.local().to_string(), "it is the same connection");
        assert_eq!(self.platform.events(Some(&self.good.serial)).len(), self.reported);
        let why = self.platform.why(&self.good.serial);
        assert_eq!(why["last_failure"], Value::Null, "{why}");
        self.platform.assert_no_panic();
    }

    /// How many messages were dropped for this reason.
    fn dropped(&self, reason: &str) -> f64 {
        self.platform.metric("vestibule_das_messages_dropped_total", &[("reason", reason)])
    }

    #[track_caller]
    fn shows(&self, liar: &Device, reason: &str) {
        let reasons = self.platform.reasons(&liar.serial);
        assert!(reasons.iter().any(|it| it == reason), "why does not show {reason}: {reasons:?}");
    }

    /// What the audit tells of a device that did this, once it does.
    #[track_caller]
    fn misdeed(&self, liar: &Device, action: &str) -> Value {
        let rows = until(&format!("{action} in the audit"), || {
            let rows = self.platform.http().get(&format!("/v1/audit?device={}&action={action}", liar.serial)).ok();
            let rows = rows["items"].as_array().expect("a list").clone();
            (!rows.is_empty()).then_some(rows)
        });
        let [row] = &rows[..] else { panic!("it is written down once an hour: {rows:?}") };
        assert_eq!((&row["actor"], &row["ok"]), (&Value::from("device"), &Value::from(false)));
        assert_eq!(row["device"]["serial"], liar.serial);
        row["detail"].clone()
    }

    fn misdeeds(&self, action: &str) -> f64 {
        self.platform.metric("vestibule_device_misdeeds_total", &[("action", action)])
    }
}
