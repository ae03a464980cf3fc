//! What requests use: tokens, cost and model, read from responses as they pass, and how event streams
//! end.
//!
//! Bytes in, numbers out: no I/O, nothing fails, nothing is held back or kept but numbers and a name.
//! Called by the worker that relays the response. The form of a response tells whose it is, not its
//! path; [`facts`] knows the forms, [`totals`] what their objects mean together.

mod answer;
mod events;
pub mod facts;
mod json;
pub mod observer;
mod tail;
pub mod tokens;
pub mod totals;

#[cfg(test)]
mod tests;
