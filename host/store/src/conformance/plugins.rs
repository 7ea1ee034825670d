//! Installed plugins, what they keep, and the generation.

use billhook_model::{PluginStatus, RunPolicy};

use super::subject::{Maker, tests, version, works};
use crate::{ChangeError, Crashed, NewVersion, Removal, Tried};

tests![
    a_plugin_that_is_installed_is_listed_with_everything_about_it,
    an_upgrade_keeps_settings_and_history_and_a_downgrade_goes_back,
    a_version_that_is_not_there_is_not_gone_back_to,
    only_what_hosts_have_to_notice_raises_the_generation,
    calls_go_to_the_version_in_use_unless_weights_say_otherwise,
    a_plugin_that_crashed_is_quarantined_only_if_it_is_still_the_same,
    what_a_plugin_is_needed_for_keeps_it_from_being_removed,
    what_a_plugin_keeps_is_its_own_and_goes_with_it,
    names_are_ordered_by_their_bytes,
];

fn a_plugin_that_is_installed_is_listed_with_everything_about_it(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    assert_eq!((plugins.list().expect("read"), plugins.details("a").expect("read")), (Vec::new(), None));
    let new =
        NewVersion { settings: Some(r#"{"x": 1.10}"#.to_owned()), tried: works(&["call"]), ..version("a", "1.0") };
    let summary = plugins.install(&new).expect("installed");
    assert_eq!((summary.id.as_str(), summary.version.as_str(), summary.status), ("a", "1.0", PluginStatus::Enabled));
    assert_eq!(plugins.list().expect("read"), std::slice::from_ref(&summary));
    assert_eq!(plugins.summary("a").expect("read"), Some(summary.clone()));
    let details = plugins.details("a").expect("read").expect("installed");
    assert_eq!(details.summary, summary);
    assert_eq!(details.settings.as_str(), r#"{"x": 1.10}"#, "to the letter");
    assert_eq!(details.manifest.as_str(), new.manifest);
    assert_eq!(details.usage_specs.len(), 1);
    assert_eq!(details.history.len(), 1);
    assert_eq!(details.history[0].installed_at.seconds(), 1_800_000_000);
    assert_eq!(plugins.all_details().expect("read"), [details]);
    assert_eq!(plugins.digests().expect("read"), std::slice::from_ref(&new.digest));
    let package = plugins.package("a", "1.0").expect("read").expect("installed");
    assert_eq!((package.digest, package.library_digest), (new.digest, new.library_digest));
    assert_eq!(plugins.package("a", "2.0").expect("read"), None);
    assert_eq!((subject.reopen)().plugins.list().expect("read"), [summary], "it is durable");
}

fn an_upgrade_keeps_settings_and_history_and_a_downgrade_goes_back(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    let first = NewVersion { settings: Some(r#"{"of": 1}"#.to_owned()), ..version("a", "1.0") };
    plugins.install(&first).expect("installed");
    plugins
        .install(&NewVersion { settings: Some(r#"{"of": 2}"#.to_owned()), ..version("a", "2.0") })
        .expect("installed");
    plugins.install(&NewVersion { tried: works(&["call"]), ..version("a", "3.0") }).expect("installed");
    let details = plugins.details("a").expect("read").expect("installed");
    let history: Vec<&str> = details.history.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(history, ["1.0", "2.0", "3.0"]);
    assert_eq!(details.settings.as_str(), r#"{"of": 2}"#);
    assert_eq!(plugins.settings_of_version("a", "1.0").expect("read").as_deref(), Some(r#"{"of": 1}"#));
    assert_eq!(plugins.settings_of_version("a", "3.0").expect("read"), None, "none took its place yet");
    let needs = Tried::NeedsSettings { message: "a key".to_owned() };
    let back = plugins.downgrade("a", "1.0", Some(r#"{"of": 1}"#), &needs).expect("gone back");
    assert_eq!((back.version.as_str(), back.status), ("1.0", PluginStatus::NeedsSettings));
    let details = plugins.details("a").expect("read").expect("installed");
    assert_eq!((details.history.len(), details.needs_settings.as_deref()), (1, Some("a key")));
    assert!(details.usage_specs.is_empty());
    let set = plugins.set_settings("a", r#"{"of": 3}"#, &works(&["call"])).expect("set");
    assert_eq!(set.status, PluginStatus::Enabled);
    let details = plugins.details("a").expect("read").expect("installed");
    assert_eq!((details.settings.as_str(), details.usage_specs.len()), (r#"{"of": 3}"#, 1));
    // A later version is another one than the one that was forgotten.
    plugins.install(&version("a", "2.0")).expect("installed");
    assert_eq!(plugins.details("a").expect("read").expect("installed").history.len(), 2);
}

fn a_version_that_is_not_there_is_not_gone_back_to(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    plugins.install(&version("a", "1.0")).expect("installed");
    let generation = plugins.generation().expect("read");
    let not_installed = |changed: Result<_, ChangeError>| assert!(matches!(changed, Err(ChangeError::NotInstalled)));
    not_installed(plugins.downgrade("a", "0.9", None, &works(&[])));
    not_installed(plugins.downgrade("b", "1.0", None, &works(&[])));
    not_installed(plugins.set_settings("b", "{}", &works(&[])));
    not_installed(plugins.set_enabled("b", true));
    not_installed(plugins.set_run_policy("b", &RunPolicy::default()));
    assert!(!plugins.set_priority("b", 1).expect("asked"));
    assert!(!plugins.set_weights("b", &[]).expect("asked"));
    assert!(!plugins.use_asset("b", "asset").expect("asked"));
    assert_eq!(plugins.remove("b", true).expect("asked"), Removal::NotInstalled);
    assert_eq!(plugins.settings("b").expect("read"), None);
    assert_eq!(plugins.run_policy("b").expect("read"), RunPolicy::default());
    assert_eq!(plugins.generation().expect("read"), generation, "nothing was changed");
}

fn only_what_hosts_have_to_notice_raises_the_generation(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    let plugins = &stores.plugins;
    let mut last = plugins.generation().expect("read");
    let mut raised = |by: i64, what: &str| {
        let now = plugins.generation().expect("read");
        assert_eq!(now - last, by, "{what}");
        last = now;
    };
    plugins.install(&version("a", "1.0")).expect("installed");
    raised(1, "an install");
    plugins.set_enabled("a", false).expect("set");
    raised(1, "it is switched off");
    plugins.set_run_policy("a", &RunPolicy::default()).expect("set");
    raised(1, "how it is run");
    assert!(plugins.set_priority("a", 7).expect("set"));
    raised(1, "its place");
    plugins.repaired().expect("told");
    raised(1, "files that were put back");
    assert!(stores.state.keep("a", "key", "value").expect("kept"));
    assert!(plugins.use_asset("a", "asset").expect("noted"));
    raised(0, "what it keeps, and what uses it");
    assert!(matches!(plugins.remove("a", false).expect("asked"), Removal::InUse(_)));
    raised(0, "a removal that is refused");
    assert_eq!(plugins.remove("a", true).expect("removed"), Removal::Done);
    raised(1, "a removal");
    assert_eq!(plugins.remove("a", true).expect("asked"), Removal::NotInstalled);
    raised(0, "a removal of nothing");
}

fn calls_go_to_the_version_in_use_unless_weights_say_otherwise(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    plugins.install(&version("a", "1.0")).expect("installed");
    plugins.install(&version("a", "2.0")).expect("installed");
    plugins.install(&version("b", "1.0")).expect("installed");
    let routed = |id: &str| {
        let routes = plugins.routes().expect("read");
        assert_eq!(routes.generation, plugins.generation().expect("read"));
        let plugin = routes.plugins.into_iter().find(|plugin| plugin.id == id).expect("installed");
        let versions = plugin.versions.into_iter().map(|version| (version.version, version.weight));
        versions.collect::<Vec<_>>()
    };
    let weights = |all: &[(&str, u32)]| -> Vec<(String, u32)> {
        all.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect()
    };
    assert_eq!(routed("a"), weights(&[("2.0", 1)]));
    assert!(plugins.set_weights("a", &weights(&[("1.0", 5), ("2.0", 95)])).expect("set"));
    assert_eq!(routed("a"), weights(&[("2.0", 95), ("1.0", 5)]), "the version in use first");
    assert_eq!(routed("b"), weights(&[("1.0", 1)]));
    let generation = plugins.generation().expect("read");
    assert!(!plugins.set_weights("a", &weights(&[("1.0", 1), ("9.0", 1)])).expect("asked"), "one isn't in the history");
    assert!(!plugins.set_weights("a", &weights(&[("1.0", 0)])).expect("asked"), "no weight at all");
    assert_eq!((routed("a").len(), plugins.generation().expect("read")), (2, generation));
    assert!(plugins.set_weights("a", &[]).expect("set"));
    assert_eq!(routed("a"), weights(&[("2.0", 1)]));
    assert!(plugins.set_weights("a", &weights(&[("1.0", 1), ("2.0", 1)])).expect("set"));
    plugins.install(&version("a", "3.0")).expect("installed");
    assert_eq!(routed("a"), weights(&[("3.0", 1)]), "an install lets all calls go to it");
    let events = plugins.routes().expect("read").plugins.swap_remove(0).versions.swap_remove(0).events;
    assert_eq!(events, ["clients.create"]);
}

fn a_plugin_that_crashed_is_quarantined_only_if_it_is_still_the_same(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    plugins.install(&version("a", "1.0")).expect("installed");
    let status = || plugins.summary("a").expect("read").expect("installed").status;
    let settings_changed = || plugins.routes().expect("read").plugins[0].settings_changed;
    let (digest, at) = (version("a", "1.0").digest, settings_changed());
    let crashed = Crashed { id: "a", digest: &digest, settings_changed: at };
    plugins.set_settings("a", "{}", &works(&[])).expect("set");
    plugins.quarantine(&crashed, "three crashes").expect("asked");
    assert_eq!(status(), PluginStatus::Enabled, "it has other settings");
    plugins
        .quarantine(&Crashed { digest: "another", settings_changed: settings_changed(), ..crashed }, "x")
        .expect("asked");
    assert_eq!(status(), PluginStatus::Enabled, "it is another version");
    let crashed = Crashed { settings_changed: settings_changed(), ..crashed };
    plugins.quarantine(&crashed, "three crashes").expect("quarantined");
    assert_eq!(status(), PluginStatus::Quarantined);
    let reason = plugins.routes().expect("read").plugins[0].quarantined.clone();
    assert_eq!(reason.as_deref(), Some("three crashes"));
    assert_eq!(plugins.set_enabled("a", true).expect("enabled").status, PluginStatus::Enabled);
    plugins.quarantine(&crashed, "three crashes").expect("asked");
    assert_eq!(status(), PluginStatus::Enabled, "it begins anew");
    let crashed = Crashed { settings_changed: settings_changed(), ..crashed };
    plugins.quarantine(&crashed, "three crashes").expect("quarantined");
    plugins.install(&version("a", "2.0")).expect("installed");
    assert_eq!(status(), PluginStatus::Enabled, "an upgrade may do better");
}

fn what_a_plugin_is_needed_for_keeps_it_from_being_removed(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    let plugins = &stores.plugins;
    plugins.install(&version("a", "1.0")).expect("installed");
    plugins.install(&version("b", "1.0")).expect("installed");
    assert!(plugins.use_asset("a", "one").expect("noted") && plugins.use_asset("a", "two").expect("noted"));
    // An asset has one plugin.
    assert!(plugins.use_asset("b", "two").expect("noted"));
    assert!(stores.state.keep("a", "key", "é").expect("kept"));
    let Removal::InUse(uses) = plugins.remove("a", false).expect("asked") else { panic!("it was removed") };
    assert_eq!((uses.assets, uses.state.values, uses.state.bytes, uses.unsent_usage), (1, 1, 5, 0));
    assert_eq!(plugins.details("a").expect("read").expect("installed").assets_in_use, 1);
    assert!(plugins.release_asset("one").expect("released") && !plugins.release_asset("one").expect("asked"));
    stores.state.delete("a", "key").expect("deleted");
    assert_eq!(plugins.remove("a", false).expect("removed"), Removal::Done);
    assert_eq!(plugins.remove("b", true).expect("removed"), Removal::Done);
    plugins.install(&version("b", "1.0")).expect("installed");
    assert_eq!(plugins.remove("b", false).expect("removed"), Removal::Done, "its assets went with it");
}

fn what_a_plugin_keeps_is_its_own_and_goes_with_it(make: Maker<'_>) {
    let subject = make();
    let (plugins, state) = (&subject.stores.plugins, &subject.stores.state);
    assert!(!state.keep("a", "key", "value").expect("asked"), "it isn't installed");
    assert_eq!(state.get("a", "key").expect("read"), None);
    plugins.install(&version("a", "1.0")).expect("installed");
    plugins.install(&version("b", "1.0")).expect("installed");
    assert!(state.keep("a", "key", "1").expect("kept") && state.keep("a", "key", "2\0é").expect("kept"));
    assert!(state.keep("b", "key", "").expect("kept"));
    assert_eq!(state.get("a", "key").expect("read").as_deref(), Some("2\0é".as_bytes()));
    assert_eq!(state.get("b", "key").expect("read").as_deref(), Some(&b""[..]));
    state.delete("b", "key").expect("deleted");
    state.delete("b", "key").expect("deleted again");
    assert_eq!(state.get("b", "key").expect("read"), None);
    plugins.install(&version("a", "2.0")).expect("upgraded");
    assert!(state.get("a", "key").expect("read").is_some(), "an upgrade keeps it");
    assert_eq!(plugins.remove("a", true).expect("removed"), Removal::Done);
    plugins.install(&version("a", "1.0")).expect("installed");
    assert_eq!(state.get("a", "key").expect("read"), None);
}

fn names_are_ordered_by_their_bytes(make: Maker<'_>) {
    let subject = make();
    let plugins = &subject.stores.plugins;
    for id in ["b", "é", "a-b", "ab", "Z", "_"] {
        plugins.install(&version(id, "1.0")).expect("installed");
    }
    let ids: Vec<String> = plugins.list().expect("read").into_iter().map(|plugin| plugin.id).collect();
    assert_eq!(ids, ["Z", "_", "a-b", "ab", "b", "é"]);
}
