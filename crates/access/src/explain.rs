//! Connection facts of OSAP devices, in words a technician understands.

use std::net::IpAddr;

use osap::lbs::Run;
use osap::lbs::server::CloseReason;
use osap::modern;
use osap::modern::ticket::{Held, Used};
use osap::suite::Generation;
use vestibule_broker::EndReason;
use vestibule_platform::{Fact, Step};

use crate::attempts::Spent;

fn step_of(run: Option<Run>) -> Step {
    if run == Some(Run::PlainRefresh) { Step::Refresh } else { Step::Authentication }
}

/// A run at the LBS that got through; an older generation is named.
pub(crate) fn authenticated(
    run: Option<Run>,
    generation: Option<Generation>,
    repeats: bool,
    peer: Option<IpAddr>,
) -> Fact {
    let (reason, text) = match run {
        Some(Run::PlainRefresh) => ("refreshed", "The device proved its master key and got a new session key."),
        Some(Run::EcdhRefresh) => ("authenticated_again", "The device proved its code and its DevID and got new keys."),
        _ => ("authenticated", "The device proved its verification code and was given a DevID and keys."),
    };
    let fact = Fact::ok(step_of(run), reason, text, peer);
    let generation = match generation {
        Some(Generation::G1) => " It speaks generation G1 (SDK 1.5).",
        Some(Generation::G0) => " It speaks generation G0: whoever listened and knows its code has its keys.",
        Some(Generation::G2) | None => "",
    };
    let repeats = if repeats {
        " Its key pair is one it has used before: who learns it has all keys agreed with it."
    } else {
        ""
    };
    if generation.is_empty() && repeats.is_empty() {
        return fact;
    }
    Fact { text: format!("{text}{generation}{repeats}").into(), ..fact }
}

/// A run that the LBS ended.
pub(crate) fn lbs_refusal(run: Option<Run>, reason: &CloseReason, peer: Option<IpAddr>) -> Fact {
    let step = if matches!(reason, CloseReason::NoDas) { Step::Assignment } else { step_of(run) };
    let sentence = capitalised(&reason.to_string());
    let text = match reason.result() {
        Some(result) => format!("{sentence} (the device was told {result})."),
        None if *reason == CloseReason::G0NotServed => {
            format!("{sentence} (the connection was closed); lbs.g0 = true lets it in.")
        }
        None => format!("{sentence} (the connection was closed)."),
    };
    Fact { text: text.into(), ..Fact::failure(step, reason.as_str(), "", peer) }
}

/// A run under a modern suite that got through.
pub(crate) fn authenticated_modern(used: Option<Used>, peer: Option<IpAddr>) -> Fact {
    let (step, reason, text) = match used {
        Some(Used::Ticket(Held::Base)) => (
            Step::Refresh,
            "returned",
            "The device came in with the ticket it was provisioned with, and got a new one.",
        ),
        Some(Used::Ticket(_)) => (Step::Refresh, "returned", "The device proved its ticket and got a new one."),
        Some(Used::Certificate) => {
            (Step::Authentication, "authenticated", "The device proved its certificate and got a ticket.")
        }
        Some(Used::Code) | None => (
            Step::Authentication,
            "authenticated",
            "The device proved its verification code and got a DevID and a ticket.",
        ),
    };
    Fact::ok(step, reason, text, peer)
}

/// A run under a modern suite that the LBS ended.
pub(crate) fn modern_refusal(reason: &modern::server::CloseReason, peer: Option<IpAddr>) -> Fact {
    use modern::server::CloseReason as R;
    let step = match reason {
        R::NoDas | R::DasUnusable(_) => Step::Assignment,
        R::Ticket { .. } | R::Repeated | R::DevId | R::Outrun => Step::Refresh,
        _ => Step::Authentication,
    };
    let sentence = capitalised(&reason.to_string());
    let told = match reason.result() {
        Some(result) => format!("the device was told {result}"),
        None => "the connection was closed".to_owned(),
    };
    Fact { text: format!("{sentence} ({told}).").into(), ..Fact::failure(step, reason.as_str(), "", peer) }
}

