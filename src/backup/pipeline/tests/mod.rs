//! Streams that go there and back, and everything that may go wrong on the way.

mod bed;
mod catalogue;
mod faulty;
mod streams;
