//! Images: archives, names, removal, registries.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use wire::cri::*;
use wire::images::{ImportRequest, PullRequest};

use crate::Test;
use crate::host::{BUSYBOX, Host, archive, busybox_archive, busybox_layer, security, shell, tar, with_host};

pub const TESTS: &[Test] = &[
    ("images::archives_of_every_form", archives_of_every_form),
    ("images::bad_archives_leave_nothing", bad_archives_leave_nothing),
    ("images::a_gigabyte_of_header_costs_no_memory", a_gigabyte_of_header_costs_no_memory),
    ("images::removal_keeps_what_containers_stand_on", removal_keeps_what_containers_stand_on),
    ("images::layers_and_whiteouts", layers_and_whiteouts),
    ("images::an_image_without_layers_runs_and_is_a_volume", an_image_without_layers_runs_and_is_a_volume),
    ("images::registry_pull", registry_pull),
    ("images::a_private_registry_is_described_by_a_file_that_may_change", private_registry),
];

async fn names(host: &mut Host) -> Vec<String> {
    let list = host.images.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images;
    list.into_iter().flat_map(|i| i.repo_tags).collect()
}

async fn image_status(host: &mut Host, name: &str) -> Option<Image> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    host.images.image_status(ImageStatusRequest { image, verbose: false }).await.unwrap().into_inner().image
}

/// An OCI layout with an index of two machines.
fn oci_files(name: &str) -> Vec<(String, Vec<u8>)> {
    let layer = busybox_layer();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let packed = gzip.finish().unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": arch, "os": "linux", "config": {"User": "app", "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha(&layer))]},
    }))
    .unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": format!("sha256:{}", sha(&config)), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": format!("sha256:{}", sha(&packed)), "size": packed.len()}],
    }))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "0".repeat(64)),
             "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", sha(&manifest)),
             "size": manifest.len(), "platform": {"os": "linux", "architecture": arch}}],
    }))
    .unwrap();
    let top = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
                       "digest": format!("sha256:{}", sha(&index)), "size": index.len(),
                       "annotations": {"io.containerd.image.name": name}}],
    });
    let blob = |bytes: Vec<u8>| (format!("blobs/sha256/{}", sha(&bytes)), bytes);
    vec![
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".into(), top.to_string().into_bytes()),
        blob(packed),
        blob(config),
        blob(manifest),
        blob(index),
    ]
}