/// A device that an operator has shut out.
pub(crate) fn disabled(run: Option<Run>, peer: Option<IpAddr>) -> Fact {
    let text = "The device is disabled, so that it was refused. Enable it to let it in.";
    Fact::failure(step_of(run), "disabled", text, peer)
}

/// A code was shown, and that of the device is used up: whatever was shown is refused like a wrong one.
pub(crate) fn code_spent(at: i64, peer: Option<IpAddr>) -> Fact {
    let at = jiff::Timestamp::from_millisecond(at).map_or_else(|_| "an unknown day".to_owned(), |at| at.to_string());
    let text = format!(
        "The device came with a code and was refused like one with a wrong code: the code works once and was used up on {at}. \
         `vestibule device enrol --rearm` lets it work once more, `vestibule device rotate` gives the device another."
    );
    Fact { text: text.into(), ..Fact::failure(Step::Authentication, "code_spent", "", peer) }
}

/// A device of which a certificate is demanded came without one.
pub(crate) fn certificate_demanded(peer: Option<IpAddr>) -> Fact {
    let text = "A certificate is demanded of the device (`vestibule device suites --certificate`), and it came without one, or by a suite \
                that has none. A device that never had one asks for it over TLS when it comes in; one that has lost it needs \
                a window in which it may: `vestibule device enrol`.";
    Fact::failure(Step::Authentication, "certificate_required", text, peer)
}

/// A device of which a certificate is demanded asked for one, and was issued none.
pub(crate) fn certificate_ungranted(why: &str, peer: Option<IpAddr>) -> Fact {
    let text = format!(
        "A certificate is demanded of the device. It came without one and asked for one, and was issued none: {why}. \
         It is let in by the next run that is issued one; `vestibule device suites` shows what is demanded."
    );
    Fact { text: text.into(), ..Fact::failure(Step::Authentication, "certificate_not_issued", "", peer) }
}

/// An authentication that was not looked at, because too many have failed (osap-wire 13.2.3). No address stands with it:
/// however many they come from, such attempts are one entry and push nothing else out of the story.
pub(crate) fn too_many_attempts(spent: Spent) -> Fact {
    let text = match spent {
        Spent::Serial => {
            "Too many failed attempts with this serial in the last hour: its code is not looked at for now (the device was \
             told 6). `vestibule device enrol` lets it try at once. With the keys it was given it still gets in."
        }
        Spent::Address => {
            "Too many failed attempts from one address in the last minute: no code from there is looked at for now, nor that of \
             this device (it was told 6); it comes back by itself."
        }
        Spent::Network => {
            "Too many failed attempts from one network in the last minute: no code from there is looked at for now, nor that of \
             this device (it was told 6); it comes back by itself."
        }
    };
    Fact::failure(Step::Authentication, "too_many_attempts", text, None)
}

/// A run that broke off.
pub(crate) fn lbs_broken(run: Option<Run>, reason: &'static str, peer: Option<IpAddr>) -> Fact {
    let text = match reason {
        "timeout" => "The device did not send the next message in time.",
        "panicked" => "The key agreement failed inside the platform; its log tells more.",
        "made_room" => {
            "Too many connections were open, and the device's made room for another; the device comes back by itself."
        }
        "overloaded" => "Too many devices authenticate at once; the device comes back by itself.",
        _ => "The connection to the LBS broke off before the device had its access server.",
    };
    Fact::failure(step_of(run), reason, text, peer)
}

/// A login at the DAS that was accepted.
pub(crate) fn logged_in(peer: Option<IpAddr>) -> Fact {
    Fact::ok(Step::Login, "accepted", "The device logged in.", peer)
}

/// The first login after a new key agreement: sent back for a key that no listener can know (osap-wire 13.2.2).
pub(crate) fn sent_for_new_key(peer: Option<IpAddr>) -> Fact {
    let text =
        "The device logged in for the first time and was sent back once for a session key that a listener cannot know.";
    Fact::ok(Step::Login, "sent_for_new_key", text, peer)
}

/// A login under a session key that has served its time (osap-wire 13.2.8).
pub(crate) fn session_key_too_old(peer: Option<IpAddr>) -> Fact {
    let text = "The device's session key was 24 hours old; it was sent back for a new one.";
    Fact::ok(Step::Login, "session_key_too_old", text, peer)
}

