//! The server's tasks: one that accepts, one per connection, and those that hyper starts for the
//! streams of an HTTP/2 connection. All are in one set, which the [`Server`] owns and drains.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http;
use super::service::Service;

/// How long running calls may take to finish at the stop.
const GRACE: Duration = Duration::from_secs(5);
/// A pause after a failed accept, which is for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts tasks and keeps them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        set.spawn(task);
        // Those that ended are let go here, so that the set stays as small as what runs.
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all have ended, and ends those that take longer than the grace.
    async fn drain(&self) {
        let mut set = std::mem::take(&mut *self.set());
        let drained = tokio::time::timeout(GRACE, async {
            while !set.is_empty() {
                while let Some(ended) = set.join_next().await {
                    report(ended);
                }
                // Connections may have started tasks for their last calls meanwhile.
                set = std::mem::take(&mut *self.set());
            }
        });
        if drained.await.is_err() {
            tracing::warn!(tasks = set.len(), "calls still ran at the stop and were ended");
            set.shutdown().await;
        }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.start(async move {
            task.await;
        });
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the Kinesis endpoint panicked");
    }
}

/// What every call may need: the state, and the means to start a task of the server.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) service: Arc<Service>,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

/// The running server.
#[derive(Debug)]
pub(super) struct Server {
    stop: CancellationToken,
    tasks: Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.set().abort_all();
    }
}

impl Server {
    pub(super) fn start(listener: TcpListener, service: Arc<Service>) -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::default();
        let site = Site { service, tasks: tasks.clone(), stop: stop.clone() };
        tasks.start(accept(listener, site));
        Self { stop, tasks }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.drain().await;
    }
}

async fn accept(listener: TcpListener, site: Site) {
    loop {
        let accepted = tokio::select! {
            // The stop comes first: no connection is taken that would be closed at once.
            biased;
            () = site.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => site.tasks.start(serve(stream, site.clone())),
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, site: Site) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection keeps its delay");
    }
    let stop = site.stop.clone();
    let mut builder = auto::Builder::new(site.tasks.clone());
    // A Java consumer holds a subscription to every shard on one connection.
    builder.http2().max_concurrent_streams(10_000).initial_stream_window_size(1 << 20);
    builder.http2().initial_connection_window_size(4 << 20);
    let answer = service_fn(move |request| http::answer(site.clone(), request));
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        // The stop comes first; the connection then finishes what it has begun.
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        },
        served = connection.as_mut() => served,
    };
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended early");
    }
}
