//! What a frame leads to, by the state it comes in (osap-wire 5.13, 8).

use super::agreement::{Agreement, Hello, Issuing};
use super::original::Greeted;
use super::refresh::Refresh;
use super::{AfterStage, CloseReason, Issue, Output, Server, State, Unstaged};
use crate::lbs::das_info::{Request, Service};
use crate::lbs::frame::{Frame, FrameError};
use crate::lbs::message::g0::{Create, Keep};
use crate::lbs::message::{
    Apply, AuthI, AuthIi, Confirm, EcdhRefresh, Group, Offer, Purpose, RefreshI, RefreshIii, ServiceRequest, first, g0,
    g1, serial_named,
};
use crate::lbs::record::{Run, Stage};
use crate::result::ResultCode;
use crate::suite::legacy::l_cbc_open;
use crate::suite::{Generation, Suite};

impl Server {
    /// Takes the answer to [`Output::Read`]: exactly one frame.
    pub fn handle_frame(&mut self, bytes: &[u8]) {
        if self.outbox.is_some() || self.poll() != Output::Read {
            return;
        }
        let state = std::mem::replace(&mut self.state, State::Moving);
        if bytes.len() > self.policy.max_frame {
            let error = FrameError::TooLong { len: bytes.len(), max: self.policy.max_frame };
            return self.close(CloseReason::Frame(error));
        }
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.close(CloseReason::Frame(error)),
        };
        match (state, frame.first) {
            (State::Start, _) => self.start(&frame),
            (State::WaitApply(agreement), first::APPLY) => self.apply(&frame, *agreement),
            (State::WaitApply(agreement), first::ECDH_REFRESH) => self.ecdh_refresh(&frame, *agreement),
            (State::WaitOriginal(greeted), first::CREATE) => self.create(&frame, *greeted),
            (State::WaitOriginal(greeted), first::KEEP) => self.keep(&frame, *greeted),
            (State::WaitChallenge(refresh), byte) if byte == refresh.purpose.firsts()[2] => {
                self.challenge(&frame, *refresh);
            }
            (State::WaitService(issue), first::CONFIRM) => self.confirm(&frame, *issue),
            (State::WaitService(issue), first::SERVICE) => self.service(&frame, *issue),
            (_, other) => self.close(CloseReason::OutOfOrder(other)),
        }
    }

    /// The first frame tells the generation (osap-wire 8).
    fn start(&mut self, frame: &Frame<'_>) {
        match frame.first {
            first::AUTH_I => self.auth(frame),
            first::AUTH_I_G1 => self.auth_g1(frame),
            first::AUTH_I_G0 => self.auth_g0(frame),
            first::REFRESH_I => self.refresh(frame, Purpose::Das),
            first::STUN_REFRESH_I => self.refresh(frame, Purpose::Stun),
            // It asks with a request that only the vendor's private key opens. A result, and not merely the end of the
            // connection: the device, and whoever reads the wire, can tell it from a network that fails (osap-wire 5.9).
            first::SECRET_KEY => self.refuse(first::SECRET_KEY, CloseReason::SecretKey),
            other => self.close(CloseReason::OutOfOrder(other)),
        }
    }

    fn refresh(&mut self, frame: &Frame<'_>, purpose: Purpose) {
        match RefreshI::decode(frame, purpose) {
            Ok(refresh) => {
                self.serial = Some(refresh.serial.clone());
                self.run = Some(Run::PlainRefresh);
                self.state = State::LookupRefresh(Box::new(refresh), purpose);
            }
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn auth_g1(&mut self, frame: &Frame<'_>) {
        self.generation = Some(Generation::G1);
        if !self.policy.serves(Generation::G1) {
            self.serial = serial_named(frame);
            return self.close(CloseReason::G1NotServed);
        }
        match g1::AuthI::decode(frame) {
            Ok(auth) => self.look_up(Hello::G1(auth)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn auth_g0(&mut self, frame: &Frame<'_>) {
        self.generation = Some(Generation::G0);
        if !self.policy.serves(Generation::G0) {
            self.serial = serial_named(frame);
            return self.close(CloseReason::G0NotServed);
        }
        match g0::AuthI::decode(frame) {
            Ok(auth) => {
                self.serial = Some(auth.serial.clone());
                self.state = State::LookupOriginal(Box::new(auth));
            }
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn look_up(&mut self, hello: Hello) {
        self.serial = Some(hello.serial().clone());
        self.state = State::LookupHello(Box::new(hello));
    }

    fn auth(&mut self, frame: &Frame<'_>) {
        self.generation = Some(Generation::G2);
        let offer = match Offer::decode(frame) {
            Ok(offer) => offer,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        let Some(choice) = self.choose(&offer) else {
            return self.close(CloseReason::NothingServed);
        };
        if choice.protocol_type() != offer.protocol_type {
            return self.mismatch(offer.protocol_type, choice);
        }
        match AuthI::decode(frame) {
            Ok(auth) => self.look_up(Hello::G2(auth)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    /// The first suite of ours that the device supports, else our first one; `None` when the
    /// policy is empty.
    fn choose(&self, offer: &Offer) -> Option<Suite> {
        let supported = |suite: &Suite| {
            let number = suite.protocol_type();
            offer.protocol_type == number || offer.group.contains(number)
        };
        self.policy.suites.iter().copied().find(supported).or(self.policy.suites.first().copied())
    }

    /// Says which types are served instead, and closes (osap-wire 5.10).
    fn mismatch(&mut self, offered: u8, choice: Suite) {
        let served: Vec<u8> = self.policy.suites.iter().map(|suite| suite.protocol_type()).collect();
        let answer = AuthIi::Mismatch { protocol_type: choice.protocol_type(), group: Group::new(&served).ok() };
        self.refusal = Some(ResultCode::InvalidData);
        self.outbox = Some(answer.encode());
        self.close(CloseReason::Mismatch { offered });
    }

    fn apply(&mut self, frame: &Frame<'_>, agreement: Agreement) {
        self.run = Some(Run::First);
        match Apply::decode(frame) {
            Ok(apply) => self.issue(first::APPLIED, agreement.first(&apply.signature)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn ecdh_refresh(&mut self, frame: &Frame<'_>, agreement: Agreement) {
        self.run = Some(Run::EcdhRefresh);
        match EcdhRefresh::decode(frame) {
            Ok(refresh) => {
                let issued = agreement.refresh(&refresh.dev_id, &refresh.signature);
                self.issue(first::ECDH_REFRESHED, issued);
            }
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn create(&mut self, frame: &Frame<'_>, greeted: Greeted) {
        self.run = Some(Run::First);
        match Create::decode(frame) {
            Ok(create) => self.issue(first::CREATED, greeted.create(&create)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn keep(&mut self, frame: &Frame<'_>, greeted: Greeted) {
        self.run = Some(Run::EcdhRefresh);
        match Keep::decode(frame) {
            Ok(keep) => self.issue(first::KEPT, greeted.keep(&keep)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn issue(&mut self, answer: u8, issued: Result<Issuing, CloseReason>) {
        match issued {
            Ok(Issuing { answer, stage, proof, session_key }) => {
                self.outbox = Some(answer);
                let unstaged = Some(Unstaged { stage, proof });
                self.state = State::WaitService(Box::new(Issue { purpose: Purpose::Das, session_key, unstaged }));
            }
            Err(reason) => self.refuse(answer, reason),
        }
    }

    /// A wrong r2 has no result: the third step is never answered.
    fn challenge(&mut self, frame: &Frame<'_>, refresh: Refresh) {
        match RefreshIii::decode(frame, refresh.purpose) {
            Ok(message) if refresh.is_answered_by(message.challenge) => {
                let Refresh { purpose, stage, session_key, .. } = refresh;
                let unstaged = Some(Unstaged { stage, proof: None });
                self.state = State::WaitService(Box::new(Issue { purpose, session_key, unstaged }));
            }
            Ok(_) => self.close(CloseReason::Challenge),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    /// 0x92, where a run has issued something that was not confirmed yet.
    fn confirm(&mut self, frame: &Frame<'_>, issue: Issue) {
        let message = match Confirm::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        match issue.unstaged {
            Some(Unstaged { stage: Stage::Candidate { run, credential, code_case }, proof: Some(proof) }) => {
                if !proof.matches(&message.signature) {
                    return self.close(CloseReason::Confirmation);
                }
                let stage = Box::new(Stage::Confirmed { run, credential, code_case });
                self.state = State::Staging { stage, then: AfterStage::AwaitService(issue.session_key) };
            }
            _ => self.close(CloseReason::OutOfOrder(frame.first)),
        }
    }

    fn service(&mut self, frame: &Frame<'_>, issue: Issue) {
        let mut sealed = match ServiceRequest::decode(frame) {
            Ok(message) => message.sealed,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        let request = match l_cbc_open(issue.session_key.as_bytes(), &mut sealed) {
            Ok(text) => Request::decode(text).ok(),
            Err(_) => None,
        };
        let Some(request) = request else {
            return self.close(CloseReason::ServiceRequest);
        };
        if self.serial.as_ref().is_none_or(|serial| serial.as_str() != request.serial) {
            return self.close(CloseReason::ServiceRequest);
        }
        match (request.service, issue.purpose) {
            (Service::Das, Purpose::Das) => self.state = State::Assign(Box::new(issue)),
            // Nothing is staged: the session key the device has at its DAS stays as it is.
            (Service::Das, Purpose::Stun) => self.refuse(first::SERVICE_ANSWER, CloseReason::WrongService),
            (Service::Stun, _) => self.refuse(first::SERVICE_ANSWER, CloseReason::Stun),
            (Service::Other, _) => self.refuse(first::SERVICE_ANSWER, CloseReason::UnknownService),
        }
    }
}
