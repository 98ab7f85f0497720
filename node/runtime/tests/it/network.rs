//! The pod network as a kubelet sees it: ranges of both families arrive, and a network's own reason is the condition's.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use meta::Prefix;
use pod_network::{NetError, NotReady, PodNet, PodNetwork};
use wire::cri::*;

use crate::host::Host;

pub const TESTS: &[(&str, fn())] = &[("ranges_and_reasons_pass_through", ranges_and_reasons_pass_through)];

/// One that can't be made, and remembers what it was told.
#[derive(Default)]
struct Broken(Mutex<Vec<Prefix>>);

const WHY: &str = "fk0 is there already and is not ours: it is not a bridge";

impl Broken {
    fn why(&self) -> NotReady {
        if self.0.lock().unwrap().is_empty() { NotReady::NoRange } else { NotReady::Failed(WHY.into()) }
    }
}

impl PodNetwork for Broken {
    fn add(&self, _: &PodNet) -> Result<Vec<IpAddr>, NetError> {
        Err(self.why().into())
    }

    fn del(&self, _: &PodNet) -> Result<(), NetError> {
        Ok(())
    }

    fn keep_only(&self, _: &[String]) -> Result<(), NetError> {
        Ok(())
    }

    fn set_ranges(&self, ranges: &[Prefix]) -> Result<(), NetError> {
        *self.0.lock().unwrap() = ranges.to_vec();
        Err(self.why().into())
    }

    fn ready(&self) -> Result<(), NotReady> {
        Err(self.why())
    }
}

fn ranges_and_reasons_pass_through() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let network = Arc::new(Broken::default());
        let mut host = Host::start_with(network.clone()).await;
        assert!(condition(&mut host).await.message.contains("no range of pod addresses (podCIDR) yet"));
        assert_eq!(say(&mut host, "10.42.0.0/24,fd00::/64").await, Ok(()));
        let ranges: Vec<_> = network.0.lock().unwrap().iter().map(Prefix::to_string).collect();
        assert_eq!(ranges, ["10.42.0.0/24", "fd00::/64"]);
        let told = condition(&mut host).await;
        assert_eq!((told.status, told.reason.as_str()), (false, "NetworkPluginNotReady"));
        assert_eq!(told.message, format!("the pod network could not be made: {WHY}"));
        let refused = say(&mut host, "10.42.0.0/24,fd00::/640").await.unwrap_err();
        assert_eq!(refused, tonic::Code::InvalidArgument);
        assert_eq!(network.0.lock().unwrap().len(), 2, "what can't be read changes nothing");
    });
}

async fn say(host: &mut Host, pod_cidr: &str) -> Result<(), tonic::Code> {
    let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.into() });
    let runtime_config = Some(RuntimeConfig { network_config });
    let answer = host.cri.update_runtime_config(UpdateRuntimeConfigRequest { runtime_config }).await;
    answer.map(drop).map_err(|status| status.code())
}

async fn condition(host: &mut Host) -> RuntimeCondition {
    let status = host.cri.status(StatusRequest { verbose: false }).await.unwrap().into_inner().status.unwrap();
    status.conditions.into_iter().find(|c| c.r#type == "NetworkReady").unwrap()
}
