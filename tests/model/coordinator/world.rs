//! The rows and the workers of the model: effects of the state machines, requests that end, and the judgement
//! of both.

use super::*;

impl World {
    pub(super) fn now(&self) -> Instant {
        *START + TICK * u32::from(self.tick)
    }

    pub(super) fn violates(&mut self, what: &'static str) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn finished(mut self) -> Self {
        let Self { tick, rows, workers, events, losses, assignments, violation, .. } = &self;
        self.print = format!("{:?}", (tick, rows, workers, events, losses, assignments, violation));
        self
    }

    /// One step of a worker's state machine, and the effects as far as they concern the table.
    pub(super) fn on(&mut self, worker: usize, event: Event<Hold>, bounds: &Bounds) {
        let now = self.now();
        for effect in self.workers[worker].state.on(now, event) {
            self.perform(worker, effect, bounds);
        }
        let at = &self.workers[worker];
        if at.stopped && at.state.has_ended() && at.holds.values().any(|hold| hold.life == Life::Held) {
            self.violates("released: a lease is held after the end");
        }
    }

    fn perform(&mut self, worker: usize, effect: Effect<Hold>, bounds: &Bounds) {
        let now = self.now();
        match effect {
            Effect::Scan => self.workers[worker].requests.push(Request::Scan),
            Effect::ListOwned => self.workers[worker].requests.push(Request::ListOwned),
            Effect::Read(key) => self.workers[worker].requests.push(Request::Read(key)),
            Effect::CheckIndex(key) => self.workers[worker].requests.push(Request::CheckIndex(key)),
            Effect::Acquire(key, update) => {
                self.judge_acquisition(worker, &key, bounds);
                self.workers[worker].requests.push(Request::Acquire(key, update, now));
            }
            Effect::Hold(hold, _) => {
                let known = &self.workers[worker].holds;
                let others = known
                    .iter()
                    .any(|(id, known)| *id != hold.id && known.key == hold.key && known.life == Life::Held);
                if others {
                    self.violates("one request: two leases of one shard are held");
                }
            }
            Effect::MarkLost(hold) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                if known.life == Life::Held {
                    known.life = Life::Lost;
                }
            }
            Effect::Release(hold, _) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                if known.life != Life::Held {
                    self.violates("released: a lease is released twice");
                    return;
                }
                known.life = Life::Releasing;
                self.workers[worker].requests.push(Request::Release(hold));
            }
            _ => {}
        }
    }

    fn judge_acquisition(&mut self, worker: usize, key: &LeaseKey, bounds: &Bounds) {
        let now = self.now();
        let at = &self.workers[worker];
        let is_written =
            |request: &Request| matches!(request, Request::Acquire(written, ..) if written == key);
        if at.requests.iter().any(is_written) || at.holds_of(key).next().is_some() {
            return self.violates("one request: a lease is acquired twice");
        }
        if at.stopped {
            return self.violates("stopped: a lease is acquired after the stop");
        }
        if bounds.led {
            if at.scanned.get(key).is_none_or(|(owner, ..)| owner.as_ref() != Some(&at.name)) {
                self.violates("assigned: a lease of another worker is acquired");
            }
            return;
        }
        let Some((Some(owner), _, since)) = at.scanned.get(key) else { return };
        let owned = at.scanned.values().filter(|(other, ..)| other.as_ref() == Some(owner)).count();
        if *owner != at.name && now < *since + FAILOVER {
            bounds.observe("a lease was stolen");
            if owned < keys().len() {
                self.violates("fair: a lease of a live worker is acquired");
            }
        }
    }

    /// The request is executed, and its response arrives or is lost.
    pub(super) fn end(&mut self, worker: usize, request: usize, arrives: bool, bounds: &Bounds) {
        let now = self.now();
        let lost = || Error::Unavailable(String::new());
        let event = match self.workers[worker].requests.remove(request) {
            Request::Scan if arrives => {
                let mut rows: Vec<Lease> = self.rows.values().cloned().collect();
                let at = &mut self.workers[worker];
                let first = at.first.get_or_insert_with(|| rows.clone()).clone();
                for row in &rows {
                    let fact = (row.owner.clone(), row.counter, now);
                    let seen = at.scanned.entry(row.key.clone()).or_insert_with(|| fact.clone());
                    if (&seen.0, seen.1) != (&row.owner, row.counter) {
                        *seen = fact;
                    }
                }
                if bounds.fault == Some(Fault::SeesNoRenewals) {
                    for (row, first) in
                        rows.iter_mut().zip(first).filter(|(row, first)| row.owner == first.owner)
                    {
                        row.counter = first.counter;
                    }
                }
                if bounds.fault == Some(Fault::MisreadsOwners) {
                    rows.iter_mut().for_each(|row| row.owner = Some(name(worker)));
                }
                Event::Scanned(Ok(rows))
            }
            Request::Scan => Event::Scanned(Err(lost())),
            Request::ListOwned if arrives => {
                let at = &self.workers[worker];
                let owned = self.rows.values().filter(|row| row.owner.as_ref() == Some(&at.name));
                Event::OwnedListed(Ok(owned.map(|row| row.key.clone()).collect()))
            }
            Request::ListOwned => Event::OwnedListed(Err(lost())),
            Request::Read(key) => {
                let row = self.rows[&key].clone();
                let fact = (row.owner.clone(), row.counter, now);
                self.workers[worker].scanned.insert(key.clone(), fact);
                Event::RowRead(key, if arrives { Ok(Some(row)) } else { Err(lost()) })
            }
            Request::CheckIndex(key) => Event::IndexChecked(self.rows.get(&key).filter(|_| arrives).cloned()),
            Request::Acquire(key, update, began) => {
                let outcome = self.write(&key, &update);
                let outcome = match outcome {
                    _ if !arrives => {
                        bounds.observe("a response was lost");
                        Err(Error::Ambiguous(String::new()))
                    }
                    Ok(()) => {
                        self.holds += 1;
                        let hold = Hold { key: key.clone(), id: self.holds };
                        let counter = self.rows[&key].counter;
                        let known = Known { key: key.clone(), counter, life: Life::Held, over: false };
                        self.workers[worker].holds.insert(hold.id, known);
                        bounds.observe("a lease was acquired");
                        Ok((hold, began))
                    }
                    Err(error) => {
                        bounds.observe("another worker was faster");
                        Err(error)
                    }
                };
                match (bounds.fault, outcome) {
                    (Some(Fault::ForgetsAcquisitions), Err(_)) => return,
                    (Some(Fault::ReportsTwice), Ok((hold, began))) => {
                        self.on(worker, Event::Acquired(key.clone(), Ok((hold, began))), bounds);
                        self.holds += 1;
                        let again = Hold { key: key.clone(), id: self.holds };
                        let counter = self.rows[&key].counter;
                        let known = Known { key: key.clone(), counter, life: Life::Held, over: false };
                        self.workers[worker].holds.insert(again.id, known);
                        Event::Acquired(key, Ok((again, began)))
                    }
                    (_, outcome) => Event::Acquired(key, outcome),
                }
            }
            Request::Release(hold) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                known.life = Life::Released;
                let (counter, mine) = (known.counter, self.workers[worker].name.clone());
                let row = self.rows.get_mut(&hold.key).unwrap();
                let is_mine =
                    row.counter == counter && [&row.owner, &row.checkpoint_owner].contains(&&Some(mine));
                if arrives && is_mine {
                    update::release(row, &Next::Nobody).apply(row);
                    bounds.observe("a lease was released");
                }
                if bounds.fault == Some(Fault::ForgetsReleases) {
                    return;
                }
                Event::Released(hold.key, None)
            }
        };
        self.on(worker, event, bounds);
    }

    fn write(&mut self, key: &LeaseKey, update: &Update) -> Result<(), Error> {
        let row = self.rows.get_mut(key).unwrap();
        if !update.holds(row) {
            return Err(Error::Conflict(key.clone()));
        }
        update.apply(row);
        Ok(())
    }

    pub(super) fn renew(&mut self, worker: usize, id: u8, bounds: &Bounds) {
        let known = self.workers[worker].holds.get_mut(&id).unwrap();
        let row = self.rows.get_mut(&known.key).unwrap();
        if row.counter == known.counter {
            row.counter += 1;
            known.counter = row.counter;
            return;
        }
        known.over = true;
        let hold = Hold { key: known.key.clone(), id };
        bounds.observe("a lease was lost");
        self.on(worker, Event::RenewalEnded(hold), bounds);
    }

    pub(super) fn stop(&mut self, worker: usize, bounds: &Bounds) {
        if bounds.fault != Some(Fault::ForgetsStops) {
            self.on(worker, Event::Stop, bounds);
        }
        self.workers[worker].stopped = true;
        if bounds.fault != Some(Fault::ForgetsStops) {
            self.on(worker, Event::End, bounds);
        }
    }

    /// The leader assigns what no live worker owns, once.
    pub(super) fn assign(&mut self, lease: usize, to: usize, graceful: bool) -> bool {
        let row = self.rows.get_mut(&keys()[lease]).unwrap();
        let update = match graceful {
            false => update::assign(row, &name(to)),
            true if row.owner.is_some() && row.owner != Some(name(to)) && row.checkpoint_owner.is_none() => {
                update::initiate(row, &name(to))
            }
            true => return false,
        };
        update.apply(row);
        true
    }

    /// Continues without faults for some failover times. Returns a violation, which includes a lease that no live worker
    /// holds by then.
    pub(super) fn settles(&self, bounds: &Bounds) -> Option<&'static str> {
        let mut world = self.clone();
        for _ in 0..SETTLED {
            world.tick += 1;
            for worker in 0..world.workers.len() {
                if world.workers[worker].crashed {
                    continue;
                }
                let renewed: Vec<u8> = world.workers[worker]
                    .holds
                    .iter()
                    .filter(|(_, hold)| hold.life == Life::Held)
                    .map(|(id, _)| *id)
                    .collect();
                renewed.into_iter().for_each(|id| world.renew(worker, id, bounds));
                if world.workers[worker].state.scan_due().is_some_and(|due| due <= world.now()) {
                    world.on(worker, Event::ScanDue, bounds);
                }
                while !world.workers[worker].requests.is_empty() {
                    world.end(worker, 0, true, bounds);
                }
            }
            // The leader looks after leases whose owner is gone.
            if bounds.led
                && let Some(to) = (0..2).find(|worker| world.workers[*worker].is_live())
            {
                for lease in 0..2 {
                    let row = &world.rows[&keys()[lease]];
                    let live = |owner: &Option<WorkerId>| {
                        world.workers.iter().any(|at| at.is_live() && Some(&at.name) == owner.as_ref())
                    };
                    if !live(&row.owner) || row.checkpoint_owner.is_some() && !live(&row.checkpoint_owner) {
                        world.assign(lease, to, false);
                    }
                }
            }
        }
        let ended = |at: &Worker| at.crashed || !at.stopped || at.state.has_ended();
        let read = |key: &LeaseKey| {
            world
                .workers
                .iter()
                .filter(|at| at.is_live())
                .any(|at| at.holds_of(key).any(|hold| hold.counter == world.rows[key].counter))
        };
        let any_live = world.workers.iter().any(Worker::is_live);
        if !world.workers.iter().all(ended) || any_live && !keys().iter().all(read) {
            world.violates("alive: a lease is not read, or a stop does not end");
        }
        world.violation
    }
}
