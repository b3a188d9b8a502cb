//! A thousand pictures at once, some of them cut, and bombs between them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

const ALL: usize = 1_000;
const AT_ONCE: usize = 32;
/// Every so many is cut in the middle and goes on.
const CUT: usize = 10;
/// Before every so many comes one of each that is refused.
const BOMBED: usize = 20;

/// What was answered, by status.
#[derive(Default)]
struct Counts {
    stored: AtomicUsize,
    resumed: AtomicUsize,
    too_large: AtomicUsize,
    wrong_type: AtomicUsize,
    wrong_content: AtomicUsize,
}

/// A chunk that no decoder minds, so that no two pictures are the same.
fn marked(picture: &[u8], number: usize) -> Vec<u8> {
    let mut content = picture.to_vec();
    let at = content.len() - 12;
    let mark = [&[0, 0, 0, 8][..], b"teSt", &(number as u64).to_be_bytes(), &[0; 4]].concat();
    content.splice(at..at, mark);
    content
}

/// Sends what is refused: a picture that would unpack to gigabytes, a page under the name of a picture, a picture with
/// another digest than was said, and one that is longer than was said.
fn bombs(site: &Site, picture: &[u8], counts: &Counts) {
    let mut bomb = picture.to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    site.put(&site.ticket(&json!({})).1, &bomb).refused(422, "content");
    let html = b"<!doctype html><script>alert(document.domain)</script>";
    site.put(&site.ticket(&json!({"name": "a.jpg"})).1, html).refused(415, "type");
    let wrong = site.ticket(&json!({"sha256": hex(b"something else")})).1;
    ask(site.address(), "PUT", &wrong, &[], Some(picture), picture.len()).expect("an answer").refused(422, "content");
    site.put(&site.ticket(&json!({"bytes": 1_000})).1, picture).refused(413, "too-large");
    counts.wrong_content.fetch_add(2, Ordering::Relaxed);
    counts.wrong_type.fetch_add(1, Ordering::Relaxed);
    counts.too_large.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_thousand_uploads_at_once_arrive_whole_and_bombs_do_not() {
    let site = Site::new();
    let base = picture(ImageFormat::Png, 400, 400, 0);
    assert!(base.len() > 84_000, "as large as what a door station sends: {}", base.len());
    site.put(&site.ticket(&json!({})).1, &marked(&base, ALL)).is(201);
    let before = site.memory();
    let (next, most, counts) = (AtomicUsize::new(0), AtomicU64::new(0), Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= ALL {
                        break;
                    }
                    if number.is_multiple_of(BOMBED) {
                        bombs(&site, &base, &counts);
                    }
                    let content = marked(&base, number);
                    let (id, path) = site.ticket(&json!({"sha256": hex(&content)}));
                    if number.is_multiple_of(CUT) {
                        ask(site.address(), "PUT", &path, &[], Some(&content), content.len() / 2);
                        let mut here = site.offset(&path);
                        // The first request may still be on its way in: what it brings moves the offset.
                        while let Err(moved) = site.go_on(&path, &content, here) {
                            here = moved;
                        }
                        counts.resumed.fetch_add(1, Ordering::Relaxed);
                    } else {
                        site.put(&path, &content).is(201);
                    }
                    counts.stored.fetch_add(1, Ordering::Relaxed);
                    assert!(site.get(&format!("/media/v1/picture/{id}"), &[]).is(200).body == content);
                    most.fetch_max(site.memory(), Ordering::Relaxed);
                }
            });
        }
    });
    let most = most.into_inner();
    println!(
        "stored {}, {} of them cut and resumed; refused: {} with 413, {} with 415, {} with 422; memory from {} to at most {} KiB",
        counts.stored.load(Ordering::Relaxed),
        counts.resumed.load(Ordering::Relaxed),
        counts.too_large.load(Ordering::Relaxed),
        counts.wrong_type.load(Ordering::Relaxed),
        counts.wrong_content.load(Ordering::Relaxed),
        before >> 10,
        most >> 10,
    );
    assert!(most < before + (96 << 20), "memory went from {before} to {most}");
    let data = site.platform.data().join("media");
    assert_eq!(files(&data.join("staging")), 0, "nothing is left of any");
    assert_eq!(files(&data.join("blob")), ALL + 1, "nothing but what is right");
    let stored = site.platform.metric("vestibule_media_uploads_total", &[("result", "stored")]);
    assert_eq!(stored, (ALL + 1) as f64);
    site.platform.assert_no_panic();
}

/// Files under a directory.
fn files(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}
