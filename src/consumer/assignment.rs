//! Deals the partitions of this process to its workers, and takes them back.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::kafka::{Assignment, Generation, GroupHandler};

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Work on these partitions from these offsets.
    Take {
        /// To commit with.
        generation: Generation,
        /// Partition and the offset to fetch next.
        positions: Vec<(i32, i64)>,
    },
    /// End the batch, or give it up uncommitted, and hold nothing any more.
    Release {
        /// Dropped by the worker when it is quiet.
        done: Sender<()>,
    },
}

/// The member's side. Dropping it ends the workers.
#[derive(Debug)]
pub(super) struct Dealer {
    workers: Vec<Sender<Command>>,
}

impl Dealer {
    pub(super) fn new(workers: usize) -> (Self, Vec<Receiver<Command>>) {
        // A worker is told at most two things before it looks: release, then take.
        let (workers, inboxes) = (0..workers).map(|_| bounded(2)).unzip();
        (Self { workers }, inboxes)
    }
}

impl GroupHandler for Dealer {
    fn assigned(&mut self, assignment: &Assignment) {
        for (number, worker) in self.workers.iter().enumerate() {
            let positions: Vec<(i32, i64)> = assignment
                .partitions
                .iter()
                .skip(number)
                .step_by(self.workers.len())
                .map(|p| (*p, assignment.offsets.get(p).copied().unwrap_or(0)))
                .collect();
            // A worker is gone only when it panicked, and then the process stops.
            let generation = assignment.generation.clone();
            let _ = worker.send(Command::Take { generation, positions });
        }
    }

    // What is lost already can't be committed any more, and what is saved was committed at once:
    // the workers do the same in both cases.
    fn revoked(&mut self, _is_lost: bool) {
        let (done, quiet) = bounded(0);
        for worker in &self.workers {
            let _ = worker.send(Command::Release { done: done.clone() });
        }
        drop(done);
        // Ends when the last worker has dropped its end.
        let _ = quiet.recv();
    }
}
