//! The names of events: those of the client, account and package events of JeraSoft's Provisioning API, one for each hook, and
//! the operator's own.

use std::collections::BTreeMap;

use billhook_model::{EventInfo, EventKind, OwnEvent};
use billhook_plugin_api::Hook;

/// A built-in event: id, the name in the manual of the Provisioning API, and whether its data is documented as empty.
const BUILT_IN: [(&str, &str, bool); 18] = [
    ("clients.create", "clients create", false),
    ("clients.update", "clients update", false),
    ("clients.archive", "clients archive", true),
    ("clients.delete", "clients delete", true),
    ("clients.balance_zero", "clients balance became <=0", true),
    ("clients.balance_notzero", "clients balance became >=0", true),
    ("clients.custom_fields.update", "clients custom fields update", false),
    ("clients.accounts.create", "accounts create", false),
    ("clients.accounts.update", "accounts update", false),
    ("clients.accounts.delete", "accounts delete", true),
    ("clients.subscriptions.assign", "clients packages assign", false),
    ("clients.subscriptions.activate", "clients packages activate", false),
    ("clients.subscriptions.deactivate", "clients packages deactivate", false),
    ("clients.subscriptions.renew", "clients packages renew", false),
    ("clients.subscriptions.close", "clients packages close", false),
    ("email_rates_manager.import", "", false),
    ("importd.process_success", "", false),
    ("importd.process_failed", "", false),
];

/// A name that is no event's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no event {name:?}; the nearest is {nearest:?}")]
pub struct UnknownEvent {
    /// The name.
    pub name: String,
    /// The event whose name is most like it.
    pub nearest: String,
}

/// A name that an event can't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} can't be the name of an event: {problem}")]
pub struct BadEventName {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// All events that there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventNames {
    /// The operator's own, with what they are about.
    own: BTreeMap<String, String>,
}

/// Names of events are no longer.
const LONGEST: usize = 128;

/// Returns the events that every home has: built-in ones and hooks.
pub fn standard_events() -> Vec<EventInfo> {
    EventNames::new([]).all()
}

impl EventNames {
    pub(crate) fn new(own: impl IntoIterator<Item = OwnEvent>) -> Self {
        EventNames { own: own.into_iter().map(|event| (event.name, event.description)).collect() }
    }

    /// All events: built-in ones, hooks, and the operator's own, each kind by name.
    pub(crate) fn all(&self) -> Vec<EventInfo> {
        let built_in = BUILT_IN.iter().map(|(name, alias, carries_no_data)| {
            let mut event = EventInfo::new(*name, EventKind::BuiltIn, "");
            event.alias = (!alias.is_empty()).then(|| (*alias).to_owned());
            event.carries_no_data = *carries_no_data;
            event
        });
        let hooks = hooks().map(|hook| EventInfo::new(hook.name(), EventKind::Hook, "a call of this hook"));
        let own = self.own.iter().map(|(name, description)| EventInfo::new(name, EventKind::Own, description));
        built_in.chain(hooks).chain(own).collect()
    }

    /// Whether an event of exactly this name carries no data; `None` if there is none. What every event that is emitted is asked.
    pub(crate) fn carries_no_data(&self, name: &str) -> Option<bool> {
        let built_in = BUILT_IN.iter().find(|(known, ..)| *known == name).map(|(.., empty)| *empty);
        built_in.or_else(|| (self.own.contains_key(name) || hooks().any(|hook| hook.name() == name)).then_some(false))
    }

    /// The event that a name or an alias stands for.
    pub(crate) fn find(&self, name: &str) -> Result<EventInfo, UnknownEvent> {
        let all = self.all();
        if let Some(found) = all.iter().find(|event| event.name == name) {
            return Ok(found.clone());
        }
        // Likeness costs the product of two lengths, and no event's name is so long.
        let end = name.char_indices().nth(LONGEST).map_or(name.len(), |(at, _)| at);
        let name = &name[..end];
        let plain = normal(name);
        let is_meant = |event: &&EventInfo| {
            event.name == plain || event.alias.as_deref().is_some_and(|alias| normal(alias) == plain)
        };
        if let Some(found) = all.iter().find(is_meant) {
            return Ok(found.clone());
        }
        let likeness = |event: &EventInfo| {
            let alias = event.alias.as_deref().map_or(0.0, |alias| strsim::jaro_winkler(&normal(alias), &plain));
            strsim::jaro_winkler(&event.name, &plain).max(alias)
        };
        let nearest = all.iter().max_by(|left, right| likeness(left).total_cmp(&likeness(right)));
        let nearest = nearest.map(|event| event.name.clone()).unwrap_or_default();
        Err(UnknownEvent { name: name.chars().take(LONGEST).collect(), nearest })
    }

