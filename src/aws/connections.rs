//! The connections of subscriptions. Subscriptions are distributed over connections of their own: one with a slow child
//! fills the window of few others, and a connection that hangs is not used again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::http::Http;

/// Most connections for subscriptions. Each has certificates of its own in memory.
const CONNECTIONS: usize = 32;
/// Most subscriptions of a connection before another one is opened: the data that Kinesis may send to them
/// unrequested (2 MB each) fits into the window of the connection (5 MB), so that an unread subscription does
/// not block the other.
const TOGETHER: usize = 2;

/// HTTP stacks, each created when it is first needed.
#[derive(Debug)]
pub(super) struct Connections {
    http: Http,
    /// Most subscriptions of a stack.
    together: usize,
    made: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    http: SharedHttpClient,
    seats: Arc<()>,
}

/// A subscription's place on a connection, until this is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<()>);

impl Connections {
    /// Connections to that endpoint; none for the usual one.
    pub(super) fn to(endpoint: Option<&str>, http: Http) -> Self {
        // HTTP/1 uses a connection for each subscription anyway.
        let together = if is_plain(endpoint) { usize::MAX } else { TOGETHER };
        Self { http, together, made: Mutex::default() }
    }

    /// A stack with room, a new one, or the one with the fewest subscriptions.
    pub(super) fn take(&self) -> (SharedHttpClient, Seat) {
        let mut made = self.lock();
        let users = |connection: &Connection| Arc::strong_count(&connection.seats) - 1;
        let fewest = (0..made.len()).min_by_key(|index| users(&made[*index]));
        let chosen =
            match fewest.filter(|index| users(&made[*index]) < self.together || made.len() == CONNECTIONS) {
                Some(index) => index,
                None => {
                    made.push(Connection { http: self.http.client(), seats: Arc::default() });
                    made.len() - 1
                }
            };
        let connection = &made[chosen];
        (connection.http.clone(), Seat(connection.seats.clone()))
    }

    /// Removes a stack: it gets no further subscriptions, and those that use it keep it.
    pub(super) fn forget(&self, seat: &Seat) {
        self.lock().retain(|connection| !Arc::ptr_eq(&connection.seats, &seat.0));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the endpoint is plain HTTP, and so HTTP/1.
fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct() -> Http {
        Http::new(&crate::config::sdk::network::Network::default()).unwrap()
    }

    #[test]
    fn two_subscriptions_share_a_connection_up_to_the_limit() {
        let connections = Connections::to(None, direct());
        let mut seats: Vec<Seat> = (0..CONNECTIONS * TOGETHER).map(|_| connections.take().1).collect();
        assert_eq!(connections.lock().len(), CONNECTIONS);
        assert!(
            connections.lock().iter().all(|connection| Arc::strong_count(&connection.seats) == 1 + TOGETHER)
        );
        seats.push(connections.take().1);
        assert_eq!(connections.lock().len(), CONNECTIONS, "one more on one of them");
        seats.truncate(1);
        let (_, seat) = connections.take();
        assert!(!Arc::ptr_eq(&seat.0, &seats[0].0), "the one with the fewest");
    }

    #[test]
    fn plain_http_uses_one_stack() {
        let connections = Connections::to(Some("http://127.0.0.1:4567"), direct());
        let _seats: Vec<Seat> = (0..9).map(|_| connections.take().1).collect();
        assert_eq!(connections.lock().len(), 1);
    }

    #[test]
    fn hanging_connection_is_not_used_again() {
        let connections = Connections::to(None, direct());
        let (_, first) = connections.take();
        connections.forget(&first);
        let (_, second) = connections.take();
        assert!(!Arc::ptr_eq(&first.0, &second.0));
        connections.forget(&first);
        assert_eq!(connections.lock().len(), 1, "another has its place by now");
    }
}
