//! A device's secrets change one after another.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use vestibule_platform::{Caller, Credential, Credentials, Secret, UpdateError};

use crate::bed::Bed;

fn credential(epoch: i64) -> Credential {
    Credential {
        suite: "legacy".into(),
        epoch,
        dev_id: "0123456789abcdef0123456789abcdef".into(),
        master_key: Secret::new("0123456789ABCDEF"),
        session_key: None,
        created: 0,
        code_case_lower: false,
    }
}

/// The committed credential with the next epoch.
fn next(present: &Credentials) -> Result<Credentials, Infallible> {
    let epoch = present.committed.as_ref().map_or(0, |held| held.epoch) + 1;
    Ok(Credentials { committed: Some(credential(epoch)), ..Credentials::default() })
}

async fn epoch(bed: &Bed) -> i64 {
    let device = bed.platform.device("SN1", &Caller::program()).expect("registered");
    let secrets = bed.platform.secrets(&device).await.expect("readable");
    secrets.credentials.committed.as_ref().map_or(0, |held| held.epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_at_once_happen_one_after_another() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let changes: Vec<_> = (0..100)
        .map(|_| {
            let (platform, device) = (Arc::clone(&bed.platform), Arc::clone(&device));
            tokio::spawn(async move { platform.update_credentials(&device, next).await })
        })
        .collect();
    for change in changes {
        change.await.expect("ended").expect("changed");
    }
    assert_eq!(epoch(&bed).await, 100);
    drop(device);
    let bed = bed.restart().await;
    assert_eq!(epoch(&bed).await, 100, "and the last one is what is stored");
}

#[tokio::test]
async fn the_code_of_a_device_is_the_same_before_and_after_something_is_agreed() {
    let mut bed = Bed::new().await;
    bed.add("SN1").await;
    for agreed in [false, false, true, true] {
        let device = bed.platform.device("SN1", &Caller::program()).expect("registered");
        if agreed {
            bed.platform.update_credentials(&device, next).await.expect("changed");
        }
        let secrets = bed.platform.secrets(&device).await.expect("readable");
        assert_eq!(secrets.code, Some(Secret::new("ABCDEF")));
        assert_eq!(secrets.credentials.committed.is_some(), agreed);
        drop(device);
        bed = bed.restart().await;
    }
}

#[tokio::test]
async fn a_change_that_is_refused_changes_nothing() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.platform.update_credentials(&device, next).await.expect("changed");
    let refused = bed.platform.update_credentials(&device, |_| Err::<Credentials, _>("no")).await;
    assert!(matches!(refused, Err(UpdateError::Refused("no"))));
    assert_eq!(epoch(&bed).await, 1);
}

#[tokio::test]
async fn a_change_that_cannot_be_stored_is_an_error_and_not_believed() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.platform.update_credentials(&device, next).await.expect("changed");
    bed.platform.close().await;
    let failed = bed.platform.update_credentials(&device, next).await;
    assert!(matches!(failed, Err(UpdateError::Store(_))));
    assert!(bed.platform.secrets(&device).await.is_err(), "what is stored is not known any more");
    drop(device);
    let bed = bed.restart().await;
    assert_eq!(epoch(&bed).await, 1);
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_one_in_memory_and_in_the_store() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.platform.secrets(&device).await.expect("readable");
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut change = pin!(bed.platform.update_credentials(&device, next));
        assert!(change.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(epoch(&bed).await, 1);
    bed.platform.update_credentials(&device, next).await.expect("changed");
    drop(device);
    let bed = bed.restart().await;
    assert_eq!(epoch(&bed).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_ends_the_changes_that_run() {
    for _ in 0..20 {
        let bed = Bed::new().await;
        let device = bed.add("SN1").await;
        let changes: Vec<_> = (0..20)
            .map(|_| {
                let (platform, device) = (Arc::clone(&bed.platform), Arc::clone(&device));
                tokio::spawn(async move { platform.update_credentials(&device, next).await })
            })
            .collect();
        bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
        for change in changes {
            match change.await.expect("ended") {
                Ok(()) | Err(UpdateError::Removed) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(bed.platform.update_credentials(&device, next).await, Err(UpdateError::Removed)));
        bed.add("SN1").await;
        assert_eq!(epoch(&bed).await, 0, "nothing of the old device is the new one's");
    }
}
