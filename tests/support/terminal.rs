//! Runs of the command on a terminal, as a person sees them.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A terminal, and the side of it that a command gets.
pub(crate) fn terminal() -> (OwnedFd, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("usable");
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).expect("it takes a size");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name");
    let side = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("opened");
    (terminal, File::from(side))
}

/// Runs a command on a terminal of its own: its exit code, and what it showed.
pub(crate) fn run_on_terminal(command: &mut Command) -> (Option<i32>, String) {
    let (terminal, side) = terminal();
    let shown = || Stdio::from(side.try_clone().expect("opened"));
    let mut child = command.stdin(shown()).stdout(shown()).stderr(shown()).spawn().expect("it starts");
    drop(side);
    // The command has the only other ends; reading fails when it closed them.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut text, mut buffer, mut terminal) = (Vec::new(), [0; 4096], File::from(terminal));
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        text.extend(&buffer[..count]);
    }
    let status = child.wait().expect("it ends");
    (status.code(), String::from_utf8_lossy(&text).replace("\r\n", "\n"))
}
