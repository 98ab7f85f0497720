//! What holds of the speaker as a whole, from outside: messages there and back, errors by RFC 7606, sessions and routes.

mod errors;
mod round_trip;
mod speakers;
