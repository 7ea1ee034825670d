//! Starting processes that end with this one.

use std::{
    io,
    path::Path,
    process::{Child, Command},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use billhook_machine::disk;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread that starts processes, once it runs. The death of processes is bound to the thread that started them, so
/// it lasts as long as this process.
static STARTER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

fn starter() -> io::Result<mpsc::Sender<Job>> {
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(jobs) = &*starter {
        return Ok(jobs.clone());
    }
    let (jobs, todo) = mpsc::channel::<Job>();
    let run = move || todo.into_iter().for_each(|job| job());
    // Where the system gives no thread, it may give one the next time.
    thread::Builder::new().name("billhook-starter".to_owned()).spawn(run)?;
    Ok(starter.insert(jobs).clone())
}

/// Starts a process from the thread that never ends.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    let (done, started) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        let child = command.spawn().map_err(|error| disk::not_run(Path::new(command.get_program()), error));
        drop(done.send(child));
    });
    starter()?.send(job).map_err(|_| io::Error::other("the thread that starts processes ended"))?;
    started.recv().map_err(|_| io::Error::other("the thread that starts processes failed"))?
}
