//! What handlers answer with, before it is encoded as the client accepts it.

use std::sync::Arc;

use http::Response;
use meta::Status;
use serde_json::Value;

use super::body::{Body, Frames};
use crate::cache::Entry;
use crate::registry::Served;

/// A list of stored objects, as the version that is served has them.
#[derive(Default)]
pub struct List {
    pub entries: Vec<Arc<Entry>>,
    pub revision: i64,
    /// Empty when the list is complete.
    pub continue_token: String,
    pub remaining: Option<i64>,
}

/// An answer.
pub enum Answer {
    /// A stored object, whose bytes are shared, as the version that is served has it ([`Served::shown`]).
    Entry(u16, Arc<Served>, Arc<Entry>),
    /// An object that is not stored as it is: dry runs, reviews, scales. Its apiVersion and kind say what it is.
    Object(u16, Arc<Served>, Box<Value>),
    List(Arc<Served>, List),
    /// A list of objects that are not stored.
    Objects(Arc<Served>, Vec<Value>),
    Watch(Box<dyn Frames>),
    Status(Box<Status>),
    /// Already encoded.
    Raw(Response<Body>),
}

impl Answer {
    pub fn entry(code: u16, served: &Arc<Served>, entry: Arc<Entry>) -> Answer {
        Answer::Entry(code, served.clone(), entry)
    }

    pub fn object(code: u16, served: &Arc<Served>, object: Value) -> Answer {
        Answer::Object(code, served.clone(), Box::new(object))
    }

    pub fn list(served: &Arc<Served>, entries: Vec<Arc<Entry>>, revision: i64) -> Answer {
        Answer::List(served.clone(), List { entries, revision, ..List::default() })
    }

    pub fn status(status: Status) -> Answer {
        Answer::Status(Box::new(status))
    }
}
