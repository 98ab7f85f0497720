//! Images: present or pulled by policy, with the pod's registry credentials. Does I/O; users are told of each step.

use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde_json::Value;
use wire::cri;

use super::Executor;
use crate::io::cri::shown;
use crate::names::reason;
use crate::pod::env::Sources;
use crate::pod::image::{Policy, normalized, policy, registry};
use crate::pod::pods;
use crate::pod::security::ImageUser;
use crate::worker::StartError;

fn refused(reason: &'static str, message: String) -> StartError {
    StartError { reason, message }
}

impl Executor {
    /// The image of a container, ready to run: its ID.
    pub(super) async fn ensure_image(
        &self,
        pod: &Pod,
        name: &str,
        image: &str,
        attempt: u32,
    ) -> Result<String, StartError> {
        let Some((_, container)) = pods::container(pod, name) else {
            return Err(refused(reason::CONFIG_ERROR, format!("container {name} is not in the pod any more")));
        };
        self.ensure(pod, Some(name), image, policy(&container), attempt).await
    }

    /// The images of image volumes.
    pub(super) async fn pull_volumes(&self, pod: &Pod, attempt: u32) -> Result<(), String> {
        for volume in crate::volumes::all(pod) {
            let Some(source) = &volume.image else { continue };
            let written = source.reference.clone().unwrap_or_default();
            // A volume's policy is a container's policy without the container.
            let as_container = Container {
                image: Some(written.clone()),
                image_pull_policy: source.pull_policy.clone(),
                ..Container::default()
            };
            let pulled = self.ensure(pod, None, &written, policy(&as_container), attempt).await;
            let image =
                pulled.map_err(|e| format!("failed to pull image of volume \"{}\": {}", volume.name, e.message))?;
            let spec = cri::ImageSpec { image, user_specified_image: written, ..cri::ImageSpec::default() };
            self.found.volume_images.lock().insert((pods::uid(pod).to_owned(), volume.name.clone()), spec);
        }
        Ok(())
    }

    async fn ensure(
        &self,
        pod: &Pod,
        name: Option<&str>,
        written: &str,
        policy: Policy,
        attempt: u32,
    ) -> Result<String, StartError> {
        let image = match normalized(written) {
            Ok(image) => image,
            Err(message) => {
                self.note(pod, name, true, reason::INSPECT_FAILED, &message);
                return Err(refused(reason::INVALID_IMAGE_NAME, message));
            }
        };
        let present = match self.cri.image(&image).await {
            Ok(present) => present,
            Err(error) => {
                let message = format!("Failed to inspect image \"{image}\": {}", shown(&error));
                self.note(pod, name, true, reason::INSPECT_FAILED, &message);
                return Err(refused("ImageInspectError", message));
            }
        };
        match (policy, present) {
            (Policy::Always, _) | (Policy::IfNotPresent, None) => self.pull(pod, name, written, &image, attempt).await,
            (_, Some(found)) => {
                let text =
                    format!("Container image \"{written}\" already present on machine and can be accessed by the pod");
                self.note(pod, name, false, reason::PULLED, &text);
                Ok(self.remember(found))
            }
            (Policy::Never, None) => {
                let text = format!("Container image \"{written}\" is not present with pull policy of Never");
                self.note(pod, name, true, reason::NEVER_PULL, &text);
                Err(refused(reason::NEVER_PULL, text))
            }
        }
    }

    fn remember(&self, image: cri::Image) -> String {
        let user = ImageUser { uid: image.uid.map(|u| u.value), username: image.username };
        self.found.image_users.lock().insert(image.id.clone(), user);
        image.id
    }

