//! The network's configuration in etcd: read, written where there is none, and followed while a host runs. What an
//! administrator wrote there stays; where the network that it has gets a second family, that is written beside it. I/O by
//! [`super::client`]; what is written, and what comes of a change for a host, is pure. Caller: the daemon, by its manager.

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use wire::etcd::EventType;

use super::client::CallError;
use super::{Error, FIRST_RETRY, LAST_RETRY, RACES, Registry, next};
use crate::backend::Backend;
use crate::config::NetConf;
use crate::judge::judged;
use crate::news::News;

/// What is to be done with a configuration that is there.
#[derive(Debug, PartialEq)]
enum Publish {
    Leave,
    /// It gets a second family, and is this then.
    Write(String),
    /// The same, if it were not for this.
    Apart(String),
}

/// `there` is the document in etcd, `own` the cluster's.
fn publish(there: &[u8], own: &str) -> Publish {
    let (Ok(now), Ok(wanted)) = (NetConf::parse(there), NetConf::parse(own.as_bytes())) else { return Publish::Leave };
    let Some(range) = wanted.v6.filter(|_| now.v6.is_none()) else { return Publish::Leave };
    let network = range.network;
    let network_of = |conf: &NetConf| conf.v4.map(|range| range.network);
    if network_of(&now) != network_of(&wanted) {
        return Publish::Apart(format!(
            "its Network is another than the cluster's: write IPv6Network {network} there by hand"
        ));
    }
    let Ok(mut document) = serde_json::from_slice::<Map<String, Value>>(there) else { return Publish::Leave };
    // Whatever their case, as they are read.
    document.retain(|name, _| !["EnableIPv6", "IPv6Network"].iter().any(|own| own.eq_ignore_ascii_case(name)));
    document.insert("EnableIPv6".into(), true.into());
    document.insert("IPv6Network".into(), network.to_string().into());
    let text = Value::Object(document).to_string();
    match NetConf::parse(text.as_bytes()).map(|grown| Backend::of(&grown).map(drop)) {
        Ok(Ok(())) => Publish::Write(text),
        Ok(Err(error)) | Err(error) => Publish::Apart(error.to_string()),
    }
}

impl Registry {
    fn config_key(&self) -> String {
        format!("{}/config", self.prefix)
    }

    pub async fn config(&self) -> Result<NetConf, Error> {
        let answer = self.client.range(self.config_key().into(), Bytes::new()).await?;
        let found = answer.kvs.first().ok_or_else(|| Error::NoConfig(self.config_key()))?;
        let conf = NetConf::parse(&found.value)?;
        if conf.v4.is_none() { Err(Error::WithoutIpv4) } else { Ok(conf) }
    }

    /// Puts the network's configuration where there is none, or its second family beside what is there.
    pub async fn publish(&self, conf: &str) -> Result<(), Error> {
        let key = Bytes::from(self.config_key());
        for _ in 0..RACES {
            let there = self.client.range(key.clone(), Bytes::new()).await?;
            let done = match there.kvs.first() {
                None => self.client.create(key.clone(), conf.to_owned().into(), 0).await?,
                Some(there) => match publish(&there.value, conf) {
                    Publish::Leave => true,
                    Publish::Apart(why) => {
                        tracing::warn!("hosts get no subnets of the second family by {}: {why}", self.config_key());
                        true
                    }
                    Publish::Write(text) => self.client.replace(key.clone(), text.into(), there.mod_revision).await?,
                },
            };
            if done {
                return Ok(());
            }
        }
        Err(Error::Races)
    }

    /// Tells what comes of the configuration for a host that has this one, now and with every change. Ends when nobody
    /// listens.
    pub async fn follow_config(&self, conf: &NetConf, news: &mpsc::Sender<News>) {
        let (mut told, mut retry) = (None, FIRST_RETRY);
        loop {
            match self.watch_config(conf, &mut told, news, &mut retry).await {
                Ok(()) => return,
                // Who follows leases says it aloud.
                Err(error) => tracing::debug!(%error, "changes of the network's configuration are not heard of"),
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                () = news.closed() => return,
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn watch_config(
        &self,
        conf: &NetConf,
        told: &mut Option<News>,
        news: &mpsc::Sender<News>,
        retry: &mut std::time::Duration,
    ) -> Result<(), CallError> {
        let key = Bytes::from(self.config_key());
        let place = format!("etcd's key {}", self.config_key());
        let answer = self.client.range(key.clone(), Bytes::new()).await?;
        let mut text = answer.kvs.first().map(|kv| kv.value.clone());
        let from = answer.header.map_or(0, |header| header.revision) + 1;
        let mut watch = self.client.watch(key, Bytes::new(), from).await?;
        loop {
            let judged = judged(conf, text.as_deref(), None, &place);
            if told.as_ref() != Some(&judged) {
                *told = Some(judged.clone());
                if news.send(judged).await.is_err() {
                    return Ok(());
                }
            }
            text = loop {
                let answer = tokio::select! {
                    answer = next(&mut watch) => answer?,
                    () = news.closed() => return Ok(()),
                };
                if answer.canceled {
                    return Err(CallError(format!("the watch was cancelled: {}", answer.cancel_reason)));
                }
                *retry = FIRST_RETRY;
                if let Some(event) = answer.events.last() {
                    let kept = event.r#type != EventType::Delete as i32;
                    break event.kv.as_ref().filter(|_| kept).map(|kv| kv.value.clone());
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str =
        r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}"#;

    #[test]
    fn a_second_family_is_written_beside_what_an_administrator_wrote() {
        let there =
            r#"{"Network": "10.5.0.0/16", "SubnetLen": 26, "enableipv6": false, "Backend": {"Type": "host-gw"}}"#;
        let Publish::Write(text) = publish(there.as_bytes(), OWN) else { panic!("it is written") };
        let (before, after) = (NetConf::parse(there.as_bytes()).unwrap(), NetConf::parse(text.as_bytes()).unwrap());
        assert!(before.gains(&after) && after.backend_type == "host-gw", "{text}");
        assert_eq!(after.v6.map(|v6| v6.network.to_string()).as_deref(), Some("fd00:5::/48"));
        assert_eq!(publish(text.as_bytes(), OWN), Publish::Leave);
    }

    #[test]
    fn what_is_another_network_or_can_not_be_had_is_left_as_it_is() {
        let one = r#"{"Network": "10.5.0.0/16"}"#;
        for there in [OWN, "{", &OWN.replace("fd00:5", "fd00:6")] {
            assert_eq!(publish(there.as_bytes(), OWN), Publish::Leave, "{there}");
        }
        assert_eq!(publish(OWN.as_bytes(), one), Publish::Leave, "a server that was not told yet");
        assert_eq!(publish(one.as_bytes(), one), Publish::Leave);
        let why = |there: &str| {
            if let Publish::Apart(why) = publish(there.as_bytes(), OWN) { why } else { panic!("{there}") }
        };
        assert!(why(r#"{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}"#).contains("IPv6Network fd00:5::/48"));
        assert!(why(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}"#).contains("IPv4"), "of the backend");
    }
}
