//! Many threads and many jobs: each is recorded once, or given back.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const SITES: i64 = 300;
const ADDRESSES: i64 = 7;
const LIMIT: usize = 2;
const SUBMITTERS: usize = 3;
const JOBS: usize = 6000;

/// Checks of all kinds, in no time.
#[derive(Debug, Default)]
struct Busy {
    at_address: [AtomicUsize; ADDRESSES as usize],
    count: AtomicUsize,
    records: Mutex<HashMap<(i64, Timestamp), usize>>,
    most: AtomicUsize,
}

impl Work for Busy {
    fn check(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Option<Arc<dyn Gate>>,
    ) -> Result<Check<'static>, IpAddr> {
        let (id, number) = (target.website_id(), self.count.fetch_add(1, Ordering::Relaxed));
        // Now and then a name leads elsewhere.
        let place = (id + i64::from(number.is_multiple_of(50))) % ADDRESSES;
        let (address, running) = (address(place as u8), &self.at_address[place as usize]);
        if let Some(gate) = &gate {
            // The name's first address can't be reached, now and then.
            if number.is_multiple_of(20) && !gate.admit(super::address(99), true) {
                return Err(super::address(99));
            }
            if !gate.admit(address, true) {
                return Err(address);
            }
            self.most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if number.is_multiple_of(9) {
                for hop in [place, place + 1, place + 2, place] {
                    gate.admit(super::address((hop % ADDRESSES) as u8), false);
                }
            }
        }
        for _ in 0..number % 4 {
            std::thread::yield_now();
        }
        running.fetch_sub(usize::from(gate.is_some()), Ordering::SeqCst);
        assert!(!number.is_multiple_of(301), "now and then a panic");
        Ok(answer(target, scheduled_at, if number.is_multiple_of(13) { 3.0 } else { 0.1 }))
    }

    fn record(&self, check: &Check<'_>) {
        if check.outcome == Outcome::Up {
            let number = self.count.load(Ordering::Relaxed);
            assert!(
                !number.is_multiple_of(257),
                "and one of the recorder, before it has taken anything"
            );
        }
        let key = (check.website_id, check.scheduled_at);
        *self.records.lock().unwrap().entry(key).or_default() += 1;
    }
}

fn waiting(bench: &Bench) -> usize {
    let (queued, parked) = bench.lanes.0.waiting();
    queued + parked
}

fn run(per_address: Option<usize>, stops: bool) {
    let work = Arc::new(Busy::default());
    let bench = Bench::start(4, 3, per_address, &work);
    let entries: Vec<Arc<Entry>> = (0..SITES).map(untried).collect();
    let end = now().mono + CAP;
    std::thread::scope(|scope| {
        for submitter in 0..SUBMITTERS {
            let (bench, entries, work) = (&bench, &entries, &work);
            scope.spawn(move || {
                for number in 0..JOBS {
                    // Every other time the queues run over.
                    while number / 500 % 2 == 0 && waiting(bench) > 100 {
                        assert!(now().mono < end, "nothing moves");
                        std::thread::yield_now();
                    }
                    let entry = &entries[(number * 17 + submitter * 101) % entries.len()];
                    if let Err(unstarted) = bench.lanes.submit(entry, due()) {
                        work.record(&unstarted.missed());
                    }
                    if stops && number == JOBS / 2 {
                        bench.stop.request();
                    }
                }
            });
        }
    });
    let board = bench.lanes.0.clone();
    drop(bench.lanes);
    assert_eq!(bench.threads.join(CAP), [""; 0]);
    assert_eq!(bench.stop.is_requested(), stops, "no worker panicked");
    assert_eq!((board.waiting(), board.counted()), ((0, 0), (0, 0)), "nothing is left");
    let records = work.records.lock().unwrap();
    assert_eq!(records.len(), SUBMITTERS * JOBS, "every job is recorded");
    assert!(records.values().all(|times| *times == 1), "none twice");
    let checked = work.count.load(Ordering::Relaxed);
    assert!(checked > JOBS / 10 && checked < SUBMITTERS * JOBS, "{checked} were checked");
    if per_address.is_some() {
        assert!(work.most.load(Ordering::Relaxed) <= LIMIT);
    }
}

#[test]
fn every_job_ends_once() {
    run(None, false);
}

#[test]
fn every_job_ends_once_with_a_limit() {
    run(Some(LIMIT), false);
}

#[test]
fn every_job_ends_once_with_a_limit_and_a_stop() {
    run(Some(LIMIT), true);
}
