//! Calls: which plugin they reach, in parallel, while plugins are changed.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use billhook::{Hook, Host, Install, data::Asset};

use crate::support::{Home, Package, acquire, acquired, asset, order, wait_for};

/// `Host` may be shared among all threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Host>();
};

#[test]
fn calls_from_many_threads_run_at_the_same_time() {
    let home = Home::new();
    home.load(&Package::new("Waiter").of("waiter")).succeeded();
    let host = home.host();
    // Each call waits for a file that is written only when all are inside.
    let files: Vec<_> = (0..8).map(|index| home.folder().join(format!("go-{index}"))).collect();
    std::thread::scope(|scope| {
        let calls: Vec<_> = files
            .iter()
            .map(|file| {
                let link = file.to_str().expect("UTF-8").to_owned();
                let asset = Asset { download_link: Some(link), ..asset("Waiter") };
                let host = &host;
                scope.spawn(move || acquire(host, &asset).expect("it works"))
            })
            .collect();
        for file in &files {
            wait_for("all calls to be inside", || file.with_extension("called").exists());
        }
        for file in &files {
            fs::write(file, "").expect("written");
        }
        for call in calls {
            assert_eq!(call.join().expect("no panic").meta_info.expect("answered").as_str(), "\"waited\"");
        }
    });
}

#[test]
fn a_call_under_way_finishes_on_the_version_that_it_began_with() {
    let home = Home::new();
    home.load(&Package::new("X").of("waiter")).succeeded();
    let host = home.host();
    let file = home.folder().join("go");
    let waiting = Asset { download_link: file.to_str().map(str::to_owned), ..asset("X") };
    std::thread::scope(|scope| {
        let call = scope.spawn(|| acquire(&host, &waiting).expect("it works"));
        wait_for("the call to be inside", || file.with_extension("called").exists());
        host.install(Package::new("X").version("2").write(home.folder()), &Install::default()).expect("upgraded");
        assert_eq!(acquired(&host, "X").expect("the new version"), "\"healthy\"");
        host.remove("x", false).expect("removed");
        acquired(&host, "X").expect_err("gone");
        fs::write(&file, "").expect("written");
        assert_eq!(call.join().expect("no panic").meta_info.expect("answered").as_str(), "\"waited\"");
    });
}

#[test]
fn changes_by_another_process_are_noticed_within_a_second() {
    let home = Home::new();
    let host = home.host();
    acquired(&host, "X").expect_err("not yet");
    let within_a_second = |what: &str, holds: &dyn Fn() -> bool| {
        // The process that made the change is done; from then on it is a second at most, on a machine with nothing to do.
        let start = Instant::now();
        wait_for(what, holds);
        start.elapsed()
    };
    home.load(&Package::new("X")).succeeded();
    let first = within_a_second("the install", &|| acquired(&host, "X").is_ok());
    home.load(&Package::new("X").of("keeper").version("2")).succeeded();
    within_a_second("the upgrade", &|| acquired(&host, "X").is_err());
    home.run(&["downgradeplugin", "x"]).succeeded();
    within_a_second("the downgrade", &|| acquired(&host, "X").is_ok());
    home.run(&["disableplugin", "x"]).succeeded();
    within_a_second("that it is off", &|| acquired(&host, "X").is_err());
    home.run(&["enableplugin", "x"]).succeeded();
    within_a_second("that it is on", &|| acquired(&host, "X").is_ok());
    home.run(&["removeplugin", "x"]).succeeded();
    let last = within_a_second("the removal", &|| acquired(&host, "X").is_err());
    // Noisy machines are slower than the interval, and still far from a host that needs a restart.
    assert!(first + last < Duration::from_secs(30), "{first:?} {last:?}");
}

#[test]
fn opening_a_home_of_a_thousand_plugins_opens_no_library() {
    let home = Home::new();
    home.load(&Package::new("Plugin 0")).succeeded();
    drop(home.host());
    multiply(&home, 1000);
    let host = home.host();
    assert_eq!(host.list().expect("readable").len(), 1000);
    assert_eq!(host.loaded(), 0);
    let maps = || fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = |maps: &str| {
        maps.lines()
            .filter(|line| line.contains(home.path().to_str().expect("UTF-8")))
            .filter(|line| line.contains("/packages/"))
            .count()
    };
    assert_eq!(mapped(&maps()), 0);
    assert_eq!(acquired(&host, "Plugin 999").expect("it works"), "\"healthy\"");
    assert_eq!(host.loaded(), 1);
}

