//! To come.
use std::path::PathBuf;
/// Where.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Root.
    pub root: PathBuf,
}
impl Surroundings {
    /// Of this process.
    pub fn of_process() -> Self {
        Self { root: PathBuf::from("/") }
    }
}
/// A gauge.
#[derive(Debug)]
pub struct Gauge;
impl Gauge {
    /// Its name.
    pub fn name(&self) -> &'static str {
        "none"
    }
    /// A sample.
    pub async fn measure(&mut self, _: tokio::time::Instant) -> Option<f64> {
        None
    }
}
/// Finds one.
pub async fn detect(_: &Surroundings) -> Option<Gauge> {
    None
}
