//! Commands of the older form (osap-wire 9.7): base domain (10.4) and hub domain (10.6).

use std::sync::Arc;

use osap::das::BodyError;
use osap::das::base::{self, Binding, Ntp, Outcome, Owner, Presence};
use osap::das::command::Command;
use osap::das::hub::{ChildAuth, Children, Online};
use osap::das::reply::Reply;
use osap::das::topic::GLOBAL;
use serde_json::{Value, json};
use vestibule_broker::Disposition;
use vestibule_platform::{DevicePath, RecordKind, Report};

use super::link::Kind;
use super::own::{BASE, OwnOperation};
use super::{Das, DasSession, Speaker};
use crate::explain;

impl Das {
    pub(super) fn command(
        &self,
        session: &mut DasSession,
        command: Command,
        seq: u64,
        body: &[u8],
    ) -> Result<Disposition, BodyError> {
        match command {
            Command::OfflineNotice => {
                base::Request::parse(body)?;
                self.platform.fact(&session.own.device, explain::leaving(session.own.peer()));
            }
            Command::OwnerQuery => {
                base::Request::parse(body)?;
                let mut answer = Vec::new();
                self.owner(&session.own).write(&mut answer)?;
                self.answer(session, Command::OwnerAnswer, seq, &answer);
            }
            Command::BindingChanged => {
                let code = Binding::parse_answer(body)?.into();
                return Ok(self.answered_own(session, seq, OwnOperation::Bind, code));
            }
            Command::ChallengeAnswer => {
                let code = Outcome::parse(body)?.result;
                return Ok(self.answered_own(session, seq, OwnOperation::Challenge, code));
            }
            Command::Presence => {
                let data = json!({"token": Presence::parse(body)?.token}).to_string();
                if !session.key.is_new(seq) {
                    // It is evidence: a recorded one shows nothing (13.2.6).
                    return Ok(self.repeated());
                }
                self.confirm(session, Command::PresenceAnswer, seq);
                let (kind, path) = (RecordKind::Event, own_path("presence"));
                return Ok(self.report(&mut session.own, Report { kind, path, id: None, time: None, data: &data }));
            }
            Command::Children => {
                self.children_listed(session, &Children::parse(body)?);
                self.confirm(session, Command::ChildrenAnswer, seq);
            }
            Command::ChildrenOnline => {
                self.children_online(session, &Online::parse(body)?);
                self.confirm(session, Command::ChildrenOnlineAnswer, seq);
            }
            Command::ChildAuth => self.child_proves(session, seq, &ChildAuth::parse(body)?),
            // The platform has no users whose tokens these could be; devices ignore an answer.
            Command::BindToken => self.dropped(&session.own, "bind_not_served"),
            // Who asks for a profile (0x3870) as well: there are none, and 0x3871 has a place, a digest and no result by which
            // that could be said (10.4). What answered with a made-up one would have the device fetch what is not there.
            _ => self.dropped(&session.own, "not_handled"),
        }
        Ok(Disposition::Done)
    }

    fn answered_own(&self, session: &DasSession, seq: u64, own: OwnOperation, code: i64) -> Disposition {
        let reply = Reply { code, message: None, data: None };
        self.answered(&session.own, seq, reply, None, |waiting| waiting.kind == Kind::Own(own))
    }

    /// The device has taken note of its owner: an attribute of its own from now on.
    pub(super) fn bound(&self, speaker: &Speaker, input: Option<&str>) {
        let input = input.and_then(|input| serde_json::from_str::<Value>(input).ok()).unwrap_or_default();
        let data = input["user"].to_string();
        let (kind, path) = (RecordKind::Attribute, own_path("owner"));
        let report = Report { kind, path, id: None, time: None, data: &data };
        if let Err(error) = self.platform.report(&speaker.device, report) {
            self.dropped(speaker, error.as_str());
        }
    }

    fn owner(&self, speaker: &Speaker) -> Owner {
        let leaf = self.platform.attribute(&speaker.device, &own_path("owner"));
        let value = leaf.and_then(|leaf| leaf.reported).map(|reported| reported.value);
        let user = value.and_then(|value| serde_json::from_str::<Option<String>>(value.get()).ok()).flatten();
        user.filter(|user| !user.is_empty()).map_or(Owner::Nobody, Owner::User)
    }

    /// Tells a device that has logged in where to ask for the time.
    pub(super) fn tell_time(&self, session: &DasSession, time: &Ntp) {
        let mut body = Vec::new();
        let written = time.write(&mut body).is_ok();
        if !written || session.own.line.command(Command::Ntp, None, &body).is_err() {
            tracing::debug!(serial = %session.own.device.serial, "a device is not told of the time server");
        }
    }

    /// Hubs ignore what the answer says; that one comes is what they may look for.
    fn confirm(&self, session: &DasSession, command: Command, seq: u64) {
        let mut body = Vec::new();
        Outcome::OK.write(&mut body);
        self.answer(session, command, seq, &body);
    }

    fn answer(&self, session: &DasSession, command: Command, seq: u64, body: &[u8]) {
        if let Err(error) = session.own.line.command(command, Some(seq), body) {
            tracing::debug!(serial = %session.own.device.serial, %error, "a command of a device is not answered");
        }
    }
}

/// Something that the protocol itself knows of a device.
fn own_path(name: &str) -> Arc<DevicePath> {
    Arc::new(DevicePath { resource: GLOBAL.into(), index: "0".into(), area: BASE.into(), name: name.into() })
}
