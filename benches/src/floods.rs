//! What clients that do nothing right cost: the most memory that the server's processes hold while thousands of
//! connections say nothing, send half a request, ask for long lists and don't read them, or watch and don't read. Every
//! client is one of the cluster's administrator, so nobody is turned away for who he is.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, Connection, block_on, create_all};
use crate::machine::{rss_of, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, cell};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How long a flood is looked at once it is there.
const LOOK: Duration = Duration::from_secs(10);

/// How many clients each flood has.
struct Sizes {
    silent: usize,
    half: usize,
    lists: usize,
    watches: usize,
    objects: usize,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let full = Sizes { silent: 10_000, half: 1_000, lists: 200, watches: 500, objects: 2_000 };
    let sizes = plan.or_quick(full, Sizes { silent: 50, half: 20, lists: 5, watches: 5, objects: 50 });
    let ours = {
        let ours = Ours::up()?;
        measure(&ours.api()?, &ours.pids()?, &sizes)?
    };
    let theirs = cell(ControlPlane::start(&plan.upstream).and_then(|plane| {
        plane.add_default_account()?;
        measure(&plane.api, &plane.pids(), &sizes)
    }));
    let what = [
        format!("before, with {} ConfigMaps of 8 KiB: RSS", sizes.objects),
        format!("{} connections that say nothing: most RSS", sizes.silent),
        format!("{} requests whose body stops after 100 KiB: most RSS", sizes.half),
        format!("{} lists of all ConfigMaps that nobody reads: most RSS", sizes.lists),
        format!("{} watches that nobody reads, each ConfigMap written once: most RSS", sizes.watches),
    ];
    let rows = what.into_iter().enumerate().map(|(at, what)| {
        let theirs = theirs.as_ref().map(|all| figure(all[at], "MB")).map_err(Clone::clone);
        Row::cost(what, "", figure(ours[at], "MB"), theirs)
    });
    Ok(rows.collect())
}

/// The memory before, and in each flood.
fn measure(api: &Api, servers: &[u32], sizes: &Sizes) -> Result<[f64; 5]> {
    block_on(create_all(api, MAPS, sizes.objects, map))?;
    settle(servers)?;
    let before = rss_of(servers)?;
    let silent = block_on(async {
        let mut held = Vec::new();
        for _ in 0..sizes.silent {
            held.push(api.silent().await?);
        }
        most(servers).await
    })?;
    let half = flood(api, servers, sizes.half, async |client| {
        client.send_some("POST", MAPS, &[b' '; 100 << 10], 1 << 20).await
    })?;
    let lists = flood(api, servers, sizes.lists, async |client| client.send("GET", MAPS, b"").await)?;
    let watches = block_on(async {
        let mut held = Vec::new();
        for _ in 0..sizes.watches {
            let mut client = api.connect().await?;
            client.watch(&format!("{MAPS}?watch=true")).await?;
            held.push(client);
        }
        let mut writer = api.connect().await?;
        for i in 0..sizes.objects {
            let body = map(i).to_string();
            let path = format!("{MAPS}/{}", name(i));
            writer.request("PUT", &path, body.as_bytes()).await?.ok()?;
        }
        most(servers).await
    })?;
    Ok([before, silent, half, lists, watches])
}

/// The most memory while so many clients have asked and don't read. A server may turn some away: that is an answer, too.
fn flood(api: &Api, servers: &[u32], clients: usize, ask: impl AsyncFn(&mut Connection) -> Result<()>) -> Result<f64> {
    block_on(async {
        let mut held = Vec::new();
        for _ in 0..clients {
            let Ok(mut client) = api.connect().await else { continue };
            if ask(&mut client).await.is_ok() {
                held.push(client);
            }
        }
        most(servers).await
    })
}

async fn most(servers: &[u32]) -> Result<f64> {
    let (began, mut most) = (Instant::now(), 0.0_f64);
    while began.elapsed() < LOOK {
        most = most.max(rss_of(servers)?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(most)
}

fn name(i: usize) -> String {
    format!("map-{i:05}")
}

fn map(i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(i)},
        "data": {"text": "x".repeat(8 << 10)},
    })
}
