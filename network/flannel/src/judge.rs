//! What comes of the network's configuration, as it is told now, for a host that has one already: nothing, a turn that it
//! follows, or a sentence. Pure. Callers: the subnet managers.

use crate::backend::Backend;
use crate::config::{NetConf, Turn};
use crate::lease::Subnets;
use crate::news::News;

/// `text` is what is there, if anything, and `place` where. `given` are the ranges that the host's node was given; none:
/// hosts take subnets of whatever there is.
pub fn judged(conf: &NetConf, text: Option<&[u8]>, given: Option<&Subnets>, place: &str) -> News {
    let Some(text) = text else {
        return News::Apart(Some(format!("{place}: it is gone: the cluster has another pod network now")));
    };
    let followed = |next: NetConf| given.map_or(next.clone(), |given| next.followed(conf, given));
    let next = NetConf::parse(text).map(followed).and_then(|next| Backend::of(&next).map(|_| next));
    match next.map(|next| (conf.turn(&next), next)) {
        Ok((Turn::Same, _)) => News::Apart(None),
        Ok((Turn::Backend | Turn::Family, next)) => News::Turned(Box::new(next)),
        Ok((Turn::Refused(why), _)) => News::Apart(Some(format!("{place}: {why}"))),
        Err(error) => News::Apart(Some(format!("{place}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_can_be_followed_is_and_any_other_is_told() {
        let conf = |text: &str| NetConf::parse(text.as_bytes()).unwrap();
        let now = conf(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#);
        let given = Subnets { v4: Some("10.5.1.0/24".parse().unwrap()), v6: None };
        let judge = |text: &str| judged(&now, Some(text.as_bytes()), Some(&given), "here");
        assert_eq!(judge(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#), News::Apart(None));
        let gateways = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#;
        assert_eq!(judge(gateways), News::Turned(Box::new(conf(gateways))));
        let told = |news: News| if let News::Apart(Some(why)) = news { why } else { panic!("{news:?}") };
        for (text, why) in [
            (r#"{"Network": "10.6.0.0/16"}"#, "here: the network is 10.6.0.0/16 now"),
            (r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "weave"}}"#, "\"weave\" is no backend"),
            ("{", "it is not JSON"),
        ] {
            assert!(told(judge(text)).contains(why), "{text}");
        }
        assert!(told(judged(&now, None, Some(&given), "here")).starts_with("here: it is gone"));
        // A second family is followed once the node has a range of it.
        let both = r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}"#;
        assert_eq!(judge(both), News::Apart(None));
        // Without its Node, or while that cannot be read, a host knows of no range at all, and not of both.
        assert_eq!(judged(&now, Some(both.as_bytes()), Some(&Subnets::default()), "here"), News::Apart(None));
        let given = Subnets { v6: Some("fd00:5:0:1::/64".parse().unwrap()), ..given };
        assert_eq!(judged(&now, Some(both.as_bytes()), Some(&given), "here"), News::Turned(Box::new(conf(both))));
    }
}
