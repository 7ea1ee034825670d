//! What to do next about an error, in the words of the command.

use billhook::{DiskTrouble, EventError, HostError, Kept, PluginUses, StoreError, StoreErrorKind, TrialError};

/// What to do next about an event, a handler or a delivery, in a line, where there is something.
pub(crate) fn event_hint(error: &EventError) -> Option<String> {
    Some(match error {
        EventError::Unknown(_) => "listevents shows all; addevent NAME adds one of your own".to_owned(),
        EventError::BadObjectId(_) => "--object ID names it".to_owned(),
        EventError::EventExists { .. } => "listevents shows all".to_owned(),
        EventError::HandlerExists { name } => format!("sethandler {name:?} changes it"),
        EventError::NoHandler { .. } => "listhandlers shows them, and with --status archived the rest".to_owned(),
        EventError::HandlerInUse { name, .. } => {
            format!("listdeliveries --listener {name:?} shows them; --force makes them dead letters")
        }
        EventError::NoDelivery { .. } => "listdeliveries shows them".to_owned(),
        EventError::Forbidden(_) => "nothing was recorded; log shows what the handler answered".to_owned(),
        EventError::EventInUse { name, .. } => format!("listhandlers --event {name} shows them"),
        EventError::Store(error) => return store_hint(error),
        EventError::Host(error) => return hint(error),
        _ => return None,
    })
}

/// What to do about trouble of the disk. What was to be done is done whole or not at all.
pub(crate) fn disk_hint(trouble: DiskTrouble) -> String {
    match trouble {
        DiskTrouble::Full => "make room on that disk, or raise the quota, and run it again: nothing is lost",
        DiskTrouble::ReadOnly => {
            "mount that disk so that it can be written to, or name another folder; reading goes on"
        }
        _ => "look into the system's log (dmesg) before anything else is written to that disk",
    }
    .to_owned()
}

/// What to do next, in a line, where there is something.
pub(crate) fn hint(error: &HostError) -> Option<String> {
    Some(match error {
        HostError::NotInstalled { .. } => "listplugins shows what is installed".to_owned(),
        HostError::SameVersion { .. } => "raise \"version\" in package.json to upgrade".to_owned(),
        HostError::NewerInstalled { id, .. } => format!("downgradeplugin {id} goes back to an older version"),
        HostError::OtherAuthor { .. } | HostError::OtherSpelling { .. } => {
            "--force upgrades nevertheless; another name makes it another plugin".to_owned()
        }
        HostError::InUse { uses, .. } => removal_hint(uses),
        HostError::HasResources { addon, .. } => {
            format!(
                "listresources --addon {addon} shows them; --force removes the plugin nevertheless, and they stay listed"
            )
        }
        HostError::OthersResources { addon, .. } => {
            format!("listresources --addon {addon} shows them; --force hands them over")
        }
        HostError::AddonTaken { plugin, .. } => format!("removeplugin {plugin}, or give this add-on another id"),
        HostError::NoToken { .. } => "token list shows them".to_owned(),
        HostError::Store(error) => return store_hint(error),
        HostError::NotLoadable { .. } => {
            "restart the host, which gives it room, or run the plugin in worker processes: --isolation process"
                .to_owned()
        }
        HostError::Damaged { .. } => {
            "load its package again: that puts the files back, and keeps everything else".to_owned()
        }
        HostError::NoOlderVersion { id, .. } => format!("removeplugin {id} removes it"),
        HostError::SettingsRefused { .. } => {
            "nothing was changed; give it other settings with --settings FILE".to_owned()
        }
        HostError::Trial(TrialError::Start(_)) => {
            "this is not the package's fault; try again, or look with -vv".to_owned()
        }
        HostError::Trial(TrialError::Noexec { .. }) => {
            "this is not the package's fault: mount it without noexec, or name another home with --home".to_owned()
        }
        HostError::Trial(_) => "the plugin's author has to mend this; the host did not load it".to_owned(),
        HostError::ReadOnly { .. } => disk_hint(DiskTrouble::ReadOnly),
        HostError::GroupWritable { .. } => {
            "where the platform gives the group that right at each start, as Kubernetes does, say that it may: --group-writable, or \
             BILLHOOK_GROUP_WRITABLE=1"
                .to_owned()
        }
        HostError::Home { .. } => "--home DIR or BILLHOOK_HOME names another folder".to_owned(),
        _ => return None,
    })
}

/// What to do next about what is kept.
fn store_hint(error: &StoreError) -> Option<String> {
    Some(match (error.kept(), error.kind()) {
        (Kept::Registry, StoreErrorKind::OlderInUse) => {
            "stop the backend and every billhook on this home, and run this again".to_owned()
        }
        (Kept::Registry, StoreErrorKind::Newer) => "use the billhook that made it, or another --home".to_owned(),
        (Kept::Ledger, _) => {
            "if the file is damaged, stop all hosts, keep a copy, and move it away: what it had to deliver is lost then"
                .to_owned()
        }
        (Kept::ExecutionLog, _) => "if the file is damaged, move it away: events are delivered without it".to_owned(),
        _ => return None,
    })
}

/// What to do about each thing that a plugin is needed for, and what force makes of it.
fn removal_hint(uses: &PluginUses) -> String {
    let (mut first, mut forced) = (Vec::new(), Vec::new());
    if uses.assets > 0 {
        first.push("the backend releases its assets".to_owned());
        forced.push("nothing answers for the assets any more".to_owned());
    }
    if uses.unsent_usage > 0 {
        first.push("reconcile sends its usage".to_owned());
        forced.push("the usage records stay and are sent".to_owned());
    }
    if let Some(resources) = &uses.resources {
        first.push(format!("listresources --addon {} shows the resources", resources.addon));
        forced.push("the resources stay listed".to_owned());
    }
    if uses.state.values > 0 {
        first.push("what it keeps is what it knows of its customers".to_owned());
        forced.push(format!("deleting {} for good", uses.state));
    }
    format!("{}; --force removes the plugin nevertheless: {}", first.join("; "), forced.join(", "))
}
