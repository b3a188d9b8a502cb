//! The bodies of the v2 commands: base, access and hub (osap-wire 10.4 to 10.6).

use std::collections::BTreeMap;
use std::fmt::Debug;

use osap::das::BodyError::{self, Malformed, Missing, TooLong, TooMany, Unacceptable};
use osap::das::access::{KeepAlive, Redirect, RiskList};
use osap::das::base::{
    BindToken, Binding, Challenge, Ntp, Outcome, Owner, Presence, ProfileAnswer, ProfileQuery, Request,
};
use osap::das::hub::{AccessMode, Child, ChildAuth, ChildProof, ChildVerdict, Children, Online};
use osap::{Code, Serial};
use proptest::prelude::*;

/// What is written is the text, and what is read is the body.
fn is<'a, T: PartialEq + Debug>(
    body: &T,
    text: &'a str,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), BodyError>,
    parse: impl FnOnce(&'a [u8]) -> Result<T, BodyError>,
) {
    let mut out = b"before".to_vec();
    assert_eq!(write(&mut out), Ok(()), "{text}");
    assert_eq!(std::str::from_utf8(&out[6..]), Ok(text));
    assert_eq!(parse(text.as_bytes()).as_ref(), Ok(body));
}

/// Nothing is written, not even in part.
fn refused(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BodyError>) -> BodyError {
    let mut out = b"before".to_vec();
    let error = write(&mut out).expect_err("refused");
    assert_eq!(out, b"before");
    error
}

fn serial() -> Serial {
    Serial::new("SN0000001").expect("a serial")
}

