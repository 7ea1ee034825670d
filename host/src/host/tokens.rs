//! The tokens of a server's clients.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use billhook_model::{
    Moment, Scope, Token,
    text::{hex, is_hidden},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Host, HostError};

/// What a token's text begins with, so that one that was lost is recognized.
const PREFIX: &str = "billhook_";

/// Tokens, by which a server's clients prove who they are.
impl Host {
    /// Makes a token, and returns it with its text, which is kept nowhere.
    pub fn create_token(
        &self,
        name: &str,
        scope: Scope,
        expires: Option<Moment>,
    ) -> Result<(Token, String), HostError> {
        if name.is_empty() || name.len() > 100 || name.chars().any(is_hidden) {
            return Err(HostError::TokenName);
        }
        let mut random = [0; 38];
        getrandom::fill(&mut random).map_err(|error| HostError::Random(error.to_string()))?;
        let id = hex(&random[..6]);
        let secret = BASE64_URL_SAFE_NO_PAD.encode(&random[6..]);
        // One round is enough: the secret is 256 bits of chance, which nobody guesses.
        let hash = Sha256::digest(&secret).to_vec();
        let mut token = Token::new(&id, name, scope, self.options.clock.now(), hash);
        token.expires = expires;
        if !self.shared.stores.tokens.add_token(&token)? {
            return Err(HostError::Random("the same came twice".to_owned()));
        }
        self.refresh()?;
        Ok((token, format!("{PREFIX}{id}_{secret}")))
    }

    /// All tokens.
    pub fn tokens(&self) -> Result<Vec<Token>, HostError> {
        Ok(self.shared.stores.tokens.tokens()?)
    }

    /// Forgets a token: within a second, no server takes it any more.
    pub fn remove_token(&self, id: &str) -> Result<(), HostError> {
        if !self.shared.stores.tokens.remove_token(id)? {
            return Err(HostError::NoToken { id: id.to_owned() });
        }
        self.refresh()
    }

    /// Returns the id in the text of a token, if it can be one.
    pub fn token_id(text: &str) -> Option<&str> {
        Some(text.strip_prefix(PREFIX)?.split_once('_')?.0)
    }

    /// Returns whether a text is a token's, in a time that tells nothing of it, and the token has not expired.
    pub fn is_token(&self, token: &Token, text: &str) -> bool {
        let secret = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map_or("", |(_, secret)| secret);
        let is_same: bool = Sha256::digest(secret).as_slice().ct_eq(&token.hash).into();
        is_same && !token.is_expired(self.options.clock.now())
    }

    /// Returns the time that the host's clock tells.
    pub fn now(&self) -> Moment {
        self.options.clock.now()
    }
}
