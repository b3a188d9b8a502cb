//! CONNECT at the DAS: the will is the login record, and proves the session key (osap-wire 9.2, 9.3, 13.2.2).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use osap::das::cipher::SessionCipher;
use osap::das::connack;
use osap::das::login::{self, LoginError, LoginRecord};
use osap::key::SessionKey;
use osap::lbs::{Credential, Record};
use vestibule_broker::{Admitted, Login, Refused, SessionId};
use vestibule_platform::{Credentials, Device, Fact, Platform};

use super::children::Children;
use super::link::OsapLink;
use super::sealing::Sealing;
use super::{Das, DasSession, Speaker};
use crate::key_state::{KeyState, Life};
use crate::{explain, record};

/// How the version of our SDK begins in a login record.
pub(super) const OUR_SDK: &str = "vestibule";

/// A session key of this age lets nobody in any more (13.2.8); a connection keeps the one it has.
const MAX_KEY_AGE_MS: i64 = 24 * 60 * 60 * 1_000;

/// The realm of OSAP sessions; the principal is the serial.
pub(super) const REALM: &str = "osap";

/// What a CONNECT has shown.
enum Shown {
    /// The session key of the device.
    Key(Arc<KeyState>, SessionKey),
    /// The same, and it has served its time.
    OldKey,
    /// The key of its last authentication, which is used for nothing.
    Candidate,
    /// Nothing that lets it in.
    Nothing(&'static str),
}

impl Das {
    pub(super) async fn log_in(&self, login: Login<'_>) -> Result<Admitted<DasSession>, Refused> {
        let ip = login.peer.ip();
        let user = login.connect.user.unwrap_or_default();
        let Some(device) = self.platform.device_by_serial(user) else {
            self.look_up_in_vain(user).await;
            let held = self.brake.refused(user, self.platform.clock().steady_ms());
            return Err(refuse("unknown_serial", held));
        };
        if device.is_disabled() {
            self.look_up_in_vain(user).await;
            return Err(self.refuse(&device, "disabled", ip));
        }
        if device.is_modern() || self.platform.demands_certificate(&device) {
            self.look_up_in_vain(user).await;
            return Err(self.refuse(&device, "legacy_closed", ip));
        }
        let secrets = match self.platform.secrets(&device).await {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::warn!(serial = user, %error, "the credentials cannot be read");
                return Err(self.refuse(&device, "unavailable", ip));
            }
        };
        let mut credentials = &secrets.credentials;
        let mut shown = self.shown(&device, &login, credentials);
        let stored;
        if matches!(shown, Shown::Nothing(_)) && self.brake.may_look_up(user, self.platform.clock().steady_ms()) {
            // What is in memory may be older than what the LBS has given out, and a device that is sent away for that comes
            // back at once, without end (9.3).
            stored = self.platform.stored_secrets(&device).await;
            if let Ok(stored) = &stored
                && stored.credentials != *credentials
            {
                metrics::counter!("vestibule_das_credentials_outdated_total").increment(1);
                credentials = &stored.credentials;
                shown = self.shown(&device, &login, credentials);
            }
        }
        if !matches!(shown, Shown::Key(..)) {
            self.spend_candidate(&device, credentials, matches!(shown, Shown::Candidate)).await;
        }
        let (reason, fact) = match shown {
            Shown::Key(state, key) => {
                if device.parent().is_some() {
                    // It enrolled by itself, and the store could not take that down then.
                    self.platform.leave_hub(&device).await;
                }
                return Ok(self.admit(&device, &login, state, key));
            }
            Shown::Candidate => ("sent_for_new_key", explain::sent_for_new_key(Some(ip))),
            Shown::OldKey => ("session_key_too_old", explain::session_key_too_old(Some(ip))),
            Shown::Nothing(reason) => return Err(self.refuse(&device, reason, ip)),
        };
        self.fact(&device, fact);
        Err(refuse(reason, Duration::ZERO))
    }

    /// The store is asked about a known device before it is sent away; one that nobody has registered takes as long, also
    /// while the store is down. All of them are answered 11 (13.2.3).
    pub(super) async fn look_up_in_vain(&self, serial: &str) {
        if self.brake.may_look_up(serial, self.platform.clock().steady_ms()) {
            self.platform.store_answers().await;
        }
    }

    /// What the login record shows of these credentials.
    fn shown(&self, device: &Device, login: &Login<'_>, credentials: &Credentials) -> Shown {
        let user = login.connect.user.unwrap_or_default();
        let will = login.connect.will.as_ref().map(|will| will.payload);
        let record = record::credentials(credentials);
        let mut reason = "no_session_key";
        if let Some((credential, key)) = usable(record.committed.as_ref()) {
            match check(user, will, credential, key) {
                Ok(_) if self.is_too_old(credentials) => return Shown::OldKey,
                Ok(record) => {
                    if let Some(state) = self.keys.get(device.id, &Life::Key(key.clone())) {
                        if record.details.is_some_and(|details| details.sdk_main_version.starts_with(OUR_SDK)) {
                            state.set_ours();
                        }
                        return Shown::Key(state, key.clone());
                    }
                }
                Err(why) => reason = why,
            }
        }
        match usable(record.candidate.as_ref()).map(|(candidate, key)| check(user, will, candidate, key)) {
            Some(Ok(_)) => Shown::Candidate,
            Some(Err(why)) => Shown::Nothing(why),
            None => Shown::Nothing(reason),
        }
    }