    /// Whether a name can be that of a new event.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), BadEventName> {
        let wrong = |problem: &str| {
            let name = name.chars().take(LONGEST).collect();
            Err(BadEventName { name, problem: problem.to_owned() })
        };
        if name.len() > LONGEST {
            return wrong("it has more than 128 characters");
        }
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        if name.parse::<Hook>().is_ok() {
            return wrong("it is a hook");
        }
        if name.split('.').count() < 2 || !name.split('.').all(is_part) {
            return wrong("write it as parts with dots between them, of a-z, 0-9 and _, such as \"tickets.create\"");
        }
        if BUILT_IN.iter().any(|(known, ..)| *known == name) {
            return wrong("it is built in");
        }
        Ok(())
    }
}

/// The hooks whose calls are events: all but the one that events are delivered by, and what is only asked to let somebody in.
pub(crate) fn hooks() -> impl Iterator<Item = Hook> {
    let isnt_event = |hook| matches!(hook, Hook::OnEvent | Hook::AddonCredentials | Hook::AddonSingleSignOn);
    Hook::ALL.iter().copied().filter(move |hook| !isnt_event(*hook))
}

/// A name without what people write differently: case, colons, spaces, and the sign of a comparison.
fn normal(name: &str) -> String {
    let name = name.to_lowercase().replace('\u{2265}', ">=").replace('\u{2264}', "<=");
    let sign = name.chars().find(|c| matches!(c, '<' | '>')).map(String::from).unwrap_or_default();
    let words = name.replace([':', '<', '>', '='], " ");
    let words: Vec<&str> = words.split_whitespace().chain((!sign.is_empty()).then_some(sign.as_str())).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_by_their_names_and_by_those_of_the_manual() {
        let names = EventNames::new([OwnEvent::new("tickets.create", "a ticket")]);
        for (name, expected) in [
            ("clients.create", "clients.create"),
            ("Clients Create", "clients.create"),
            ("clients: create", "clients.create"),
            ("clients balance became >= 0", "clients.balance_notzero"),
            ("Clients  balance became <=0", "clients.balance_zero"),
            ("clients balance became \u{2264} 0", "clients.balance_zero"),
            ("accounts delete", "clients.accounts.delete"),
            ("Clients Packages renew", "clients.subscriptions.renew"),
            ("on_product_acquisition", "on_product_acquisition"),
            ("TICKETS.create", "tickets.create"),
        ] {
            assert_eq!(names.find(name).map(|event| event.name).as_deref(), Ok(expected), "{name}");
        }
        for event in names.all() {
            assert_eq!(names.find(&event.name).as_ref(), Ok(&event));
            let alias = event.alias.clone().unwrap_or_else(|| event.name.clone());
            assert_eq!(names.find(&alias).as_ref(), Ok(&event), "{alias}");
        }
    }

    #[test]
    fn a_name_that_is_no_events_is_refused_with_the_nearest_one() {
        for (name, nearest) in [
            ("clients.craete", "clients.create"),
            ("client.update", "clients.update"),
            ("on_product_aquisition", "on_product_acquisition"),
            ("client packages asign", "clients.subscriptions.assign"),
        ] {
            let error = EventNames::default().find(name).expect_err(name);
            assert_eq!(error.nearest, nearest, "{name}");
        }
        assert!(EventNames::default().find("on_event").is_err(), "events are delivered by it; it is none");
    }

    #[test]
    fn own_events_have_dotted_names_that_nobody_has() {
        let names = EventNames::default();
        assert_eq!(names.check_new("tickets.create"), Ok(()));
        for name in ["tickets", "Tickets.create", "a..b", ".a", "a b.c", "clients.create", "a.\u{e9}", &"a.".repeat(80)]
        {
            names.check_new(name).expect_err(name);
        }
    }
}
