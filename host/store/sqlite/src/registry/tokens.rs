//! The tokens of clients. Only the hash of a token's secret is kept.

use billhook_model::{Moment, Scope, Token};
use billhook_store::{Result, Tokens};
use rusqlite::{Row, params};

use super::{Change, Registry};

const SELECT: &str = "SELECT id, name, scope, hash, created, expires FROM token";

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let scope: String = row.get(2)?;
    // Of a later version's scope as much is allowed as all allow.
    let scope = scope.parse().unwrap_or(Scope::Read);
    let (id, name): (String, String) = (row.get(0)?, row.get(1)?);
    let mut token = Token::new(id, name, scope, Moment::from_seconds(row.get(4)?), row.get(3)?);
    token.expires = row.get::<_, Option<i64>>(5)?.map(Moment::from_seconds);
    Ok(token)
}

impl Tokens for Registry {
    fn tokens(&self) -> Result<Vec<Token>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SELECT} ORDER BY created, id"))?;
            let rows = statement.query_map((), token)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn add_token(&self, token: &Token) -> Result<bool> {
        self.change(|transaction| {
            let added = transaction.execute(
                "INSERT INTO token (id, name, scope, hash, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
                params![
                    token.id,
                    token.name,
                    token.scope.name(),
                    token.hash,
                    token.created.seconds(),
                    token.expires.map(Moment::seconds)
                ],
            )?;
            Ok(if added > 0 { Change::Made(true) } else { Change::Nothing(false) })
        })
    }

    fn remove_token(&self, id: &str) -> Result<bool> {
        self.change(|transaction| {
            let removed = transaction.execute("DELETE FROM token WHERE id = ?1", [id])?;
            Ok(if removed > 0 { Change::Made(true) } else { Change::Nothing(false) })
        })
    }
}
