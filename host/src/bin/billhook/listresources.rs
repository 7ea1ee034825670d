//! `billhook listresources`

use billhook::{Resource, ResourceFilter, data::ObjectId};

use crate::{
    global::Global,
    output::{Output, rows},
    search,
    times::date,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The add-on's id
    #[arg(long, value_name = "ID")]
    addon: Option<String>,
    /// At most so many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let filter = ResourceFilter {
        addon: arguments.addon.clone(),
        limit: search::at_most(arguments.limit),
        ..ResourceFilter::default()
    };
    let mut resources = global.existing_host()?.map(|host| host.resources(&filter)).transpose()?.unwrap_or_default();
    resources.reverse();
    let terminal = output.is_terminal();
    output.answer(&resources, |resources| {
        let titles = ["Add-on", "Id", "Platform's id", "Plan", "Region", "Variables", "Made", "Changed"];
        rows(terminal, &titles, resources.iter().map(cells))
    })
}

fn cells(resource: &Resource) -> Vec<String> {
    let text = |id: &Option<ObjectId>| id.as_ref().map(|id| id.as_str().to_owned());
    vec![
        resource.addon.clone(),
        text(&resource.id).unwrap_or_else(|| "(unknown)".to_owned()),
        text(&resource.platform_id).unwrap_or_default(),
        resource.plan.clone().unwrap_or_default(),
        resource.region.clone().unwrap_or_default(),
        resource.config_vars.join(" "),
        date(resource.created),
        date(resource.changed),
    ]
}
