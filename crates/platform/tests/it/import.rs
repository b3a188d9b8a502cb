//! Many devices are registered, or changed, at once.

use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    BulkAction, BulkError, Caller, DeviceFilter, Import, ImportEnded, ImportRow, JobKind, JobRefused, JobState,
    NewToken, OrgPath, PlatformConfig, Role, Secret, Tally,
};

use crate::bed::{Bed, Plan, eventually};

fn org(path: &str) -> OrgPath {
    OrgPath::parse(path).expect("a place")
}

fn row(serial: impl Into<String>) -> ImportRow {
    ImportRow {
        serial: serial.into(),
        code: Some(Secret::new("ABCDEF")),
        one_time: None,
        product: None,
        name: None,
        parent: None,
        org: None,
        labels: None,
        disabled: None,
    }
}

async fn take_all(import: &mut Import, rows: impl IntoIterator<Item = ImportRow>) -> Result<(), ImportEnded> {
    for (line, row) in (1..).zip(rows) {
        import.take(line, Ok(row)).await?;
    }
    Ok(())
}

async fn imported(bed: &Bed, rows: impl IntoIterator<Item = ImportRow>, by: &Caller) -> (JobState, Tally) {
    let mut import = bed.platform.begin_import(false, by).await.expect("begun");
    let job = Arc::clone(import.job());
    let how = take_all(&mut import, rows).await;
    import.end(how).await;
    assert!(job.finished().is_some());
    (job.state(), job.tally())
}

