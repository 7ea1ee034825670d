//! The child processes of a host: started, confined, watched, and ended with everything that they started.
//!
//! Knows nothing of plugins, of scripts, or of what is said to a child. All of it needs Linux: a supervisor above each child, which
//! is the subreaper of whatever the child starts; Landlock and seccomp; control groups.

mod cgroup;
mod child;
mod confine;
mod cpu;
mod folder;
mod last_words;
mod output;
mod program;
mod starter;
mod supervisor;
mod wait;

pub use cgroup::Cgroup;
pub use child::{SupervisedChild, how_it_ended, is_shortage};
pub use confine::{Bounds, be_killed_first, confine, lacking};
pub use cpu::{CpuClock, CpuLimit};
pub use folder::{OwnFolder, tidy};
pub use last_words::keep_last_words;
pub use output::{KeptOutput, WhichEnd};
pub use program::{ChildProgram, become_program, child_arguments, not_begun};
pub use supervisor::split;
pub use wait::wait_until;
