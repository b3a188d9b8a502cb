//! What messages of the platform mean.

use std::time::Instant;

use osap::das::attribute;
use osap::das::command::{Command, Direction};
use osap::das::envelope::Opened;
use osap::das::ota;
use osap::das::pass;
use osap::das::service::Operate;
use osap::das::shadow;
use osap::das::storage;
use osap::das::topic::{GLOBAL, Topic, method};
use osap::modern::login;

use super::{Channel, Link, LinkEvent};
use crate::attribute::Wishes;
use crate::calls::{Call, ReplyTo};
use crate::operation::OperationPath;
use crate::outbox::Outbox;
use crate::pass::PassThrough;
use crate::query::Place;
use crate::state::LinkFault;

impl Link {
    /// What a message from the platform wants. What is none of ours is ignored, and acknowledged like everything else.
    ///
    /// # Errors
    /// [`LinkFault::Broken`]: it was not sealed by the platform, as what comes next.
    pub(super) fn downlink<T>(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        outbox: &mut Outbox<T>,
    ) -> Result<LinkEvent<T>, LinkFault> {
        let mut payload = payload.to_vec();
        let Some(opened) = self.channel.open(topic, &mut payload)? else { return Ok(LinkEvent::Ignored) };
        if let Channel::Modern(secured) = &mut self.channel
            && topic == login::topic(&self.profile.serial, "receipt")
        {
            let up = secured.handle_receipt(now, opened.application)?;
            return Ok(up.map_or(LinkEvent::Ignored, |up| LinkEvent::Received(outbox.handle_receipt(up))));
        }
        let event = self.request(topic, &opened).unwrap_or(LinkEvent::Ignored);
        if let LinkEvent::Pass { .. } = event {
            // Nothing else tells whoever has sent it that it is here.
            self.channel.owe_receipt();
        }
        Ok(event)
    }

    fn request<T>(&self, topic: &str, opened: &Opened<'_>) -> Option<LinkEvent<T>> {
        let serial = &self.profile.serial;
        let topic = Topic::parse(topic).ok().filter(|topic| topic.serial() == Some(serial.as_str()))?;
        let (seq, application) = (opened.general.seq, opened.application);
        match topic {
            Topic::Module {
                sub, index, resource, module: shadow::MODULE, method: shadow::METHOD, msg_type, ..
            } => {
                let place = Place { sub: sub.into(), resource: resource.into(), index: index.into() };
                let wishes = Wishes::parse(place, msg_type, seq, application)?;
                Some(LinkEvent::Wish(Box::new(wishes)))
            }
            Topic::Module { module: pass::MODULE, .. } => {
                let place = pass::Place::of(&topic).filter(|place| place.msg_type == pass::DELIVER)?;
                let pass = Box::new(PassThrough::parse(&place, application)?);
                Some(LinkEvent::Pass { seq, pass })
            }
            Topic::Module {
                sub: GLOBAL,
                index: "0",
                resource: GLOBAL,
                module: ota::MODULE,
                method: ota::UPGRADE,
                msg_type: "operate",
                ..
            } => Some(LinkEvent::Upgrade { seq, body: application.into() }),
            Topic::Module { module: storage::MODULE, method: storage::UPLOAD, msg_type: "query_reply", .. } => {
                Some(LinkEvent::Granted { seq, body: application.into() })
            }
            Topic::Command { domain, command, .. } => {
                let command =
                    Command::lookup(domain, command).filter(|command| command.direction() == Direction::Down)?;
                Some(LinkEvent::Command { command, seq, body: application.into() })
            }
            Topic::Model { sub, index, resource, method, msg_type, area, name, .. } => {
                let path = OperationPath {
                    sub: sub.into(),
                    resource: resource.into(),
                    index: index.into(),
                    area: area.into(),
                    name: name.into(),
                };
                let (sets, answer, input, ttl_ms) = match (method, msg_type) {
                    (method::SERVICE, "operate") => {
                        let Operate { input, ttl_ms } = Operate::parse(application).ok()?;
                        (false, "operate_reply", input, ttl_ms)
                    }
                    (method::ATTRIBUTE, "set") => {
                        (true, "set_reply", Some(attribute::parse_report(application).ok()?), None)
                    }
                    _ => return None,
                };
                let method = if sets { method::ATTRIBUTE } else { method::SERVICE };
                let reply = ReplyTo { topic: path.reply_topic(serial, method, answer).ok()?, shadow: false };
                let call = Call { seq, path, sets, reply: Some(reply), input: input.map(Into::into), ttl_ms };
                Some(LinkEvent::Operate(Box::new(call)))
            }
            Topic::Module { .. } => None,
        }
    }
}
