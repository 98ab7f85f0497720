//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.

use std::sync::Arc;

use bytes::Bytes;
use meta::Status;

use super::Served;
use super::update::Part;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::server::Core;

impl Core {
    /// Patches the object that the path names.
    pub async fn patch(
        &self,
        _call: &Call,
        _served: &Arc<Served>,
        _part: Part,
        _body: &Bytes,
    ) -> Result<Answer, Status> {
        Err(Status::method_not_allowed())
    }
}
