//! What a host and its worker say to each other: frames of JSON on two sockets. `docs/worker-protocol.md` is the contract.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use billhook_plugin_api::{
    ErrorKind, Hook, PluginError,
    call::{HookObjects, HookReply, WithoutContracts},
    data::Contract,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use billhook_model::{Confinement, ModuleInfo, WorkerLimits, text::beginning};

/// The version of the protocol. A worker of another one is refused.
pub(super) const PROTOCOL: u32 = 1;

/// The most bytes of a frame that a host sends on the socket of calls.
pub(super) const LARGEST_CALL: usize = 80 * 1024 * 1024;
/// The most bytes of a frame that a worker sends on the socket of calls where the hook may return little.
pub(super) const LARGEST_REFUSAL: usize = 1024 * 1024;
/// The most that the changes of a call may hold, as in the process of the host.
pub(super) const LARGEST_CHANGES: usize = 16 * 1024 * 1024;
/// The most bytes of a frame on the socket of services.
pub(super) const LARGEST_SERVICE: usize = 1024 * 1024;

/// A log line takes at most so much of its message along.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

/// The first frame of all: what the worker is to load.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) protocol: u32,
    pub(crate) plugin: String,
    /// The plugin's library, an absolute path.
    pub(crate) library: PathBuf,
    pub(crate) module: ModuleInfo,
    /// The operator's settings, a JSON document as text.
    pub(crate) settings: String,
    /// The folder of the unpacked package.
    pub(crate) package_folder: PathBuf,
    /// The worker's own folder, and its working folder; none for one that isn't confined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<PathBuf>,
    pub(crate) limits: WorkerLimits,
    /// Whether the worker is to confine itself. One that isn't tries a plugin that is to run in the process of its host.
    #[serde(default = "yes")]
    pub(crate) is_confined: bool,
}

fn yes() -> bool {
    true
}

/// What a host says on the socket of calls, after [`Load`]. Borrows what it says.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask<'a> {
    Call { hook: Hook, objects: WithoutContracts<'a> },
    Contracts(&'a [Contract]),
}

/// What a worker hears.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    Call { hook: Hook, objects: Box<HookObjects> },
    Contracts(Vec<Contract>),
}

/// What a worker says on the socket of calls.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// The library is about to be opened, in the process with this number: its processor time counts.
    Loading { process: u32 },
    /// The library is opened, and its instance is about to be made.
    Constructing,
    /// It is loaded, and confined but for what the kernel lacks.
    Ready { protocol: u32, lacks: Vec<Confinement> },
    /// It can't be: why, and whether the plugin asks for other settings.
    NotReady { message: String, needs_settings: bool },
    /// The hook went through, and returned this.
    Done(Box<RawValue>),
    /// The hook refused or failed.
    Refused(Refusal),
    /// The plugin asks for the contracts of the order.
    NeedContracts,
}

/// A refusal or a failure of a hook.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// The most of a message that is kept.
pub(super) const LONGEST_MESSAGE: usize = 8 * 1024;

impl From<PluginError> for Refusal {
    fn from(error: PluginError) -> Self {
        let message = error.message();
        let message = beginning(message, LONGEST_MESSAGE);
        let message = if error.is_panic() { format!("the plugin {message}") } else { message.to_owned() };
        let retry_after_ms = error.retry_after().map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        Refusal { kind: error.kind().name().to_owned(), message, retry_after_ms }
    }
}

impl From<Refusal> for PluginError {
    fn from(refusal: Refusal) -> Self {
        let kind = refusal.kind.parse().unwrap_or(ErrorKind::Internal);
        let error = PluginError::new(kind, beginning(&refusal.message, LONGEST_MESSAGE));
        match refusal.retry_after_ms {
            Some(delay) => error.with_retry_after(Duration::from_millis(delay)),
            None => error,
        }
    }
}

/// The most bytes of a frame that a worker answers a call of a hook with: what the hook can return, or a refusal.
pub(super) fn largest_answer(hook: Hook) -> usize {
    const NAMES: usize = 64;
    (HookReply::largest(hook) + NAMES).max(LARGEST_REFUSAL)
}

/// What a worker asks for on the socket of services, from any thread and at any time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Service {
    /// A line of the plugin's log: 1 error, 2 warning, 3 info, 4 debug, 5 trace. Not answered.
    Log { level: u32, message: String },
    /// The value under a key.
    Get { key: String },
    /// Keeps a value, a JSON document as text.
    Keep { key: String, value: String },
    /// Deletes a value.
    Delete { key: String },
}

/// What a host answers on the socket of services.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Served {
    Value(Option<String>),
    Done,
    Refused(Refusal),
}

