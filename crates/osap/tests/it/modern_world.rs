//! What outlives the connections between a device and its platform, and one run in it, for the search of `modern_search`.

use osap::lbs::Standing;
use osap::modern::client::{self, Advice, Attempt, Client, Identity};
use osap::modern::server::{self, Policy, Record, Server};
use osap::modern::slots::{Has, Slot, Way};
use osap::modern::ticket::{Stage, Used};
use osap::modern::{Exporter, Psk, Slots, Ticket, TicketId, Tickets};
use osap::{Code, DevId, Suite};

use super::modern_pair::{LONG_CODE, das};
use super::vectors::{Seeded, dev_id, serial};

/// How the two sides behave; the specified way unless a test wants to see that the search finds what is wrong.
#[derive(Clone, Copy)]
pub struct Rules {
    /// The device keeps its new ticket alone.
    pub one_slot: bool,
    /// The device writes over the slot that the run used, when that was the older one.
    pub overwrites_used: bool,
    /// The platform drops the old ticket as soon as 0x92 has come.
    pub drops_at_confirm: bool,
    /// The device stores what it was given once it has its DAS.
    pub stores_last: bool,
    /// The platform compares the number of the revision alone before it writes.
    pub compares_rev_alone: bool,
    /// The platform takes 0x92 of a run whose ticket it has forgotten.
    pub confirms_blindly: bool,
    pub has_code: bool,
    /// Policy lets a device whose enrolment was confirmed enrol again with its long code.
    pub may_enrol_again: bool,
    /// How often the store, and the flash, may lose a last write.
    pub losses: [u8; 2],
}

pub const SPECIFIED: Rules = Rules {
    one_slot: false,
    overwrites_used: false,
    drops_at_confirm: false,
    stores_last: false,
    compares_rev_alone: false,
    confirms_blindly: false,
    has_code: false,
    may_enrol_again: false,
    losses: [1, 1],
};

/// What outlives a connection.
#[derive(Clone)]
pub struct World {
    pub store: Tickets,
    pub flash: Slots,
    pub before: (Option<Tickets>, Option<Slots>),
    pub losses: [u8; 2],
    /// What connections that were left behind are about to write.
    pub stale: Vec<Stage>,
    /// How this came to be.
    pub story: Vec<String>,
}

impl World {
    fn new(store: Tickets, flash: Slots, rules: &Rules) -> Self {
        Self { store, flash, before: (None, None), losses: rules.losses, stale: Vec::new(), story: Vec::new() }
    }

    pub fn told(&self, what: String) -> Self {
        let mut world = self.clone();
        world.story.push(what);
        world
    }

    pub fn apply(&mut self, stage: Stage, rules: &Rules) -> bool {
        match stage {
            Stage::Issue { rev, over, used, dev_id, ticket } => {
                let before = self.store.clone();
                let found = before.next.as_ref().map(|next| next.id);
                let over = if rules.compares_rev_alone { found } else { over };
                let issued = self.store.issue(rev, over, used, dev_id, ticket);
                if issued {
                    self.before.0 = Some(before);
                }
                issued
            }
            Stage::Confirm { ticket, .. } => {
                let held = self.store.confirm(ticket) || rules.confirms_blindly;
                self.store.confirmed |= held;
                if held && rules.drops_at_confirm {
                    self.store.current = None;
                }
                held
            }
            Stage::Session { rev, .. } => rev == self.store.rev,
        }
    }

    /// The device writes its flash. What it was before can come back until the device has used what it has written. It
    /// cannot after an enrolment by code, which leaves no other ticket that is known to be good: then the device needs its
    /// code again, and whether it may use that is for the policy.
    fn write(&mut self, way: Way, slots: Slots, rules: &Rules) {
        let slots = if rules.one_slot { Slots { older: None, ..slots } } else { slots };
        let older =
            if rules.overwrites_used && way == Way::Older { self.flash.newest.clone() } else { slots.older.clone() };
        let before = std::mem::replace(&mut self.flash, Slots { older, ..slots });
        self.before.1 = (way != Way::Code || rules.may_enrol_again).then_some(before);
    }

    /// Lets go of connections whose write can never be taken any more: the record has moved on, and so had what it may be
    /// set back to.
    pub fn forget_hopeless(&mut self) {
        let lowest = self.before.0.as_ref().map_or(self.store.rev, |before| before.rev.min(self.store.rev));
        self.stale.retain(|stage| !matches!(stage, Stage::Issue { rev, .. } if *rev < lowest));
    }

