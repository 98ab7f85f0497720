//! The client against servers of a few lines, from outside.

mod executor;
