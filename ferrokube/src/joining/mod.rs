//! How a further machine comes into the cluster, as kubeadm does it: with a bootstrap token it finds the API server
//! believable, asks for the certificates of a kubelet, and is a node.
//!
//! ```text
//!   a host of the control plane                          the machine that joins
//!   token create ──> Secret bootstrap-token-<id>
//!                    ConfigMap cluster-info, signed  <── reads it as nobody: address, CA, signature of its token
//!                    roles of who comes with a token <── asks for a certificate as system:bootstrap:<id>
//!                    kubelet-config, kubeadm-config  <── reads domain, DNS and ranges as system:node:<name>
//! ```
//!
//! A further server joins the same way, and gets the cluster's keys besides: [`certs`].
//!
//! [`published`] is what a cluster shows to such machines, [`token`] the words that a person carries over. kubeadm's
//! names and rights, so that upstream's `kubeadm join` and `kubeadm token` find what they look for.

pub mod certs;
pub mod credentials;
pub mod discovery;
pub mod published;
pub mod request;
pub mod token;
