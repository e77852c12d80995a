//! Counts the events of each level that are logged on this thread, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

#[derive(Clone, Default)]
pub(super) struct Logged(Arc<Mutex<BTreeMap<String, usize>>>);

impl<S: Subscriber> Layer<S> for Logged {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("multilangd") {
            *self.0.lock().unwrap().entry(event.metadata().level().to_string()).or_default() += 1;
        }
    }
}

impl Logged {
    /// Counts until the guard is dropped.
    pub(super) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        // With a single dispatcher, tracing caches the interest of the thread that first reaches a call site,
        // which may run another test.
        static OTHER: OnceLock<Dispatch> = OnceLock::new();
        OTHER.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
        let this = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(this.clone()));
        (this, guard)
    }

    /// The numbers of warnings and of infos.
    pub(super) fn counts(&self) -> (usize, usize) {
        let counts = self.0.lock().unwrap();
        let of = |level: Level| counts.get(level.as_str()).copied().unwrap_or_default();
        (of(Level::WARN), of(Level::INFO))
    }
}
