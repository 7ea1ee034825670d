//! What the machine gives a host: files of its own, locks across processes, clocks, and what goes wrong with the disk.

pub mod crash_point;
pub mod disk;
pub mod locks;
pub mod private;

mod clock;

pub use clock::MachineClock;