    /// Whether the committed session key has served its time (13.2.8).
    fn is_too_old(&self, credentials: &Credentials) -> bool {
        let made = credentials.committed.as_ref().map_or(i64::MIN, |committed| committed.created);
        self.platform.clock().now_ms().saturating_sub(made) >= MAX_KEY_AGE_MS
    }

    fn admit(
        &self,
        device: &Arc<Device>,
        login: &Login<'_>,
        state: Arc<KeyState>,
        key: SessionKey,
    ) -> Admitted<DasSession> {
        self.brake.accepted(&device.serial);
        metrics::counter!("vestibule_das_logins_total", "result" => "ok").increment(1);
        let sealing = Arc::new(Sealing::Legacy(SessionCipher::new(key)));
        let line = OsapLink::new(Arc::clone(device), Arc::clone(login.link), Arc::clone(&state), sealing);
        self.fact(device, explain::logged_in(Some(login.peer.ip())));
        Admitted {
            id: SessionId { realm: REALM, principal: (&*device.serial).into() },
            session: DasSession {
                own: Speaker { device: Arc::clone(device), line: Arc::new(line), connection: None, reporting: false },
                children: Children::default(),
                key: state,
                modern: None,
            },
            guest: None,
        }
    }

    /// Commits the candidate when the device has shown it, and forgets its session key in any case. The first CONNECT
    /// after a key agreement is answered 11, whatever it contains: a listener will know the first session key as soon as the
    /// DevID shows in 0x70 (13.2.2). It is checked once, for the commit of 5.5.
    async fn spend_candidate(&self, device: &Arc<Device>, credentials: &Credentials, shown: bool) {
        let record = record::credentials(credentials);
        let Some((candidate, _)) = usable(record.candidate.as_ref()) else { return };
        let now = self.platform.clock().now_ms();
        let spent = self.platform.update_credentials(device, |present| {
            let mut record = record::credentials(present);
            match &mut record.candidate {
                Some(held) if held.master_key == candidate.master_key => held.session_key = None,
                _ => return Err("another run of the device came first"),
            }
            if shown {
                record.commit_candidate();
            }
            let stored = record::stored(&record, present, now);
            Ok(if shown { Credentials { code: present.code.spend(now), ..stored } } else { stored })
        });
        match spent.await {
            // Its enrolment is over with the commit: who has the code may not use the window again (13.2.4).
            Ok(()) if shown => self.platform.enrolled(device).await,
            Ok(()) => {}
            Err(error) => tracing::warn!(serial = %device.serial, %error, "the candidate stays as it was"),
        }
    }

    pub(super) fn refuse(&self, device: &Arc<Device>, reason: &'static str, ip: IpAddr) -> Refused {
        self.fact(device, explain::login_refused(reason, Some(ip)));
        refuse(reason, self.brake.refused(&device.serial, self.platform.clock().steady_ms()))
    }

    pub(super) fn fact(&self, device: &Arc<Device>, fact: Fact) {
        self.platform.fact(device, fact);
    }
}

pub(super) fn refuse(reason: &'static str, delay: Duration) -> Refused {
    metrics::counter!("vestibule_das_logins_total", "result" => reason).increment(1);
    Refused { code: connack::SESSION_UNKNOWN, reason, delay }
}

/// Whether the login record proves this key (9.2).
fn check(
    user: &str,
    will: Option<&[u8]>,
    credential: &Credential,
    key: &SessionKey,
) -> Result<LoginRecord, &'static str> {
    match login::check(user, will.ok_or("no_login_record")?, key, &credential.dev_id) {
        Ok(record) => Ok(record),
        Err(LoginError::Undecryptable) => Err("wrong_session_key"),
        Err(_) => Err("login_record_mismatch"),
    }
}

fn usable(credential: Option<&Credential>) -> Option<(&Credential, &SessionKey)> {
    credential.and_then(|credential| credential.session_key.as_ref().map(|key| (credential, key)))
}

/// Takes the session key out of the store, if it is still this one.
pub(super) async fn drop_session_key(platform: Arc<Platform>, device: Arc<Device>, key: SessionKey) {
    let now = platform.clock().now_ms();
    let dropped = platform.update_credentials(&device, |present| {
        let mut record: Record = record::credentials(present);
        match &mut record.committed {
            Some(committed) if committed.session_key.as_ref() == Some(&key) => committed.session_key = None,
            _ => return Err("the device has another key already"),
        }
        Ok(record::stored(&record, present, now))
    });
    if let Err(error) = dropped.await {
        tracing::debug!(serial = %device.serial, %error, "the session key stays in the store");
    }
}
