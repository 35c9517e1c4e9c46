//! The nouns of Longshore: identifiers, ARNs, the records that the store keeps, and the messages
//! between control and agent. Invariant: nothing here does I/O, reads a clock or draws a random number.

pub mod change;
pub mod time;
