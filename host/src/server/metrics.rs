//! Metrics: all that the host counts, for Prometheus; and the last hour of each plugin, for the charts.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use axum::http::Method;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// What the process counted: see [`Metrics::install`].
pub struct Metrics {
    handle: PrometheusHandle,
    activity: Arc<Activity>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Bounds of the buckets of durations, in seconds: from a call in this process to one that times out.
const BUCKETS: [f64; 12] = [1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 10.0];

impl Metrics {
    /// Takes everything that is counted in this process through the `metrics` facade; once in a process. Hosts whose options
    /// say [`observe`](crate::HostOptions::observe) count and time their calls.
    pub fn install() -> Result<Arc<Self>, String> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .map_err(|error| error.to_string())?;
        let prometheus = builder.build_recorder();
        let (handle, activity) = (prometheus.handle(), Arc::new(Activity::default()));
        let both = Both { prometheus, activity: Arc::clone(&activity) };
        metrics::set_global_recorder(both).map_err(|error| error.to_string())?;
        Ok(Arc::new(Metrics { handle, activity }))
    }

    /// All that was counted, in Prometheus's text format.
    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    pub(super) fn keep(&self) {
        self.handle.run_upkeep();
        self.activity.forget_old();
    }

    /// The last hour of each plugin, by its id; one entry a minute, the oldest first.
    pub(super) fn last_hour(&self) -> BTreeMap<String, Vec<Minute>> {
        self.activity.last_hour()
    }
}

/// What a plugin did in a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Minute {
    pub(super) calls: u64,
    pub(super) failures: u64,
    /// Seconds that all calls took, and the longest one.
    pub(super) seconds: f64,
    pub(super) longest: f64,
}

pub(super) const MINUTES: usize = 60;

/// The minutes of plugins, each with its number since 1970.
#[derive(Default)]
struct Activity(Mutex<BTreeMap<String, Arc<Series>>>);

#[derive(Default)]
struct Series(Mutex<BTreeMap<u64, Minute>>);

fn this_minute() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 60
}

impl Activity {
    fn of(&self, plugin: &str) -> Arc<Series> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(plugin) {
            return Arc::clone(series);
        }
        Arc::clone(all.entry(plugin.to_owned()).or_default())
    }

    fn last_hour(&self) -> BTreeMap<String, Vec<Minute>> {
        let last = this_minute();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = all.iter().map(|(plugin, series)| {
            let series = series.0.lock().unwrap_or_else(PoisonError::into_inner);
            let minutes = (0..MINUTES as u64).rev();
            let minutes = minutes.map(|ago| series.get(&(last - ago)).copied().unwrap_or_default());
            (plugin.clone(), minutes.collect())
        });
        hour.filter(|(_, minutes): &(_, Vec<Minute>)| minutes.iter().any(|minute| minute.calls > 0)).collect()
    }

    fn forget_old(&self) {
        let first = this_minute().saturating_sub(MINUTES as u64);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, series| {
            let mut minutes = series.0.lock().unwrap_or_else(PoisonError::into_inner);
            minutes.retain(|minute, _| *minute >= first);
            !minutes.is_empty() || Arc::strong_count(series) > 1
        });
    }
}

impl Series {
    fn note(&self, note: impl FnOnce(&mut Minute)) {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(minutes.entry(this_minute()).or_default());
    }
}

/// Counts calls twice: for Prometheus and for the charts.
struct Both {
    prometheus: PrometheusRecorder,
    activity: Arc<Activity>,
}

fn label<'a>(key: &'a Key, name: &str) -> Option<&'a str> {
    key.labels().find(|label| label.key() == name).map(metrics::Label::value)
}

impl Recorder for Both {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let inner = self.prometheus.register_counter(key, metadata);
        match label(key, "plugin").filter(|_| key.name() == "billhook_calls_total") {
            Some(plugin) => {
                let is_failure = !matches!(label(key, "outcome"), Some("ok" | "refused"));
                Counter::from_arc(Arc::new(Counted { inner, series: self.activity.of(plugin), is_failure }))
            }
            None => inner,
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.prometheus.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let inner = self.prometheus.register_histogram(key, metadata);
        match label(key, "plugin").filter(|_| key.name() == "billhook_call_duration_seconds") {
            Some(plugin) => Histogram::from_arc(Arc::new(Timed { inner, series: self.activity.of(plugin) })),
            None => inner,
        }
    }
}

struct Counted {
    inner: Counter,
    series: Arc<Series>,
    is_failure: bool,
}

impl CounterFn for Counted {
    fn increment(&self, value: u64) {
        self.inner.increment(value);
        self.series.note(|minute| {
            minute.calls += value;
            minute.failures += if self.is_failure { value } else { 0 };
        });
    }

    fn absolute(&self, value: u64) {
        self.inner.absolute(value);
    }
}

struct Timed {
    inner: Histogram,
    series: Arc<Series>,
}

impl HistogramFn for Timed {
    fn record(&self, value: f64) {
        self.inner.record(value);
        self.series.note(|minute| {
            minute.seconds += value;
            minute.longest = minute.longest.max(value);
        });
    }
}

/// The counters of the routes, each looked up once: looking them up costs more than counting.
#[derive(Default)]
pub(super) struct RouteCounters(RwLock<HashMap<Answered, (Counter, Histogram), foldhash::fast::RandomState>>);

/// A method, an operation's path, and the status that was answered.
type Answered = (Method, &'static str, u16);

impl RouteCounters {
    pub(super) fn count(&self, method: &Method, route: Option<&'static str>, status: u16, took: Duration) {
        // Operations and not paths, and no methods that nobody has heard of: there are as many as clients can think of.
        let key = (route.map_or(Method::GET, |_| method.clone()), route.unwrap_or("other"), status);
        let count = |(counter, histogram): &(Counter, Histogram)| {
            counter.increment(1);
            histogram.record(took.as_secs_f64());
        };
        if let Some(counters) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return count(counters);
        }
        let labels =
            [("method", key.0.as_str().to_owned()), ("route", key.1.to_owned()), ("status", key.2.to_string())];
        let counters = (
            metrics::counter!("billhook_http_requests_total", &labels),
            metrics::histogram!("billhook_http_duration_seconds", &labels[..2]),
        );
        count(&counters);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, counters);
    }
}
