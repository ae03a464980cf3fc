//! What the program can be asked to do.

pub mod check;
pub mod health;
pub mod serve;