    async fn pull(
        &self,
        pod: &Pod,
        name: Option<&str>,
        written: &str,
        image: &str,
        attempt: u32,
    ) -> Result<String, StartError> {
        self.note(pod, name, false, reason::PULLING, &format!("Pulling image \"{written}\""));
        let asked = tokio::time::Instant::now();
        let _turn = match &self.pulls {
            Some(one) => one.acquire().await.ok(),
            None => None,
        };
        let began = tokio::time::Instant::now();
        let pulled = self.pull_with_credentials(pod, image, attempt).await;
        let (took, waited) = (began.elapsed(), asked.elapsed());
        let found = match pulled {
            Ok(reference) => self.cri.image(&reference).await.map_err(|e| shown(&e)),
            Err(message) => Err(message),
        };
        match found {
            Ok(Some(found)) => {
                let size = found.size;
                let text = format!(
                    "Successfully pulled image \"{written}\" in {} ({} including waiting). Image size: {size} bytes.",
                    duration(took),
                    duration(waited)
                );
                self.note(pod, name, false, reason::PULLED, &text);
                Ok(self.remember(found))
            }
            Ok(None) => Err(refused(reason::ERR_IMAGE_PULL, format!("image {image} is not there after it was pulled"))),
            Err(message) => {
                let text = format!("Failed to pull image \"{written}\": {message}");
                self.note(pod, name, true, reason::FAILED, &text);
                Err(refused(reason::ERR_IMAGE_PULL, message))
            }
        }
    }

    async fn pull_with_credentials(&self, pod: &Pod, image: &str, attempt: u32) -> Result<String, String> {
        let names: Vec<String> = pods::spec(pod).image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect();
        let mut tries: Vec<Option<cri::AuthConfig>> = Vec::new();
        if !names.is_empty() {
            let sources = self.objects.sources(pods::uid(pod), pods::namespace(pod), Vec::new(), names.clone()).await;
            let sources: Sources = sources.unwrap_or_default();
            let missing: Vec<&str> =
                names.iter().filter(|n| !sources.secrets.contains_key(*n)).map(String::as_str).collect();
            if !missing.is_empty() {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    missing.join(", ")
                );
                self.note(pod, None, true, "FailedToRetrieveImagePullSecret", &text);
            }
            tries.extend(sources.secrets.values().flat_map(|s| credentials(s, registry(image))).map(Some));
        }
        if tries.is_empty() {
            tries.push(None);
        }
        let config = self.sandbox_config(pod, attempt, false).await.ok();
        let mut last = String::new();
        for auth in tries {
            let spec = cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() };
            let request = cri::PullImageRequest { image: Some(spec), auth, sandbox_config: config.clone() };
            match self.cri.images().pull_image(request).await {
                Ok(answer) => return Ok(answer.into_inner().image_ref),
                Err(error) => last = shown(&error),
            }
        }
        Err(last)
    }
}

/// As Go writes durations of this size: `1.234s`, `56ms`, `1m2.5s`.
fn duration(took: Duration) -> String {
    let millis = took.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let text = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = text.trim_end_matches('0').trim_end_matches('.');
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

/// Credentials for a registry out of a `dockerconfigjson` or `dockercfg` Secret.
pub fn credentials(secret: &Secret, host: &str) -> Vec<cri::AuthConfig> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let auths = match (data(".dockerconfigjson").and_then(parse), data(".dockercfg").and_then(parse)) {
        (Some(config), _) => config.get("auths").cloned(),
        (None, old) => old,
    };
    let Some(Value::Object(auths)) = auths else { return Vec::new() };
    auths.iter().filter(|(server, _)| serves(server, host)).map(|(server, entry)| auth(server, entry)).collect()
}

fn serves(server: &str, host: &str) -> bool {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.split('/').next().unwrap_or("");
    let hub = |h: &str| matches!(h, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    if hub(bare) && hub(host) {
        return true;
    }
    match bare.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|head| head.ends_with('.')),
        None => bare == host,
    }
}

fn auth(server: &str, entry: &Value) -> cri::AuthConfig {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut out = cri::AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        server_address: server.to_owned(),
        ..cri::AuthConfig::default()
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
    if let Some((user, password)) = String::from_utf8_lossy(&decoded).split_once(':') {
        out.username = user.to_owned();
        out.password = password.to_owned();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.example:5000": {"username": "a", "password": "b"}}});
        let encoded = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret = serde_json::from_value(json!({"data": {".dockerconfigjson": encoded}})).unwrap();
        let hub = credentials(&secret, registry("busybox"));
        assert_eq!((hub[0].username.as_str(), hub[0].password.as_str()), ("u", "p"));
        assert_eq!(credentials(&secret, registry("r.example:5000/x")).len(), 1);
        assert!(credentials(&secret, "other.example").is_empty());
        assert_eq!(duration(Duration::from_millis(61_250)), "1m1.25s");
    }
}
