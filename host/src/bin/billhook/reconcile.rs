//! `billhook reconcile`

use billhook::{PendingSpec, Reconciled};

use crate::{global::Global, output::Output, progress::Progress};

pub(crate) fn run(global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let progress = Progress::start("bringing the usage API up to date".to_owned());
    let reconciled = host.reconcile();
    drop(progress);
    let reconciled = reconciled?;
    output.answer(&reconciled, text)?;
    if reconciled.pending.is_empty() && reconciled.unsent == 0 {
        return Ok(());
    }
    Err(anyhow::anyhow!(reconciled.failure.unwrap_or_else(|| "not everything could be done".to_owned())))
}

fn text(reconciled: &Reconciled) -> String {
    let Reconciled { created, deleted, pending, sent, unsent, .. } = reconciled;
    let mut lines = vec![format!(
        "usage specifications: {created} made, {deleted} deleted, {} pending; usage records: {sent} sent, {unsent} unsent",
        pending.len()
    )];
    for spec in pending {
        let todo = match spec.pending {
            Some(PendingSpec::Delete) => "to be deleted",
            _ => "to be made",
        };
        let why = spec.failure.as_deref().map(|failure| format!(": {failure}")).unwrap_or_default();
        lines.push(format!("{} {:?} is {todo}{why}", spec.plugin, spec.name));
    }
    lines.join("\n")
}
