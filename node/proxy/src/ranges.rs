//! The ranges of Services (ServiceCIDR), where there are any to hear of: an API server of before 1.33 has none, and a role of
//! before that lets no proxy read them. Rules do without them: an address of a range that no Service has is not refused
//! then. I/O: asks the API server. Called by the daemon.

use std::path::Path;
use std::time::Duration;

use client::{Cache, Informer};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

/// An API server that shows none is asked again after this long: it may be another version by then.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Starts to follow them; `changed` is called for each change.
pub fn follow(
    client: Client,
    kept: Option<&Path>,
    changed: impl Fn() + Send + 'static,
    shutdown: CancellationToken,
) -> Cache<ServiceCIDR> {
    let api = Api::<ServiceCIDR>::all(client);
    let mut informer = Informer::new(api.clone()).keep_in(kept).on(move |_| changed());
    let cache = informer.cache();
    tokio::spawn(async move {
        tokio::select! {
            () = shown(&api) => {}
            () = shutdown.cancelled() => return,
        }
        let _ = informer.run(shutdown).1.await;
    });
    cache
}

/// Waits until the API server shows them, or says nothing of it: then whoever lists them goes on asking.
async fn shown(api: &Api<ServiceCIDR>) {
    let mut told = false;
    while let Err(kube::Error::Api(status)) = api.list_metadata(&ListParams::default().limit(1)).await
        && matches!(status.code, 403 | 404)
    {
        if !std::mem::replace(&mut told, true) {
            let why = if status.code == 404 { "it is older than 1.33" } else { &status.message };
            tracing::info!(why, "the API server shows no ServiceCIDRs: rules do without the ranges of Services");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_without_them_is_asked_rarely_until_it_has_them() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let code = [404, 404, 403, 200][count.fetch_add(1, Ordering::Relaxed).min(3)];
            let body = match code {
                200 => {
                    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []})
                }
                code => json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "x"}),
            };
            let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { answer }
        });
        let api = Api::<ServiceCIDR>::all(Client::new(service, "default"));
        let start = tokio::time::Instant::now();
        shown(&api).await;
        assert_eq!((asked.load(Ordering::Relaxed), start.elapsed()), (4, 3 * AGAIN));
    }
}
