use super::*;

const RATES: Rates = Rates { events_per_minute: 6.0, reports_per_minute: 60.0, operations_per_minute: 2.0 };

/// Everything of an hour, with its time.
fn hour(seed: u64, device: u32, rates: &Rates, faults: &Faults) -> Vec<(Duration, Act)> {
    let mut schedule = Schedule::new(seed, device, rates, faults);
    let mut acts = Vec::new();
    while let Some(due) = schedule.due().filter(|due| *due < Duration::from_secs(3_600)) {
        acts.push((due, schedule.take().expect("it is due")));
    }
    acts
}

fn count(acts: &[(Duration, Act)], wanted: fn(&Act) -> bool) -> usize {
    acts.iter().filter(|(_, act)| wanted(act)).count()
}

#[test]
fn the_same_seed_brings_the_same_acts() {
    let faults = Faults { drop: 3.0, pause: 3.0, reconnect: 3.0, child: 3.0 };
    assert_eq!(hour(1, 5, &RATES, &faults), hour(1, 5, &RATES, &faults));
    assert_ne!(hour(1, 5, &RATES, &faults), hour(2, 5, &RATES, &faults));
    assert_ne!(hour(1, 5, &RATES, &faults), hour(1, 6, &RATES, &faults));
}

#[test]
fn rates_are_kept_and_time_never_runs_back() {
    let acts = hour(1, 0, &RATES, &Faults { drop: 20.0, ..Faults::default() });
    assert!(acts.is_sorted_by_key(|(due, _)| *due));
    let near = |count: usize, rate: usize| count.abs_diff(rate) * 4 <= rate;
    assert!(near(count(&acts, |act| *act == Act::Event), 360), "{}", acts.len());
    assert!(near(count(&acts, |act| *act == Act::Report), 3_600), "{}", acts.len());
    assert!(near(count(&acts, |act| *act == Act::Operation), 120), "{}", acts.len());
    assert!((5..=45).contains(&count(&acts, |act| *act == Act::Drop)));
    assert_eq!(count(&acts, |act| matches!(act, Act::Pause(_) | Act::Reconnect)), 0);
}

#[test]
fn one_rate_does_not_move_what_another_brings() {
    let events = |rates: &Rates| {
        let mut acts = hour(1, 0, rates, &Faults::default());
        acts.retain(|(_, act)| *act == Act::Event);
        acts
    };
    assert_eq!(events(&RATES), events(&Rates { reports_per_minute: 1.0, operations_per_minute: 0.0, ..RATES }));
}

#[test]
fn nothing_to_do_is_never_due() {
    let rates = Rates { events_per_minute: 0.0, reports_per_minute: 0.0, operations_per_minute: 0.0 };
    let mut schedule = Schedule::new(1, 0, &rates, &Faults::default());
    assert_eq!((schedule.due(), schedule.take()), (None, None));
}

#[test]
fn a_silence_has_some_seconds() {
    let acts = hour(1, 0, &RATES, &Faults { pause: 50.0, ..Faults::default() });
    let seconds = Duration::from_secs(2)..=Duration::from_secs(10);
    let silences = acts.iter().filter_map(|(_, act)| match act {
        Act::Pause(silence) => Some(*silence),
        _ => None,
    });
    let silences: Vec<_> = silences.collect();
    assert!(
        silences.len() > 10 && silences.iter().all(|silence| seconds.contains::<Duration>(silence)),
        "{silences:?}"
    );
}

#[test]
fn a_child_comes_back_after_some_seconds() {
    let rates = Rates { events_per_minute: 0.0, reports_per_minute: 0.0, operations_per_minute: 0.0 };
    let faults = Faults { drop: 60.0, child: 120.0, ..Faults::default() };
    assert_eq!(count(&hour(1, 0, &rates, &faults.of_device()), |act| matches!(act, Act::Away | Act::Back)), 0);
    let mut schedule = Schedule::new(1, 0, &rates, &faults.of_child());
    let (mut away, mut absences) = (None, 0);
    while absences < 50 {
        let due = schedule.due().expect("it goes on");
        match schedule.take() {
            Some(Act::Away) => away = away.or(Some(due)),
            Some(Act::Back) => {
                let since = due - away.take().expect("it was away");
                assert!(since >= Duration::from_secs(2), "{since:?}");
                absences += 1;
            }
            other => panic!("{other:?} of a child"),
        }
        assert_eq!(schedule.is_away(), away.is_some());
    }
}

#[test]
fn faults_are_read_by_name() {
    assert_eq!("drop=2,pause=0.5".parse(), Ok(Faults { drop: 2.0, pause: 0.5, ..Faults::default() }));
    assert_eq!(" reconnect = 1 ".parse(), Ok(Faults { reconnect: 1.0, ..Faults::default() }));
    assert_eq!("child=6".parse(), Ok(Faults { child: 6.0, ..Faults::default() }));
    for wrong in ["", "drop", "drop=", "drop=-1", "drop=inf", "drop=NaN", "fire=1", "drop=1,", "drop=1;pause=1"] {
        assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
    }
}
