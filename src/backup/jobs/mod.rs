//! Jobs: what is asked for, the one place in which a backup runs, and what is seen of it.

mod order;
mod room;
mod status;

pub use order::{Order, ParentOf, Wanted};
pub use room::{Entered, Held, Room, Stop};
pub use status::{Board, Doing, End, Ended, told};
