//! What the adapter promises, judged by HPACK crates and an h2 server that know nothing of it.

mod framing;
mod h2;
mod properties;
mod received;
mod socket;
mod streams;
mod values;
mod wire;
