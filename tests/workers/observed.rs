//! What is counted.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use billhook::Host;
use serde_json::json;

use super::{Rogue, does, runtime};
use crate::support::options;

/// Keeps what is counted, by name and labels.
#[derive(Default)]
struct Recorder(std::sync::Mutex<BTreeMap<String, std::sync::Arc<AtomicU64>>>);

impl Recorder {
    fn of(&self, key: &metrics::Key) -> std::sync::Arc<AtomicU64> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        std::sync::Arc::clone(self.0.lock().expect("no panic").entry(name).or_default())
    }

    fn value(&self, name: &str) -> u64 {
        self.0.lock().expect("no panic").get(name).map_or(0, |value| value.load(Ordering::Relaxed))
    }
}

/// How often something was recorded.
struct Times(std::sync::Arc<AtomicU64>);

impl metrics::HistogramFn for Times {
    fn record(&self, seconds: f64) {
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::from_arc(std::sync::Arc::new(Times(self.of(key))))
    }
}

#[test]
fn calls_refusals_crashes_and_time_outs_are_counted_where_the_host_is_asked_to() {
    let rogue = Rogue::new();
    let observing = Host::open_with(rogue.home.path(), options().observe(true)).expect("opens");
    let mut settings = runtime();
    settings["deadline_ms"] = json!(1_000);
    rogue.run_so(&settings);
    let recorder = Recorder::default();
    metrics::with_local_recorder(&recorder, || {
        rogue.pid();
        let counted = recorder.0.lock().expect("no panic").len();
        assert_eq!(counted, 0, "nobody asked this host to count");
        observing.refresh().expect("readable");
        for (deed, what) in [("pid", ""), ("pid", ""), ("refuse", ""), ("panic", ""), ("sleep", "60000"), ("abort", "")]
        {
            let _ = does(&observing, deed, what);
        }
        rogue.home.run(&["disableplugin", "rogue"]).succeeded();
        observing.refresh().expect("readable");
        does(&observing, "pid", "").expect_err("disabled");
    });
    let hook = "plugin=rogue hook=on_product_acquisition";
    for (outcome, expected) in [("ok", 2), ("refused", 1), ("failed", 1), ("unknown", 2), ("unavailable", 1)] {
        assert_eq!(recorder.value(&format!("billhook_calls_total {hook} outcome={outcome}")), expected, "{outcome}");
    }
    assert_eq!(recorder.value(&format!("billhook_call_duration_seconds {hook}")), 6);
    assert_eq!(recorder.value(&format!("billhook_timeouts_total {hook}")), 1);
    assert_eq!(recorder.value("billhook_worker_crashes_total plugin=rogue"), 1);
}
