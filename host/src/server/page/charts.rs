//! The last hour of each plugin, as bars of a minute each.

use crate::server::{
    metrics::{MINUTES, Minute},
    state::App,
};

/// What a plugin did in the last hour.
pub(super) struct PluginHour {
    pub(super) plugin: String,
    pub(super) is_installed: bool,
    pub(super) calls: u64,
    pub(super) failures: u64,
    /// The mean of all calls, and the longest one.
    pub(super) mean: String,
    pub(super) longest: String,
    pub(super) charts: Vec<Chart>,
}

/// A chart: bars in a field of [`WIDTH`] by [`HEIGHT`].
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What it shows, in a class of the style sheet.
    pub(super) kind: &'static str,
    /// What the whole height stands for.
    pub(super) most: String,
    pub(super) bars: Vec<Bar>,
}

/// A minute.
pub(super) struct Bar {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) height: usize,
    pub(super) label: String,
}

/// Units of a bar, and of the field.
pub(super) const BAR: usize = 4;
pub(super) const WIDTH: usize = BAR * MINUTES;
pub(super) const HEIGHT: usize = 48;

fn seconds(value: f64) -> String {
    super::texts::took((value * 1e6) as u64)
}

fn chart(
    title: &'static str,
    kind: &'static str,
    minutes: &[Minute],
    value: fn(&Minute) -> f64,
    text: fn(f64) -> String,
) -> Chart {
    let most = minutes.iter().map(value).fold(0.0, f64::max);
    let bar = |(index, minute): (usize, &Minute)| {
        let value = value(minute);
        if value <= 0.0 {
            return None;
        }
        // What is there is seen, however little it is beside the rest.
        let height = ((value / most * HEIGHT as f64).round() as usize).clamp(1, HEIGHT);
        let ago = MINUTES - 1 - index;
        let when = if ago == 0 { "this minute".to_owned() } else { format!("{ago} min ago") };
        Some(Bar { x: index * BAR, y: HEIGHT - height, height, label: format!("{when}: {}", text(value)) })
    };
    Chart { title, kind, most: text(most), bars: minutes.iter().enumerate().filter_map(bar).collect() }
}

/// All plugins that were called in the last hour.
pub(super) fn last_hour(app: &App, is_installed: impl Fn(&str) -> bool) -> Vec<PluginHour> {
    let Some(metrics) = &app.metrics else { return Vec::new() };
    let count: fn(f64) -> String = |value| format!("{value:.0}");
    let hour = |(plugin, minutes): (String, Vec<Minute>)| {
        let calls = minutes.iter().map(|minute| minute.calls).sum();
        let failures = minutes.iter().map(|minute| minute.failures).sum();
        let all: f64 = minutes.iter().map(|minute| minute.seconds).sum();
        let longest = minutes.iter().map(|minute| minute.longest).fold(0.0, f64::max);
        let mean = |minute: &Minute| minute.seconds / (minute.calls.max(1) as f64);
        let charts = vec![
            chart("Calls a minute", "calls", &minutes, |minute| minute.calls as f64, count),
            chart("Failures a minute", "failures", &minutes, |minute| minute.failures as f64, count),
            chart("Mean duration", "durations", &minutes, mean, seconds),
        ];
        let mean = seconds(all / f64::max(1.0, calls as f64));
        PluginHour {
            is_installed: is_installed(&plugin),
            plugin,
            calls,
            failures,
            mean,
            longest: seconds(longest),
            charts,
        }
    };
    metrics.last_hour().into_iter().map(hour).collect()
}