fn sha(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn oci_archive(name: &str) -> Vec<u8> {
    let files = oci_files(name);
    let list: Vec<_> = files.iter().map(|(path, body)| (path.as_str(), 0o644, body.as_slice())).collect();
    tar(&list)
}

fn archives_of_every_form() {
    with_host(|mut host| async move {
        assert_eq!(names(&mut host).await, ["docker.io/library/busybox:1"]);
        let found = host.import(oci_archive("registry.example/team/app:2")).await;
        assert_eq!(found, ["registry.example/team/app:2"]);
        let image = image_status(&mut host, "registry.example/team/app:2").await.unwrap();
        assert_eq!(image.username, "app");
        assert!(image.repo_digests[0].starts_with("registry.example/team/app@sha256:"));
        assert!(image.size > 500_000 && image.id.starts_with("sha256:"));
        let by_digest = image_status(&mut host, &image.repo_digests[0]).await.unwrap();
        let by_prefix = image_status(&mut host, &image.id[7..19]).await.unwrap();
        assert_eq!((&by_digest.id, &by_prefix.id), (&image.id, &image.id));
        assert!(image_status(&mut host, "nothing:1").await.is_none());
        // The same layer in two images is unpacked once.
        assert_eq!(std::fs::read_dir(host.path("root/images/layers")).unwrap().count(), 1);
        let zstd = zstd::encode_all(busybox_archive("packed:1").as_slice(), 1).unwrap();
        assert!(host.import(zstd).await.contains(&"docker.io/library/packed:1".to_owned()));
        let pod = host.pod(|_| {}).await;
        let mut config = shell("oci", "id -u");
        config.image.as_mut().unwrap().image = "registry.example/team/app:2".into();
        assert_eq!(host.output(&pod, config).await.0, "1000\n");
        host.finish().await;
    });
}

fn bad_archives_leave_nothing() {
    with_host(|mut host| async move {
        let wrong_arch = {
            let config = br#"{"architecture":"s390x","os":"linux","rootfs":{"diff_ids":[]}}"#;
            let manifest = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]}]"#;
            tar(&[("c", 0o644, &config[..]), ("manifest.json", 0o644, &manifest[..])])
        };
        let mut wrong_layer = archive("b:1", &[tar(&[("big", 0o644, &[7; 100_000])])], serde_json::json!({}));
        let at = wrong_layer.len() / 2;
        wrong_layer[at] ^= 0xff;
        let truncated = busybox_archive("c:1")[..500_000].to_vec();
        for (bytes, words) in [
            (b"rubbish".to_vec(), "archive"),
            (tar(&[("hello", 0o644, b"x")]), "not an image archive"),
            (wrong_arch, "no variant for linux/"),
            (wrong_layer, "corrupt"),
            (truncated, ""),
        ] {
            let request = wire::images::ImportRequest { name: String::new(), data: bytes.into() };
            let error = host.transfer.import(futures::stream::iter([request])).await.unwrap_err();
            assert!(error.message().contains(words), "{error:?}");
        }
        assert_eq!(names(&mut host).await, ["docker.io/library/busybox:1"]);
        assert_eq!(std::fs::read_dir(host.path("root/images/ingest")).unwrap().count(), 0);
        host.finish().await;
    });
}

/// How far this process's memory grew over a piece of work, in bytes.
async fn growth<T>(work: impl Future<Output = T>) -> (T, u64) {
    let status = |name: &str| {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
        line.trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    // "5" begins the peak anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let done = work.await;
    (done, status("VmHWM:").saturating_sub(before))
}

/// A megabyte of archive once took six gigabytes and the daemon with it, by a long name and by a pax header.
fn a_gigabyte_of_header_costs_no_memory() {
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    // A gzip file may have many members.
    let megabyte = gzip(&vec![b'a'; 1 << 20]);
    with_host(|mut host| async move {
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("././@LongLink").unwrap();
            header.set_size(1 << 30);
            header.set_cksum();
            let layer = [gzip(header.as_bytes()), megabyte.repeat(1 << 10)].concat();
            assert!(layer.len() < 2 << 20, "{} bytes", layer.len());
            // As a layer, and as the archive itself.
            for archive in [archive("bomb:1", std::slice::from_ref(&layer), serde_json::json!({})), layer] {
                let request = ImportRequest { name: String::new(), data: archive.into() };
                let import = host.transfer.import(futures::stream::iter([request]));
                let (answer, grown) = growth(import).await;
                let error = answer.unwrap_err();
                assert!(
                    error.message().contains("a header of 1073741824 bytes") || error.message().contains("no tar file"),
                    "{error:?}"
                );
                assert!(error.message().len() < 1000 && grown < 32 << 20, "{kind:?}: {grown} bytes");
            }
        }
        assert_eq!(names(&mut host).await, ["docker.io/library/busybox:1"]);
        host.finish().await;
    });
}

fn removal_keeps_what_containers_stand_on() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "while [ ! -e /go ]; do sleep 0.01; done; cat /etc/passwd | wc -l").await;
        let remove =
            |name: &str| RemoveImageRequest { image: Some(ImageSpec { image: name.into(), ..Default::default() }) };
        host.images.remove_image(remove("busybox:1")).await.unwrap();
        assert!(names(&mut host).await.is_empty());
        host.images.remove_image(remove("busybox:1")).await.unwrap();
        let host_after = host.restart().await;
        let mut host = host_after;
        host.exec(&id, "touch /go").await.unwrap();
        host.ended(&id).await;
        assert_eq!(host.log("one"), "2\n");
        host.remove_pod(&pod.0).await;
        // The next removal or start takes the layer that was held.
        let host = host.restart().await;
        assert_eq!(std::fs::read_dir(host.path("root/images/layers")).unwrap().count(), 0);
        host.finish().await;
    });
}