/// Copies the one plugin of a home until there are `count`.
fn multiply(home: &Home, count: usize) {
    let registry = rusqlite::Connection::open(home.path().join("registry.db")).expect("opened");
    let script: String = (1..count)
        .map(|index| {
            format!(
                "INSERT INTO plugin (id, position, enabled, settings, settings_changed, needs_settings) SELECT 'plugin-{index}', position, enabled, settings, settings_changed, needs_settings
                     FROM plugin WHERE id = 'plugin-0';
                 INSERT INTO version (plugin, position, version, name, author, digest, library_digest, manifest, module,
                     usage_specs, installed_at) SELECT 'plugin-{index}', position, version, 'Plugin {index}', author, digest,
                     library_digest, manifest, module, usage_specs, installed_at FROM version WHERE plugin = 'plugin-0';"
            )
        })
        .collect();
    registry
        .execute_batch(&format!("BEGIN; {script} UPDATE registry SET generation = generation + 1; COMMIT"))
        .expect("copied");
}

#[test]
fn a_hook_that_is_not_implemented_costs_no_call_and_loads_nothing() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let host = home.host();
    let order = order();
    let changes = host.on_product_suspension(&asset("X"), &order.contracts[0], &order).expect("nothing to do");
    assert!(changes.is_empty());
    assert_eq!(host.get_usage_specs("X").expect("nothing to say"), []);
    assert_eq!(host.loaded(), 0);
    assert_eq!(host.implements("X", Hook::OnProductAcquisition), Some(true));
    assert_eq!(host.implements("X", Hook::OnProductSuspension), Some(false));
    assert_eq!(host.implements("Y", Hook::OnProductSuspension), None);
}

#[test]
fn every_call_is_answered_while_plugins_are_installed_changed_and_removed() {
    let home = Home::new();
    home.load(&Package::new("Steady")).succeeded();
    home.load(&Package::new("Busy")).succeeded();
    let host = home.host();
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(acquired(&host, "Steady").expect("it never changes"), "\"healthy\"");
                    // Whatever state it is in, the answer is one of these.
                    if let Err(error) = acquired(&host, "Busy") {
                        let known =
                            ["disabled", "not supported asset type"].iter().any(|part| error.message().contains(part));
                        assert!(known, "{error}");
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 2..8 {
            let package = Package::new("Busy").version(&round.to_string()).write(home.folder());
            host.install(package, &Install::default()).expect("upgraded");
            host.set_settings("busy", &format!("{{\"round\": {round}}}")).expect("set");
            host.set_enabled("busy", false).expect("off");
            host.set_enabled("busy", true).expect("on");
            host.downgrade("busy", &Default::default()).expect("downgraded");
            host.remove("busy", false).expect("removed");
            host.install(Package::new("Busy").write(home.folder()), &Install::default()).expect("installed");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 100);
}

#[test]
fn plugins_do_not_see_each_others_symbols() {
    let home = Home::new();
    for (name, fixture) in [("One", "symbol_one"), ("Two", "symbol_two")] {
        home.load(&Package::new(name).of(fixture)).succeeded();
    }
    let host = home.host();
    assert_eq!(acquired(&host, "One").expect("it works"), "\"one\"");
    assert_eq!(acquired(&host, "Two").expect("it works"), "\"two\"");
}

#[test]
fn a_plugin_that_hangs_on_new_settings_holds_up_nothing_else() {
    let home = Home::new();
    let options = crate::support::options().trial_limit(Duration::from_secs(2));
    let host = Host::open_with(home.path(), options).expect("opens");
    let install = |package: Package| host.install(package.write(home.folder()), &Install::default());
    install(Package::new("Hangs").of("hang_with_settings")).expect("installed");
    install(Package::new("Healthy")).expect("installed");
    assert_eq!(acquired(&host, "Hangs").expect("it works"), "\"still here\"");

    host.set_settings("hangs", "{\"hang\": true}").expect("the trial found nothing wrong");
    assert_eq!(acquired(&host, "Hangs").expect("the old instance serves"), "\"still here\"");
    install(Package::new("Healthy").version("2")).expect("other plugins can be upgraded");
    assert_eq!(acquired(&host, "Healthy").expect("and called"), "\"healthy\"");
    host.set_enabled("hangs", false).expect("and this one switched off");
    assert!(acquired(&host, "Hangs").is_err());
    home.run(&["removeplugin", "healthy"]).succeeded();
    wait_for("the removal to be noticed", || acquired(&host, "Healthy").is_err());
}
