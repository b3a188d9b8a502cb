//! Pictures and files in a bucket of a real S3-compatible service.

use serde_json::{Value, json};

use super::{Site, ask, hex, picture, repr_digest};
use crate::support::{Bucket, Platform, until};

const SECRET: &str = "a-secret-that-is-in-no-log";

/// A platform that keeps what it is sent in this bucket. `more` are further lines of `[media]`.
fn site(bucket: &Bucket, more: &str) -> Site {
    let secret = bucket.home().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("a secret");
    let file = format!(
        "[media]\n{more}\n[media.s3]\nbucket = \"{}\"\nendpoint = \"http://{}\"\nallow_http = true\nprefix = \"site-1\"\n\
         access_key_id = \"AKIATEST\"\nsecret_access_key_file = \"{}\"\n",
        Bucket::NAME,
        bucket.address(),
        secret.display()
    );
    Site::of(Platform::configured(&file))
}

fn problems(site: &Site) -> Vec<String> {
    let ready: Value = site.platform.http().get("/readyz").ok();
    let problems = ready["problems"].as_array().expect("problems");
    problems.iter().map(|problem| problem.as_str().expect("a sentence").to_owned()).collect()
}

#[test]
fn what_is_sent_is_kept_in_a_bucket_and_shown_from_there() {
    let bucket = Bucket::start();
    let mut site = site(&bucket, "max_bytes = \"32MiB\"");
    let content = picture(image::ImageFormat::Jpeg, 800, 600, 1);
    let (id, path) = site.ticket(&json!({"name": "door.jpg"}));
    site.put(&path, &content).is(201);
    site.put(&path, &content).is(200);
    let digest = hex(&content);
    let place = format!("site-1/blob/{}/{digest}", &digest[..2]);
    assert_eq!(bucket.keys(), [place.as_str()]);
    assert!(!site.platform.data().join("media/blob").exists(), "nothing of it is in the data directory");

    // In three parts.
    let large: Vec<u8> = (0..12_u32 << 20).map(|byte| (byte % 251) as u8).collect();
    let (file, path) = site.ticket(&json!({"kind": "file", "name": "log.bin", "bytes": large.len()}));
    site.put(&path, &large).is(201);
    site.platform.kill();
    site.platform.restart();

    let shown = format!("/media/v1/picture/{id}");
    assert!(site.get(&shown, &[]).is(200).body == content);
    assert!(site.get(&format!("/media/v1/file/{file}"), &[]).is(200).body == large);
    let part = site.get(&format!("/media/v1/file/{file}"), &[("range", "bytes=6000000-6000099")]).is(206);
    assert_eq!(part.body, large[6_000_000..6_000_100]);
    for _ in 0..2 {
        let small = site.get(&format!("{shown}?w=160"), &[]).is(200);
        let small = image::load_from_memory(&small.body).expect("a JPEG");
        assert_eq!((small.width(), small.height()), (160, 120));
    }
    let thumbnail = format!("site-1/thumb/{}/{digest}-160", &digest[..2]);
    assert!(bucket.keys().contains(&thumbnail));

    // When room is short, the oldest goes, with its thumbnail.
    for (byte, bytes) in [(1, 9 << 20), (2, 10 << 20)] {
        let (_, path) = site.ticket(&json!({"kind": "file", "bytes": bytes}));
        site.put(&path, &vec![byte; bytes]).is(201);
    }
    let _ = site.platform.http().post(&format!("/v1/devices/{}/uploads", site.serial), &json!({"bytes": 1}));
    until("the oldest is gone", || {
        let keys = bucket.keys();
        (!keys.contains(&place) && !keys.contains(&thumbnail)).then_some(())
    });
    site.get(&shown, &[]).refused(404, "not-found");
    assert_eq!(problems(&site), Vec::<String>::new());
    assert!(!site.platform.log().contains(SECRET));
    site.platform.assert_no_panic();
}

#[test]
fn a_bucket_that_is_gone_is_told_and_costs_no_picture() {
    let mut bucket = Bucket::start();
    bucket.pause();
    // It does not answer when the platform starts; devices are served all the same.
    let mut site = site(&bucket, "");
    let told = until("the problem", || problems(&site).pop());
    assert!(told.contains(&bucket.address().to_string()) && told.contains("media.s3.endpoint"), "{told}");
    let content = picture(image::ImageFormat::Jpeg, 400, 300, 1);
    let (id, path) = site.ticket(&json!({"bytes": content.len(), "sha256": hex(&content)}));
    site.put(&path, &content).refused(503, "store");
    assert_eq!(site.offset(&path), content.len() as u64, "what has come is kept");
    site.platform.kill();
    site.platform.restart();
    assert_eq!(site.offset(&path), content.len() as u64, "also by a crash");

    bucket.resume();
    until("it is well again", || problems(&site).is_empty().then_some(()));
    site.go_on(&path, &content, content.len() as u64).expect("nothing is left to send");
    let shown = format!("/media/v1/picture/{id}");
    assert!(site.get(&shown, &[]).is(200).body == content);

    // A bucket that is not there is another thing than a picture that is not there.
    bucket.remove();
    site.get(&shown, &[]).refused(503, "store");
    site.get(&format!("{shown}?w=160"), &[]).refused(503, "store");
    let told = until("the problem", || problems(&site).pop());
    assert!(told.contains("media.s3.bucket"), "{told}");
    let (_, path) = site.ticket(&json!({}));
    let digest = repr_digest(b"no picture");
    let sent = ask(site.address(), "PUT", &path, &[("repr-digest", &digest)], Some(b"no picture"), 10);
    sent.expect("an answer").refused(415, "type");
    let (_, path) = site.ticket(&json!({}));
    site.put(&path, &content).refused(503, "store");
    assert_eq!(site.platform.metric("vestibule_media_store_failing", &[]), 1.0);
    assert!(!site.platform.log().contains(SECRET));
    site.platform.assert_no_panic();
}