/// As `FROM scratch` with nothing but a configuration: what it runs comes with a volume.
fn an_image_without_layers_runs_and_is_a_volume() {
    with_host(|mut host| async move {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config =
            format!(r#"{{"architecture":"{arch}","os":"linux","config":{{"User":"7"}},"rootfs":{{"diff_ids":null}}}}"#);
        let manifest = br#"[{"Config":"c","RepoTags":["empty:1"],"Layers":null}]"#;
        let archive = tar(&[("c", 0o644, config.as_bytes()), ("manifest.json", 0o644, &manifest[..])]);
        assert_eq!(host.import(archive).await, ["docker.io/library/empty:1"]);
        let pod = host.pod(|_| {}).await;
        let image = ImageSpec { image: "empty:1".into(), ..Default::default() };
        let mut config = shell("empty", "b=/tools/busybox; $b id -u; $b ls -a /; echo x > /new && $b cat /new");
        config.command.insert(0, "/tools/busybox".into());
        config.image = Some(image.clone());
        security(&mut config).run_as_user = Some(Int64Value { value: 0 });
        let tools = std::path::Path::new(BUSYBOX).parent().unwrap().display().to_string();
        config.mounts =
            vec![Mount { container_path: "/tools".into(), host_path: tools, readonly: true, ..Default::default() }];
        let (text, code) = host.output(&pod, config).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with("0\n") && text.contains("tools\n") && text.ends_with("x\n"), "{text}");
        let mut config = shell("volume", "ls -a /img | tr '\\n' ' '; echo x > /img/x || echo refused");
        config.mounts = vec![Mount { container_path: "/img".into(), image: Some(image), ..Default::default() }];
        let (text, _) = host.output(&pod, config).await;
        assert!(text.contains(". ..") && text.contains("refused"), "{text}");
        host.finish().await;
    });
}

fn layers_and_whiteouts() {
    with_host(|mut host| async move {
        let second = tar(&[
            ("etc/", 0o755, b""),
            ("etc/.wh.group", 0o644, b""),
            ("opt/", 0o755, b""),
            ("opt/a", 0o644, b"a\n"),
            ("root/.wh..wh..opq", 0o644, b""),
        ]);
        let third = tar(&[("opt/b", 0o644, b"b\n"), ("opt/.wh.a", 0o644, b"")]);
        let many: Vec<Vec<u8>> = (0..40).map(|n| tar(&[(&format!("n/{n}"), 0o644, b"x")])).collect();
        let layers = [vec![busybox_layer(), second, third], many].concat();
        host.import(archive("stack:1", &layers, serde_json::json!({}))).await;
        let pod = host.pod(|_| {}).await;
        let mut config = shell("stack", "ls /etc /opt | tr '\\n' ' '; ls /n | wc -l");
        config.image.as_mut().unwrap().image = "stack:1".into();
        let (text, _) = host.output(&pod, config).await;
        assert!(text.contains("passwd") && !text.contains("group"), "{text}");
        assert!(text.contains("/opt: b ") && text.ends_with("40\n"), "{text}");
        host.finish().await;
    });
}

/// Debian's docker-registry, on a port of its own.
struct Registry(Child, u16);

impl Registry {
    fn start(dir: &std::path::Path) -> Option<Self> {
        Registry::start_with(dir, "", "")
    }

