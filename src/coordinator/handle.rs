//! Orders to the coordinator, from the scheduler, the shard sync and the membership.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;

use crate::lease::{Held, LeaseKey, WorkerId, of_stream};
use crate::stream::StreamIdentifier;

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
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    /// The stream of the leases, if they are named as in a table of it alone ([`of_stream`]).
    stream: Option<StreamIdentifier>,
}

impl Handle {
    pub(super) fn new(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { orders, stream: None }
    }

    /// A handle for the part of one of several streams.
    #[must_use]
    pub fn of_stream(&self, stream: &StreamIdentifier) -> Self {
        Self { stream: Some(stream.clone()), ..self.clone() }
    }

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
        let key = self.stream.as_ref().map_or_else(|| key.clone(), |of| of_stream::in_table(&key, of));
        self.order(Order::Forget(key));
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            debug!("the coordinator has ended, dropped an order");
        }
    }
}
