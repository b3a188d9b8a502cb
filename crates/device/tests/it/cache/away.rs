//! A medium that is away, and one that forgets.

use super::*;

#[tokio::test]
async fn a_device_starts_without_its_medium_and_sends_what_is_in_it_when_it_comes() {
    let fickle = Fickle::default();
    let storage = Arc::new(MemoryStorage::new());
    let device = builder(nobody().await, Arc::clone(&storage), fickle.clone()).start().unwrap();
    let before = report(&device, 0..30).await;
    soon(device.stop()).await.unwrap();

    let mut server = Server::start().await;
    fickle.away.store(true, SeqCst);
    let device = builder(server.lbs, Arc::clone(&storage), fickle.clone()).start().expect("it starts");
    assert!(device.cache_status().unwrap().failing && device.counters().cache_failures > 0);
    let meanwhile = report(&device, 30..80).await;
    for id in meanwhile {
        assert_eq!(next_event(&mut server).await.id, id);
    }
    fickle.away.store(false, SeqCst);
    for id in before {
        assert_eq!(next_event(&mut server).await.id, id);
    }
    assert!(!device.cache_status().unwrap().failing);
    acknowledged(&device).await;
    assert_eq!((device.unacknowledged(), device.counters().dropped), (0, 0));
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn a_device_stops_without_its_medium() {
    let fickle = Fickle::default();
    fickle.away.store(true, SeqCst);
    let device = builder(nobody().await, MemoryStorage::new(), fickle).start().unwrap();
    let waits = device.clone();
    let waits = tokio::spawn(async move { waits.event("Camera", 0, "A", "B").report(&json!({})).await });
    while device.unacknowledged() == 0 {
        tokio::task::yield_now().await;
    }
    soon(device.stop()).await.unwrap();
    assert!(matches!(soon(waits).await.unwrap(), Err(ReportError::Stopped)));
}

#[tokio::test]
async fn the_platform_is_told_how_many_events_a_medium_has_forgotten() {
    let fickle = Fickle::default();
    let storage = Arc::new(MemoryStorage::new());
    let device = builder(nobody().await, Arc::clone(&storage), fickle.clone()).start().unwrap();
    let mut ids = report(&device, 0..20).await;
    soon(device.stop()).await.unwrap();
    for number in [7, 12] {
        let mut segments = fickle.segments.lock();
        let segment = segments.values_mut().next().unwrap();
        let body = format!("{{\"number\":{number},");
        let place = segment.windows(body.len()).position(|bytes| bytes == body.as_bytes()).expect("it is there");
        segment[place + 3] ^= 4;
    }
    ids.remove(12);
    ids.remove(7);

    let mut server = Server::start().await;
    let device = builder(server.lbs, storage, fickle).start().unwrap();
    assert_eq!((device.unacknowledged(), device.counters().dropped), (18, 2));
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    while seen.len() < 18 || told.is_empty() {
        let event = next_event(&mut server).await;
        if event.topic.ends_with("/sdk/events_dropped") {
            told.push(serde_json::from_str::<Value>(&event.json).unwrap()["count"].clone());
        } else {
            seen.push(event.id);
        }
    }
    assert_eq!((seen, told), (ids, vec![json!(2)]));
}
