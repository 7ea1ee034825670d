//! The answer to a call, collected on the side that asked, in its own memory and within its own bounds.

use std::time::Duration;

use abi_stable::{prefix_type::WithMetadata, sabi_types::StaticRef};
use serde::de::DeserializeOwned;

use super::types::*;
use crate::{
    Decimal, ErrorKind, PluginError, Timestamp,
    call::bounds,
    data::{UsageRecord, UsageSpec},
};

/// The longest message that is kept; the rest of a longer one is cut off.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// What a called side put into its reply.
///
/// Most hooks put nothing into it, so it is small until something is.
#[derive(Default)]
pub struct Reply {
    refusal: Option<Box<PluginError>>,
    answer: Option<Box<Answer>>,
}

#[derive(Default)]
struct Answer {
    value: Option<Vec<u8>>,
    usage_specs: Vec<UsageSpec>,
    usage_records: Vec<UsageRecord>,
    last_usage: Option<Timestamp<'static>>,
    size: usize,
}

impl Reply {
    /// The handle to pass to the call that fills this reply; valid while `self` is neither moved nor read.
    pub fn handle(&mut self) -> ReplyHandle {
        ReplyHandle { object: std::ptr::from_mut(self).cast_const().cast(), table: table() }
    }

    /// What the call came to, by the status that it returned.
    pub fn finish(mut self, status: u32) -> Result<Reply, PluginError> {
        match self.refusal.take() {
            Some(refusal) => Err(*refusal),
            None if status == 0 => Ok(self),
            None => Err(PluginError::internal(format!("it failed with status {status} and without a message"))),
        }
    }

    /// The answer of a hook that answers JSON.
    pub(crate) fn into_json<T: DeserializeOwned>(self) -> Result<T, PluginError> {
        let value = self.into_value().unwrap_or_default();
        serde_json::from_slice(&value)
            .map_err(|error| PluginError::internal(format!("its answer can't be read: {error}")))
    }

    pub(crate) fn into_value(self) -> Option<Vec<u8>> {
        self.answer?.value
    }

    pub(crate) fn into_usage_specs(self) -> Vec<UsageSpec> {
        self.answer.map(|answer| answer.usage_specs).unwrap_or_default()
    }

    pub(crate) fn into_pending_accounting(self) -> crate::data::PendingAccounting {
        let Answer { usage_records: records, last_usage, .. } = self.answer.map(|answer| *answer).unwrap_or_default();
        crate::data::PendingAccounting { records, last_usage }
    }

    /// Takes an answer of `size` bytes, or turns the whole reply into a refusal.
    fn accept(&mut self, size: usize, largest: usize, put: impl FnOnce(&mut Answer) -> Result<(), String>) {
        if self.refusal.is_some() {
            return;
        }
        let answer = self.answer.get_or_insert_default();
        answer.size = answer.size.saturating_add(size);
        let put = if answer.size > largest {
            Err(format!("its answer is larger than {} MiB", largest / 1024 / 1024))
        } else {
            put(answer)
        };
        if let Err(problem) = put {
            self.refusal = Some(Box::new(PluginError::internal(problem)));
        }
    }
}

fn table() -> ReplyTableRef {
    ReplyTableRef(FUNCTIONS.as_prefix())
}

static FUNCTIONS: StaticRef<WithMetadata<ReplyTable>> = {
    const TABLE: &WithMetadata<ReplyTable> = &WithMetadata::new(ReplyTable {
        refuse: Refuse(refuse),
        value: PutText(value),
        usage_spec: PutUsageSpec(usage_spec),
        usage_record: PutUsageRecord(usage_record),
        last_usage: PutText(last_usage),
    });
    StaticRef::new(TABLE)
};

/// # Safety
/// `reply` must come from [`Reply::handle`] and nothing else may use it meanwhile.
unsafe fn with<'a>(reply: Object) -> &'a mut Reply {
    // SAFETY: the called side has the handle for the time of its call, on one thread.
    unsafe { &mut *reply.cast_mut().cast::<Reply>() }
}

/// Text from the other side that has to be UTF-8.
///
/// # Safety
/// As [`Text::bytes`].
unsafe fn utf8<'a>(text: Text, what: &str) -> Result<&'a str, String> {
    // SAFETY: handed on to the caller.
    let bytes = unsafe { text.bytes() }.ok_or_else(|| format!("it answered no {what}"))?;
    std::str::from_utf8(bytes).map_err(|_| format!("it answered a {what} that is not UTF-8"))
}

unsafe extern "C" fn refuse(reply: Object, kind: u32, message: Text, retry_after: u64) {
    // SAFETY: the caller passes the reply's own object and a message that lives during this call.
    let (reply, message) = unsafe { (with(reply), message.bytes().unwrap_or_default()) };
    let mut text = String::from_utf8_lossy(&message[..message.len().min(LONGEST_MESSAGE)]).into_owned();
    if message.len() > LONGEST_MESSAGE {
        // The cut may have gone through a character.
        while text.ends_with(char::REPLACEMENT_CHARACTER) {
            text.pop();
        }
        text.push_str(&format!(" … ({} bytes in all)", message.len()));
    }
    let mut error = match kind {
        ErrorKind::PANICKED => PluginError::panicked(text),
        kind => PluginError::new(ErrorKind::from_code(kind), text),
    };
    if retry_after != u64::MAX {
        error = error.with_retry_after(Duration::from_millis(retry_after));
    }
    reply.refusal = Some(Box::new(error));
}

