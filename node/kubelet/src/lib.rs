//! kubelet: takes the pods bound to its node, runs their containers over the CRI, reports.
