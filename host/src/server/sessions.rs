//! Who is logged in. A session is a random name in a cookie; what it stands for is in memory, and ends with the server.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What became of what somebody did last, for their next page.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) is_error: bool,
    pub(super) text: String,
}

/// A session that nobody used for so long has ended.
const IDLE: Duration = Duration::from_secs(8 * 3600);
/// So many there are at most, and so many of one token; the ones that weren't used for longest end.
const MOST: usize = 10_000;
const MOST_OF_TOKEN: usize = 50;

/// Who is logged in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// The token that they logged in with; none where nobody has to.
    pub(super) token: Option<String>,
    /// What every form of theirs carries, so that no other site's form is taken for theirs.
    pub(super) csrf: String,
    /// What their next page is to tell them.
    notice: Option<Notice>,
}

/// All sessions, by the digest of their names: who reads the memory of the process can't take one over.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 32], (Session, Instant)>>);

/// Text of chance that nobody guesses.
fn chance() -> Option<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(random))
}

impl Session {
    /// Whether a form is one of theirs.
    pub(super) fn is_own_form(&self, csrf: &str) -> bool {
        Sha256::digest(csrf).ct_eq(&Sha256::digest(&self.csrf)).into()
    }
}

impl Sessions {
    /// Begins a session, and answers its name.
    pub(super) fn begin(&self, token: Option<String>) -> Option<String> {
        let (name, csrf) = (chance()?, chance()?);
        let session = Session { token, csrf, notice: None };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever begins many with one token ends their own, and nobody else's.
        let is_own = |other: &Session| other.token == session.token;
        let own = all.values().filter(|(other, _)| is_own(other)).count();
        if own >= MOST_OF_TOKEN || all.len() >= MOST {
            let may_end = all.iter().filter(|(_, (other, _))| own < MOST_OF_TOKEN || is_own(other));
            if let Some(oldest) = may_end.min_by_key(|(_, (_, used))| *used).map(|(name, _)| *name) {
                all.remove(&oldest);
            }
        }
        all.insert(Sha256::digest(&name).into(), (session, Instant::now()));
        Some(name)
    }

    /// The session of a name, and whether that is a use of it.
    pub(super) fn find(&self, name: &str, is_use: bool) -> Option<Session> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, used) = all.get_mut(&<[u8; 32]>::from(Sha256::digest(name)))?;
        if used.elapsed() > IDLE {
            return None;
        }
        if is_use {
            *used = Instant::now();
        }
        Some(session.clone())
    }

    /// Leaves word for the next page of a session.
    pub(super) fn leave_notice(&self, name: &str, notice: Notice) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((session, _)) = all.get_mut(&<[u8; 32]>::from(Sha256::digest(name))) {
            session.notice = Some(notice);
        }
    }

    /// Takes the word that was left for a session.
    pub(super) fn take_notice(&self, name: &str) -> Option<Notice> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(&<[u8; 32]>::from(Sha256::digest(name)))?.0.notice.take()
    }

    /// Ends a session.
    pub(super) fn end(&self, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&<[u8; 32]>::from(Sha256::digest(name)));
    }

    pub(super) fn forget_old(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, used)| used.elapsed() <= IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_begins_many_sessions_ends_their_own_and_nobody_elses() {
        let sessions = Sessions::default();
        let begin = |token: &str| sessions.begin(Some(token.to_owned())).expect("begun");
        let (other, first) = (begin("other"), begin("many"));
        let later: Vec<String> = (0..MOST_OF_TOKEN).map(|_| begin("many")).collect();
        assert!(sessions.find(&first, true).is_none());
        assert!(later.iter().all(|name| sessions.find(name, true).is_some()));
        assert_eq!(sessions.find(&other, true).and_then(|session| session.token).as_deref(), Some("other"));
    }
}