unsafe extern "C" fn value(reply: Object, text: Text) {
    // SAFETY: as in `refuse`.
    let (reply, bytes) = unsafe { (with(reply), text.bytes().unwrap_or_default()) };
    reply.accept(bytes.len(), bounds::DOCUMENT, |answer| {
        answer.value = Some(bytes.to_vec());
        Ok(())
    });
}

unsafe extern "C" fn usage_spec(reply: Object, name: Text, description: Text) {
    // SAFETY: as in `refuse`.
    let (reply, name, description) =
        unsafe { (with(reply), utf8(name, "unit name"), utf8(description, "unit description")) };
    let size = name.as_ref().map_or(0, |text| text.len()) + description.as_ref().map_or(0, |text| text.len());
    reply.accept(size + size_of::<UsageSpec>(), bounds::USAGE, |answer| {
        answer.usage_specs.push(UsageSpec::new(name?, description?));
        Ok(())
    });
}

unsafe extern "C" fn usage_record(reply: Object, date: Text, unit: Text, amount: Text, id: Text) {
    // SAFETY: as in `refuse`.
    let (reply, date, unit, amount, id) = unsafe {
        (with(reply), utf8(date, "usage date"), utf8(unit, "usage unit"), utf8(amount, "usage value"), id.bytes())
    };
    let size =
        [&date, &unit, &amount].into_iter().flatten().map(|text| text.len()).sum::<usize>() + id.map_or(0, <[u8]>::len);
    reply.accept(size + size_of::<UsageRecord>(), bounds::USAGE, |answer| {
        let date =
            Timestamp::new(date?.to_owned()).map_err(|error| format!("its usage record's date is wrong: {error}"))?;
        let amount =
            Decimal::new(amount?.to_owned()).map_err(|error| format!("its usage record's value is wrong: {error}"))?;
        let mut record = UsageRecord::new(date, unit?, amount);
        record.id = id
            .map(|id| String::from_utf8(id.to_vec()).map_err(|_| "it answered a usage record id that is not UTF-8"))
            .transpose()?;
        answer.usage_records.push(record);
        Ok(())
    });
}

unsafe extern "C" fn last_usage(reply: Object, date: Text) {
    // SAFETY: as in `refuse`.
    let (reply, date) = unsafe { (with(reply), utf8(date, "time of the last usage")) };
    reply.accept(date.as_ref().map_or(0, |text| text.len()), bounds::USAGE, |answer| {
        let date = Timestamp::new(date?.to_owned())
            .map_err(|error| format!("its time of the last usage is wrong: {error}"))?;
        answer.last_usage = Some(date);
        Ok(())
    });
}

/// Refuses through another side's reply.
pub(crate) fn send_refusal(reply: ReplyHandle, error: &PluginError) -> u32 {
    let retry_after = error
        .retry_after()
        .map_or(u64::MAX, |delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1));
    let code = if error.is_panic() { ErrorKind::PANICKED } else { error.kind().code() };
    // SAFETY: a reply handle is valid during the call that it was passed to, which this is part of.
    unsafe { (reply.table.refuse().0)(reply.object, code, Text::new(error.message().as_bytes()), retry_after) };
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &[u8]) -> PluginError {
        let mut reply = Reply::default();
        let handle = reply.handle();
        // SAFETY: the handle is the reply's own.
        unsafe { (handle.table.refuse().0)(handle.object, 3, Text::new(message), u64::MAX) };
        reply.finish(3).err().expect("it was refused")
    }

    #[test]
    fn a_message_is_cut_to_its_bound_and_made_clean_utf_8() {
        assert_eq!(refused(b"no\xff").message(), "no\u{fffd}");
        let long = refused("é".repeat(10_000).as_bytes());
        assert!(long.message().ends_with("é … (20000 bytes in all)"), "{}", long.message());
        assert!(long.message().len() < LONGEST_MESSAGE + 50);
    }

    #[test]
    fn a_failure_without_a_message_is_still_a_failure() {
        assert!(Reply::default().finish(9).is_err());
        assert!(Reply::default().finish(0).is_ok());
    }

    #[test]
    fn an_answer_larger_than_its_bound_is_refused_and_stops_growing() {
        let mut reply = Reply::default();
        let handle = reply.handle();
        let megabyte = vec![b'a'; 1024 * 1024];
        for _ in 0..100 {
            // SAFETY: the handle is the reply's own.
            unsafe { (handle.table.usage_spec().0)(handle.object, Text::new(&megabyte), Text::new(b"")) };
        }
        assert!(reply.answer.as_ref().is_some_and(|answer| answer.usage_specs.len() < 64));
        assert!(reply.finish(0).err().expect("it was refused").message().contains("larger than 64 MiB"));
    }

    #[test]
    fn a_record_that_is_none_refuses_the_whole_answer() {
        for (date, amount, expected) in [("now", "1", "date"), ("2026-01-01T00:00:00Z", "1,5", "value")] {
            let mut reply = Reply::default();
            let handle = reply.handle();
            let text = |text: &'static str| Text::new(text.as_bytes());
            // SAFETY: the handle is the reply's own.
            unsafe {
                (handle.table.usage_record().0)(handle.object, text(date), text("call"), text(amount), Text::NONE)
            };
            let error = reply.finish(0).err().expect("it was refused");
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
