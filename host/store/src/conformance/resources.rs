//! Add-ons and their resources.

use billhook_model::{Clock as _, ResourceFilter};
use billhook_plugin_api::data::{AddonRequest, ObjectId, Provisioned};

use super::subject::{Maker, Subject, tests, version, with_addon};
use crate::{AddonClash, ChangeError, NewResource, NewVersion, Removal};

tests![
    a_request_with_a_key_makes_one_resource,
    a_request_without_a_key_is_taken_for_one_that_was_made_in_vain,
    an_id_that_another_customer_has_is_refused,
    what_is_changed_or_forgotten_is_seen,
    an_add_on_belongs_to_one_plugin,
    resources_keep_their_add_on_and_go_over_to_another_only_if_that_is_said,
];

pub(super) fn request(uuid: Option<&str>, platform_id: Option<i64>) -> AddonRequest {
    AddonRequest {
        uuid: uuid.map(str::to_owned),
        platform_id: platform_id.map(ObjectId::from),
        plan: Some("basic".to_owned()),
        ..AddonRequest::default()
    }
}

fn subject(make: Maker<'_>) -> Subject {
    let subject = make();
    subject.stores.plugins.install(&with_addon("notes", version("a", "1.0"))).expect("installed");
    subject
}

fn noted(new: NewResource) -> i64 {
    let NewResource::Noted(number) = new else { panic!("{new:?}") };
    number
}

