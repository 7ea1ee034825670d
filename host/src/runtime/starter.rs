//! Starting processes that end with this one.

use std::{
    io,
    process::{Child, Command},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

/// The thread that starts processes. Their death is bound to the thread that started them, so it lasts as long as this process.
struct Starter {
    jobs: Mutex<mpsc::Sender<Job>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Starter {
    fn get() -> io::Result<&'static Starter> {
        static STARTER: OnceLock<Option<Starter>> = OnceLock::new();
        let starter = STARTER.get_or_init(|| {
            let (jobs, todo) = mpsc::channel::<Job>();
            let run = move || todo.into_iter().for_each(|job| job());
            thread::Builder::new().name("billhook-starter".to_owned()).spawn(run).ok()?;
            Some(Starter { jobs: Mutex::new(jobs) })
        });
        starter.as_ref().ok_or_else(|| io::Error::other("the thread that starts processes can't be started"))
    }
}

/// Starts a process from the thread that never ends.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    let (done, started) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || drop(done.send(command.spawn())));
    let jobs = Starter::get()?.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    jobs.send(job).map_err(|_| io::Error::other("the thread that starts processes ended"))?;
    started.recv().map_err(|_| io::Error::other("the thread that starts processes failed"))?
}