/// Appends a frame: the length of its JSON as four bytes, most significant first, and the JSON.
pub(super) fn write_frame<T: Serialize>(buffer: &mut Vec<u8>, value: &T, largest: usize) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend([0; 4]);
    serde_json::to_writer(&mut *buffer, value)?;
    let length = buffer.len() - start - 4;
    if length > largest {
        buffer.truncate(start);
        return Err(io::Error::other(format!("{length} bytes are more than a frame may have ({largest})")));
    }
    buffer[start..start + 4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    Ok(())
}

/// Sends a value as a frame.
pub(super) fn send<T: Serialize>(socket: &mut impl Write, value: &T, largest: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    write_frame(&mut buffer, value, largest)?;
    socket.write_all(&buffer)
}

/// The bytes that came and were not read yet. One system call brings a whole small frame.
#[derive(Default)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    /// How much of the buffer came.
    filled: usize,
    /// The frame that was handed out last, which is dropped at the next call.
    handed_out: usize,
}

impl Incoming {
    /// Reads a frame's JSON. `None` if the other side is gone and nothing of a frame came.
    pub(super) fn frame(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        largest: usize,
    ) -> io::Result<Option<&[u8]>> {
        self.buffer.copy_within(self.handed_out..self.filled, 0);
        self.filled -= self.handed_out;
        self.handed_out = 0;
        loop {
            if let Some(length) = self.length() {
                if length > largest {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("a frame of {length} bytes; at most {largest} are taken"),
                    ));
                }
                if self.filled >= 4 + length {
                    self.handed_out = 4 + length;
                    return Ok(Some(&self.buffer[4..4 + length]));
                }
            }
            // Grows with what comes, not with what was announced.
            if self.filled == self.buffer.len() {
                self.buffer.resize((self.buffer.len() * 2).max(16 * 1024), 0);
            }
            match read(&mut self.buffer[self.filled..]) {
                Ok(0) if self.filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn length(&self) -> Option<usize> {
        let bytes: [u8; 4] = self.buffer[..self.filled].get(..4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }

    /// Whether bytes are left that nobody asked for.
    pub(super) fn has_rest(&self) -> bool {
        self.filled > self.handed_out
    }

    /// Gives back memory that a large frame needed.
    pub(super) fn shrink(&mut self) {
        const KEPT: usize = 1024 * 1024;
        if self.buffer.len() > KEPT && !self.has_rest() {
            *self = Incoming::default();
        }
    }
}

/// Reads a value from a frame of a blocking socket.
pub(super) fn receive<T: serde::de::DeserializeOwned>(
    incoming: &mut Incoming,
    socket: &mut impl Read,
    largest: usize,
) -> io::Result<Option<T>> {
    match incoming.frame(|buffer| socket.read(buffer), largest)? {
        Some(json) => Ok(Some(serde_json::from_slice(json)?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out bytes in pieces.
    fn pieces(bytes: Vec<u8>, size: usize) -> impl FnMut(&mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        move |buffer| {
            let count = size.min(buffer.len()).min(bytes.len() - at);
            buffer[..count].copy_from_slice(&bytes[at..at + count]);
            at += count;
            Ok(count)
        }
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        let texts = ["", "a", &"long ".repeat(20_000)];
        for text in texts {
            write_frame(&mut bytes, &text, LARGEST_CALL).expect("it fits");
        }
        for size in [1, 3, 4, 5, 1000, 1_000_000] {
            let (mut incoming, mut read) = (Incoming::default(), pieces(bytes.clone(), size));
            for text in texts {
                let frame = incoming.frame(&mut read, LARGEST_CALL).expect("sound").expect("there");
                assert_eq!(serde_json::from_slice::<String>(frame).expect("JSON"), text);
            }
            assert!(incoming.frame(&mut read, LARGEST_CALL).expect("the end").is_none());
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_or_too_large_is_an_error_and_takes_no_memory() {
        let mut incoming = Incoming::default();
        let error = incoming.frame(pieces(vec![0, 0, 0, 9, b'"'], 100), 100).expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut incoming = Incoming::default();
        let error = incoming.frame(pieces(vec![255; 100], 100), 1000).expect_err("too large");
        assert!(error.to_string().contains("a frame of 4294967295 bytes; at most 1000 are taken"), "{error}");
        assert!(incoming.buffer.len() < 100_000);
        assert!(write_frame(&mut Vec::new(), &"x".repeat(20), 10).is_err());
    }

    #[test]
    fn refusals_keep_kind_message_and_time() {
        let error = PluginError::conflict("taken").with_retry_after(Duration::from_millis(1500));
        assert_eq!(PluginError::from(Refusal::from(error.clone())), error);
        let unknown = Refusal { kind: "later".into(), message: "é".repeat(10_000), retry_after_ms: None };
        let error = PluginError::from(unknown);
        assert_eq!((error.kind(), error.message().len()), (ErrorKind::Internal, LONGEST_MESSAGE));
    }
}
