//! `billhook listdeliveries`

use billhook::{Delivery, DeliveryFilter, DeliveryStatus};

use crate::{
    choice::choice,
    global::Global,
    output::{Output, rows},
    search::{at_most, named, unheard},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The status
    #[arg(long, value_name = "STATUS", value_parser = choice::<DeliveryStatus>())]
    status: Option<DeliveryStatus>,
    /// The event's name
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// The handler's name or the plugin's id
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The object's id
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// At most so many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let filter = DeliveryFilter {
        event: arguments.event.as_deref().map(|event| named(&host, event)).transpose()?,
        listener: arguments.listener.clone(),
        object: arguments.object.clone(),
        limit: at_most(arguments.limit),
        status: arguments.status,
        ..DeliveryFilter::default()
    };
    let deliveries = host.deliveries(&filter)?;
    if let Some(listener) = arguments.listener.as_deref().filter(|_| deliveries.is_empty()) {
        output.note("note", &unheard(&host, listener)?);
    }
    let terminal = output.is_terminal();
    if terminal && deliveries.is_empty() {
        return output.text("there is no such delivery");
    }
    if deliveries.len() == arguments.limit {
        output.note("note", &format!("these are the newest {}; --limit 0 shows all", arguments.limit));
    }
    output.answer(&deliveries, |deliveries| {
        let cells = |delivery: &Delivery| {
            let object = delivery.object_id.as_ref().map(ToString::to_string).unwrap_or_default();
            vec![
                delivery.number.to_string(),
                delivery.event.clone(),
                object,
                delivery.listener.clone(),
                delivery.status.to_string(),
                delivery.attempts.to_string(),
                delivery.problem.clone().unwrap_or_default(),
            ]
        };
        let titles = ["Delivery", "Event", "Object", "Listener", "Status", "Attempts", "Problem"];
        rows(terminal, &titles, deliveries.iter().map(cells))
    })
}