/// A login that was refused.
pub(crate) fn login_refused(reason: &'static str, peer: Option<IpAddr>) -> Fact {
    let text = match reason {
        "no_session_key" => "The device has no session here; it was sent back to the LBS (CONNACK 11).",
        "no_login_record" => "The CONNECT carried no login record where the will belongs (CONNACK 11).",
        "wrong_session_key" => {
            "The login record does not open under the device's session key; it was sent back to the LBS (CONNACK 11)."
        }
        "login_record_mismatch" => {
            "The login record names another serial or DevID; the device was sent back to the LBS (CONNACK 11)."
        }
        "no_session" => {
            "The device has no session here, or one that has ended; it was sent back to the LBS (CONNACK 11)."
        }
        "wrong_proof" => {
            "The CONNECT does not prove the device's session, or was made for another connection; it was sent back to the LBS \
             (CONNACK 11)."
        }
        "replayed" => "A recorded CONNECT of the device was sent again; it was refused (CONNACK 11).",
        "too_many_guests" => "Too many connections of the device have not shown that they are its own (CONNACK 11).",
        "plain_closed" => "The device may come over TLS alone, and came over plain TCP (CONNACK 11).",
        "legacy_closed" => {
            "The legacy suites are closed to the device, since it has come in by a modern one, somebody has closed them, or a certificate \
             is demanded of it (CONNACK 11). `vestibule device suites` shows which."
        }
        "alpn" => "The connection is not one for a DAS: its TLS names another protocol (CONNACK 11).",
        "foreign_certificate" => "The device showed a certificate of another device (CONNACK 11).",
        "disabled" => "The device is disabled; it was sent back to the LBS, which refuses it, too (CONNACK 11).",
        "unavailable" => "The credentials could not be read; the device was sent back to the LBS (CONNACK 11).",
        _ => "The login was refused (CONNACK 11).",
    };
    Fact::failure(Step::Login, reason, text, peer)
}

/// The first report of a session.
pub(crate) fn reporting(peer: Option<IpAddr>) -> Fact {
    Fact::ok(Step::Report, "reporting", "The device's reports are stored.", peer)
}

/// A sub-device is there, behind this hub.
pub(crate) fn child_here(hub: &str, peer: Option<IpAddr>) -> Fact {
    let text = format!("The device is there, behind the hub {hub}.");
    Fact { text: text.into(), ..Fact::ok(Step::Connection, "behind_hub", "", peer) }
}

/// A hub brought a device that it may not have.
pub(crate) fn child_refused(reason: &'static str, peer: Option<IpAddr>) -> Fact {
    let text = match reason {
        "child_unproven" => "The hub brought a device that is not registered, or whose code is another one.",
        "child_elsewhere" => {
            "The hub brought a device that is in another place already: behind another hub, with devices behind it, or \
             with a login of its own."
        }
        "child_disabled" => "The hub brought a device that is disabled.",
        "child_guessed" => {
            "The hub failed too often to prove devices, or this device was failed to be proven too often; what it brings is \
             not looked at for an hour."
        }
        _ => "The hub brought a device, and the store could not say whose it is; the hub may try again.",
    };
    Fact::failure(Step::Login, reason, text, peer)
}

/// A device of an older library says that it leaves.
pub(crate) fn leaving(peer: Option<IpAddr>) -> Fact {
    Fact::ok(Step::Connection, "leaving", "The device says that it leaves.", peer)
}

