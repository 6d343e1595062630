//! What of the configuration may change while requests are under way: each ends with what it began
//! with.

use crate::{
    config::Config,
    deadline::Deadlines,
    forward::body::{CaptureContext, CaptureLimits},
    metrics::WorkerMetrics,
};
use arc_swap::{ArcSwap, Cache};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Of all workers; replaced as a whole.
#[derive(Debug)]
pub struct Settings {
    pub config: Arc<Config>,
    pub captures: Arc<CaptureLimits>,
}

/// As one worker uses them.
pub struct WorkerSettings {
    pub shared: Arc<Settings>,
    pub captures: Rc<CaptureContext>,
    pub in_flight_max: usize,
    /// Whether there is more than one caller, so that none may hold all places.
    pub has_callers: bool,
}

/// The settings that a request of now begins with.
pub struct LatestSettings(RefCell<(SettingsCache, Rc<WorkerSettings>)>);

type SettingsCache = Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>;

impl Settings {
    pub fn new(config: &Arc<Config>) -> Self {
        let captures = CaptureLimits::new(&config.replay, &config.limits);
        Self { config: config.clone(), captures }
    }

    /// The same with another configuration.
    pub fn next(&self, config: &Arc<Config>) -> Self {
        let captures = self.captures.next(&config.replay, &config.limits);
        Self { config: config.clone(), captures }
    }
}

impl WorkerSettings {
    fn new(
        shared: Arc<Settings>,
        deadlines: Rc<Deadlines>,
        metrics: Arc<WorkerMetrics>,
    ) -> Rc<Self> {
        let config = &shared.config;
        let limits = shared.captures.clone();
        Rc::new(Self {
            captures: Rc::new(CaptureContext { limits, deadlines, metrics }),
            in_flight_max: config.limits.in_flight_max.div_ceil(config.proxy.workers),
            has_callers: config.callers.len() > 1 || !config.issuers.is_empty(),
            shared,
        })
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }
}

impl LatestSettings {
    pub fn new(
        latest: &Arc<ArcSwap<Settings>>,
        deadlines: &Rc<Deadlines>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let mut cache = Cache::new(latest.clone());
        let shared = cache.load().clone();
        let settings = WorkerSettings::new(shared, deadlines.clone(), metrics.clone());
        Self(RefCell::new((cache, settings)))
    }

    /// Costs one load where nothing has changed.
    pub fn load(&self) -> Rc<WorkerSettings> {
        let (cache, own) = &mut *self.0.borrow_mut();
        let latest = cache.load();
        if !Arc::ptr_eq(latest, &own.shared) {
            let CaptureContext { deadlines, metrics, .. } = &*own.captures;
            *own = WorkerSettings::new(latest.clone(), deadlines.clone(), metrics.clone());
        }
        own.clone()
    }
}