    /// What makes it another world than others: the order of tickets, not their names.
    pub fn key(&self) -> Vec<i64> {
        let (mut tickets, mut ids) = (Vec::<TicketId>::new(), Vec::<DevId>::new());
        let mut key = Vec::new();
        let rev = i64::try_from(self.store.rev).unwrap();
        let mut name = |key: &mut Vec<i64>, ticket: Option<TicketId>| {
            key.push(ticket.map_or(-1, |ticket| {
                let found = tickets.iter().position(|known| *known == ticket);
                found.unwrap_or_else(|| {
                    tickets.push(ticket);
                    tickets.len() - 1
                }) as i64
            }));
        };
        let mut identity = |key: &mut Vec<i64>, dev_id: Option<DevId>| {
            key.push(dev_id.map_or(-1, |dev_id| {
                let found = ids.iter().position(|known| *known == dev_id);
                found.unwrap_or_else(|| {
                    ids.push(dev_id);
                    ids.len() - 1
                }) as i64
            }));
        };
        for store in [Some(&self.store), self.before.0.as_ref()] {
            let Some(store) = store else {
                key.push(-9);
                continue;
            };
            for ticket in [&store.current, &store.next, &store.base] {
                name(&mut key, ticket.as_ref().map(|ticket| ticket.id));
            }
            identity(&mut key, store.dev_id);
            key.extend([i64::from(store.confirmed), i64::from(store.rev == 0)]);
            key.push(i64::try_from(store.rev).unwrap() - rev);
        }
        for flash in [Some(&self.flash), self.before.1.as_ref()] {
            let Some(flash) = flash else {
                key.push(-9);
                continue;
            };
            for slot in [&flash.newest, &flash.older, &flash.base] {
                name(&mut key, slot.as_ref().map(|slot| slot.ticket));
            }
            identity(&mut key, flash.dev_id);
        }
        for stage in &self.stale {
            match stage {
                Stage::Issue { rev: read, over, used, dev_id, ticket } => {
                    key.extend([1, i64::try_from(*read).unwrap() - rev]);
                    key.push(match used {
                        Used::Ticket(held) => *held as i64,
                        Used::Code => 10,
                        Used::Certificate => 11,
                    });
                    identity(&mut key, Some(*dev_id));
                    name(&mut key, *over);
                    name(&mut key, Some(ticket.id));
                }
                Stage::Confirm { ticket, .. } => {
                    key.push(2);
                    name(&mut key, Some(*ticket));
                }
                Stage::Session { .. } => key.push(3),
            }
        }
        key.extend(self.losses.map(i64::from));
        key
    }
}

/// What befalls a run; steps are counted from its beginning, over all its connections.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    /// It ends after this step.
    pub cut: Option<usize>,
    /// After this step a connection that was left behind goes on.
    pub resume: Option<(usize, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    In,
    /// The device waits: nothing it has was accepted.
    Waits,
    Cut,
}

/// A run of the device: its ways in their order, until it is in, waits, or the plan ends it.
struct Run<'a> {
    world: &'a mut World,
    rules: &'a Rules,
    plan: Plan,
    step: usize,
    left: Option<Stage>,
    random: &'a mut Seeded,
}

