//! `billhook listevents`

use billhook::EventInfo;

use crate::{
    global::Global,
    output::{Output, rows},
};

pub(crate) fn run(global: &Global, output: &Output) -> anyhow::Result<()> {
    // Also where there is no home: most events are there without one.
    let events = match global.existing_host()? {
        Some(host) => host.events()?,
        None => billhook::standard_events(),
    };
    let terminal = output.is_terminal();
    output.answer(&events, |events| {
        let cells = |event: &EventInfo| {
            let about = event.alias.clone().unwrap_or_else(|| event.description.clone());
            vec![event.name.clone(), event.kind.to_string(), about]
        };
        rows(terminal, &["Event", "Kind", "About"], events.iter().map(cells))
    })
}
