//! The HTTP server of a local endpoint. Its tasks are one that accepts, one for each connection, and those
//! that hyper starts for the streams of an HTTP/2 connection. The [`Server`] owns all of them in one set and
//! drains it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long calls in progress may take to finish at the stop.
const GRACE: Duration = Duration::from_secs(5);
/// The pause after a failed accept, which is usually caused by a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts tasks and keeps their handles.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        set.spawn(task);
        // Removes finished tasks, so that the set stays as small as the number of running ones.
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all tasks have ended, and aborts those that exceed the grace period.
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
            tracing::warn!(tasks = set.len(), "aborted requests that were still running at shutdown");
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
        tracing::error!(%error, "a task of a local endpoint panicked");
    }
}

/// A running server.
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
    /// Serves on a listener. `prepare` makes the service from the means to start tasks and the stop token.
    pub(super) fn start<A, F, B>(
        listener: TcpListener,
        prepare: impl FnOnce(&Tasks, &CancellationToken) -> A,
    ) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, B::Error>> + Send + 'static,
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let tasks = Tasks::default();
        let answer = prepare(&tasks, &stop);
        tasks.start(accept(listener, answer, tasks.clone(), stop.clone()));
        Self { stop, tasks }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.drain().await;
    }
}

async fn accept<A, F, B>(listener: TcpListener, answer: A, tasks: Tasks, stop: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, B::Error>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            // The stop comes first, so that no connection is accepted only to be closed.
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => tasks.start(serve(stream, answer.clone(), tasks.clone(), stop.clone())),
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<A, F, B>(stream: TcpStream, answer: A, tasks: Tasks, stop: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, B::Error>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let mut builder = auto::Builder::new(tasks);
    // A Java consumer opens the subscriptions to all shards on one connection.
    builder.http2().max_concurrent_streams(10_000).initial_stream_window_size(1 << 20);
    builder.http2().initial_connection_window_size(4 << 20);
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        // The stop comes first; the connection then finishes the calls in progress.
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        },
        served = connection.as_mut() => served,
    };
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended unexpectedly");
    }
}