fn a_request_with_a_key_makes_one_resource(make: Maker<'_>) {
    let subject = subject(make);
    let resources = &subject.stores.resources;
    assert_eq!(resources.note_resource("nope", &request(Some("k"), None)).expect("asked"), NewResource::NoAddon);
    let number = noted(resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted"));
    let again = resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted");
    assert_eq!(again, NewResource::AskedBefore(number));
    let made = Provisioned::new(7).with("URL", "https://a.example/7").with_message("hello");
    let resource = resources.made_resource(number, &made).expect("recorded").expect("it is its own");
    assert_eq!((resource.number, resource.id.as_ref().map(ObjectId::as_str)), (number, Some("7")));
    assert_eq!((resource.config["URL"].as_str(), resource.config_vars.len()), ("https://a.example/7", 1));
    assert_eq!((resource.plan.as_deref(), resource.message.as_deref()), (Some("basic"), Some("hello")));
    assert_eq!(resource.created, subject.clock.now());
    assert_eq!(resources.made_resource(number, &made).expect("recorded again"), Some(resource.clone()));
    let again = resources.note_resource("notes", &request(Some("k"), Some(1))).expect("asked");
    assert_eq!(again, NewResource::Known(Box::new(resource.clone())));
    let reopened = (subject.reopen)();
    assert_eq!(reopened.resources.resource("notes", "7").expect("read"), Some(resource.clone()), "it is durable");
    assert_eq!(resources.owners("7").expect("read"), ["notes"]);
    let second = noted(resources.note_resource("notes", &request(Some("other"), Some(1))).expect("noted"));
    let found = resources.resources(&ResourceFilter::default()).expect("read");
    assert_eq!(found.iter().map(|found| found.number).collect::<Vec<_>>(), [second, number]);
    let filter = ResourceFilter { id: Some("7".to_owned()), ..ResourceFilter::default() };
    assert_eq!(resources.resources(&filter).expect("read"), [resource]);
    let filter = ResourceFilter { before: Some(second), limit: Some(1), ..ResourceFilter::default() };
    assert_eq!(resources.resources(&filter).expect("read").len(), 1);
    let filter = ResourceFilter { addon: Some("nope".to_owned()), ..ResourceFilter::default() };
    assert!(resources.resources(&filter).expect("read").is_empty());
}

fn a_request_without_a_key_is_taken_for_one_that_was_made_in_vain(make: Maker<'_>) {
    let subject = subject(make);
    let resources = &subject.stores.resources;
    let number = noted(resources.note_resource("notes", &request(None, Some(1))).expect("noted"));
    let again = resources.note_resource("notes", &request(None, Some(1))).expect("noted");
    assert_eq!(again, NewResource::AskedBefore(number));
    noted(resources.note_resource("notes", &request(None, Some(2))).expect("another customer's"));
    resources.made_resource(number, &Provisioned::new("x")).expect("recorded");
    // It is there: this asks for a second one.
    let second = noted(resources.note_resource("notes", &request(None, Some(1))).expect("noted"));
    // The add-on has only one for this customer: the two are one.
    let resource =
        resources.made_resource(second, &Provisioned::new("x")).expect("recorded").expect("the same customer's");
    assert_eq!(resource.number, number);
    noted(resources.note_resource("notes", &request(None, None)).expect("nobody's"));
    noted(resources.note_resource("notes", &request(None, None)).expect("nobody's, again"));
}

fn an_id_that_another_customer_has_is_refused(make: Maker<'_>) {
    let subject = subject(make);
    let resources = &subject.stores.resources;
    let first = noted(resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted"));
    let second = noted(resources.note_resource("notes", &request(Some("l"), Some(2))).expect("noted"));
    let own = resources.made_resource(first, &Provisioned::new("x").with("URL", "1")).expect("recorded");
    assert_eq!(resources.made_resource(second, &Provisioned::new("x").with("URL", "2")).expect("asked"), None);
    assert_eq!(resources.resource("notes", "x").expect("read"), own, "it stays as it is");
    let again = resources.note_resource("notes", &request(Some("l"), Some(2))).expect("asked");
    assert_eq!(again, NewResource::AskedBefore(second));
}

fn what_is_changed_or_forgotten_is_seen(make: Maker<'_>) {
    let subject = subject(make);
    let resources = &subject.stores.resources;
    let number = noted(resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted"));
    resources.made_resource(number, &Provisioned::new("x").with("URL", "1")).expect("recorded");
    resources.change_resource(number, Some("premium"), None).expect("changed");
    let found = || resources.resource("notes", "x").expect("read");
    let resource = found().expect("there");
    assert_eq!((resource.plan.as_deref(), resource.config["URL"].as_str()), (Some("premium"), "1"));
    resources.change_resource(number, None, Some(&[("URL".to_owned(), "2".to_owned())].into())).expect("changed");
    let resource = found().expect("there");
    assert_eq!((resource.plan.as_deref(), resource.config["URL"].as_str()), (Some("premium"), "2"));
    resources.forget_resource(number).expect("forgotten");
    resources.forget_resource(number).expect("forgotten again");
    assert_eq!(found(), None);
}

fn an_add_on_belongs_to_one_plugin(make: Maker<'_>) {
    let subject = subject(make);
    let stores = &subject.stores;
    let addons = stores.resources.addons().expect("read");
    assert_eq!((addons[0].id.as_str(), addons[0].plugin.as_str(), addons[0].author.as_str()), ("notes", "a", "acme"));
    assert_eq!(addons[0].config_vars, ["URL"]);
    let generation = stores.plugins.generation().expect("read");
    let taken = stores.plugins.install(&with_addon("notes", version("b", "1.0"))).expect_err("refused");
    let expected = AddonClash::Taken { addon: "notes".to_owned(), plugin: "a".to_owned() };
    assert!(matches!(taken, ChangeError::Clash(clash) if clash == expected));
    assert_eq!(stores.plugins.summary("b").expect("read"), None);
    assert_eq!(stores.plugins.generation().expect("read"), generation, "nothing was changed");
}

fn resources_keep_their_add_on_and_go_over_to_another_only_if_that_is_said(make: Maker<'_>) {
    let subject = subject(make);
    let stores = &subject.stores;
    noted(stores.resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted"));
    let leaves = stores.plugins.install(&version("a", "2.0")).expect_err("refused");
    assert!(matches!(leaves, ChangeError::Clash(AddonClash::LeavesResources { resources: 1, .. })));
    let Removal::InUse(uses) = stores.plugins.remove("a", false).expect("asked") else { panic!("it was removed") };
    assert_eq!(uses.resources.map(|resources| resources.count), Some(1));
    assert_eq!(stores.plugins.remove("a", true).expect("removed"), Removal::Done);
    assert_eq!(stores.resources.resources(&ResourceFilter::default()).expect("read").len(), 1, "they outlive it");
    let other = with_addon("notes", version("b", "1.0"));
    let others = stores.plugins.install(&other).expect_err("refused");
    assert!(matches!(others, ChangeError::Clash(AddonClash::OthersResources { plugin, .. }) if plugin == "a"));
    stores.plugins.install(&NewVersion { takes_over: true, ..other }).expect("it was said");
    let next = with_addon("notes", version("b", "2.0"));
    stores.plugins.install(&next).expect("they are its own now");
}
