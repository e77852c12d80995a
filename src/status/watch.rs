//! The status endpoint of a process, and of a daemon with one application.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{Instrument as _, info, warn};

use super::server::{Pulse, Server};
use super::{Show, Subject};
use crate::budget::Budget;
use crate::config::{self, Config};
use crate::metrics::board::Board;

/// The status endpoint of a process, if there is one. It stops when this is dropped.
#[derive(Debug)]
pub struct Page {
    _server: Option<Server>,
    _pulse: JoinSet<()>,
}

/// The status endpoint cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error(
    "multilangd.status: failed to listen on {address}: {source} (set another port or address, or off, \
     with --status or MULTILANGD_STATUS)"
)]
pub struct Taken {
    address: SocketAddr,
    source: io::Error,
}

impl Page {
    /// Starts the endpoint, if it is configured. A default port that is in use, probably by another daemon on this
    /// machine, is no error.
    ///
    /// # Errors
    /// An explicitly configured address cannot be listened on.
    pub fn start(status: Option<config::Status>, shown: Arc<dyn Show>) -> Result<Self, Taken> {
        let mut pulse = JoinSet::new();
        let server = match status {
            None => None,
            Some(config::Status { address, asked_for }) => {
                match Server::start(address, shown, Pulse::start(&mut pulse)) {
                    Ok(server) => {
                        let url = format!("http://{}/", server.address());
                        info!(event = "status_page_started", url, "serving the status page");
                        if !address.ip().is_loopback() {
                            warn!(event = "status_page_exposed", %address,
                                "the status page is open to everyone who can reach this address");
                        }
                        Some(server)
                    }
                    Err(source) if asked_for => return Err(Taken { address, source }),
                    Err(error) => {
                        info!(event = "status_page_failed", %address, %error,
                            "failed to start the status page (multilangd.status sets another port)");
                        None
                    }
                }
            }
        };
        Ok(Self { _server: server, _pulse: pulse })
    }
}

/// Observes a daemon. The status endpoint stops when this is dropped.
#[derive(Debug)]
pub struct Watch {
    /// The sink that keeps its state.
    pub board: Arc<Board>,
    /// Limits the record data in its memory.
    pub budget: Arc<Budget>,
    /// The state to be shown.
    pub subject: Subject,
    _page: Page,
    _alarms: JoinSet<()>,
}

impl Watch {
    /// Starts the state and, if configured, the endpoint.
    ///
    /// # Errors
    /// As [`Page::start`].
    pub fn start(config: &Config) -> Result<Self, Taken> {
        let subject = Subject::new(config, Budget::new(config.buffer));
        let mut alarms = JoinSet::new();
        alarms.spawn(subject.clone().watch().in_current_span());
        let page = Page::start(config.status, Arc::new(subject.clone()))?;
        let (board, budget) = (subject.board.clone(), subject.budget.clone());
        Ok(Self { board, budget, subject, _page: page, _alarms: alarms })
    }
}