    /// The same, with more in its configuration.
    fn start_with(dir: &std::path::Path, of_http: &str, more: &str) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n{more}http:\n  addr: 127.0.0.1:{port}\n{of_http}",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry(command.spawn().ok()?, port);
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("docker-registry does not listen");
    }

    /// One HTTP request; answers status line and headers.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> String {
        use std::io::Read;
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body).unwrap();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer
    }

    fn push(&self, repository: &str, tag: &str, files: &[(String, Vec<u8>)]) {
        for (path, body) in files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            let digest = format!("sha256:{}", path.rsplit('/').next().unwrap());
            let json = body.starts_with(b"{\"").then(|| serde_json::from_slice::<serde_json::Value>(body).unwrap());
            match json.as_ref().and_then(|j| j.get("mediaType")).and_then(|m| m.as_str()) {
                // An index can only be put when all that it lists is there, so the other machine's entry goes.
                Some(kind) if kind.contains("manifest") => {
                    let answer = self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, body);
                    assert!(answer.contains(" 201 "), "{answer}");
                }
                Some(_) => {}
                None => {
                    let answer = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
                    let place = answer.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap().trim().to_owned();
                    let path = place.split_once("://").map_or(place.as_str(), |(_, r)| &r[r.find('/').unwrap()..]);
                    let mark = if path.contains('?') { '&' } else { '?' };
                    let url = format!("{path}{mark}digest={digest}");
                    let answer = self.ask("PUT", &url, "application/octet-stream", body);
                    assert!(answer.contains(" 201 "), "{answer}");
                }
            }
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn registry_pull() {
    with_host(|mut host| async move {
        let Some(registry) = Registry::start(host.dir.path()) else {
            println!("skipped: docker-registry is not installed (Debian package docker-registry)");
            return host.finish().await;
        };
        registry.push("team/app", "1", &oci_files("unused:1"));
        let name = format!("localhost:{}/team/app:1", registry.1);
        let spec = |name: &str| Some(ImageSpec { image: name.into(), ..Default::default() });
        let pull = |name: &str| PullImageRequest { image: spec(name), ..Default::default() };
        let id = host.images.pull_image(pull(&name)).await.unwrap().into_inner().image_ref;
        let image = image_status(&mut host, &name).await.unwrap();
        assert_eq!(image.id, id);
        assert_eq!(image.repo_tags, std::slice::from_ref(&name));
        let again = host.images.pull_image(pull(&image.repo_digests[0])).await.unwrap().into_inner().image_ref;
        assert_eq!(again, id, "by digest");
        let missing =
            host.images.pull_image(pull(&format!("localhost:{}/team/app:nope", registry.1))).await.unwrap_err();
        assert_eq!(missing.code(), tonic::Code::NotFound, "{missing:?}");
        let nowhere = host.images.pull_image(pull("127.0.0.1:1/app:1")).await.unwrap_err();
        assert!(nowhere.message().contains("refused"), "{nowhere:?}");
        let pod = host.pod(|_| {}).await;
        let mut config = shell("pulled", "id -u");
        config.image = spec(&name);
        assert_eq!(host.output(&pod, config).await.0, "1000\n");

        let request = PullRequest { image: name.clone(), ..Default::default() };
        let mut progress = host.transfer.pull(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(message) = progress.message().await.unwrap() {
            last = Some(message);
        }
        assert_eq!(last.unwrap().image_ref, id);

        // A registry whose content was damaged.
        let blobs = host.path("registry/docker/registry/v2/blobs/sha256");
        registry.push("team/bad", "1", &oci_files("unused:1"));
        let files = oci_files("unused:1");
        let layer = files[2].0.rsplit('/').next().unwrap().to_owned();
        let path = blobs.join(&layer[..2]).join(&layer).join("data");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut fresh = Host::start().await;
        let bad = fresh.images.pull_image(pull(&format!("localhost:{}/team/bad:1", registry.1))).await.unwrap_err();
        assert!(bad.message().contains("corrupt"), "{bad:?}");
        assert!(names(&mut fresh).await.is_empty());
        fresh.finish().await;
        drop(registry);
        host.finish().await;
    });
}

/// The password `secret` of `me`, as htpasswd writes it.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// TLS of an authority that nobody knows, a password, another name of the repository: pulls fail until the file says
/// so, and need no restart then.
fn private_registry() {
    with_host(|mut host| async move {
        let dir = host.path("private");
        std::fs::create_dir(&dir).unwrap();
        let Some(open) = Registry::start(&dir) else {
            println!("skipped: docker-registry is not installed (Debian package docker-registry)");
            return host.finish().await;
        };
        open.push("hub/app", "1", &oci_files("unused:1"));
        drop(open);
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=registry", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(dir.join("key.pem"))
            .arg("-out")
            .arg(dir.join("ca.pem"))
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            println!("skipped: openssl is not installed (Debian package openssl)");
            return host.finish().await;
        }
        std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        let shown = dir.display();
        let of_http = format!("  tls:\n    certificate: {shown}/ca.pem\n    key: {shown}/key.pem\n");
        let more = format!("auth:\n  htpasswd:\n    realm: test\n    path: {shown}/htpasswd\n");
        let registry = Registry::start_with(&dir, &of_http, &more).unwrap();
        let at = format!("localhost:{}", registry.1);
        let pull = |auth: Option<AuthConfig>| PullImageRequest {
            image: Some(ImageSpec { image: "shop.example/team/app:1".into(), ..Default::default() }),
            auth,
            ..Default::default()
        };
        let file = host.path("registries.yaml");
        let mirror =
            format!("mirrors:\n  shop.example:\n    endpoint: ['https://{at}']\n    rewrite: {{'^team/': hub/}}\n");
        let say = |text: &str| std::fs::write(&file, text).unwrap();
        say(&mirror);
        let unknown = host.images.pull_image(pull(None)).await.unwrap_err();
        let both = ["shop.example", "(mirrors: https://localhost:", "invalid peer certificate"];
        assert!(both.iter().all(|word| unknown.message().contains(word)), "{unknown:?}");
        let tls = format!("tls: {{ca_file: {shown}/ca.pem}}");
        say(&format!("{mirror}configs:\n  '{at}': {{{tls}, auth: {{username: me, password: wrong}}}}\n"));
        let wrong = host.images.pull_image(pull(None)).await.unwrap_err();
        assert!(wrong.message().contains("pull access denied"), "another password: {wrong:?}");
        say(&format!("{mirror}configs:\n  '{at}': {{{tls}, auth: {{username: me, password: secret}}}}\n"));
        let id = host.images.pull_image(pull(None)).await.unwrap().into_inner().image_ref;
        let image = image_status(&mut host, "shop.example/team/app:1").await.unwrap();
        assert_eq!((image.id, image.repo_tags), (id, vec!["shop.example/team/app:1".to_owned()]));
        // Not checked at all, and what a pod's own secret says comes first at the registry that it is for.
        let own = format!(
            "configs:\n  '{at}': {{tls: {{insecure_skip_verify: true}}, auth: {{username: me, password: wrong}}}}\n\
             mirrors:\n  '{at}':\n    endpoint: ['https://{at}']\n"
        );
        say(&own);
        let auth = AuthConfig { username: "me".into(), password: "secret".into(), ..Default::default() };
        let mut by_pod = pull(Some(auth));
        by_pod.image = Some(ImageSpec { image: format!("{at}/hub/app:1"), ..Default::default() });
        host.images.pull_image(by_pod).await.unwrap();
        say("mirrors:\n  a: {endpoints: []}\n");
        let refused = host.images.pull_image(pull(None)).await.unwrap_err();
        assert!(
            refused.message().contains("registries.yaml: mirrors.a.endpoints: there is no such field"),
            "{refused:?}"
        );
        drop(registry);
        host.finish().await;
    });
}
