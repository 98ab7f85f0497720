//! The subject that a CertificateSigningRequest asks to be certified. Pure; the plugins that guard signing ask.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

/// What a certificate would make its holder be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Reads `spec.request`: PEM, in base64 as all bytes in JSON.
pub(super) fn subject(object: &Value) -> Result<Subject, String> {
    let text = object["spec"]["request"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(text).map_err(|error| format!("spec.request is not base64: {error}"))?;
    let (_, pem) = parse_x509_pem(&pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok());
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok());
    Ok(Subject {
        common_name: name.unwrap_or_default().to_owned(),
        organizations: organizations.map(str::to_owned).collect(),
    })
}
