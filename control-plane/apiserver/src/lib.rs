//! kube-apiserver: the one API that every client and component goes through.