impl Run<'_> {
    /// After each step: a connection that was left behind may go on, and the run may end.
    fn passes(&mut self, server: &mut Server) -> bool {
        self.step += 1;
        if let Some((after, which)) = self.plan.resume
            && after == self.step
            && which < self.world.stale.len()
        {
            let stage = self.world.stale.remove(which);
            self.world.apply(stage, self.rules);
        }
        if self.plan.cut != Some(self.step) {
            return true;
        }
        if let server::Output::Stage(stage) = server.poll() {
            self.left = Some(stage);
        }
        false
    }

    fn run(&mut self) -> End {
        let has = Has { certificate: false, code: self.rules.has_code };
        let mut way = self.world.flash.next_way(None, has);
        while let Some(next) = way {
            match self.connect(next) {
                Some(Ok(())) => return End::In,
                Some(Err(Advice::NextWay)) => way = self.world.flash.next_way(Some(next), has),
                Some(Err(_)) => return End::Waits,
                None => return End::Cut,
            }
        }
        End::Waits
    }

    /// One connection; `None` when it was cut.
    fn connect(&mut self, way: Way) -> Option<Result<(), Advice>> {
        let code = self.rules.has_code.then(|| Code::new(LONG_CODE).unwrap());
        let exporter = super::modern_pair::exporter(self.random);
        let identity = Identity { serial: serial(), code: code.clone(), suites: vec![Suite::Tls] };
        let mut client = Client::new(identity, self.world.flash.clone(), Attempt { suite: Suite::Tls, way, csr: None });
        let mut server = Server::new(Policy { ticket_lifetime_s: 0, ..Policy::tls() }, None);
        let mut unwritten = None;
        let mut up = Vec::new();
        loop {
            match client.poll() {
                client::Output::Compute => client.compute(self.random),
                client::Output::Export => client.handle_exporter(&exporter),
                client::Output::Send(bytes) => up.extend(bytes),
                client::Output::Store(slots) => {
                    if self.rules.stores_last {
                        unwritten = Some(*slots);
                    } else {
                        self.world.write(way, *slots, self.rules);
                    }
                    if !self.passes(&mut server) {
                        return None;
                    }
                    client.handle_stored(true);
                }
                client::Output::Done(_) => {
                    unwritten.into_iter().for_each(|slots| self.world.write(way, slots, self.rules));
                    return Some(Ok(()));
                }
                client::Output::Failed(failure) => return Some(Err(failure.advice())),
                client::Output::Read => {
                    if let Some(answer) = self.serve(&mut server, &mut up, &exporter, code.as_ref())? {
                        client.handle_frame(&answer);
                    } else {
                        return Some(Err(Advice::Wait));
                    }
                }
            }
        }
    }

    /// The server's steps until it answers; the inner `None` is a connection it has closed.
    #[expect(clippy::option_option, reason = "cut, closed, and answered are three things")]
    fn serve(
        &mut self,
        server: &mut Server,
        up: &mut Vec<u8>,
        exporter: &Exporter,
        code: Option<&Code>,
    ) -> Option<Option<Vec<u8>>> {
        loop {
            match server.poll() {
                server::Output::Read => {
                    let len = osap::modern::message::next_frame(up, 4_096).unwrap().expect("the device speaks first");
                    let frame: Vec<u8> = up.drain(..len).collect();
                    server.handle_frame(&frame, self.random);
                    continue;
                }
                server::Output::Lookup(_) => {
                    let tickets = self.world.store.clone();
                    let record = Record {
                        tickets,
                        code: code.cloned(),
                        standing: Standing::Known,
                        may_enrol_again: self.rules.may_enrol_again,
                        ..Record::default()
                    };
                    server.handle_record(record, 0, self.random);
                }
                server::Output::Fresh { .. } => {
                    server.handle_fresh(true, self.random);
                    continue;
                }
                server::Output::Export(_) => {
                    server.handle_exporter(exporter);
                    continue;
                }
                server::Output::Attempt { .. } => {
                    server.handle_attempt(server::Attempt::Go);
                    continue;
                }
                // What is to be written is known, and not written yet.
                server::Output::Assign => server.handle_das(Some(das()), self.random),
                server::Output::Stage(stage) => {
                    if matches!(stage, Stage::Confirm { .. }) && !self.passes(server) {
                        return None;
                    }
                    if self.world.apply(stage, self.rules) {
                        server.handle_staged();
                    } else {
                        server.handle_outrun();
                    }
                }
                server::Output::Send(bytes) => return Some(Some(bytes)),
                server::Output::Done | server::Output::Close(_) => return Some(None),
                other => panic!("{other:?}"),
            }
            if !self.passes(server) {
                return None;
            }
        }
    }
}

/// How a run went.
pub struct Ran {
    pub end: End,
    pub steps: usize,
    /// What the server was about to write when it was cut, and still may.
    pub left: Option<Stage>,
}

pub fn run(world: &mut World, rules: &Rules, plan: Plan, random: &mut Seeded) -> Ran {
    world.before.1 = None;
    let mut run = Run { world, rules, plan, step: 0, left: None, random };
    let end = run.run();
    let (steps, left) = (run.step, run.left);
    world.forget_hopeless();
    Ran { end, steps, left }
}

fn slot(n: u8) -> Slot {
    Slot { ticket: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap() }
}

fn ticket(n: u8) -> Ticket {
    let Slot { ticket, psk } = slot(n);
    Ticket { id: ticket, psk, expires: None }
}

/// A device that was in once, and has nothing but what it was given then.
pub fn enrolled(rules: &Rules) -> World {
    let store =
        Tickets { dev_id: Some(dev_id()), next: Some(ticket(1)), rev: 1, confirmed: true, ..Tickets::default() };
    let flash = Slots { dev_id: Some(dev_id()), newest: Some(slot(1)), ..Slots::default() };
    World::new(store, flash, rules)
}

/// A device without TLS, as it comes from the factory.
pub fn provisioned(rules: &Rules) -> World {
    let store = Tickets { dev_id: Some(dev_id()), base: Some(ticket(1)), ..Tickets::default() };
    let flash = Slots { dev_id: Some(dev_id()), base: Some(slot(1)), ..Slots::default() };
    World::new(store, flash, rules)
}

/// A device with a code, as it comes from the factory. Once its enrolment is confirmed the code leads in no more.
pub fn new(rules: &Rules) -> World {
    World::new(Tickets::default(), Slots::default(), rules)
}
