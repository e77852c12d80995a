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

/// Why the tables can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only loopback: there is no access control.
    #[error("the embedded DynamoDB listens on loopback addresses only, not on {0} (use 127.0.0.1 or [::1])")]
    NotLoopback(SocketAddr),
    /// The port is somebody else's.
    #[error(
        "failed to listen on {address} for the embedded DynamoDB: {source} (choose another port, or 0 \
         for any free one)"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The database in memory.
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
    /// Serves tables that are kept in `file`, or in memory.
    ///
    /// # Errors
    /// The address or the file can't be used.
    pub async fn start(address: SocketAddr, file: Option<&Path>) -> Result<Self, Error> {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Taken { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Taken { address, source })?;
        let database = match file {
            // This blocks, but nothing of the endpoint runs yet.
            Some(file) => file::open(file)?,
            None => Database::memory().map_err(|error| Error::Database(error.to_string()))?,
        };
        let server = Server::start(listener, |_, _| move |request| http::answer(database.clone(), request));
        Ok(Self { address, server })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops: takes no more connections and lets running calls finish. The file is closed when this returns.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
