//! Writes the words of every type that the API serves, as the typed crate tells them, into one compressed file.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling2,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling,
    storage::v1 as storage, storagemigration::v1 as migration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;

/// Asks for the schema of each type; what they are made of comes along.
macro_rules! ask {
    ($generator:expr, $($package:ident: $($kind:ident)*;)*) => {
        $($($generator.subschema_for::<$package::$kind>();)*)*
    };
}

fn ask_for_all(generator: &mut SchemaGenerator) {
    ask! { generator,
        admission: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        apiextensions: CustomResourceDefinition;
        apiregistration: APIService;
        apps: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        authentication: SelfSubjectReview TokenRequest TokenReview;
        authorization: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
        autoscaling: HorizontalPodAutoscaler Scale;
        autoscaling2: HorizontalPodAutoscaler;
        batch: CronJob Job;
        certificates: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
        coordination: Lease;
        core: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        discovery: EndpointSlice;
        events: Event;
        flowcontrol: FlowSchema PriorityLevelConfiguration;
        meta: APIGroup APIResourceList APIVersions DeleteOptions ListMeta Status;
        networking: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        node: RuntimeClass;
        policy: Eviction PodDisruptionBudget;
        rbac: ClusterRole ClusterRoleBinding Role RoleBinding;
        resource: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        scheduling: PriorityClass;
        storage: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        migration: StorageVersionMigration;
    }
}

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut generator = SchemaSettings::draft07().into_generator();
    ask_for_all(&mut generator);
    let mut lines = String::new();
    for (name, schema) in generator.take_definitions(true) {
        let words = |value: &serde_json::Value| value["description"].as_str().map(|words| words.replace('\n', "\\n"));
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields = fields.filter_map(|(field, schema)| Some((field.as_str(), words(schema)?)));
        for (field, words) in words(&schema).map(|words| ("", words)).into_iter().chain(fields) {
            let _ = writeln!(lines, "{name}\t{field}\t{words}");
        }
    }
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("cargo sets OUT_DIR"))?;
    let file = std::fs::File::create(std::path::Path::new(&out).join("descriptions.gz"))?;
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(lines.as_bytes())?;
    packed.finish()?.flush()
}
