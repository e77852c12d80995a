//! The embedded DynamoDB: `dynoxide` on SQLite, on loopback, in this process.

mod file;
mod http;

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use dynoxide::Database;
use tokio::net::TcpListener;

use super::kinesis::DataError;
use super::server::Server;

/// Why the tables cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not loopback, which is required because there is no access control.
    #[error("the embedded DynamoDB listens on loopback addresses only, not on {0} (use 127.0.0.1 or [::1])")]
    NotLoopback(SocketAddr),
    /// The port is in use.
    #[error(
        "failed to listen on {address} for the embedded DynamoDB: {source} (choose another port, or 0 \
         for any free one)"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// The error.
        source: io::Error,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The database in memory failed.
    #[error("failed to open the embedded DynamoDB: {0}")]
    Database(String),
}

/// A running DynamoDB endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Tables {
    address: SocketAddr,
    server: Server,
}

impl Tables {
    /// Serves tables that are stored in `file`, or in memory.
    ///
    /// # Errors
    /// The address or the file cannot be used.
    pub async fn start(address: SocketAddr, file: Option<&Path>) -> Result<Self, Error> {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Taken { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Taken { address, source })?;
        let database = match file {
            // This blocks, but no part of the endpoint runs yet.
            Some(file) => file::open(file)?,
            None => Database::memory().map_err(|error| Error::Database(error.to_string()))?,
        };
        let server = Server::start(listener, |_, _| move |request| http::answer(database.clone(), request));
        Ok(Self { address, server })
    }

    /// The URL of the endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops: accepts no more connections and lets calls in progress finish. The file is closed when this
    /// returns.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
