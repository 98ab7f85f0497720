//! System call filters: which profile applies to a container, and its program. Does I/O (a profile's file), else pure.
//!
//! `RuntimeDefault` is ours (`default`), with the meaning that Docker and containerd gave it; `Localhost` profiles are
//! OCI documents (`profile`). Both become a small program for the kernel (`compile`); no C library is involved.

pub mod compile;
mod default;
pub mod profile;
pub mod syscalls;

use wire::cri;
use wire::cri::security_profile::ProfileType;

/// A profile's file is not read beyond this.
const MAX_PROFILE: u64 = 1 << 20;

/// The filter of a container's profile for a process with these capabilities; `None` is unconfined.
///
/// # Errors
/// One sentence, when a profile can't be read or can't be enforced whole.
pub fn filter_for(security: &cri::LinuxContainerSecurityContext, caps: u64) -> Result<Option<Vec<u64>>, String> {
    let Some(wanted) = &security.seccomp else { return Ok(None) };
    // A privileged container may do anything by definition.
    if security.privileged {
        return Ok(None);
    }
    let policy = match wanted.profile_type() {
        ProfileType::Unconfined => return Ok(None),
        ProfileType::RuntimeDefault => default::policy(caps),
        ProfileType::Localhost => {
            let path = wanted.localhost_ref.strip_prefix("localhost/").unwrap_or(&wanted.localhost_ref);
            // An empty name must not come to mean "no filter" (CVE-2023-2431).
            if !path.starts_with('/') {
                return Err(format!("seccomp profile {path:?} is not an absolute path"));
            }
            profile::parse(&read(path)?).map_err(|e| format!("seccomp profile {path}: {e}"))?
        }
    };
    let program = compile::compile(&policy)?;
    Ok(Some(program))
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| format!("read seccomp profile {path}: {e}");
    if std::fs::metadata(path).map_err(text)?.len() > MAX_PROFILE {
        return Err(format!("seccomp profile {path} is too big"));
    }
    std::fs::read(path).map_err(text)
}

#[cfg(test)]
mod tests;
