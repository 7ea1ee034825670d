//! The tokens of a server's clients.

use billhook_model::Token;

use crate::Result;

/// Tokens: who may do what over HTTP. Only the hash of a token's secret is kept. Each function is one atomic operation, and
/// durable on return; each that changes something raises the [generation](crate::Plugins).
pub trait Tokens: Send + Sync {
    /// Returns all tokens, by when they were made and then by the bytes of their ids.
    fn tokens(&self) -> Result<Vec<Token>>;

    /// Keeps a token. Returns whether its id was free.
    fn add_token(&self, token: &Token) -> Result<bool>;

    /// Forgets a token. Returns whether there was one.
    fn remove_token(&self, id: &str) -> Result<bool>;
}
