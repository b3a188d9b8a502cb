//! Commands of the older form (osap-wire 9.7): base domain (10.4) and hub domain (10.6).

use osap::das::BodyError;
use osap::das::base::{self, Outcome, Owner};
use osap::das::command::Command;
use osap::das::hub::{ChildAuth, Children, Online};
use vestibule_broker::Disposition;

use super::{Das, DasSession};
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
                // Users of devices are the applications' business: to the platform nobody owns one.
                let mut answer = Vec::new();
                Owner::Nobody.write(&mut answer)?;
                self.answer(session, Command::OwnerAnswer, seq, &answer);
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
            // Binding by token, presence and profiles have nobody behind them who could answer.
            _ => self.dropped(&session.own, "not_handled"),
        }
        Ok(Disposition::Done)
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
