//! The tokens of clients: who may do what over HTTP. Only the hash of a token's secret is kept.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{Registry, RegistryError};

/// What a token allows. Each allows what those before it do.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// To look at everything.
    Read,
    /// Also to do what a backend does: call hooks, notify, emit events, tell which assets are in use.
    Emit,
    /// Also to change what is installed and set.
    Manage,
}

impl Scope {
    /// The name in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Emit => "emit",
            Scope::Manage => "manage",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "manage" => Scope::Manage,
            "emit" => Scope::Emit,
            // Also one of a later version: whatever it allows, it allows this.
            _ => Scope::Read,
        }
    }
}

/// A token of a client's, without its secret, which nobody has but the client.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Token {
    /// Its id, which its text begins with.
    pub id: String,
    /// What the operator calls it.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// From when on it allows nothing, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// SHA-256 of its secret.
    #[serde(skip)]
    pub(crate) hash: Vec<u8>,
}

const SELECT: &str = "SELECT id, name, scope, hash, created, expires FROM token";

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let scope: String = row.get(2)?;
    Ok(Token {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: Scope::parse(&scope),
        hash: row.get(3)?,
        created: row.get(4)?,
        expires: row.get(5)?,
    })
}

impl Registry {
    /// All tokens, by the time they were made.
    pub(crate) fn tokens(&self) -> Result<Vec<Token>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY created, id"))?;
        let rows = statement.query_map((), token)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a token. A running server notices by the registry's generation.
    pub(crate) fn add_token(&self, token: &Token) -> Result<(), RegistryError> {
        self.change(|transaction| {
            transaction.execute(
                "INSERT INTO token (id, name, scope, hash, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![token.id, token.name, token.scope.name(), token.hash, token.created, token.expires],
            )?;
            Ok(())
        })
    }

    /// Forgets a token. Answers whether there was one.
    pub(crate) fn remove_token(&self, id: &str) -> Result<bool, RegistryError> {
        self.change(|transaction| Ok(transaction.execute("DELETE FROM token WHERE id = ?1", [id])? > 0))
    }
}
