//! The life of one `podCertificate` source: asked for, issued, asked for anew before it ends; or refused for good. Pure:
//! requests and the time are given. `Certificates` acts on it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest as Request;
use meta::pem;

use super::keys::Made;

/// A renewal that is this late is told.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);
/// Requests of one source are no nearer to each other, whoever removes them or wants them renewed at once.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// What a pod's files get: the key and its chain, both as PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    pub key: String,
    pub chain: String,
}

/// What users should read about, as a warning.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub reason: &'static str,
    pub text: String,
}

#[derive(Debug)]
struct Held {
    credentials: Credentials,
    refresh: Timestamp,
    expires: Timestamp,
    told_overdue: bool,
    told_expired: bool,
}

#[derive(Debug)]
struct Pending {
    key: String,
    name: String,
}

/// Where one source is in its life.
#[derive(Debug, Default)]
pub struct Record {
    held: Option<Held>,
    pending: Option<Pending>,
    /// A key for the next request, kept over attempts: some take seconds to make.
    pub spare: Option<Made>,
    not_before: Option<Timestamp>,
    refused: Option<String>,
}

impl Record {
    /// The name of the request that waits for its signer.
    pub fn pending(&self) -> Option<&str> {
        self.pending.as_ref().map(|p| p.name.as_str())
    }

    /// Whether a request is to be made now.
    pub fn wants(&self, now: Timestamp) -> bool {
        self.refused.is_none()
            && self.pending.is_none()
            && self.not_before.is_none_or(|at| at <= now)
            && self.held.as_ref().is_none_or(|h| h.refresh <= now)
    }

    /// A request of this name was made for the key.
    pub fn asked(&mut self, key: String, name: String, now: Timestamp) {
        self.pending = Some(Pending { key, name });
        self.not_before = now.checked_add(AGAIN).ok();
    }

    /// Takes in what became of the pending request; `None`: it is gone. `late`: how much later than the signer says the
    /// certificate is renewed, so that not all pods of a signer ask at once.
    pub fn look(&mut self, request: Option<&Request>, late: SignedDuration) -> Option<Told> {
        let Some(request) = request else {
            self.pending = None;
            return None;
        };
        let status = request.status.as_ref()?;
        let outcome = status.conditions.iter().flatten().find(|c| OUTCOMES.contains(&c.type_.as_str()))?;
        let pending = self.pending.take()?;
        if outcome.type_ == "Issued" {
            let (refresh, expires) = (status.begin_refresh_at.as_ref()?.0, status.not_after.as_ref()?.0);
            let chain = bare(status.certificate_chain.as_deref().unwrap_or_default());
            self.held = Some(Held {
                credentials: Credentials { key: pending.key, chain },
                refresh: refresh.checked_add(late).unwrap_or(refresh),
                expires,
                told_overdue: false,
                told_expired: false,
            });
            return None;
        }
        let (reason, said) = if outcome.type_ == "Denied" { ("Denied", "was denied") } else { ("Failed", "failed") };
        let why = format!("reason={:?}, message={:?}", outcome.reason, outcome.message);
        let done = if reason == "Denied" { "denied" } else { "failed" };
        self.refused = Some(format!("PodCertificateRequest was permanently {done}: {why}"));
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        Some(Told { reason, text: format!("PodCertificateRequest {namespace}/{} {said}, {why}", pending.name) })
    }

    /// What the files get, or why the volume has to wait.
    pub fn credentials(&self) -> Result<Credentials, String> {
        match (&self.refused, &self.held) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(held)) => Ok(held.credentials.clone()),
            (None, None) => Err("credential bundle is not issued yet".to_owned()),
        }
    }

    /// A certificate that is not renewed in time; each is told once.
    pub fn late(&mut self, now: Timestamp) -> Option<Told> {
        let held = self.held.as_mut()?;
        if now >= held.expires && !std::mem::replace(&mut held.told_expired, true) {
            return Some(Told { reason: "CertificateExpired", text: "PodCertificate expired".to_owned() });
        }
        let overdue = now >= overdue(held);
        if overdue && !std::mem::replace(&mut held.told_overdue, true) {
            let text = "PodCertificate refresh overdue".to_owned();
            return Some(Told { reason: "CertificateOverdueForRefresh", text });
        }
        None
    }

    /// When there will be something to do though nothing happens.
    pub fn next(&self) -> Option<Timestamp> {
        let held = self.held.as_ref().filter(|_| self.refused.is_none())?;
        if self.pending.is_none() {
            return Some(self.not_before.map_or(held.refresh, |at| at.max(held.refresh)));
        }
        let overdue = (!held.told_overdue).then(|| overdue(held));
        let expired = (!held.told_expired).then_some(held.expires);
        overdue.into_iter().chain(expired).min()
    }
}

