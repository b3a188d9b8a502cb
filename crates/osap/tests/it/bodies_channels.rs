//! The bodies of firmware updates and object storage (osap-wire 10.3 and 10.7).

use std::fmt::Debug;

use osap::das::BodyError::{self, Malformed, Missing, TooMany, Unacceptable};
use osap::das::ota::{Code, Diff, File, Inform, Module, Progress, Status, Upgrade, UpgradeReply};
use osap::das::storage::{Grant, Grants, Method, Object, Query, Results, Uploaded};
use proptest::prelude::*;

/// What is written is the text, and what is read is the body.
fn is<T: PartialEq + Debug>(
    body: &T,
    text: &str,
    write: impl FnOnce(&T, &mut Vec<u8>) -> Result<(), BodyError>,
    parse: impl FnOnce(&[u8]) -> Result<T, BodyError>,
) {
    let mut out = b"before".to_vec();
    assert_eq!(write(body, &mut out), Ok(()), "{text}");
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

#[test]
fn a_device_tells_its_firmware() {
    let module = Module { index: 0, name: "DT1".into(), version: "V1.2.3 build 200101".into() };
    let inform = Inform { modules: vec![module.clone()], version: "V1.0.0".into() };
    let text = r#"{"modules":[{"index":0,"module":"DT1","fw_ver":"V1.2.3 build 200101"}],"ver":"V1.0.0"}"#;
    is(&inform, text, Inform::write, Inform::parse);
    assert_eq!(Inform::parse(br#"{"modules":[]}"#), Ok(Inform { modules: vec![], version: String::new() }));
    for (text, error) in [
        ("{}", Missing("modules")),
        (r#"{"modules":{}}"#, Unacceptable("modules")),
        (r#"{"modules":[5]}"#, Malformed),
        (r#"{"modules":[{"index":0,"fw_ver":"1"}]}"#, Missing("module")),
        (r#"{"modules":[{"index":-1,"module":"a","fw_ver":"1"}]}"#, Unacceptable("index")),
    ] {
        assert_eq!(Inform::parse(text.as_bytes()), Err(error), "{text}");
    }
    let many = Inform { modules: vec![module; 65], version: String::new() };
    assert_eq!(refused(|out| many.write(out)), TooMany("modules"));
}

#[test]
fn progress_has_the_steps_and_codes_of_the_table() {
    let progress = Progress {
        module: "DT1".into(),
        status: Status::Downloading,
        percent: 40,
        code: Code::Success,
        message: "success".into(),
    };
    let text = r#"{"status":2,"process":40,"code":"0x00000000","errorMsg":"success","module":"DT1"}"#;
    is(&progress, text, Progress::write, Progress::parse);
    let failed =
        Progress { status: Status::Failed, percent: 0, code: Code::Burn, message: "".into(), ..progress.clone() };
    let text = r#"{"status":8,"process":0,"code":"0x0050003a","errorMsg":"","module":"DT1"}"#;
    is(&failed, text, Progress::write, Progress::parse);
    let upper = text.replace("0x0050003a", "0x0050003A");
    assert_eq!(Progress::parse(upper.as_bytes()), Ok(failed));

    let steps: Vec<_> = (0..=9).map(Status::from_number).collect();
    assert!(
        steps[..9].iter().zip(0..).all(|(step, n)| step.is_some_and(|step| step.number() == n)) && steps[9].is_none()
    );
    assert!(Status::Succeeded.is_final() && Status::Failed.is_final() && !Status::Rebooting.is_final());
    for (number, code) in [
        (0x0050_0032, Code::SizeMismatch),
        (0x0050_0033, Code::TooLarge),
        (0x0050_0034, Code::Dns),
        (0x0050_0035, Code::Download),
        (0x0050_0036, Code::Digest),
        (0x0050_0037, Code::Signature),
        (0x0050_0038, Code::Damaged),
        (0x0050_0039, Code::Memory),
        (0x0050_003A, Code::Burn),
        (0x0050_003B, Code::Unknown),
        (0x0050_003C, Code::Cancelled),
        (0x0050_003D, Code::Recovered),
        (0x0050_003E, Code::AttachedMcu),
        (0x0050_003F, Code::Other(0x0050_003F)),
        (0x0050_0031, Code::Other(0x0050_0031)),
        (0, Code::Success),
    ] {
        assert_eq!((Code::from(number), code.number()), (code, number));
    }
    for (from, to, error) in [
        ("\"process\":0", "\"process\":101", Unacceptable("process")),
        ("\"status\":8", "\"status\":9", Unacceptable("status")),
        ("\"status\":8", "\"status\":-1", Unacceptable("status")),
        ("\"0x0050003a\"", "\"wrong\"", Unacceptable("code")),
        ("\"DT1\"", "null", Missing("module")),
    ] {
        assert_eq!(Progress::parse(text.replace(from, to).as_bytes()), Err(error), "{to}");
    }
    assert_eq!(refused(|out| Progress { percent: 101, ..progress.clone() }.write(out)), Unacceptable("process"));
    assert_eq!(refused(|out| Progress { code: Code::Other(0), ..progress.clone() }.write(out)), Malformed);
}

fn file() -> File {
    File {
        module: "DT1".into(),
        url: "127.0.0.1:80/fw".into(),
        md5: [0xAB; 16],
        version: "V2".into(),
        size: 70_000,
        diff: None,
        sha256: None,
        signature: None,
        key_id: None,
    }
}

#[test]
fn an_upgrade_names_its_files() {
    let plain = Upgrade { max_try: 3, interval: 5, files: vec![file()] };
    let text = r#"{"maxtry":3,"interval":5,"file_info":[{"module":"DT1","url":"127.0.0.1:80/fw","degist":"abababababababababababababababab","fw_ver":"V2","size":70000}]}"#;
    is(&plain, text, Upgrade::write, Upgrade::parse);
    let diff = Diff { url: "h/d".into(), md5: [1; 16], version: "V1".into(), size: 9 };
    let full = File {
        diff: Some(diff),
        sha256: Some([2; 32]),
        signature: Some("c2ln".into()),
        key_id: Some("k1".into()),
        ..file()
    };
    let full = Upgrade { max_try: 1, interval: 0, files: vec![full] };
    let sha256 = "02".repeat(32);
    let md5 = "01".repeat(16);
    let full_text = format!(
        r#"{{"maxtry":1,"interval":0,"file_info":[{{"module":"DT1","url":"127.0.0.1:80/fw","degist":"abababababababababababababababab","fw_ver":"V2","size":70000,"diffs":{{"url":"h/d","degist":"{md5}","fw_ver_dst":"V1","size":9}},"sha256":"{sha256}","sig":"c2ln","keyId":"k1"}}]}}"#
    );
    is(&full, &full_text, Upgrade::write, Upgrade::parse);
    for (from, to, error) in [
        ("127.0.0.1:80/fw", "http://h/fw", Unacceptable("url")),
        ("127.0.0.1:80/fw", &"x".repeat(270), Unacceptable("url")),
        ("\"abab", "\"ab", Unacceptable("degist")),
        (":70000", ":-1", Unacceptable("size")),
        ("\"degist\"", "\"digest\"", Missing("degist")),
        ("\"file_info\"", "\"files\"", Missing("file_info")),
        (":70000", ":70000,\"diffs\":5", Malformed),
        (":70000", ":70000,\"sha256\":\"00\"", Unacceptable("sha256")),
    ] {
        assert_eq!(Upgrade::parse(text.replace(from, to).as_bytes()), Err(error), "{to}");
    }
    let text = text.replace(":70000", ":70000,\"diffs\":null");
    assert_eq!(Upgrade::parse(text.as_bytes()), Ok(plain.clone()));
    assert_eq!(refused(|out| Upgrade { files: vec![file(); 65], ..plain }.write(out)), TooMany("file_info"));
}

#[test]
fn a_device_accepts_or_refuses_an_upgrade() {
    let text = r#"{"code":"0x00000000","errorMsg":"Succeeded"}"#;
    is(&UpgradeReply::accepted(), text, UpgradeReply::write, UpgradeReply::parse);
    let failed = UpgradeReply::refused("device receive failed!");
    let firmware = br#"{"code":"0x0xffffffff","errorMsg":"device receive failed!"}"#;
    assert_eq!(UpgradeReply::parse(firmware), Ok(failed.clone()));
    let text = r#"{"code":"0xffffffff","errorMsg":"device receive failed!"}"#;
    is(&failed, text, UpgradeReply::write, UpgradeReply::parse);
    assert_eq!(UpgradeReply::parse(br#"{"code":-1}"#).map(|reply| reply.code), Ok(u32::MAX));
    assert_eq!(UpgradeReply::parse(b"{}"), Err(Missing("code")));
    assert_eq!(UpgradeReply::parse(br#"{"code":-2}"#), Err(Unacceptable("code")));
    assert_eq!(refused(|out| UpgradeReply::refused("x".repeat(257)).write(out)), Unacceptable("errorMsg"));
}

#[test]
fn a_device_asks_where_objects_go() {
    let full = Object {
        name: "a.jpg".into(),
        size: Some(9),
        content_type: Some("image/jpeg".into()),
        sha256: Some([0xCD; 32]),
    };
    let query = Query { objects: vec![full.clone(), Object { name: "b".into(), ..Object::default() }] };
    let sha256 = "cd".repeat(32);
    let text = format!(
        r#"{{"objects":[{{"name":"a.jpg","size":9,"contentType":"image/jpeg","sha256":"{sha256}"}},{{"name":"b"}}]}}"#
    );
    is(&query, &text, Query::write, Query::parse);
    for (text, error) in [
        ("{}", Missing("objects")),
        (r#"{"objects":[{}]}"#, Missing("name")),
        (r#"{"objects":[{"name":""}]}"#, Unacceptable("name")),
        (r#"{"objects":[{"name":"a\nb"}]}"#, Unacceptable("name")),
        (r#"{"objects":[{"name":"a","size":-1}]}"#, Unacceptable("size")),
        (r#"{"objects":[{"name":"a","sha256":"zz"}]}"#, Unacceptable("sha256")),
    ] {
        assert_eq!(Query::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert_eq!(refused(|out| Query { objects: vec![full; 17] }.write(out)), TooMany("objects"));
}

fn grant() -> Grant {
    Grant {
        name: "a".into(),
        method: Method::Put,
        url: "https://s3.local/b/a?X-Amz-Signature=1".into(),
        headers: vec![("Content-Type".into(), "image/jpeg".into()), ("x-amz-meta".into(), "\"q\"".into())],
        expire_s: 900,
    }
}

#[test]
fn the_platform_says_where() {
    let grants = Grants { code: 0, objects: vec![grant()] };
    let text = r#"{"code":0,"objects":[{"name":"a","method":"PUT","url":"https://s3.local/b/a?X-Amz-Signature=1","headers":{"Content-Type":"image/jpeg","x-amz-meta":"\"q\""},"expire":900}]}"#;
    is(&grants, text, Grants::write, Grants::parse);
    let shown = format!("{grants:?}");
    assert!(!shown.contains("Signature") && !shown.contains("image"), "{shown}");
    let get = text.replace("PUT", "GET");
    assert_eq!(Grants::parse(get.as_bytes()).map(|grants| grants.objects[0].method), Ok(Method::Get));
    assert_eq!(Grants::parse(br#"{"code":-1}"#), Ok(Grants { code: -1, objects: vec![] }));
    for (from, to, error) in [
        ("PUT", "POST", Unacceptable("method")),
        ("https://s3.local", "https://s3 local", Unacceptable("url")),
        ("image/jpeg", "image\\r\\nHost: x", Unacceptable("headers")),
        ("\"image/jpeg\"", "5", Unacceptable("headers")),
        ("\"Content-Type\"", "\"\"", Unacceptable("headers")),
        (":900", ":-1", Unacceptable("expire")),
        ("\"objects\"", "\"object\"", Missing("objects")),
    ] {
        assert_eq!(Grants::parse(text.replace(from, to).as_bytes()), Err(error), "{to}");
    }
    let many = Grant { headers: vec![("a".into(), "b".into()); 17], ..grant() };
    assert_eq!(refused(|out| Grants { code: 0, objects: vec![many] }.write(out)), TooMany("headers"));
    let long = Grant { url: "x".repeat(2049), ..grant() };
    assert_eq!(refused(|out| Grants { code: 0, objects: vec![long] }.write(out)), Unacceptable("url"));
}

#[test]
fn a_device_tells_how_uploads_went() {
    let results = Results { objects: vec![Uploaded { name: "a".into(), code: 0, etag: "\"9f\"".into() }] };
    let text = r#"{"objects":[{"name":"a","code":0,"etag":"\"9f\""}]}"#;
    is(&results, text, Results::write, Results::parse);
    let short = Results::parse(br#"{"objects":[{"name":"a","code":-1}]}"#).expect("enough");
    assert_eq!(short.objects[0], Uploaded { name: "a".into(), code: -1, etag: String::new() });
    assert_eq!(Results::parse(br#"{"objects":[{"name":"a"}]}"#), Err(Missing("code")));
    assert_eq!(Results::parse(br#"{"objects":5}"#), Err(Unacceptable("objects")));
}

proptest! {
    #[test]
    fn updates_survive_the_way(
        module in ".{0,16}",
        url in "[!-~&&[^:]]{1,269}",
        md5 in any::<[u8; 16]>(),
        size in any::<u64>(),
        sha256 in any::<Option<[u8; 32]>>(),
        status in 0..9u8,
        percent in 0..=100u8,
        code in any::<u32>(),
    ) {
        let diff = size.is_multiple_of(2).then(|| Diff { url: url.clone(), md5, version: module.clone(), size });
        let file = File { module: module.clone(), url, md5, size, diff, sha256, ..file() };
        let upgrade = Upgrade { max_try: 1, interval: 2, files: vec![file] };
        let mut out = Vec::new();
        upgrade.write(&mut out).expect("within the limits");
        prop_assert_eq!(Upgrade::parse(&out), Ok(upgrade));
        let status = Status::from_number(status).expect("a step");
        let progress = Progress { module, status, percent, code: code.into(), message: String::new() };
        let mut out = Vec::new();
        progress.write(&mut out).expect("within the limits");
        prop_assert_eq!(Progress::parse(&out), Ok(progress));
    }

    #[test]
    fn grants_survive_the_way(
        name in "[^\\p{Cc}]{1,60}",
        url in "[!-~]{1,2048}",
        headers in proptest::collection::vec(("[!-~]{1,20}", "[ -~]{0,60}"), 0..16),
        code in any::<i64>(),
    ) {
        let grants = Grants { code, objects: vec![Grant { name, method: Method::Get, url, headers, expire_s: 1 }] };
        let mut out = Vec::new();
        grants.write(&mut out).expect("within the limits");
        prop_assert_eq!(Grants::parse(&out), Ok(grants));
    }
}
