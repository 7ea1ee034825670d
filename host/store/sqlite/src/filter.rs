//! The conditions of a search: only those that are asked for, so that an index can serve them.

use rusqlite::{ToSql, types::Value};

/// Conditions, each with its value.
#[derive(Default)]
pub(crate) struct Filter {
    text: String,
    values: Vec<Value>,
}

impl Filter {
    /// Adds a condition if there is a value: a column and an operator, behind which the value is to stand.
    pub(crate) fn when<T: Clone + Into<Value>>(&mut self, value: &Option<T>, condition: &str) {
        self.when_within(value, condition, "");
    }

    /// The same where something more stands behind the value.
    pub(crate) fn when_within<T: Clone + Into<Value>>(&mut self, value: &Option<T>, condition: &str, rest: &str) {
        let Some(value) = value else { return };
        let place = self.bind(value.clone());
        self.and(&format!("{condition} {place}{rest}"));
    }

    /// Adds a condition that has no value.
    pub(crate) fn and(&mut self, condition: &str) {
        let joint = if self.text.is_empty() { "WHERE" } else { "AND" };
        self.text += &format!(" {joint} {condition}");
    }

    /// Adds a value, and returns what stands for it in the statement.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    /// Adds how many rows are asked for at most, and returns what stands for it behind `LIMIT`.
    pub(crate) fn limit(&mut self, most: Option<usize>) -> String {
        self.bind(most.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX)))
    }

    /// Returns the conditions as they stand in a statement.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the values of the statement.
    pub(crate) fn values(&self) -> impl rusqlite::Params + '_ {
        rusqlite::params_from_iter(self.values.iter().map(|value| value as &dyn ToSql))
    }
}