const OUTCOMES: [&str; 3] = ["Issued", "Denied", "Failed"];

fn overdue(held: &Held) -> Timestamp {
    held.refresh.checked_add(OVERDUE).unwrap_or(held.refresh)
}

/// The chain without what stands around its blocks, in its order.
fn bare(chain: &str) -> String {
    pem::all(chain).iter().map(|block| pem::encode("CERTIFICATE", &block.content)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(minutes: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    fn request(status: Value) -> Request {
        serde_json::from_value(json!({"metadata": {"name": "req-1", "namespace": "ns"}, "spec": {}, "status": status}))
            .unwrap()
    }

    fn condition(kind: &str) -> Value {
        json!([{"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": at(0).to_string()}])
    }

    fn issued(chain: &str) -> Request {
        request(json!({"conditions": condition("Issued"), "certificateChain": chain, "notBefore": at(0).to_string(),
            "beginRefreshAt": at(30).to_string(), "notAfter": at(60).to_string()}))
    }

    const NOW: SignedDuration = SignedDuration::ZERO;

    #[test]
    fn a_certificate_is_asked_for_and_renewed() {
        let mut record = Record::default();
        assert!(record.wants(at(0)));
        record.asked("key 1".into(), "req-1".into(), at(0));
        assert!(!record.wants(at(50)));
        assert_eq!(record.look(Some(&request(json!({}))), NOW), None);
        assert_eq!(record.credentials().unwrap_err(), "credential bundle is not issued yet");
        let (leaf, ca) = (pem::encode("CERTIFICATE", b"leaf"), pem::encode("CERTIFICATE", b"ca"));
        assert_eq!(record.look(Some(&issued(&format!("words\n{leaf}more\n{ca}"))), SignedDuration::from_mins(2)), None);
        let first = Credentials { key: "key 1".into(), chain: format!("{leaf}{ca}") };
        assert_eq!(record.credentials().unwrap(), first);
        assert_eq!((record.next(), record.wants(at(31)), record.wants(at(32))), (Some(at(32)), false, true));
        record.asked("key 2".into(), "req-2".into(), at(32));
        assert_eq!(record.credentials().unwrap(), first, "the old one serves until there is a new one");
        assert_eq!(record.look(Some(&issued(&leaf)), NOW), None);
        assert_eq!(record.credentials().unwrap(), Credentials { key: "key 2".into(), chain: leaf });
    }

    #[test]
    fn a_late_renewal_is_told_once() {
        let mut record = Record::default();
        record.asked("key".into(), "req-1".into(), at(0));
        record.look(Some(&issued("")), NOW);
        record.asked("key".into(), "req-2".into(), at(30));
        assert_eq!((record.late(at(39)), record.next()), (None, Some(at(40))));
        assert_eq!(record.late(at(40)).unwrap().reason, "CertificateOverdueForRefresh");
        assert_eq!((record.late(at(41)), record.next()), (None, Some(at(60))));
        assert_eq!(record.late(at(60)).unwrap().reason, "CertificateExpired");
        assert_eq!((record.late(at(61)), record.next()), (None, None));
    }

    #[test]
    fn a_refusal_is_for_good() {
        for (kind, said) in [("Denied", "was denied"), ("Failed", "failed")] {
            let mut record = Record::default();
            record.asked("key".into(), "req-1".into(), at(0));
            let told = record.look(Some(&request(json!({"conditions": condition(kind)}))), NOW).unwrap();
            let why = "reason=\"R\", message=\"m\"";
            assert_eq!((told.reason, told.text), (kind, format!("PodCertificateRequest ns/req-1 {said}, {why}")));
            assert!(record.credentials().unwrap_err().ends_with(why) && !record.wants(at(500)));
            assert_eq!(record.next(), None);
        }
    }

    #[test]
    fn a_removed_request_is_made_again_after_a_while() {
        let mut record = Record::default();
        record.asked("key".into(), "req-1".into(), at(0));
        assert_eq!(record.look(None, NOW), None);
        assert!(!record.wants(at(0)) && record.wants(at(1)));
    }
}
