//! `billhook emit EVENT --data FILE`

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use billhook::{Delivery, DeliveryFilter, DeliveryStatus, EventError, Host, Json, NewEvent, data::ObjectId};
use serde::Serialize;

use crate::{global::Global, inputs::read_text, output::Output, times::milliseconds};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The event, as listevents shows it
    #[arg(value_name = "EVENT")]
    event: String,
    /// What is known about the object, a JSON file; empty if left out
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The object's id; if left out, the "id" of the data
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    object: Option<String>,
    /// Leave the deliveries to a running host
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the first attempts
    #[arg(long, value_name = "TIME", value_parser = milliseconds, default_value = "60s")]
    timeout: u64,
}

#[derive(Serialize)]
struct Answer {
    id: String,
    deliveries: Vec<Delivery>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let mut event = NewEvent::new(&arguments.event);
    if let Some(path) = &arguments.data {
        let data = Json::new(read_text(path)?).with_context(|| format!("{} is no JSON", path.display()))?;
        event = event.with_data(data);
    }
    if let Some(object) = &arguments.object {
        event = event.about(ObjectId::typed(object));
    } else {
        event = event.about_own_id().map_err(EventError::from)?;
        if event.object_id.is_none() && arguments.data.is_some() {
            output.note("note", "the data have no \"id\": the event is about no object");
        }
    }
    let host = global.host()?;
    event.data = host.before(&event)?;
    let emitted = host.emit(&event)?;
    // At once: whatever comes between now and the end, the event is recorded.
    if !output.is_json() {
        output.text(&format!("emitted {}", emitted.id))?;
    }
    if !arguments.no_wait && !emitted.deliveries.is_empty() {
        host.start_deliveries()?;
        wait(&host, &emitted.id, Duration::from_millis(arguments.timeout))?;
        host.stop_deliveries(Duration::from_millis(arguments.timeout));
    }
    // Each as it is shown: with what it waits for.
    let all = deliveries(&host, &emitted.id)?;
    let shown = all.iter().map(|delivery| Ok(host.delivery(delivery.number)?.0));
    let answer = Answer { deliveries: shown.collect::<anyhow::Result<_>>()?, id: emitted.id };
    let (_, waiting) = host.deliveries_left()?;
    output.answer(&answer, |answer| text(answer, arguments.no_wait, &waiting))
}

fn deliveries(host: &Host, id: &str) -> anyhow::Result<Vec<Delivery>> {
    let filter = DeliveryFilter { event_id: Some(id.to_owned()), ..DeliveryFilter::default() };
    let deliveries = host.deliveries(&filter)?;
    Ok(deliveries.into_iter().rev().collect())
}

/// Nothing is waited for when nothing happened for so long: a listener may take nothing now, or an earlier delivery of the same
/// object waits for its next attempt.
const QUIET: Duration = Duration::from_secs(5);

/// Waits until each delivery was attempted.
fn wait(host: &Host, id: &str, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let mut active = Instant::now();
    loop {
        let all = deliveries(host, id)?;
        let was_attempted = |delivery: &Delivery| {
            let is_open = matches!(delivery.status, DeliveryStatus::Waiting | DeliveryStatus::Running);
            delivery.attempts > 0 || !is_open
        };
        for delivery in all.iter().filter(|delivery| !was_attempted(delivery)) {
            let (delivery, ..) = host.delivery(delivery.number)?;
            let first = delivery.waits_for.map(|number| host.delivery(number)).transpose()?.map(|(first, ..)| first);
            if first.unwrap_or(delivery).status == DeliveryStatus::Running {
                active = Instant::now();
            }
        }
        if all.iter().all(was_attempted) || active.elapsed() > QUIET || Instant::now() >= deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn text(answer: &Answer, left_to_others: bool, waiting: &[String]) -> String {
    let mut lines = Vec::new();
    for delivery in &answer.deliveries {
        let Delivery { number, listener, status, attempts, problem, .. } = delivery;
        let outcome = match (problem, attempts, status) {
            (Some(problem), _, DeliveryStatus::Dead) => format!("dead: {problem}"),
            (Some(problem), ..) => format!("failed, and is tried again by a running host: {problem}"),
            (None, _, DeliveryStatus::Running) => "cut off here, and attempted again by a running host".to_owned(),
            (None, 0, DeliveryStatus::Waiting) if left_to_others => "waits for a running host".to_owned(),
            (None, 0, DeliveryStatus::Waiting) => match delivery.waits_for {
                Some(earlier) => format!("waits for delivery {earlier}, of the same object"),
                None if waiting.contains(listener) => "waits: the listener takes nothing now".to_owned(),
                None => "not attempted yet, and left to a running host".to_owned(),
            },
            _ => status.to_string(),
        };
        lines.push(format!("delivery {number} to {} {listener}: {outcome}", delivery.kind.name()));
    }
    if answer.deliveries.is_empty() {
        lines.push("nobody listens to it now".to_owned());
    }
    lines.join("\n")
}
