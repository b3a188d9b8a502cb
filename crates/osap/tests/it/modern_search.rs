//! Tickets (osap-wire 13.3 rules 1 to 8, 13.7.2), searched to the end: whatever is lost between a device and its platform,
//! the next clean attempt gets in.
//!
//! The two machines are the real ones. A *world* is what outlives a connection: the record in the store, the slots in the
//! flash, what each was before its last write, and what connections that the device has long given up may still write. From
//! each world every run is tried that ends after any of its steps, by a loss of power or a crash, with or without leaving
//! its connection behind in the server, while one that was left behind goes on after any of them. Two servers on one store
//! are no other case: a connection left behind is one of the other server.
//!
//! Worlds that differ in the names of tickets alone are one, which makes their number finite.

use std::collections::HashSet;

use super::modern_world::{End, Plan, Ran, Rules, SPECIFIED, World, enrolled, new, provisioned, run};
use super::vectors::Seeded;

/// How many connections may be left behind at a time.
const STALE: usize = 1;

/// How many worlds `runs` runs can lead to, and how many of them the last run was the first to reach. A world from which a clean attempt does not get in is the error.
fn search(first: World, rules: &Rules, runs: usize) -> Result<(usize, usize), Vec<String>> {
    let mut random = Seeded::new(0x7153);
    let mut seen = HashSet::from([first.key()]);
    let mut frontier = vec![first];
    for _ in 0..runs {
        let mut next = Vec::new();
        for world in &frontier {
            for after in successors(world, rules, &mut random) {
                reach(after, rules, &mut random, &mut seen, &mut next)?;
            }
        }
        frontier = next;
    }
    Ok((seen.len(), frontier.len()))
}

/// Takes a world that is new, and those that come of it without a run: by a lost write, or a connection that goes on.
fn reach(
    world: World,
    rules: &Rules,
    random: &mut Seeded,
    seen: &mut HashSet<Vec<i64>>,
    next: &mut Vec<World>,
) -> Result<(), Vec<String>> {
    if !seen.insert(world.key()) {
        return Ok(());
    }
    let Ran { end, .. } = run(&mut world.clone(), rules, Plan::default(), random);
    if end != End::In {
        let mut story = world.story;
        story.push(format!("the next clean attempt: {end:?}"));
        return Err(story);
    }
    for which in 0..world.stale.len() {
        let mut went_on = world.told(format!("connection {which} goes on"));
        let stage = went_on.stale.remove(which);
        went_on.apply(stage, rules);
        went_on.forget_hopeless();
        reach(went_on, rules, random, seen, next)?;
    }
    if let (Some(before), true) = (&world.before.0, world.losses[0] > 0) {
        let mut lost = world.told("the server loses its last write".into());
        lost.store = before.clone();
        lost.before.0 = None;
        lost.losses[0] -= 1;
        lost.forget_hopeless();
        reach(lost, rules, random, seen, next)?;
    }
    if let (Some(before), true) = (&world.before.1, world.losses[1] > 0) {
        let mut lost = world.told("the device loses its last write".into());
        lost.flash = before.clone();
        lost.before.1 = None;
        lost.losses[1] -= 1;
        reach(lost, rules, random, seen, next)?;
    }
    next.push(world);
    Ok(())
}

/// Every end of one more run.
fn successors(world: &World, rules: &Rules, random: &mut Seeded) -> Vec<World> {
    let mut all = Vec::new();
    let mut end_after = |resume: Option<(usize, usize)>, first: usize| {
        let Ran { steps, .. } = run(&mut world.clone(), rules, Plan { cut: None, resume }, random);
        for cut in first..=steps + 1 {
            let mut after = world.told(format!("a run, cut after step {cut}, another goes on: {resume:?}"));
            let Ran { left, .. } = run(&mut after, rules, Plan { cut: Some(cut), resume }, random);
            if let Some(stage) = left
                && after.stale.len() < STALE
            {
                let mut behind = after.told("its connection is left behind".into());
                behind.stale.push(stage);
                behind.forget_hopeless();
                all.push(behind);
            }
            all.push(after);
        }
        steps
    };
    let steps = end_after(None, 1);
    for which in 0..world.stale.len() {
        for at in 1..=steps {
            end_after(Some((at, which)), at);
        }
    }
    all
}

#[track_caller]
fn assert_never_locked_out(first: World, rules: &Rules, least: usize) {
    let started = std::time::Instant::now();
    match search(first, rules, 6) {
        Ok((worlds, last)) => {
            println!(
                "{worlds} worlds, {last} by the last run; a clean attempt gets in from each; {:?}",
                started.elapsed()
            );
            assert!(worlds >= least, "the search has shrunk to {worlds} worlds");
        }
        Err(story) => panic!("locked out:\n{}", story.join("\n")),
    }
}

#[test]
fn osap_13_7_2_a_device_that_was_in_once_is_never_locked_out() {
    assert_never_locked_out(enrolled(&SPECIFIED), &SPECIFIED, 450);
    let rules = Rules { losses: [2, 0], ..SPECIFIED };
    assert_never_locked_out(enrolled(&rules), &rules, 450);
}

#[test]
fn osap_13_7_2_a_provisioned_device_is_never_locked_out() {
    assert_never_locked_out(provisioned(&SPECIFIED), &SPECIFIED, 1_700);
}

#[test]
fn osap_13_7_2_a_device_that_enrols_by_code_is_never_locked_out() {
    for may_enrol_again in [false, true] {
        let rules = Rules { has_code: true, may_enrol_again, ..SPECIFIED };
        assert_never_locked_out(new(&rules), &rules, 1_350);
    }
}

#[test]
fn osap_13_7_2_the_search_finds_what_leaving_out_one_rule_does() {
    let locked_out = |what: &str, first: &dyn Fn(&Rules) -> World, rules: Rules| {
        let story = search(first(&rules), &rules, 6).expect_err(what);
        println!("{what}:\n  {}", story.join("\n  "));
    };
    let one_slot = Rules { one_slot: true, losses: [1, 0], ..SPECIFIED };
    locked_out("one slot on the device, and a server that loses a write", &enrolled, one_slot);
    let overwrites = Rules { overwrites_used: true, losses: [2, 0], ..SPECIFIED };
    locked_out(
        "the used slot overwritten, and a server that loses two writes, one after the other",
        &enrolled,
        overwrites,
    );
    let drops = Rules { drops_at_confirm: true, losses: [0, 1], ..SPECIFIED };
    locked_out("the old ticket deleted at 0x92, and a device that loses a write", &enrolled, drops);
    let last = Rules { stores_last: true, has_code: true, losses: [0, 0], ..SPECIFIED };
    locked_out("a device that stores after 0xB2", &new, last);
    // What the specification does not spell out: a store can be set back while a connection lives on.
    let counts = Rules { compares_rev_alone: true, losses: [1, 0], ..SPECIFIED };
    locked_out("a comparison of the number alone, and a server that loses a write", &enrolled, counts);
    let blind = Rules { confirms_blindly: true, has_code: true, losses: [1, 0], ..SPECIFIED };
    locked_out("a 0x92 for a ticket that the server has lost", &new, blind);
}