async fn bound(bed: &Bed, place: &str) -> Caller {
    let new = NewToken { name: "bound".into(), role: Role::Admin, subtree: Some(org(place)), expires_in: None };
    let token = bed.platform.add_token(new, &bed.caller()).await.expect("made").1;
    bed.platform.authorize(&token).expect("known")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_imports_of_the_same_register_each_device_once() {
    const COUNT: u64 = 1_200;
    let bed = Bed::new().await;
    let (by, rows) = (bed.caller(), || (0..COUNT).map(|n| row(format!("S{n}"))));
    let (one, other) = tokio::join!(imported(&bed, rows(), &by), imported(&bed, rows(), &by));
    let sum = |of: fn(&Tally) -> u64| of(&one.1) + of(&other.1);
    assert_eq!((one.0, other.0), (JobState::Done, JobState::Done));
    assert_eq!(sum(|tally| tally.changed), COUNT);
    assert_eq!(sum(|tally| tally.unchanged + tally.failed), COUNT, "the other says so of each");
    let all = bed.platform.select_devices(&DeviceFilter::default(), &by).await;
    assert_eq!(all.len() as u64, COUNT);
    let bed = bed.restart().await;
    assert_eq!(bed.platform.select_devices(&DeviceFilter::default(), &bed.caller()).await.len() as u64, COUNT);
}

#[tokio::test]
async fn a_row_stays_within_the_reach_of_who_imports_it() {
    let bed = Bed::new().await;
    bed.add("HIDDEN").await;
    let by = bound(&bed, "/a").await;
    let rows = [
        row("HERE"),
        ImportRow { org: Some(org("/a/b")), ..row("BELOW") },
        ImportRow { org: Some(org("/b")), ..row("AWAY") },
        ImportRow { parent: Some("HIDDEN".into()), ..row("CHILD") },
        row("HIDDEN"),
    ];
    let (state, tally) = imported(&bed, rows, &by).await;
    assert_eq!((state, tally.changed, tally.failed), (JobState::Done, 2, 3));
    let fields: Vec<_> = tally.troubles.iter().map(|trouble| trouble.field.as_deref().expect("a field")).collect();
    assert_eq!(fields, ["org", "parent", "serial"]);
    assert_eq!(bed.platform.device("HERE", &by).expect("there").org(), org("/a"));
    let job = bed.platform.jobs(JobKind::Import, &by).pop().expect("kept");
    assert!(bed.platform.job(JobKind::Import, job.id, &bed.caller()).is_some());
    assert!(bed.platform.job(JobKind::Bulk, job.id, &bed.caller()).is_none());
    let theirs = imported(&bed, [row("ROOT")], &bed.caller()).await;
    assert_eq!(theirs.1.changed, 1);
    assert_eq!(bed.platform.jobs(JobKind::Import, &by).len(), 1, "that of the whole is not shown");
}

#[tokio::test]
async fn a_full_registry_and_lost_rights_are_told() {
    let platform = PlatformConfig { max_devices: 3, ..PlatformConfig::default() };
    let bed = Bed::with(Plan { platform, ..Plan::default() }).await;
    let (state, tally) = imported(&bed, (0..5).map(|n| row(format!("S{n}"))), &bed.caller()).await;
    assert_eq!((state, tally.changed, tally.failed), (JobState::Done, 3, 2));
    assert!(tally.troubles[0].detail.contains("limit of 3"));

    let by = bound(&bed, "/").await;
    let mut import = bed.platform.begin_import(true, &by).await.expect("begun");
    let job = Arc::clone(import.job());
    import.take(1, Ok(row("A"))).await.expect("taken");
    assert!(bed.platform.remove_token("bound", &bed.caller()).await.expect("removed"));
    let over = import.take(2, Ok(row("B"))).await;
    assert!(matches!(&over, Err(ImportEnded::Interrupted(reason)) if reason.contains("rights")));
    import.end(over).await;
    assert_eq!(job.state(), JobState::Interrupted);
}

#[tokio::test]
async fn what_a_crash_interrupts_says_so_and_knows_what_was_done() {
    let bed = Bed::new().await;
    let mut import = bed.platform.begin_import(false, &bed.caller()).await.expect("begun");
    let id = import.job().id;
    take_all(&mut import, (0..700).map(|n| row(format!("S{n}")))).await.expect("taken");
    let bed_after = bed.crash().await;
    let job = bed_after.platform.job(JobKind::Import, id, &bed_after.caller()).expect("kept");
    let there = bed_after.platform.select_devices(&DeviceFilter::default(), &bed_after.caller()).await.len();
    assert_eq!((job.state(), job.tally().changed, there), (JobState::Interrupted, 500, 500));
    // One that nobody ends does not go on for ever.
    let abandoned = bed_after.platform.begin_import(false, &bed_after.caller()).await.expect("begun");
    let job = Arc::clone(abandoned.job());
    drop(abandoned);
    assert_eq!(job.state(), JobState::Interrupted);
    drop(import);
}

#[tokio::test]
async fn so_many_jobs_run_and_so_many_are_remembered() {
    let bed = Bed::new().await;
    let by = bed.caller();
    let mut running = Vec::new();
    let refused = loop {
        match bed.platform.begin_import(true, &by).await {
            Ok(import) => running.push(import),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, JobRefused::TooMany(most) if most == running.len()));
    for import in running.drain(..) {
        import.end(Ok(())).await;
    }
    for _ in 0..250 {
        bed.platform.begin_import(true, &by).await.expect("begun").end(Ok(())).await;
    }
    let kept = bed.platform.jobs(JobKind::Import, &by);
    assert_eq!(kept.len(), 200);
    let newest = kept[0].id;
    drop(kept);
    let bed = bed.restart().await;
    let kept = bed.platform.jobs(JobKind::Import, &bed.caller());
    assert_eq!((kept.len(), kept[0].id, kept[0].state()), (200, newest, JobState::Done));
}

#[tokio::test]
async fn a_change_of_many_passes_over_what_is_gone_and_ends_when_it_is_cancelled() {
    let bed = Bed::new().await;
    let by = bed.caller();
    imported(&bed, (0..300).map(|n| row(format!("S{n}"))), &by).await;
    let devices = bed.platform.select_devices(&DeviceFilter::default(), &by).await;
    let ids: Vec<_> = devices.iter().map(|device| device.id).collect();
    bed.platform.remove_device(&devices[7], &by).await.expect("removed");
    let away = bed.platform.begin_bulk(BulkAction::Move(org("/b")), ids.clone(), &bound(&bed, "/a").await).await;
    assert!(matches!(away, Err(BulkError::Invalid { field: "org", .. })));
    let window = BulkAction::Enrol(Duration::from_secs(60));
    let job = bed.platform.begin_bulk(window, ids.clone(), &by).await.expect("begun");
    eventually("it has ended", || job.state() == JobState::Done).await;
    let tally = job.tally();
    assert_eq!((tally.of, tally.seen, tally.changed, tally.failed), (Some(300), 300, 299, 1));
    assert_eq!(tally.troubles[0].device, Some(devices[7].id.into()));
    let job = bed.platform.begin_bulk(BulkAction::Disable, ids, &by).await.expect("begun");
    bed.platform.cancel_job(&job, &by).await;
    eventually("it has ended", || job.state() != JobState::Running).await;
    let tally = job.tally();
    assert_eq!(job.state(), JobState::Cancelled);
    assert!(tally.seen < 300, "{}", tally.seen);
    let disabled = DeviceFilter { disabled: Some(true), ..DeviceFilter::default() };
    assert_eq!(bed.platform.select_devices(&disabled, &by).await.len() as u64, tally.changed);
}

#[tokio::test]
async fn what_is_registered_row_by_row_its_job_knows_after_a_crash() {
    let bed = Bed::new().await;
    let mut import = bed.platform.begin_import(false, &bed.caller()).await.expect("begun");
    let id = import.job().id;
    take_all(&mut import, (0..499).map(|n| row(format!("S{n}")))).await.expect("taken");
    // Somebody is faster with one of them, so that the rows do not go in one piece.
    bed.add("S249").await;
    import.take(500, Ok(row("S499"))).await.expect("taken");
    let bed_after = bed.crash().await;
    let job = bed_after.platform.job(JobKind::Import, id, &bed_after.caller()).expect("kept");
    let there = bed_after.platform.select_devices(&DeviceFilter::default(), &bed_after.caller()).await.len() as u64;
    let tally = job.tally();
    assert_eq!((tally.changed, tally.failed, there), (499, 1, 500));
    assert_eq!((tally.troubles[0].line, tally.troubles[0].field.as_deref()), (Some(250), Some("serial")));
    drop(import);
}

#[tokio::test]
async fn a_hub_is_asked_again_right_before_its_sub_device_is_registered() {
    let bed = Bed::new().await;
    let (hub, other) = (bed.add("HUB").await, bed.add("OTHER").await);
    let gone = bed.add("GONE").await;
    let child = |serial: &str, hub: &str| ImportRow { parent: Some(hub.into()), ..row(serial) };
    let mut import = bed.platform.begin_import(false, &bed.caller()).await.expect("begun");
    let job = Arc::clone(import.job());
    let rows = [child("A", "HUB"), child("B", "OTHER"), child("C", "GONE"), row("D")];
    take_all(&mut import, rows).await.expect("taken");
    // While they wait, one hub becomes a part of the other, and another is removed.
    bed.platform.admit_child(&other, "HUB", |_| true).await.expect("proven");
    bed.platform.remove_device(&gone, &bed.caller()).await.expect("removed");
    import.end(Ok(())).await;
    let tally = job.tally();
    let told: Vec<_> = tally.troubles.iter().map(|trouble| (trouble.line, trouble.field.as_deref())).collect();
    assert_eq!((tally.changed, told), (2, vec![(Some(1), Some("parent")), (Some(3), Some("parent"))]));
    assert!(bed.platform.children(&hub).is_empty(), "no part of a part");
    assert_eq!(bed.platform.children(&other).len(), 2);
    let bed = bed.restart().await;
    let job = bed.platform.job(JobKind::Import, job.id, &bed.caller()).expect("kept");
    assert_eq!((job.tally().changed, job.tally().failed), (2, 2));
}
