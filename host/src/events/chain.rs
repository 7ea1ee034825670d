//! Who listens to an event, and in which order: the same on every node.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use billhook_model::{Handler, HandlerStatus, Listener, ListenerKind, Mode};
use billhook_plugin_api::HookSet;

use super::names::{EventNames, hooks};

/// A plugin that listens.
#[derive(Debug, Clone)]
pub(crate) struct ListeningPlugin {
    pub(crate) id: String,
    pub(crate) priority: u32,
    pub(crate) events: Vec<String>,
}

/// The listeners of one event.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// By (priority, name).
    pub(crate) before: Vec<Arc<Handler>>,
    /// By (priority, name, kind).
    pub(crate) after: Vec<(u32, Listener)>,
}

/// All listeners of all events. Immutable: a change makes another.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) names: EventNames,
    chains: HashMap<String, Arc<Chain>>,
    handlers: BTreeMap<String, Arc<Handler>>,
    /// The bits of the hooks whose calls anybody listens to.
    hooks: HookSet,
}

impl Listeners {
    pub(crate) fn new(names: EventNames, handlers: Vec<Handler>, plugins: Vec<ListeningPlugin>) -> Self {
        let handlers: BTreeMap<String, Arc<Handler>> =
            handlers.into_iter().map(|handler| (handler.name.clone(), Arc::new(handler))).collect();
        let mut chains: HashMap<String, Chain> = HashMap::new();
        for handler in handlers.values().filter(|handler| handler.status == HandlerStatus::Enabled) {
            let chain = chains.entry(handler.event.clone()).or_default();
            if handler.mode == Mode::Before {
                chain.before.push(Arc::clone(handler));
            } else {
                let listener = Listener::new(ListenerKind::Handler, handler.name.clone());
                chain.after.push((handler.priority, listener));
            }
        }
        for plugin in plugins {
            for event in plugin.events {
                let Ok(event) = names.find(&event) else { continue };
                let listener = Listener::new(ListenerKind::Plugin, plugin.id.clone());
                let chain = chains.entry(event.name).or_default();
                if !chain.after.iter().any(|(_, known)| *known == listener) {
                    chain.after.push((plugin.priority, listener));
                }
            }
        }
        for chain in chains.values_mut() {
            chain.before.sort_by(|left, right| (left.priority, &left.name).cmp(&(right.priority, &right.name)));
            chain.after.sort_by(by_priority_name_and_kind);
        }
        let hooks = hooks().filter(|hook| chains.contains_key(hook.name())).collect();
        let chains = chains.into_iter().map(|(event, chain)| (event, Arc::new(chain))).collect();
        Listeners { names, chains, handlers, hooks }
    }

    /// The hooks whose calls anybody listens to.
    pub(crate) fn hooks(&self) -> HookSet {
        self.hooks
    }

    pub(crate) fn chain(&self, event: &str) -> Arc<Chain> {
        self.chains.get(event).map(Arc::clone).unwrap_or_default()
    }

    pub(crate) fn handler(&self, name: &str) -> Option<&Arc<Handler>> {
        self.handlers.get(name)
    }
}

fn by_priority_name_and_kind(left: &(u32, Listener), right: &(u32, Listener)) -> Ordering {
    let key = |entry: &(u32, Listener)| (entry.0, entry.1.name.clone(), entry.1.kind);
    key(left).cmp(&key(right))
}

#[cfg(test)]
mod tests {
    use billhook_model::Task;

    use super::*;

    #[test]
    fn the_order_of_listeners_depends_on_nothing_but_priority_name_and_kind() {
        let handler = |name: &str, mode, priority| Handler {
            mode,
            priority,
            ..Handler::new(name, "clients.create", Task::Http("http://a.example/".into()))
        };
        let plugin = |id: &str, priority| ListeningPlugin {
            id: id.to_owned(),
            priority,
            // An alias, and the same event twice.
            events: vec!["Clients create".to_owned(), "clients.create".to_owned(), "no.such".to_owned()],
        };
        let mut handlers = vec![
            handler("b", Mode::After, 100),
            handler("a", Mode::After, 100),
            handler("z", Mode::After, 1),
            handler("y", Mode::Before, 2),
            handler("x", Mode::Before, 2),
            handler("w", Mode::Before, 1),
            Handler { status: HandlerStatus::Disabled, ..handler("v", Mode::After, 1) },
        ];
        let mut plugins = vec![plugin("b", 100), plugin("aa", 100), plugin("m", 5)];
        for _ in 0..handlers.len() {
            handlers.rotate_left(1);
            plugins.rotate_left(1);
            let listeners = Listeners::new(EventNames::default(), handlers.clone(), plugins.clone());
            let chain = listeners.chain("clients.create");
            let before: Vec<&str> = chain.before.iter().map(|handler| handler.name.as_str()).collect();
            assert_eq!(before, ["w", "x", "y"]);
            let after: Vec<String> =
                chain.after.iter().map(|(_, listener)| format!("{} {}", listener.kind.name(), listener.name)).collect();
            assert_eq!(after, ["handler z", "plugin m", "handler a", "plugin aa", "handler b", "plugin b"]);
        }
    }
}