/// A message that was not taken.
pub(crate) fn report_refused(reason: &'static str, peer: Option<IpAddr>) -> Fact {
    let text = match reason {
        "foreign_serial" => "The device published under the serial of another device; the message was dropped.",
        "unknown_child" => "The device published for a sub-device that is not on its list; the message was dropped.",
        "bad_topic" => "The device published to a topic that is not one of the protocol's; the message was dropped.",
        "unproven_child" => {
            "The hub lists a device that it has not proven to know; it has to authenticate it first, or somebody registers \
             the device as its child."
        }
        "too_many_children" => "The hub has 64 devices behind it, which is the limit; the message was dropped.",
        "too_many_proofs" => "The hub proves too many devices at once; it may try again.",
        "operation_not_served" => "The device wants an operation of the platform, which serves none; it was told so.",
        "bind_not_served" => {
            "The device brought a token of the user whose it shall be. Nothing here knows such tokens; it was dropped, and the \
             owner is who it was."
        }
        "not_opened" => "A message does not open under the session key, or is not what its topic says; it was dropped.",
        "not_handled" => "The device uses a channel that is not served yet; the message was acknowledged and dropped.",
        "reply_to_nothing" => {
            "The device answered an operation that it was not sent, or answered twice; it was dropped."
        }
        "report_too_large" => "A report is longer than the platform takes; it was dropped.",
        "report_too_deep" => "A report is nested more than 32 levels deep; it was dropped.",
        "report_bad_path" => "A level of a report's path is empty or too long; it was dropped.",
        "report_too_many_attributes" => {
            "The device has 4096 attributes, which is the limit; a report of one more was dropped."
        }
        "report_bad_event_id" => "A report's UUID is empty or too long; it was dropped.",
        _ => "A message was not taken.",
    };
    Fact::failure(Step::Report, reason, text, peer)
}

/// The end of a session.
pub(crate) fn ended(reason: EndReason, peer: Option<IpAddr>) -> Fact {
    match reason {
        EndReason::Disconnect => Fact::ok(Step::Connection, "disconnect", "The device said goodbye.", peer),
        EndReason::Closed("replaced") => {
            Fact::ok(Step::Connection, "replaced", "The device logged in again; the older connection was closed.", peer)
        }
        EndReason::Shutdown => Fact::ok(Step::Connection, "shutdown", "The platform was stopped.", peer),
        EndReason::Lost => Fact::failure(Step::Connection, reason.as_str(), "The connection was lost.", peer),
        EndReason::KeepAlive => Fact::failure(
            Step::Connection,
            reason.as_str(),
            "Nothing was heard for one and a half times the keep-alive.",
            peer,
        ),
        EndReason::Protocol(detail) => Fact {
            text: format!("The device broke the protocol ({detail}); the connection was closed.").into(),
            ..Fact::failure(Step::Connection, reason.as_str(), "", peer)
        },
        EndReason::Closed("too_many_errors") => Fact::failure(
            Step::Connection,
            "too_many_errors",
            "Ten messages in a minute did not open; the connection was closed and its key dropped.",
            peer,
        ),
        EndReason::Closed("disabled") => Fact::ok(Step::Connection, "disabled", "The device was disabled.", peer),
        EndReason::Closed("rotated") => Fact::ok(
            Step::Connection,
            "rotated",
            "The device was given another code; it has to come in with that.",
            peer,
        ),
        EndReason::Closed("forced_offline") => {
            Fact::ok(Step::Connection, "forced_offline", "An operator sent the device away.", peer)
        }
        EndReason::Closed("renew") => Fact::ok(
            Step::Connection,
            "renew",
            "The session has served its time; the device comes back through the LBS.",
            peer,
        ),
        EndReason::Closed("suite_closed") => {
            Fact::ok(Step::Connection, "suite_closed", "The suite of the connection was closed to the device.", peer)
        }
        EndReason::Closed("outdated") => {
            Fact::ok(Step::Connection, "outdated", "The session was replaced, or voided by an operator.", peer)
        }
        EndReason::Closed("provisioned") => {
            Fact::ok(Step::Connection, "provisioned", "The device was provisioned anew; what it had is void.", peer)
        }
        EndReason::Closed("certificate_revoked") => {
            Fact::ok(Step::Connection, "certificate_revoked", "A certificate of the device was revoked.", peer)
        }
        EndReason::Closed("tampered") => Fact::failure(
            Step::Connection,
            "tampered",
            "A message did not open, or one was missing before it: somebody on the way has changed what the device sent.",
            peer,
        ),
        EndReason::Closed("no_receipt") => Fact::failure(
            Step::Connection,
            "no_receipt",
            "The device said nothing of what has arrived there for two intervals: somebody may swallow what is sent to it.",
            peer,
        ),
        EndReason::Closed("removed") => Fact::ok(Step::Connection, "removed", "The device was removed.", peer),
        other => Fact::failure(Step::Connection, other.as_str(), "The connection was closed.", peer),
    }
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
