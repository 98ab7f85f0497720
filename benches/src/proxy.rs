//! How long kube-proxy takes for 10,000 Services of 5 endpoints: the full set from nothing, and one changed endpoint, in
//! a network namespace of its own. Upstream's program can't be measured at this seam.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::netns::NetNs;
use proxy::{Applier, Config, Model, Name, Node, Settings, render_service};
use serde_json::json;

use crate::Plan;
use crate::machine::Percentiles;
use crate::table::{Row, figure};

const ENDPOINTS: u32 = 5;
/// Places that a Service takes beside its endpoints: as the daemon reckons.
const OTHER_PLACES: u32 = 5;
const CHANGES: u32 = 200;

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let services = plan.or_quick(10_000, 500);
    NetNs::create()?.run(|| measure(services))?
}

fn measure(count: u32) -> Result<Vec<Row>> {
    let objects = (0..count).map(|i| Ok((name(i), service(i)?, slice(i, 0..ENDPOINTS)?)));
    let objects: Vec<(Name, Arc<Service>, EndpointSlice)> = objects.collect::<Result<_>>()?;
    let settings = Settings { node: Node { name: "node-0".into(), ..Node::default() }, ..Settings::default() };
    let mut applier = Applier::open(Config::default(), Vec::new())?;
    let mut model = Model::default();
    let began = Instant::now();
    model.reserve(count as usize, (count * (ENDPOINTS + OTHER_PLACES)) as usize);
    model.set_all(objects.iter().map(|(name, service, slice)| {
        let rendered = render_service(service, &[slice], &settings, None);
        (name.clone(), rendered)
    }));
    let whole = model.whole();
    let decided = began.elapsed().as_secs_f64() * 1000.0;
    applier.replace(&whole)?;
    let full = began.elapsed().as_secs_f64() * 1000.0;
    drop(whole);
    let mut times = Vec::new();
    for i in (0..CHANGES).map(|i| i * 37 % count) {
        let slice = slice(i, 1..ENDPOINTS + 1)?;
        let (name, service, _) = &objects[i as usize];
        let began = Instant::now();
        let change = model.set(name, render_service(service, &[&slice], &settings, model.rendered(name)));
        applier.apply([&change.transaction])?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let nothing = || Err("has no seam to measure".to_owned());
    let what = format!("kube-proxy, {count} Services × {ENDPOINTS} endpoints");
    let one = Percentiles::of(times)?.at(0.5);
    Ok(vec![
        Row::cost(format!("{what}: full sync"), "100 ms", figure(full, "ms"), nothing()),
        Row::cost(format!("{what}: of that, to decide"), "", figure(decided, "ms"), nothing()),
        Row::cost(format!("{what}: one endpoint replaced"), "1 ms", figure(one, "ms"), nothing()),
    ])
}

fn name(i: u32) -> Name {
    format!("bench/service-{i}").into()
}

fn service(i: u32) -> Result<Arc<Service>> {
    let object = json!({
        "metadata": {"namespace": "bench", "name": format!("service-{i}")},
        "spec": {
            "clusterIP": format!("10.{}.{}.{}", 96 + (i >> 16), (i >> 8) & 255, i & 255),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    Ok(Arc::new(serde_json::from_value(object)?))
}

fn slice(i: u32, ends: Range<u32>) -> Result<EndpointSlice> {
    let endpoints: Vec<_> = ends
        .map(|e| {
            let n = i * 8 + e;
            json!({
                "addresses": [format!("10.{}.{}.{}", 128 + (n >> 16), (n >> 8) & 255, n & 255)],
                "nodeName": format!("node-{}", n % 100), "conditions": {"ready": true},
            })
        })
        .collect();
    let object = json!({
        "metadata": {"namespace": "bench", "name": format!("service-{i}-x"), "labels": {"kubernetes.io/service-name": format!("service-{i}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    });
    Ok(serde_json::from_value(object)?)
}
