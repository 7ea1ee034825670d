//! Deliveries and the execution log.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use billhook_model::{Delivery, DeliveryFilter, Execution, ExecutionFilter, Listener};
use billhook_plugin_api::data::Event;
use billhook_store::Intervention;

use super::{EventError, Host};
use crate::delivery::{Deliverer, Stage, Wake, takes};

impl Host {
    /// Starts to deliver events to their after listeners, in this process, until the host is dropped. Several processes of one
    /// home share the work. Starting it twice starts it once.
    pub fn start_deliveries(&self) -> Result<(), EventError> {
        let mut deliverer = self.shared.deliverer.lock().unwrap_or_else(PoisonError::into_inner);
        if deliverer.is_none() {
            self.shared.home.must_be_writable()?;
            let stores = &self.shared.stores;
            let stage = Stage {
                dispatcher: Arc::clone(&self.shared.dispatcher),
                ledger: Arc::clone(&stores.ledger),
                log: Arc::clone(&stores.executions),
                coordination: Arc::clone(&stores.coordination),
                clock: Arc::clone(&self.options.clock),
            };
            let started = Deliverer::start(stage, Wake::default());
            *deliverer = Some(started.map_err(EventError::Start)?);
        }
        Ok(())
    }

    /// Ends what [`Host::start_deliveries`] started: begins nothing more, and waits at most so long for what is under way.
    pub fn stop_deliveries(&self, patience: Duration) {
        let deliverer = self.shared.deliverer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut deliverer) = deliverer {
            deliverer.stop(patience);
        }
    }

    /// Deliveries, the newest first.
    pub fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>, EventError> {
        if !self.shared.stores.ledger.exists() {
            return Ok(Vec::new());
        }
        let event = self.canonical(filter.event.as_deref())?;
        Ok(self.shared.stores.ledger.list(&DeliveryFilter { event, ..filter.clone() })?)
    }

    /// A delivery, its event, and what the execution log has of its attempts.
    pub fn delivery(&self, number: i64) -> Result<(Delivery, Event, Vec<Execution>), EventError> {
        let none = || EventError::NoDelivery { number };
        if !self.shared.stores.ledger.exists() {
            return Err(none());
        }
        let (delivery, event) = self.shared.stores.ledger.show(number)?.ok_or_else(none)?;
        let filter = ExecutionFilter { delivery: Some(number), after: Some(0), ..ExecutionFilter::default() };
        // The log is no reason to hide what the ledger has.
        let executions = self.executions(&filter).unwrap_or_else(|error| {
            tracing::warn!("attempts can't be shown: {error}");
            Vec::new()
        });
        Ok((delivery, event, executions))
    }

    /// Whether anything is left to deliver to listeners that take anything now; and which have something left and take nothing,
    /// because they are disabled or can't be called.
    pub fn deliveries_left(&self) -> Result<(bool, Vec<String>), EventError> {
        let (mut is_left, mut waiting) = (false, Vec::new());
        if self.shared.stores.ledger.exists() {
            self.refresh()?;
            for listener in self.shared.stores.ledger.waiting_listeners()? {
                match takes(&self.shared.dispatcher, &listener) {
                    Some(false) => waiting.push(listener.name),
                    _ => is_left = true,
                }
            }
        }
        Ok((is_left, waiting))
    }

    /// Lets a dead or discarded delivery run again, with all its attempts, and one that waits for another attempt run now. Its
    /// idempotency key stays.
    pub fn redrive(&self, number: i64) -> Result<(), EventError> {
        if self.shared.stores.ledger.exists()
            && let Some((delivery, _)) = self.shared.stores.ledger.show(number)?
        {
            self.refresh()?;
            let listener = Listener::new(delivery.kind, delivery.listener);
            if takes(&self.shared.dispatcher, &listener).is_none() {
                let problem = "its listener is gone, or listens no more; bring it back first";
                return Err(EventError::Delivery { number, status: delivery.status.name(), problem });
            }
        }
        let ledger = &self.shared.stores.ledger;
        let redriven = if ledger.exists() { ledger.redrive(number)? } else { Intervention::Missing };
        self.changed(
            number,
            redriven,
            "only dead and discarded ones are redriven, and ones that wait for another attempt",
        )?;
        self.wake_deliveries();
        Ok(())
    }

    /// Gives a delivery up: it is neither attempted again nor lost from the ledger.
    pub fn discard(&self, number: i64) -> Result<(), EventError> {
        let ledger = &self.shared.stores.ledger;
        let discarded = if ledger.exists() { ledger.discard(number)? } else { Intervention::Missing };
        self.changed(
            number,
            discarded,
            "waiting and dead ones are discarded, while nothing is delivered for their object",
        )?;
        self.wake_deliveries();
        Ok(())
    }

    fn changed(&self, number: i64, changed: Intervention, problem: &'static str) -> Result<(), EventError> {
        match changed {
            Intervention::Done => Ok(()),
            Intervention::NotPossible => {
                let status =
                    self.shared.stores.ledger.show(number)?.map_or("gone", |(delivery, _)| delivery.status.name());
                Err(EventError::Delivery { number, status, problem })
            }
            Intervention::Missing => Err(EventError::NoDelivery { number }),
        }
    }

    fn wake_deliveries(&self) {
        if let Some(deliverer) = self.shared.deliverer.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            deliverer.wake();
        }
    }

    /// Calls that were noted in the execution log.
    pub fn executions(&self, filter: &ExecutionFilter) -> Result<Vec<Execution>, EventError> {
        let event = self.canonical(filter.event.as_deref())?;
        Ok(self.shared.stores.executions.search(&ExecutionFilter { event, ..filter.clone() })?)
    }

    /// The name of an event that is searched for, whatever spelling of it was given. What isn't known is searched for as it is: it
    /// may have been.
    fn canonical(&self, event: Option<&str>) -> Result<Option<String>, EventError> {
        let Some(event) = event else { return Ok(None) };
        let names = self.event_names()?;
        Ok(Some(names.find(event).map_or_else(|_| event.to_owned(), |event| event.name)))
    }

    /// How many calls are not in the execution log because there were too many at once or it could not be written.
    pub fn dropped_executions(&self) -> Result<u64, EventError> {
        Ok(self.shared.stores.executions.dropped()?)
    }
}
