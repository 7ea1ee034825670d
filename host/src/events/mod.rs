//! Events, and the handlers that operators attach to them: names, order, and how a script or an HTTP endpoint is called.

mod answer;
mod chain;
mod handler;
mod http;
mod names;
mod run_script;
mod script;

use std::{any::Any, sync::Arc, time::Duration};

use billhook_machine::crash_point;
use billhook_model::{Clock, Handler, ListenerKind, Task, text::hex};
use billhook_plugin_api::data::Event;
use billhook_process::ChildProgram;
use sha2::{Digest, Sha256};

pub(crate) use answer::{Answer, Called};
pub(crate) use chain::{Chain, Listeners, ListeningPlugin};
pub use handler::BadHandler;
pub(crate) use handler::check as check_handler;
pub(crate) use names::EventNames;
pub use names::{BadEventName, UnknownEvent, standard_events};
pub(crate) use run_script::BECOME_SCRIPT;

use crate::http_client::Begin;

/// How handlers are called.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandlerOptions {
    /// The hosts that may be called; all if there is no list.
    pub(crate) allowed_hosts: Option<Vec<String>>,
}

/// Calls handlers.
pub(crate) struct Caller {
    client: http::Client,
    program: ChildProgram,
    clock: Arc<dyn Clock>,
}

impl Caller {
    pub(crate) fn new(options: &HandlerOptions, program: ChildProgram, clock: Arc<dyn Clock>) -> Self {
        Caller { client: http::Client::new(options.allowed_hosts.clone(), Arc::clone(&clock)), program, clock }
    }

    /// Calls a handler on this thread, if it may be begun yet.
    pub(crate) fn call(&self, handler: &Handler, event: &Event, limit: Duration, begin: Option<Begin<'_>>) -> Called {
        let envelope = match serde_json::to_vec(event) {
            Ok(envelope) => envelope,
            Err(error) => {
                let problem = format!("the event can't be written: {error}");
                return Called { answer: Answer::Failed(problem), response: String::new() };
            }
        };
        match &handler.task {
            Task::Http(address) => self.client.call(&http::Post {
                address,
                mode: handler.mode,
                secret: handler.secret.as_deref(),
                idempotency_key: &idempotency_key(&event.id, ListenerKind::Handler, &handler.name),
                envelope: &envelope,
                limit,
                begin,
            }),
            Task::Script(words) => {
                let may_begin = || match begin {
                    None => Some(Box::new(()) as Box<dyn Any>),
                    Some(begin) => {
                        let announced = (begin.announce)();
                        let is_in_time = self.clock.since_boot() < begin.before;
                        crash_point::stands_still("before starting");
                        is_in_time.then(|| Box::new(announced) as Box<dyn Any>)
                    }
                };
                script::call(&self.program, handler, words, &event.id, &envelope, limit, &may_begin)
            }
            other => {
                let problem = format!("this billhook knows no tasks of the kind {}", other.kind());
                Called { answer: Answer::Failed(problem), response: String::new() }
            }
        }
    }
}

/// What tells a delivery from all others, the same at every attempt: the event's id, and what stands for the listener.
pub(crate) fn idempotency_key(event: &str, kind: ListenerKind, listener: &str) -> String {
    let digest = Sha256::digest(format!("{} {listener}", kind.name()));
    format!("{event}-{}", hex(&digest[..8]))
}
