//! `billhook quickstart`

#[derive(clap::Args)]
pub(crate) struct Arguments {}
pub(crate) fn run(_: &Arguments, _: &crate::output::Output) -> anyhow::Result<()> {
    Ok(())
}
