//! Orders to the coordinator, from the scheduler, the shard sync and the membership.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;

use crate::lease::{Held, LeaseKey, WorkerId};

/// An order.
pub(super) enum Order {
    /// Scan the table soon.
    Look,
    /// Nudge a worker soon.
    Nudge(WorkerId),
    /// Release a lease.
    Release(Arc<Held>),
    /// Stop renewing the lease of a finished shard.
    Forget(LeaseKey),
}

/// Sends orders to the coordinator, which ends when all handles are dropped.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) mpsc::UnboundedSender<Order>);

impl Handle {
    /// There may be leases to acquire: rows were created, or released.
    pub fn look(&self) {
        self.order(Order::Look);
    }

    /// The worker was assigned a lease and is to know soon.
    pub fn nudge(&self, worker: WorkerId) {
        self.order(Order::Nudge(worker));
    }

    /// The lease is not needed any more: other workers may acquire it at once.
    pub fn release(&self, held: Arc<Held>) {
        self.order(Order::Release(held));
    }

    /// The row of a finished shard is deleted: its lease is not renewed any more.
    pub fn forget(&self, key: LeaseKey) {
        self.order(Order::Forget(key));
    }

    fn order(&self, order: Order) {
        if self.0.send(order).is_err() {
            debug!("the coordinator has ended, dropped an order");
        }
    }
}
