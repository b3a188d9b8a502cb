use super::*;
use crate::simulate::orders::Ends;

fn diary(number: u32, acknowledged: &[u32], stored: &[u32]) -> Diary {
    let events = Count { sent: 4, acknowledged: acknowledged.len() as u64, given_up: 0, not_sent: 0 };
    let lives = vec![life("", acknowledged, stored)];
    Diary { number, entry: Entry::In, events, lives, ..Diary::default() }
}

/// Four events, and what became of them.
fn life(serial: &str, acknowledged: &[u32], stored: &[u32]) -> Life {
    let mut life = Life { serial: serial.to_owned(), accepted: !acknowledged.is_empty(), ..Life::default() };
    (0..4).for_each(|number| assert_eq!(life.ledger.make(), Some(number)));
    acknowledged.iter().for_each(|&event| life.ledger.acknowledge(event));
    stored.iter().for_each(|&event| life.ledger.find(event));
    life
}

fn summary(diaries: &[Diary], stored: Result<(), String>) -> Summary {
    ended(diaries, stored, false)
}

fn ended(diaries: &[Diary], stored: Result<(), String>, interrupted: bool) -> Summary {
    let fleet = vec![("camera", "SIM-0001"), ("door", "SIM-0002")];
    let (gauges, operations) = (&Gauges::default(), Ends::default().figures());
    Summary::of(Findings { seed: 1, seconds: 2.0, interrupted, fleet, diaries, gauges, operations, stored })
}

#[test]
fn all_is_well_when_everything_is_where_it_should_be() {
    let found = summary(&[diary(0, &[0, 1], &[0, 1, 2]), diary(1, &[3], &[3])], Ok(()));
    assert!(found.ok && found.problems.is_empty(), "{found:?}");
    let shown = found.to_string();
    assert!(shown.contains("devices     2 (1 camera, 1 door), 2 came in"), "{shown}");
    assert!(shown.contains("stored      4 events: 0 acknowledged and missing, 0 twice, 1 without"), "{shown}");
    assert!(!shown.contains("operations") && !shown.contains("faults"), "{shown}");
}

#[test]
fn a_loss_of_one_device_is_not_hidden_by_another() {
    let found = summary(&[diary(0, &[0, 1], &[0]), diary(1, &[], &[0, 1, 1])], Ok(()));
    assert!(!found.ok);
    assert_eq!(found.problems, ["events acknowledged and not stored: 1", "events stored more than once: 1"]);
}

#[test]
fn a_child_is_accounted_for_like_its_hub() {
    let mut hub = diary(0, &[0], &[0]);
    hub.lives.push(life("SIM-0001-1", &[0, 1], &[1]));
    hub.lives.push(life("SIM-0001-2", &[2], &[2]));
    let found = summary(&[hub, diary(1, &[], &[])], Ok(()));
    assert_eq!(found.problems, ["events acknowledged and not stored: 1"]);
    assert_eq!((found.devices.children.asked_for, found.devices.children.accepted), (2, 2));
    assert!(found.to_string().contains("2 children of hubs, 2 accepted"), "{found}");
}

#[test]
fn a_child_that_was_never_accepted_is_named_if_its_hub_came_in() {
    let hub = |entry| {
        let mut hub = Diary { entry, ..diary(0, &[], &[]) };
        hub.lives.extend(["a", "b", "c", "d"].map(|serial| life(serial, &[], &[])));
        hub
    };
    assert_eq!(summary(&[hub(Entry::In)], Ok(())).problems, ["4 children were never accepted: a, b, c, …"]);
    let refused = summary(&[hub(Entry::Refused("waiting".to_owned()))], Ok(()));
    assert_eq!(refused.problems, ["1 device never came in: SIM-0001 (waiting)"]);
    assert!(ended(&[hub(Entry::In)], Ok(()), true).ok, "a signal may have come before");
}

#[test]
fn who_never_came_in_is_named_with_the_reason() {
    let second = |entry| [diary(0, &[], &[]), Diary { number: 1, entry, ..Diary::default() }];
    let refused = second(Entry::Refused("waiting".to_owned()));
    for interrupted in [false, true] {
        let found = ended(&refused, Ok(()), interrupted);
        assert_eq!(found.problems, ["1 device never came in: SIM-0002 (waiting)"]);
        assert_eq!((found.devices.started, found.devices.came_in), (2, 1));
    }
    assert_eq!(summary(&second(Entry::UnderWay), Ok(())).problems.len(), 1);
}

#[test]
fn whom_a_signal_kept_from_coming_in_is_not_missed() {
    let second = |entry| [diary(0, &[], &[]), Diary { number: 1, entry, ..Diary::default() }];
    for (entry, started) in [(Entry::UnderWay, 2), (Entry::NotStarted, 1)] {
        let found = ended(&second(entry), Ok(()), true);
        assert!(found.ok && found.devices.started == started && found.devices.came_in == 1, "{found:?}");
    }
}

#[test]
fn what_could_not_be_compared_is_not_called_well() {
    let found = summary(&[diary(0, &[0], &[])], Err("nobody answers".to_owned()));
    assert_eq!(found.problems, ["what is stored could not be read back: nobody answers"]);
    assert!(serde_json::to_value(&found).expect("JSON")["stored"].is_null());
}
