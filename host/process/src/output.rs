//! What a child writes into a pipe.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::wait_until;

/// Which end of what is written is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichEnd {
    /// The beginning.
    Beginning,
    /// The end.
    End,
}

/// What is kept of what a child writes into a pipe. A thread of its own reads it, which ends with the pipe, so that the child never
/// waits.
#[derive(Debug)]
pub struct KeptOutput {
    /// The bytes, and whether there were more.
    bytes: Arc<Mutex<(Vec<u8>, bool)>>,
    reader: JoinHandle<()>,
}

impl KeptOutput {
    /// Reads a pipe to its end, and keeps at most so many bytes.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(mut pipe: impl Read + Send + 'static, which: WhichEnd, most: usize) -> io::Result<Self> {
        let bytes = Arc::new(Mutex::new((Vec::new(), false)));
        let kept = Arc::clone(&bytes);
        let read = move || {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let count = match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let (kept, is_cut) = &mut *kept;
                let excess = (kept.len() + count).saturating_sub(most);
                *is_cut |= excess > 0;
                match which {
                    WhichEnd::Beginning => kept.extend(&buffer[..count.saturating_sub(excess)]),
                    WhichEnd::End => {
                        kept.extend(&buffer[..count]);
                        kept.drain(..excess);
                    }
                }
            }
        };
        let reader = thread::Builder::new().name("billhook-output".to_owned()).spawn(read)?;
        Ok(KeptOutput { bytes, reader })
    }

    /// Returns what was kept, once the pipe ended or after a while, and whether there was more. The pipe ends with the child, unless
    /// something that it started still holds it.
    pub fn read(&self, patience: Duration) -> (Vec<u8>, bool) {
        wait_until(Instant::now() + patience, || self.reader.is_finished());
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_end_is_kept_and_no_more_than_is_wanted() {
        for (which, most, expected) in [
            (WhichEnd::Beginning, 4, ("0123", true)),
            (WhichEnd::End, 4, ("6789", true)),
            (WhichEnd::Beginning, 10, ("0123456789", false)),
            (WhichEnd::End, 0, ("", true)),
        ] {
            // In pieces, as a pipe has them.
            let pipe = b"012".chain(&b"3456"[..]).chain(&b"789"[..]);
            let kept = KeptOutput::start(pipe, which, most).expect("a thread");
            let (bytes, is_cut) = kept.read(Duration::from_secs(60));
            assert_eq!((std::str::from_utf8(&bytes).expect("text"), is_cut), expected);
        }
    }
}
