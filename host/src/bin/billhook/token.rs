//! `billhook token create | list | remove`

use std::time::Duration;

use billhook::{Clock, MachineClock, Scope, Token};
use clap::Subcommand;
use serde::Serialize;

use crate::{
    choice::explained_choice,
    global::Global,
    output::{Output, rows},
    times::{date, lasting},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token, and print it: it is shown once and kept nowhere
    Create {
        /// What it allows; each scope allows what those before it do
        #[arg(long, value_name = "SCOPE", value_parser = explained_choice::<Scope>())]
        scope: Scope,
        /// What you call it, to know it again
        #[arg(long, value_name = "NAME", default_value = "unnamed")]
        name: String,
        /// How long it counts, such as 90d; for ever if left out
        #[arg(long, value_name = "TIME", value_parser = lasting)]
        expires: Option<u64>,
    },
    /// List the tokens
    List,
    /// Remove a token: within a second, no server takes it any more
    Remove {
        /// Its id, as list shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Serialize)]
struct Created {
    token: String,
    #[serde(flatten)]
    about: Token,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    match &arguments.verb {
        Verb::Create { scope, name, expires } => {
            let until = |lasts: u64| MachineClock.now().after(Duration::from_millis(lasts));
            let home = global.home()?;
            if !home.join("registry.db").exists() {
                output.note("note", &format!("there is no home at {} yet: a new one is made", home.display()));
            }
            let (about, token) = global.new_host()?.create_token(name, *scope, expires.map(until))?;
            output.answer(&Created { token, about }, |created| created.token.clone())
        }
        Verb::List => {
            let tokens = global.existing_host()?.map(|host| host.tokens()).transpose()?.unwrap_or_default();
            let terminal = output.is_terminal();
            output.answer(&tokens, |tokens| {
                let titles = ["Id", "Name", "Scope", "Made", "Expires"];
                rows(terminal, &titles, tokens.iter().map(cells))
            })
        }
        Verb::Remove { id } => {
            global.host()?.remove_token(id)?;
            output.answer(&serde_json::json!({"removed": id}), |_| format!("the token {id} was removed"))
        }
    }
}

fn cells(token: &Token) -> Vec<String> {
    vec![
        token.id.clone(),
        token.name.clone(),
        token.scope.name().to_owned(),
        date(token.created),
        token.expires.map_or_else(String::new, |expires| {
            date(expires) + if token.is_expired(MachineClock.now()) { " (expired)" } else { "" }
        }),
    ]
}
