//! The last words of a process that crashes: what a plugin, or a library below it, wrote just before.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

/// The signals of crashes.
const CRASHES: [i32; 5] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// So many milliseconds a crash waits at most for others who are about to write: on a busy machine they get their turn late.
const MOST_WAITS: u32 = 500;

/// The pipe that is read, where its text goes, and how much others are about to write there.
static STREAMS: OnceLock<(OwnedFd, OwnedFd, &AtomicUsize)> = OnceLock::new();
/// What each of the signals did before.
static BEFORE: [AtomicPtr<libc::sigaction>; CRASHES.len()] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 5];

/// Writes what is left in a pipe to another descriptor when this process crashes; it crashes all the same. What is no printable
/// ASCII is written as `?`.
///
/// For a program that leads its standard error through a pipe which a thread of its own reads: without this, the last lines would
/// be lost, and they say why it crashed. As long as `pending` isn't zero, that thread has something to write, for which a crash
/// waits half a second at most. To be called once, before plugins are loaded. Both descriptors are kept open; reading must
/// not block.
///
/// # Errors
/// It was called before, or the system takes no handlers.
pub fn keep_last_words(pipe: OwnedFd, to: OwnedFd, pending: &'static AtomicUsize) -> io::Result<()> {
    STREAMS.set((pipe, to, pending)).map_err(|_| io::Error::other("last words are kept already"))?;
    for (signal, before) in CRASHES.into_iter().zip(&BEFORE) {
        // SAFETY: the actions are plain data; the handler is a function of the kind that SA_SIGINFO asks for. What stood there
        // before is leaked, so that the handler can read it at any time.
        unsafe {
            let old: *mut libc::sigaction = Box::into_raw(Box::new(std::mem::zeroed()));
            if libc::sigaction(signal, std::ptr::null(), old) != 0 {
                return Err(io::Error::last_os_error());
            }
            before.store(old, Ordering::Release);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_crash as *const () as usize;
            // On a stack of its own, where the thread has one: its own may be used up.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Runs in a signal handler: it calls nothing but what may be called there, and takes no lock and no memory.
extern "C" fn on_crash(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    static IS_COPYING: AtomicBool = AtomicBool::new(false);
    if !IS_COPYING.swap(true, Ordering::Relaxed)
        && let Some((pipe, to, pending)) = STREAMS.get()
    {
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        for _ in 0..MOST_WAITS {
            if pending.load(Ordering::SeqCst) == 0 {
                copy(pipe.as_raw_fd(), to.as_raw_fd());
                // Whoever took something from the pipe before said first that it is about to.
                if pending.load(Ordering::SeqCst) == 0 {
                    break;
                }
            }
            // SAFETY: the time is plain data; what is left of it isn't asked for.
            unsafe { libc::nanosleep(&raw const moment, std::ptr::null_mut()) };
        }
        // Where the others don't get on with it, what is still in the pipe goes out all the same.
        copy(pipe.as_raw_fd(), to.as_raw_fd());
        // What comes after this signal may say more: the handler of an overflow of the stack does, and then aborts.
        IS_COPYING.store(false, Ordering::Relaxed);
    }
    let before = CRASHES.iter().zip(&BEFORE).find(|(crash, _)| **crash == signal);
    let before = before.map_or(std::ptr::null_mut(), |(_, before)| before.load(Ordering::Acquire));
    // SAFETY: what stood there before is one that `sigaction` filled and nobody frees. A handler that asks for three arguments gets
    // those of this one. Without a handler the default is put back: the fault happens again when this returns, and `abort` raises
    // its signal again.
    unsafe {
        let handler = if before.is_null() { libc::SIG_DFL } else { (*before).sa_sigaction };
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
            // One that was sent by a process doesn't happen again by itself.
            if !info.is_null() && (*info).si_code <= 0 {
                libc::raise(signal);
            }
        } else if (*before).sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            handler(signal);
        }
    }
}

/// Copies what is there, as long as it can be written at once.
fn copy(from: i32, to: i32) {
    // Small, because the stack for signals is, too.
    let mut buffer = [0_u8; 256];
    // A pipe holds no more than this by default; whoever goes on writing to it doesn't hold up the end.
    for _ in 0..256 {
        // SAFETY: the buffer has so many bytes; both descriptors are open for good.
        let read = unsafe { libc::read(from, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(read @ 1..) = usize::try_from(read) else { return };
        for byte in &mut buffer[..read] {
            if !matches!(byte, b' '..=b'~' | b'\n' | b'\t') {
                *byte = b'?';
            }
        }
        let mut ready = libc::pollfd { fd: to, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one such structure, and the buffer has so many bytes.
        unsafe {
            if libc::poll(&raw mut ready, 1, 0) != 1 || libc::write(to, buffer.as_ptr().cast(), read) <= 0 {
                return;
            }
        }
    }
}
