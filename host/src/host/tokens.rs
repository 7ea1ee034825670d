//! The tokens of a server's clients.

use std::time::SystemTime;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Host, HostError};
use crate::{
    registry::{Scope, Token},
    shown::is_hidden,
};

/// What a token's text begins with, so that one that was lost is recognized.
const PREFIX: &str = "billhook_";

/// Tokens, by which a server's clients prove who they are.
impl Host {
    /// Makes a token, and answers its text, which is kept nowhere. `expires` is in seconds since 1970.
    pub fn create_token(&self, name: &str, scope: Scope, expires: Option<i64>) -> Result<(Token, String), HostError> {
        if name.is_empty() || name.len() > 100 || name.chars().any(is_hidden) {
            return Err(HostError::TokenName);
        }
        let mut random = [0; 38];
        getrandom::fill(&mut random).map_err(|error| HostError::Random(error.to_string()))?;
        let id: String = random[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = BASE64_URL_SAFE_NO_PAD.encode(&random[6..]);
        let created = now();
        // One round is enough: the secret is 256 bits of chance, which nobody guesses.
        let hash = Sha256::digest(&secret).to_vec();
        let token = Token { id: id.clone(), name: name.to_owned(), scope, created, expires, hash };
        self.shared.registry.add_token(&token)?;
        self.refresh()?;
        Ok((token, format!("{PREFIX}{id}_{secret}")))
    }

    /// All tokens.
    pub fn tokens(&self) -> Result<Vec<Token>, HostError> {
        Ok(self.shared.registry.tokens()?)
    }

    /// Forgets a token: within a second, no server takes it any more.
    pub fn remove_token(&self, id: &str) -> Result<(), HostError> {
        if !self.shared.registry.remove_token(id)? {
            return Err(HostError::NoToken { id: id.to_owned() });
        }
        self.refresh()
    }
}

/// Whole seconds since 1970.
fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl Token {
    /// The id in the text of a token, if it can be one.
    pub fn id_of(text: &str) -> Option<&str> {
        Some(text.strip_prefix(PREFIX)?.split_once('_')?.0)
    }

    /// Whether a text is this token's, in a time that tells nothing of it, and it has not expired.
    pub fn is(&self, text: &str) -> bool {
        let secret = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map_or("", |(_, secret)| secret);
        let is_same: bool = Sha256::digest(secret).as_slice().ct_eq(&self.hash).into();
        is_same && !self.is_expired()
    }

    /// Whether it allows nothing any more.
    pub fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| now() >= expires)
    }
}