#[test]
fn time_server() {
    let ntp = Ntp { address: "ntp.local".into(), port: 123, interval_s: 3600, timezone: "UTC+08:00".into() };
    let text = r#"{"NTP":{"Addr":"ntp.local","Port":123,"Interval":3600,"Timezone":"UTC+08:00"}}"#;
    is(&ntp, text, |out| ntp.write(out), Ntp::parse);
    for (timezone, minutes) in [
        ("UTC+08:00", Some(480)),
        ("UTC-03:30", Some(-210)),
        ("UTC", Some(0)),
        ("UTC+15:00", None),
        ("UTC+08:60", None),
        ("UTC 08:00", None),
        ("UTC+8:00", None),
        ("UTCé", None),
        ("", None),
    ] {
        let zoned = Ntp { timezone: timezone.into(), ..ntp.clone() };
        assert_eq!(zoned.offset_minutes(), minutes, "{timezone}");
    }
    for (text, error) in [
        ("{}", Missing("NTP")),
        (r#"{"NTP":null}"#, Missing("NTP")),
        (r#"{"NTP":5}"#, Malformed),
        (r#"{"NTP":{"Port":123,"Interval":1}}"#, Missing("Addr")),
        (r#"{"NTP":{"Addr":"a","Port":65536,"Interval":1}}"#, Unacceptable("Port")),
        (r#"{"NTP":{"Addr":"a","Port":1,"Interval":-1}}"#, Unacceptable("Interval")),
        (r#"{"NTP":{"Addr":7,"Port":1,"Interval":1}}"#, Unacceptable("Addr")),
        ("x", Malformed),
    ] {
        assert_eq!(Ntp::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert_eq!(refused(|out| Ntp { address: "x".repeat(254), ..ntp }.write(out)), Unacceptable("Addr"));
}

#[test]
fn who_owns_a_device() {
    let request = Request { serial: serial() };
    let text = "<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>";
    let write = |out: &mut Vec<u8>| {
        request.write(out);
        Ok(())
    };
    is(&request, text, write, Request::parse);
    let text = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<Request><DevSerial>a&lt;b</DevSerial></Request>\n";
    assert_eq!(Request::parse(text.as_bytes()).map(|request| request.serial.to_string()), Ok("a<b".into()));
    for (text, error) in [
        ("<Response/>", Missing("Request")),
        ("<Request/>", Missing("DevSerial")),
        ("<Request><DevSerial>a b</DevSerial></Request>", Unacceptable("DevSerial")),
        ("<Request><DevSerial></DevSerial></Request>", Unacceptable("DevSerial")),
        ("{}", Malformed),
    ] {
        assert_eq!(Request::parse(text.as_bytes()), Err(error), "{text}");
    }

    let user = Owner::User("u<1>".into());
    let text = "<Response><Result>0</Result><User Id=\"u&lt;1&gt;\"/></Response>";
    is(&user, text, |out| user.write(out), Owner::parse);
    let text = "<Response><Result>1055746</Result></Response>";
    is(&Owner::Nobody, text, |out| Owner::Nobody.write(out), Owner::parse);
    let text = "<Response><Result>7</Result></Response>";
    is(&Owner::Unknown(7), text, |out| Owner::Unknown(7).write(out), Owner::parse);
    for text in [
        "<Response><Result>0</Result></Response>",
        "<Response><Result>0</Result><User/></Response>",
        "<Response><Result>0</Result><User Id=''/></Response>",
    ] {
        assert_eq!(Owner::parse(text.as_bytes()), Ok(Owner::Nobody), "{text}");
    }
    assert_eq!(Owner::parse(b"<Response/>"), Err(Missing("Result")));
    assert_eq!(Owner::parse(b"<Response><Result>no</Result></Response>"), Err(Unacceptable("Result")));
    let long = Owner::User("u".repeat(129));
    for wrong in [Owner::User(String::new()), Owner::User("\0".into()), Owner::Unknown(0), Owner::Unknown(1_055_746)] {
        assert_eq!(refused(|out| wrong.write(out)), Malformed, "{wrong:?}");
    }
    assert_eq!(refused(|out| long.write(out)), Unacceptable("User"));
}

#[test]
fn a_changed_binding() {
    let bound = Binding { user: Some("u&1".into()) };
    is(&bound, "<Request><UserId>u&amp;1</UserId></Request>", |out| bound.write(out), Binding::parse);
    let unbound = Binding { user: None };
    is(&unbound, "<Request><UserId></UserId></Request>", |out| unbound.write(out), Binding::parse);
    assert_eq!(Binding::parse(b"<Request><UserId/></Request>"), Ok(unbound));
    assert_eq!(Binding::parse(b"<Request></Request>"), Err(Missing("UserId")));
    assert_eq!(refused(|out| Binding { user: Some(String::new()) }.write(out)), Malformed);
    assert_eq!(refused(|out| Binding { user: Some("u".repeat(129)) }.write(out)), Unacceptable("UserId"));
    let mut answer = Vec::new();
    Binding::write_answer(0, &mut answer);
    assert_eq!(answer, b"<Response><Result>0</Result></Response>");
    assert_eq!(Binding::parse_answer(&answer), Ok(0));
    assert_eq!(Binding::parse_answer(b"<Response><Result>-1</Result></Response>"), Err(Unacceptable("Result")));
}

#[test]
fn tokens() {
    let bind = BindToken { token: "t\"1".into() };
    is(&bind, r#"{"token":"t\"1"}"#, |out| bind.write(out), BindToken::parse);
    assert_eq!(refused(|out| BindToken { token: String::new() }.write(out)), Unacceptable("token"));
    assert_eq!(refused(|out| BindToken { token: "t".repeat(1025) }.write(out)), Unacceptable("token"));
    assert_eq!(BindToken::parse(br#"{"token":5}"#), Err(Unacceptable("token")));

    fn infallible<T>(
        write: impl FnOnce(&T, &mut Vec<u8>),
        body: &T,
    ) -> impl FnOnce(&mut Vec<u8>) -> Result<(), BodyError> {
        |out| {
            write(body, out);
            Ok(())
        }
    }
    let challenge = Challenge { token: 41, period_s: 60 };
    is(&challenge, r#"{"token":41,"bindPeriod":60}"#, infallible(Challenge::write, &challenge), Challenge::parse);
    let presence = challenge.presence();
    is(&presence, r#"{"token":42}"#, infallible(Presence::write, &presence), Presence::parse);
    assert_eq!(Challenge { token: u64::MAX, period_s: 0 }.presence().token, 0);
    assert_eq!(Challenge::parse(br#"{"token":-1,"bindPeriod":1}"#), Err(Unacceptable("token")));
    assert_eq!(Challenge::parse(br#"{"token":1}"#), Err(Missing("bindPeriod")));
    assert_eq!(Presence::parse(b"{}"), Err(Missing("token")));
    is(&Outcome::OK, r#"{"result":0}"#, infallible(Outcome::write, &Outcome::OK), Outcome::parse);
    let failed = Outcome { result: -3 };
    is(&failed, r#"{"result":-3}"#, infallible(Outcome::write, &failed), Outcome::parse);
    assert_eq!(Outcome::parse(b"[]"), Err(Malformed));
}

#[test]
fn where_a_profile_is() {
    let query = ProfileQuery {
        serial: serial(),
        product: "LAMP".into(),
        version: "V1.0.0 build 200101".into(),
        profile_version: "3.0".into(),
        require_schema: false,
    };
    let text = r#"{"devSerial":"SN0000001","pid":"LAMP","version":"V1.0.0 build 200101","profileVersion":"3.0","requireSchema":false}"#;
    is(&query, text, |out| query.write(out), ProfileQuery::parse);
    let short = ProfileQuery::parse(br#"{"devSerial":"S","pid":"p"}"#).expect("enough");
    assert!(short.require_schema && short.version.is_empty());
    assert_eq!(refused(|out| ProfileQuery { product: "p".repeat(65), ..short }.write(out)), Unacceptable("pid"));

    let answer = ProfileAnswer::of(serial(), "127.0.0.1:80/p".into(), 60, b"{}");
    let text =
        r#"{"devSerial":"SN0000001","url":"127.0.0.1:80/p","expire":60,"md5":"99914b932bd37a50b983c5e7c90ae93b"}"#;
    is(&answer, text, |out| answer.write(out), ProfileAnswer::parse);
    assert!(answer.is_of(b"{}") && !answer.is_of(b"{ }"));
    let upper = text.replace("99914b932bd37a50b983c5e7c90ae93b", "99914B932BD37A50B983C5E7C90AE93B");
    assert_eq!(ProfileAnswer::parse(upper.as_bytes()).as_ref(), Ok(&answer));
    for (from, to, member) in [
        ("127.0.0.1:80/p", "http://127.0.0.1/p", "url"),
        ("127.0.0.1:80/p", "", "url"),
        ("127.0.0.1:80/p", "a b", "url"),
        ("93b\"", "93\"", "md5"),
        ("93b\"", "93g\"", "md5"),
        ("SN0000001", "", "devSerial"),
        (":60,", ":-1,", "expire"),
    ] {
        assert_eq!(ProfileAnswer::parse(text.replace(from, to).as_bytes()), Err(Unacceptable(member)), "{to}");
    }
    assert_eq!(refused(|out| ProfileAnswer { url: "x".repeat(513), ..answer }.write(out)), Unacceptable("url"));
}

#[test]
fn keep_alive() {
    let keep_alive = KeepAlive { interval_s: 15 };
    is(&keep_alive, r#"{"KeepAlive":{"Interval":15}}"#, |out| keep_alive.write(out), KeepAlive::parse);
    assert_eq!(refused(|out| KeepAlive { interval_s: 0 }.write(out)), Unacceptable("Interval"));
    for (text, error) in [
        (r#"{"KeepAlive":{"Interval":0}}"#, Unacceptable("Interval")),
        (r#"{"KeepAlive":{"Interval":65536}}"#, Unacceptable("Interval")),
        (r#"{"KeepAlive":{}}"#, Missing("Interval")),
        ("{}", Missing("KeepAlive")),
    ] {
        assert_eq!(KeepAlive::parse(text.as_bytes()), Err(error), "{text}");
    }
}

#[test]
fn forbidden_commands() {
    let risk = RiskList { domains: BTreeMap::from([(1100, vec![13381, 14338]), (7002, vec![])]) };
    is(&risk, r#"{"risk":{"1100":[13381,14338],"7002":[]}}"#, |out| risk.write(out), RiskList::parse);
    assert!(risk.forbids(1100, 13381) && !risk.forbids(1100, 1));
    assert!(risk.forbids(7002, 1) && !risk.forbids(1000, 1));
    assert_eq!(RiskList::parse(br#"{"risk":{}}"#), Ok(RiskList::default()));
    for (text, error) in [
        ("{}", Missing("risk")),
        (r#"{"risk":[]}"#, Malformed),
        (r#"{"risk":{"x":[]}}"#, Unacceptable("risk")),
        (r#"{"risk":{"1":5}}"#, Unacceptable("risk")),
        (r#"{"risk":{"1":["5"]}}"#, Unacceptable("risk")),
        (r#"{"risk":{"1":["5"],"2":[]}}"#, Unacceptable("risk")),
    ] {
        assert_eq!(RiskList::parse(text.as_bytes()), Err(error), "{text}");
    }
    let many = |domains: u32, commands: u32| RiskList {
        domains: (0..domains).map(|domain| (domain, (0..commands).collect())).collect(),
    };
    assert!(many(64, 16).write(&mut Vec::new()).is_ok());
    assert_eq!(refused(|out| many(65, 0).write(out)), TooMany("risk"));
    assert_eq!(refused(|out| many(1, 1025).write(out)), TooMany("risk"));
    assert_eq!(refused(|out| many(25, 41).write(out)), TooMany("risk"));
}

#[test]
fn redirect() {
    let redirect = Redirect { host: "lbs-2.local".into() };
    let text = "<Request><DomainName>lbs-2.local</DomainName></Request>";
    is(&redirect, text, |out| redirect.write(out), Redirect::parse);
    for wrong in ["", "a b", "a/b", "a;b", "é", &"x".repeat(254)] {
        assert_eq!(refused(|out| Redirect { host: wrong.into() }.write(out)), Unacceptable("DomainName"), "{wrong}");
    }
    assert_eq!(Redirect::parse(b"<Request><Name>a</Name></Request>"), Err(Missing("DomainName")));
}

#[test]
fn children() {
    is(&Children::Never, "{}", |out| Children::Never.write(out), Children::parse);
    is(&Children::Now(vec![]), "[]", |out| Children::Now(vec![]).write(out), Children::parse);
    let child = Child {
        serial: "SUB000001".into(),
        connected: true,
        version: "V1".into(),
        product: "PLUG".into(),
        firmware_code: "".into(),
    };
    let children = Children::Now(vec![child.clone()]);
    let text =
        r#"[{"connected":1,"childdevid":"SUB000001","version":"V1","type":"PLUG","FirmwareIdentificationCode":""}]"#;
    is(&children, text, |out| children.write(out), Children::parse);
    let shortest = Children::parse(br#"[{"connected":0,"childdevid":"t:n"}]"#).expect("enough");
    assert_eq!(
        shortest,
        Children::Now(vec![Child {
            serial: "t:n".into(),
            connected: false,
            version: "".into(),
            product: "".into(),
            firmware_code: "".into()
        }])
    );
    for (text, error) in [
        ("", Unacceptable("children")),
        ("7", Unacceptable("children")),
        (r#"{"a":1}"#, Malformed),
        ("[1]", Malformed),
        (r#"[{"childdevid":"a"}]"#, Missing("connected")),
        (r#"[{"connected":2,"childdevid":"a"}]"#, Unacceptable("connected")),
        (r#"[{"connected":1}]"#, Missing("childdevid")),
        (r#"[{"connected":1,"childdevid":"global"}]"#, Unacceptable("childdevid")),
        (r#"[{"connected":1,"childdevid":"a/b"}]"#, Unacceptable("childdevid")),
        (r#"[{"connected":1,"childdevid":""}]"#, Unacceptable("childdevid")),
    ] {
        assert_eq!(Children::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert!(Children::Now(vec![child.clone(); 64]).write(&mut Vec::new()).is_ok());
    assert_eq!(refused(|out| Children::Now(vec![child.clone(); 65]).write(out)), TooMany("children"));
    let long = Child { product: "p".repeat(65).into(), ..child };
    assert_eq!(refused(|out| Children::Now(vec![long]).write(out)), Unacceptable("type"));
    assert_eq!(Children::parse(&vec![b' '; osap::das::MAX_BODY + 1]), Err(TooLong));

    let online = Online { children: vec![("SUB000001".into(), true), ("b".into(), false)] };
    let text = r#"[{"connected":1,"childdevid":"SUB000001"},{"connected":0,"childdevid":"b"}]"#;
    is(&online, text, |out| online.write(out), Online::parse);
    assert_eq!(refused(|out| Online { children: vec![("b".into(), true); 65] }.write(out)), TooMany("children"));
    assert_eq!(Online::parse(b"{}"), Err(Unacceptable("children")));
}

#[test]
fn a_hub_proves_that_it_knows_the_code_of_a_child() {
    let proof =
        |code: &str| ChildProof::new(&Code::new(code).expect("a code"), &Serial::new("SUB000001").expect("one"));
    let auth = ChildAuth { serial: "SUB000001".into(), proof: proof("ZXCVBN"), mode: AccessMode::Code };
    let text = r#"{"childserial":"SUB000001","childverifycode":"A3A8F72BF61D8E1336F528A501D91E05","devAccessMode":0}"#;
    is(&auth, text, |out| auth.write(out), ChildAuth::parse);
    assert_eq!(format!("{:?}", auth.proof), "ChildProof(..)");
    assert_ne!(auth.proof, proof("ZXCVBM"));
    let licence = text.replace("\"devAccessMode\":0", "\"devAccessMode\":1");
    assert_eq!(ChildAuth::parse(licence.as_bytes()).map(|auth| auth.mode), Ok(AccessMode::Licence));
    for (from, to, error) in [
        ("A3A8", "a3a8", Unacceptable("childverifycode")),
        ("A3A8", "A3A", Unacceptable("childverifycode")),
        ("A3A8", "A3A8F", Unacceptable("childverifycode")),
        ("SUB000001", "global", Unacceptable("childserial")),
        (":0}", ":2}", Unacceptable("devAccessMode")),
        (",\"devAccessMode\":0", "", Missing("devAccessMode")),
    ] {
        assert_eq!(ChildAuth::parse(text.replace(from, to).as_bytes()), Err(error), "{to}");
    }
    assert_eq!(refused(|out| ChildAuth { serial: "a/b".into(), ..auth }.write(out)), Unacceptable("childserial"));

    for (accepted, text) in
        [(true, r#"{"childserial":"SUB000001","result":0}"#), (false, r#"{"childserial":"SUB000001","result":1}"#)]
    {
        let verdict = ChildVerdict { serial: "SUB000001".into(), accepted };
        is(&verdict, text, |out| verdict.write(out), ChildVerdict::parse);
    }
    assert_eq!(ChildVerdict::parse(br#"{"childserial":"a","result":-2}"#).map(|verdict| verdict.accepted), Ok(false));
    assert_eq!(ChildVerdict::parse(br#"{"childserial":"a"}"#), Err(Missing("result")));
}

proptest! {
    #[test]
    fn names_survive_the_way_in_xml_and_in_json(
        user in "[^\0-\u{1f}\u{fffe}\u{ffff}]{1,30}",
        serial in "[!-~&&[^/+#]]{1,71}",
        child in "[^\0-\u{1f}\u{7f}-\u{9f}/+#]{1,18}",
        word in ".{0,16}",
    ) {
        let mut out = Vec::new();
        let owner = Owner::User(user.clone());
        owner.write(&mut out).expect("short");
        prop_assert_eq!(Owner::parse(&out), Ok(owner));
        out.clear();
        let binding = Binding { user: Some(user) };
        binding.write(&mut out).expect("short");
        prop_assert_eq!(Binding::parse(&out), Ok(binding));
        out.clear();
        let request = Request { serial: Serial::new(&serial).expect("a serial") };
        request.write(&mut out);
        prop_assert_eq!(Request::parse(&out), Ok(request));
        out.clear();
        prop_assume!(child != "global");
        let children = Children::Now(vec![Child {
            serial: child.into(),
            connected: true,
            version: (&*word).into(),
            product: (&*word).into(),
            firmware_code: "".into(),
        }]);
        children.write(&mut out).expect("short");
        prop_assert_eq!(Children::parse(&out), Ok(children));
    }

    #[test]
    fn a_risk_list_survives_the_way(
        domains in proptest::collection::btree_map(any::<u32>(), proptest::collection::vec(any::<u32>(), 0..15), 0..64),
    ) {
        let risk = RiskList { domains };
        let mut out = Vec::new();
        risk.write(&mut out).expect("within the limits");
        prop_assert_eq!(RiskList::parse(&out), Ok(risk));
    }
}
