//! Events and handlers.

use std::{borrow::Cow, io};

use billhook_model::{
    BadObjectId, Emitted, EventInfo, Handler, HandlerStatus, LARGEST_EVENT_DATA, LONGEST_OBJECT_ID, Listener,
    ListenerKind, Mode, NewEvent, OwnEvent, TaskKind,
};
use billhook_plugin_api::{
    Hook, Json,
    data::Event,
    json_tree::{JsonKind, JsonTree},
};
use billhook_store::{EventRecord, HandlerChange, StoreError};
use serde::Serialize;

use super::{Host, HostError};
use crate::{
    dispatch::{Forbidden, merged_data},
    events::{BadEventName, BadHandler, EventNames, UnknownEvent, check_handler},
};

/// Why an event, a handler or a delivery can't be had, or had so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// There is no such event.
    #[error(transparent)]
    Unknown(#[from] UnknownEvent),
    /// An event can't be called so.
    #[error(transparent)]
    BadName(#[from] BadEventName),
    /// There is an event of that name.
    #[error("there is an event {name:?} already")]
    EventExists {
        /// The name.
        name: String,
    },
    /// Handlers are attached to the event.
    #[error("{handlers} handler{} attached to {name}", if *handlers == 1 { " is" } else { "s are" })]
    EventInUse {
        /// The name.
        name: String,
        /// How many.
        handlers: usize,
    },
    /// The event's data can't be taken.
    #[error("{event} can't be emitted so: {problem}")]
    Data {
        /// The event.
        event: String,
        /// What is wrong.
        problem: String,
    },
    /// The event's data name no object that there can be.
    #[error(transparent)]
    BadObjectId(#[from] BadObjectId),
    /// Another event was recorded with the id.
    #[error("the id {id} is that of another event, {event}")]
    OtherEvent {
        /// The id.
        id: String,
        /// The other event's name.
        event: String,
    },
    /// There is no event of the operator's own of that name.
    #[error("there is no event {name:?} that was added")]
    NoOwnEvent {
        /// The name.
        name: String,
    },
    /// A before handler forbids it, or stands in the way.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// There can't be such a handler.
    #[error(transparent)]
    BadHandler(#[from] BadHandler),
    /// There is a handler of that name.
    #[error("there is a handler {name:?} already")]
    HandlerExists {
        /// The name.
        name: String,
    },
    /// There is no handler of that name.
    #[error("there is no handler {name:?}")]
    NoHandler {
        /// The name.
        name: String,
    },
    /// The handler has deliveries that are neither done nor dead.
    #[error("the handler {name:?} has {deliveries} deliver{} that {} not done yet",
            if *deliveries == 1 { "y" } else { "ies" }, if *deliveries == 1 { "is" } else { "are" })]
    HandlerInUse {
        /// The name.
        name: String,
        /// How many.
        deliveries: u64,
    },
    /// There is no such delivery.
    #[error("there is no delivery {number}")]
    NoDelivery {
        /// Its number.
        number: i64,
    },
    /// The delivery can't be redriven or discarded as it is.
    #[error("delivery {number} is {status}: {problem}")]
    Delivery {
        /// Its number.
        number: i64,
        /// What became of it so far.
        status: &'static str,
        /// Why not.
        problem: &'static str,
    },
    /// Deliveries can't be started.
    #[error("deliveries can't be started: {0}")]
    Start(#[source] io::Error),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What is kept can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which handlers are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct HandlerFilter {
    /// A part of the name, in whatever case.
    pub name: Option<String>,
    /// The event's name, or an alias of it.
    pub event: Option<String>,
    /// What kind of task it has.
    pub kind: Option<TaskKind>,
    /// The status; without one, enabled and disabled handlers.
    pub status: Option<HandlerStatus>,
}

/// A step of what happens at an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// When: `before`, `hook`, `work` or `after`.
    pub phase: &'static str,
    /// Who: the handler's name, the plugin's id, or the backend.
    pub who: String,
    /// `handler`, `plugin` or `backend`.
    pub kind: &'static str,
    /// What is done.
    pub what: String,
    /// Its place among those of the same phase, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

impl Host {
    /// All events that there are.
    pub fn events(&self) -> Result<Vec<EventInfo>, EventError> {
        Ok(self.event_names()?.all())
    }

    /// Removes an event of the operator's own, unless a handler is attached to it.
    pub fn remove_event(&self, name: &str) -> Result<(), EventError> {
        let is_own = self.shared.stores.handlers.own_events()?.iter().any(|own| own.name == name);
        let handlers = self.shared.stores.handlers.handlers()?.iter().filter(|handler| handler.event == name).count();
        if is_own && handlers > 0 {
            return Err(EventError::EventInUse { name: name.to_owned(), handlers });
        }
        if !self.shared.stores.handlers.remove_event(name)? {
            return Err(EventError::NoOwnEvent { name: name.to_owned() });
        }
        Ok(self.refresh()?)
    }

    /// The event that a name or an alias stands for.
    pub fn event(&self, name: &str) -> Result<EventInfo, EventError> {
        Ok(self.event_names()?.find(name)?)
    }

    pub(super) fn event_names(&self) -> Result<EventNames, EventError> {
        Ok(EventNames::new(self.shared.stores.handlers.own_events()?))
    }

    /// Adds an event of the operator's own: a dotted name.
    pub fn add_event(&self, name: &str, description: &str) -> Result<(), EventError> {
        self.event_names()?.check_new(name)?;
        if description.len() > LONGEST_DESCRIPTION {
            let problem = format!("its description has more than {LONGEST_DESCRIPTION} bytes");
            return Err(BadEventName { name: name.to_owned(), problem }.into());
        }
        if !self.shared.stores.handlers.add_event(&OwnEvent::new(name, description))? {
            return Err(EventError::EventExists { name: name.to_owned() });
        }
        Ok(self.refresh()?)
    }

    /// The event that is meant, as this process knows it or, if it is not known here, as it was just added.
    fn checked<'a>(&self, event: &'a NewEvent) -> Result<Cow<'a, NewEvent>, EventError> {
        let (event, carries_no_data) = match self.shared.dispatcher.listeners().names.carries_no_data(&event.name) {
            Some(carries_no_data) => (Cow::Borrowed(event), carries_no_data),
            None => {
                let info = self.event_names()?.find(&event.name)?;
                self.refresh()?;
                let mut named = event.clone();
                named.name = info.name;
                (Cow::Owned(named), info.carries_no_data)
            }
        };
        let wrong = |problem: String| EventError::Data { event: event.name.clone(), problem };
        let data = event.data.as_str();
        if data.len() > LARGEST_EVENT_DATA {
            return Err(wrong(format!("its data has {} bytes; at most {LARGEST_EVENT_DATA} are taken", data.len())));
        }
        if event.object_id.as_ref().is_some_and(|id| id.as_str().len() > LONGEST_OBJECT_ID) {
            return Err(wrong(format!("its object's id has more than {LONGEST_OBJECT_ID} bytes")));
        }
        if carries_no_data && !is_empty(data) {
            return Err(wrong("this event carries no data".to_owned()));
        }
        Ok(event)
    }

    /// Asks the before handlers of an event, in their order. Answers its data as they left it, or that it must not happen.
    ///
    /// Blocks for as long as the handlers take, each at most until its deadline.
    pub fn before(&self, event: &NewEvent) -> Result<Json<'static>, EventError> {
        let event = self.checked(event)?;
        let listeners = self.shared.dispatcher.listeners();
        let chain = listeners.chain(&event.name);
        let carries_no_data = listeners.names.carries_no_data(&event.name) == Some(true);
        let mut event: Event = event.to_event(1);
        self.shared.dispatcher.phases().before(&chain, &mut event, |event, data| {
            let data = merged_data(event, &data)?;
            if carries_no_data && !is_empty(data.as_str()) {
                return Err("it answered data for an event that carries none".to_owned());
            }
            event.data = data;
            Ok(())
        })?;
        Ok(event.data)
    }

    /// Records that an event happened, and a delivery for each of its after listeners. Durable on return.
    ///
    /// The same event again, by its id, is recorded once. Listeners are told by whoever started deliveries; see
    /// [`Host::start_deliveries`].
    pub fn emit(&self, event: &NewEvent) -> Result<Emitted, EventError> {
        let mut emitted = self.emit_all(std::slice::from_ref(event))?;
        emitted.pop().ok_or_else(|| EventError::Start(io::Error::other("nothing was emitted")))
    }

    /// What was recorded of an event, by its id, and the event as it was recorded; `None` if it wasn't. Who emits an event again
    /// asks this first: its before handlers had their say, and may say something else now. An error if the id is another event's.
    pub fn recorded(&self, event: &NewEvent) -> Result<Option<(Emitted, Event)>, EventError> {
        let Some((emitted, recorded)) = self.shared.stores.ledger.recorded(&event.id)? else { return Ok(None) };
        let name = self.event(&event.name)?.name;
        if recorded.name != name || recorded.object_id != event.object_id {
            return Err(EventError::OtherEvent { id: event.id.clone(), event: recorded.name });
        }
        Ok(Some((emitted, recorded)))
    }

    /// Records several events at once: all of them or none.
    pub fn emit_all(&self, events: &[NewEvent]) -> Result<Vec<Emitted>, EventError> {
        let events = events.iter().map(|event| self.checked(event)).collect::<Result<Vec<_>, _>>()?;
        // As they are after an event that wasn't known here was looked up.
        let listeners = self.shared.dispatcher.listeners();
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let chain = listeners.chain(&event.name);
            let listeners = chain.after.iter().map(|(_, listener)| listener.clone()).collect();
            records.push(EventRecord::new(event.into_owned(), listeners));
        }
        Ok(self.shared.dispatcher.phases().emit(records)?)
    }

    /// Adds a handler.
    pub fn add_handler(&self, handler: &Handler) -> Result<Handler, EventError> {
        let handler = self.checked_handler(handler.clone())?;
        if !self.shared.stores.handlers.add_handler(&handler)? {
            return Err(EventError::HandlerExists { name: handler.name });
        }
        self.refresh()?;
        Ok(handler)
    }

    fn checked_handler(&self, handler: Handler) -> Result<Handler, EventError> {
        check_handler(&handler, self.options.handlers.allowed_hosts.as_deref())?;
        let event = self.event_names()?.find(&handler.event)?;
        Ok(Handler { event: event.name, ..handler })
    }

    /// Changes a handler in one step. What is left of an archived one's deliveries becomes dead letters.
    pub fn set_handler(&self, name: &str, mut change: impl FnMut(&mut Handler)) -> Result<Handler, EventError> {
        let names = self.event_names()?;
        let listener = Listener::new(ListenerKind::Handler, name);
        let deliveries = self.shared.stores.ledger.open_deliveries(&listener)?;
        let allowed = self.options.handlers.allowed_hosts.as_deref();
        let mut refusal = None;
        let mut checked = |mut handler: Handler| -> Result<Handler, EventError> {
            let was = handler.mode;
            let task = handler.task.clone();
            change(&mut handler);
            // One that was allowed once can still be changed, and switched off.
            let is_checked = handler.task != task || handler.status == HandlerStatus::Enabled;
            let allowed = allowed.filter(|_| is_checked);
            if was == Mode::After && handler.mode == Mode::Before && deliveries > 0 {
                return Err(EventError::HandlerInUse { name: name.to_owned(), deliveries });
            }
            // Its deliveries find it by its name.
            name.clone_into(&mut handler.name);
            check_handler(&handler, allowed)?;
            handler.event = names.find(&handler.event)?.name;
            Ok(handler)
        };
        let changed = self
            .shared
            .stores
            .handlers
            .change_handler(name, &mut |handler| checked(handler).map_err(|error| refusal = Some(error)).ok())?;
        let handler = match (changed, refusal) {
            (HandlerChange::Done(handler), _) => *handler,
            (_, Some(refusal)) => return Err(refusal),
            _ => return Err(EventError::NoHandler { name: name.to_owned() }),
        };
        self.refresh()?;
        if handler.status == HandlerStatus::Archived {
            self.shared.stores.ledger.give_up(&listener, "the handler was archived")?;
        }
        Ok(handler)
    }

    /// Removes a handler. Unless it is forced, only one that has no deliveries left; forced, those become dead letters.
    pub fn remove_handler(&self, name: &str, force: bool) -> Result<(), EventError> {
        let none = || EventError::NoHandler { name: name.to_owned() };
        self.shared.stores.handlers.handler(name)?.ok_or_else(none)?;
        let listener = Listener::new(ListenerKind::Handler, name);
        let deliveries = self.shared.stores.ledger.open_deliveries(&listener)?;
        if deliveries > 0 && !force {
            return Err(EventError::HandlerInUse { name: name.to_owned(), deliveries });
        }
        if !self.shared.stores.handlers.remove_handler(name)? {
            return Err(none());
        }
        self.refresh()?;
        // At once, so that a later handler of the same name gets none of them.
        self.shared.stores.ledger.give_up(&listener, "the handler was removed")?;
        Ok(())
    }

    /// A handler.
    pub fn handler(&self, name: &str) -> Result<Handler, EventError> {
        self.shared.stores.handlers.handler(name)?.ok_or_else(|| EventError::NoHandler { name: name.to_owned() })
    }

    /// Handlers, by name.
    pub fn handlers(&self, filter: &HandlerFilter) -> Result<Vec<Handler>, EventError> {
        let event = filter.event.as_deref().map(|name| self.event_names()?.find(name).map_err(EventError::from));
        let event = event.transpose()?.map(|event| event.name);
        let is_asked = |handler: &Handler| {
            let name = filter.name.as_ref().map(|name| name.to_lowercase());
            name.is_none_or(|name| handler.name.to_lowercase().contains(&name))
                && event.as_ref().is_none_or(|event| handler.event == *event)
                && filter.kind.is_none_or(|asked| asked == handler.task.kind())
                && filter.status.map_or(handler.status != HandlerStatus::Archived, |status| handler.status == status)
        };
        Ok(self.shared.stores.handlers.handlers()?.into_iter().filter(is_asked).collect())
    }

    /// Gives a plugin its place among the listeners of an event: lower ones come first.
    pub fn set_priority(&self, id: &str, priority: u32) -> Result<(), HostError> {
        if !self.shared.stores.plugins.set_priority(id, priority)? {
            return Err(HostError::NotInstalled { id: id.to_owned() });
        }
        self.refresh()
    }

    /// What happens at an event, in order: the same in every process and on every node.
    pub fn explain(&self, event: &str, asset_type: Option<&str>) -> Result<Vec<Step>, EventError> {
        self.refresh()?;
        let event = self.event_names()?.find(event)?;
        let listeners = self.shared.dispatcher.listeners();
        let hook: Option<Hook> = event.name.parse().ok();
        let mut steps = Vec::new();
        let before = |hook: &str, steps: &mut Vec<Step>| {
            for handler in &listeners.chain(hook).before {
                steps.push(Step {
                    phase: "before",
                    who: handler.name.clone(),
                    kind: "handler",
                    what: format!("{}: {} (failing {})", hook, handler.task, handler.on_failure),
                    priority: Some(handler.priority),
                });
            }
        };
        let call = |hook: Hook, steps: &mut Vec<Step>| {
            let plugin = asset_type.map(|asset_type| self.shared.dispatcher.plugin_of_type(asset_type, hook));
            let (who, what) = match plugin {
                None => ("the plugin of the asset's type".to_owned(), hook.name().to_owned()),
                Some(Some((id, true))) => (id, hook.name().to_owned()),
                Some(Some((id, false))) => (id, format!("{hook}, which it doesn't implement: nothing")),
                Some(None) => ("no plugin".to_owned(), "the type is refused".to_owned()),
            };
            steps.push(Step { phase: "hook", who, kind: "plugin", what, priority: None });
        };
        let after = |name: &str, steps: &mut Vec<Step>| {
            for (priority, listener) in &listeners.chain(name).after {
                let what = match (listener.kind, listeners.handler(&listener.name)) {
                    (ListenerKind::Handler, Some(handler)) => format!("{name}: {}", handler.task),
                    _ => format!("{name}: on_event"),
                };
                steps.push(Step {
                    phase: "after",
                    who: listener.name.clone(),
                    kind: listener.kind.name(),
                    what,
                    priority: Some(*priority),
                });
            }
        };
        // Of a pair, the whole is shown: a post hook has its pre hook and the backend's work before it.
        let pair = hook.and_then(pair);
        match (hook, pair) {
            (Some(_), Some((pre, post))) => {
                before(pre.name(), &mut steps);
                call(pre, &mut steps);
                let what = "its own work, in an around-function".to_owned();
                steps.push(Step {
                    phase: "work",
                    who: "the backend".to_owned(),
                    kind: "backend",
                    what,
                    priority: None,
                });
                before(post.name(), &mut steps);
                call(post, &mut steps);
                after(pre.name(), &mut steps);
                after(post.name(), &mut steps);
            }
            (Some(hook), None) => {
                before(hook.name(), &mut steps);
                call(hook, &mut steps);
                after(hook.name(), &mut steps);
            }
            (None, _) => {
                before(&event.name, &mut steps);
                let what = "whatever the event is about".to_owned();
                steps.push(Step {
                    phase: "work",
                    who: "the backend".to_owned(),
                    kind: "backend",
                    what,
                    priority: None,
                });
                after(&event.name, &mut steps);
            }
        }
        Ok(steps)
    }
}

/// Descriptions of events are no longer.
const LONGEST_DESCRIPTION: usize = 500;

/// Whether data are the empty object.
fn is_empty(data: &str) -> bool {
    let is_empty = |data: JsonTree<'_>| data.root().kind() == JsonKind::Object && data.root().is_empty();
    data == "{}" || JsonTree::read(data).is_ok_and(is_empty)
}

/// The pre and the post hook of the pair that a hook belongs to.
fn pair(hook: Hook) -> Option<(Hook, Hook)> {
    let pairs = [
        (Hook::OnPreProductSpecValidation, Hook::OnPostProductSpecValidation),
        (Hook::OnPreProductSpecAttachment, Hook::OnPostProductSpecAttachment),
        (Hook::OnPreProductSpecUpgrade, Hook::OnPostProductSpecUpgrade),
        (Hook::OnPreProductOfferingValidation, Hook::OnPostProductOfferingValidation),
    ];
    pairs.into_iter().find(|(pre, post)| [*pre, *post].contains(&hook))
}
