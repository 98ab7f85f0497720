//! Names of signers: `example.com/name`, a domain and a path.

use meta::{FieldError, Path, names};

use crate::check::{Errors, follows};

/// Longest name after the domain: what a label may be, for each of its parts.
const LIMIT: usize = 571;

/// The name of a signer must be there and be a domain and a path.
pub(super) fn name(errors: &mut Errors, path: Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, message));
        return;
    };
    follows(errors, path, domain, names::dns1123_subdomain);
    if !domain.contains('.') && names::dns1123_subdomain(domain).is_empty() {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, message));
    }
    follows(errors, path, rest, names::dns1123_subdomain);
    if name.len() > LIMIT {
        errors.push(FieldError::too_long(path, LIMIT as i64));
    }
}
