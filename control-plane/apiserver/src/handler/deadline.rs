//! How long a request that is no watch and no stream may take. Pure, but for the counter of those that took longer.

use std::time::Duration;

use meta::Status;

use crate::http::call::Call;
use crate::http::request::Query;
use crate::server::Core;

/// What the server allows, or less when the client says so.
pub fn allowed(core: &Core, call: &Call) -> Result<Duration, Status> {
    time_allowed(&call.query, core.config.request_timeout)
}

/// The end of a call that took longer.
pub fn missed(core: &Core, call: &Call) -> Status {
    core.metrics.terminated(&core.objects.registry.load(), call, "504");
    Status::timeout("request did not complete within the allotted timeout", 0)
}

fn time_allowed(query: &Query, most: Duration) -> Result<Duration, Status> {
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let wrong = |why: String| Status::bad_request(format!("invalid timeout specified in the request URL - {why}"));
    let nanos = meta::duration::parse_nanos(text).map_err(wrong)?;
    match u64::try_from(nanos) {
        // None or less than nothing is the server's own.
        Ok(0) | Err(_) => Ok(most),
        Ok(nanos) => Ok(Duration::from_nanos(nanos).min(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_ask_for_less_time_than_the_server_gives() {
        let allowed = |query| time_allowed(&Query::parse(Some(query)), Duration::from_secs(60));
        assert_eq!(allowed("").ok(), Some(Duration::from_secs(60)));
        assert_eq!(allowed("timeout=1500ms").ok(), Some(Duration::from_millis(1500)));
        assert_eq!(allowed("timeout=1h").ok(), Some(Duration::from_secs(60)));
        assert_eq!(allowed("timeout=0s").ok(), Some(Duration::from_secs(60)));
        let refused = allowed("timeout=soon").expect_err("no duration");
        assert_eq!(refused.code, 400);
        assert!(refused.message.contains("invalid timeout"), "{}", refused.message);
    }
}
