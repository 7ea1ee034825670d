//! A call of `on_product_acquisition` through the host against the bare call of the same function.
#![allow(clippy::print_stdout, unsafe_code, reason = "a benchmark prints, and its floor is a bare call")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use billhook::{
    Host, HostOptions, Install,
    data::{Asset, Contract, Order, User},
};
use billhook_plugin_api::{
    PluginError,
    abi::{
        PLUGIN_ENTRY,
        module::LoadedModule,
        reply::Reply,
        services::{HostServices, SharedServices},
        tables::LentAsset,
    },
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: it is the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct NoServices;

impl HostServices for NoServices {
    fn plugin_id(&self) -> &str {
        "bare"
    }
    fn settings(&self) -> &str {
        "{}"
    }
    fn package_folder(&self) -> &str {
        "/"
    }
    fn log(&self, _level: u32, _message: &str) {}
    fn state_get(&self, _key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(None)
    }
    fn state_keep(&self, _key: &str, _value: &str) -> Result<(), PluginError> {
        Ok(())
    }
    fn state_delete(&self, _key: &str) -> Result<(), PluginError> {
        Ok(())
    }
}

const CALLS: u32 = 500_000;

fn order(contracts: usize) -> Order {
    Order {
        order_id: "order-1".to_owned(),
        customer: User { username: "ada".to_owned(), ..User::default() },
        date: std::time::SystemTime::UNIX_EPOCH.into(),
        tax_address: Default::default(),
        contracts: (0..contracts)
            .map(|index| Contract { item_id: format!("item-{index}"), ..Contract::default() })
            .collect(),
        extra: Default::default(),
    }
}

/// Calls a second of so many threads, each making [`CALLS`] calls.
fn throughput(threads: usize, calls: &(impl Fn() + Sync)) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(calls);
        }
    });
    f64::from(CALLS) * threads as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    billhook::run_child_process();
    let folder = tempfile::tempdir().expect("a folder");
    let package = support::package("reader", "Reader", 0, folder.path());
    let host = Host::open_with(folder.path().join("home"), HostOptions::new()).expect("opens");
    host.install(&package, &Install::default()).expect("installed");
    let module = host.show("reader").expect("installed").module.path;
    let digest = host.show("reader").expect("installed").history[0].digest.clone();
    let path = folder.path().join("home/packages").join(digest).join(module);

    // SAFETY: the fixture's library has nothing to fear, and is never closed.
    let library = std::mem::ManuallyDrop::new(unsafe { libloading::Library::new(&path) }.expect("opens"));
    // SAFETY: only the address is used.
    let entry = unsafe { library.get::<*const ()>(PLUGIN_ENTRY).expect("there").try_as_raw_ptr().expect("there") };
    // SAFETY: the fixture was built with the same API.
    let module = unsafe { LoadedModule::from_entry(entry.cast(), false) }.unwrap_or_else(|error| panic!("{error:?}"));
    let services = SharedServices::new(std::sync::Arc::new(NoServices));
    let instance = module.construct(services).expect("it works");
    let (hook, _) = instance.bare_acquisition().expect("implemented");
    let instance = &instance;

    let asset = Asset { id: "asset-1".to_owned(), resource_type: "Reader".to_owned(), ..Asset::default() };
    let ns = |duration: Duration| duration.as_secs_f64() * 1e9 / f64::from(CALLS);
    for contracts in [1, 1000] {
        let order = order(contracts);
        let contract = &order.contracts[contracts - 1];
        let bare = || {
            let lent = LentAsset::new(&asset);
            let mut reply = Reply::default();
            let (handle, reply) = (lent.handle(), reply.handle());
            let (_, this) = instance.bare_acquisition().expect("implemented");
            for _ in 0..CALLS {
                // SAFETY: the instance and all handles are alive.
                let status = unsafe {
                    (hook.0)(black_box(this), black_box(handle), contract.into(), (&order).into(), black_box(reply))
                };
                assert_eq!(black_box(status), 0);
            }
        };
        let through_host = || {
            for _ in 0..CALLS {
                let changes = host.on_product_acquisition(black_box(&asset), black_box(contract), black_box(&order));
                assert!(black_box(changes).is_ok());
            }
        };
        through_host();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        through_host();
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        let (floor, subject) = support::in_turn(31, bare, through_host);
        println!(
            "dispatch, order of {contracts}: bare {:.1} ns, through the host {:.1} ns, over the bare call {:.1} ns, \
             {allocations} allocations in {CALLS} calls",
            ns(floor),
            ns(subject),
            ns(subject) - ns(floor),
        );
        // The best of many rounds: what disturbs a round makes it slower, and never faster.
        let mut best = [0.0_f64; 4];
        for _ in 0..40 {
            let round = [
                throughput(1, &bare),
                throughput(2, &bare),
                throughput(1, &through_host),
                throughput(2, &through_host),
            ];
            best = std::array::from_fn(|index| best[index].max(round[index]));
        }
        let (bare, through_host) = (best[1] / best[0], best[3] / best[2]);
        println!(
            "dispatch, order of {contracts}, two threads: bare scales {bare:.3}, through the host {through_host:.3}, ratio {:.3}",
            through_host / bare
        );
    }
}
