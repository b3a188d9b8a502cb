//! What can be configured, and what is refused at the start.

use super::*;
use crate::MemoryStorage;

fn builder() -> Builder {
    Device::builder("SN0000001", "ABCDEF").lbs("127.0.0.1:1").legacy().storage(MemoryStorage::new())
}

#[test]
fn addresses_have_a_host_and_a_port() {
    assert_eq!(split_address("lbs.example:8666"), Some(("lbs.example", 8666)));
    assert_eq!(split_address("[::1]:8666"), Some(("::1", 8666)));
    for bad in ["", "lbs", ":8666", "lbs:", "lbs:0", "lbs:65536", "::1", "lbs:port", "a:b:1"] {
        assert_eq!(split_address(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn every_wrong_setting_is_named() {
    type Change = fn(Builder) -> Builder;
    let settings: [(&str, Change); 10] = [
        ("keep_alive", |b| b.keep_alive(4)),
        ("queue", |b| b.queue(0, 1)),
        ("window", |b| b.window(129)),
        ("firmware", |b| b.firmware("x".repeat(65))),
        ("device_type", |b| b.device_type("x".repeat(65))),
        ("mac", |b| b.mac("x".repeat(65))),
        ("firmware_module", |b| b.firmware_module("", "1")),
        ("firmware_module", |b| b.firmware_module("a/b", "1")),
        ("firmware_module", |b| (0..65).fold(b, |b, n| b.firmware_module(n.to_string(), "1"))),
        ("on_upgrade", |b| b.on_upgrade(async |_, _| Ok(()))),
    ];
    for (expected, change) in settings {
        let error = change(builder()).start().unwrap_err();
        assert!(matches!(error, StartError::Setting { name, .. } if name == expected), "{error}");
    }
    let error = Device::builder("a/b", "ABCDEF").start().unwrap_err();
    assert!(matches!(error, StartError::Serial(_)));
    let error = builder().operation("Door", 0, "a/b", "Open", async |(): ()| Ok(())).start().unwrap_err();
    assert!(matches!(error, StartError::Operation { .. }), "{error}");
    let error = Device::builder("SN1", "").lbs("localhost:1").legacy().start().unwrap_err();
    assert!(matches!(error, StartError::Code(_)));
    let error = Device::builder("SN1", "ABCDEF").storage(MemoryStorage::new()).start().unwrap_err();
    assert!(matches!(error, StartError::LbsAddress));
    let error = Device::builder("SN1", "ABCDEF").lbs("localhost:1").legacy().start().unwrap_err();
    assert!(matches!(error, StartError::NoStorage));
}

#[test]
fn a_device_needs_a_runtime() {
    assert!(matches!(builder().start(), Err(StartError::NoRuntime)));
}

#[test]
fn the_code_is_not_printed() {
    assert!(!format!("{:?}", builder()).contains("ABCDEF"));
}
