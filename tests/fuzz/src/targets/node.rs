//! What a node reads: images and their documents, accounts, seccomp profiles, CRI messages, streams of exec and
//! port-forward, container logs, manifests of static pods. I/O: directories of their own.

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use bytes::BytesMut;
use kubelet::{logs, static_pods};
use prost::Message;
use runtime::images::passwd::Accounts;
use runtime::images::{Images, Reference, manifest, share, unpack};
use runtime::monitor::protocol;
use runtime::seccomp::{compile, profile};
use runtime::streaming::spdy::frame::{Decoder, Encoder, Frame};
use runtime::streaming::websocket;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use wire::cri;

use super::objects::POD;
use crate::input::{join, parts, text, texts};
use crate::table::{DEEP, FLAT, JSON, Target, YAML};

pub const TARGETS: &[Target] = &[
    Target {
        name: "layer",
        what: "a layer of an image: tar, gzip, zstd",
        run: layer,
        seeds: layers,
        memory: 200,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "image-archive",
        what: "archives of images",
        run: archive,
        seeds: archives,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "shared-images",
        what: "catalogs of nodes that share a host's images, which their pods may have written",
        run: shared,
        seeds: catalogs,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "manifest",
        what: "indexes, manifests and configurations of images",
        run: documents,
        seeds: document_seeds,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "image-name",
        what: "names of images",
        run: name,
        seeds: names,
        memory: 64,
        nests: &[("a/", "b", "")],
        depth: 5_000,
    },
    Target {
        name: "accounts",
        what: "passwd and group of an image, and USER",
        run: accounts,
        seeds: account_seeds,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "seccomp",
        what: "seccomp profiles",
        run: seccomp,
        seeds: profiles,
        memory: 6000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "cri",
        what: "messages of the container runtime interface",
        run: runtime_messages,
        seeds: cri_seeds,
        memory: 3000,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "spdy",
        what: "SPDY frames of exec and port-forward",
        run: spdy,
        seeds: spdy_seeds,
        memory: 3000,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "websocket",
        what: "WebSocket frames of exec, and terminal sizes",
        run: frames,
        seeds: frame_seeds,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "monitor",
        what: "what monitors and the daemon tell each other",
        run: monitor,
        seeds: monitor_seeds,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "log",
        what: "lines of container logs",
        run: log,
        seeds: log_lines,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "static-pod",
        what: "manifests of static pods",
        run: static_pod,
        seeds: manifests,
        memory: 3000,
        nests: YAML,
        depth: DEEP,
    },
];

/// Memory where there is some: thousands of directories are made, and none must last.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

fn tar_of(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            let _ = header.set_link_name(link);
        }
        let _ = builder.append_data(&mut header, path, *data);
    }
    builder.into_inner().unwrap_or_default()
}

fn sample_layer() -> Vec<u8> {
    let long = "d/".repeat(80) + "file";
    tar_of(&[
        ("etc", tar::EntryType::Directory, "", b""),
        ("etc/passwd", tar::EntryType::Regular, "", b"root:x:0:0::/:/bin/sh\n"),
        ("etc/link", tar::EntryType::Symlink, "../etc/passwd", b""),
        ("hard", tar::EntryType::Link, "etc/passwd", b""),
        ("fifo", tar::EntryType::Fifo, "", b""),
        ("etc/.wh.gone", tar::EntryType::Regular, "", b""),
        ("etc/.wh..wh..opq", tar::EntryType::Regular, "", b""),
        (&long, tar::EntryType::Regular, "", b"x"),
    ])
}

fn layers() -> Vec<Vec<u8>> {
    let plain = sample_layer();
    let small = tar_of(&[
        ("a", tar::EntryType::Regular, "", b"b"),
        ("l", tar::EntryType::Symlink, "/", b""),
        ("l/x", tar::EntryType::Regular, "", b"y"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let _ = gzip.write_all(&small);
    let zstd = zstd::stream::encode_all(&small[..], 1);
    vec![plain, small, gzip.finish().unwrap_or_default(), zstd.unwrap_or_default()]
}

/// Zeros of sparse files are written out, however many the header says: bounded by the disk, which isn't asked here.
fn is_sparse(archive: &[u8]) -> bool {
    archive.iter().skip(156).step_by(512).any(|kind| *kind == b'S')
}

fn layer(input: &[u8]) {
    let Ok(mut reader) = unpack::decompress(Box::new(input)) else { return };
    let mut archive = Vec::new();
    // As much as a small input may become: the rest is the disk's limit.
    if reader.by_ref().take(1 << 20).read_to_end(&mut archive).is_err() || is_sparse(&archive) {
        return;
    }
    let dir = directory();
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("a directory");
    let outside = dir.path().join("outside");
    fs::write(&outside, "untouched").expect("a file");
    if let Err(error) = unpack::unpack(&archive[..], &root, &[]) {
        assert!(error.to_string().len() < 8 << 10, "an error is no copy of the layer");
    }
    assert_eq!(fs::read(&outside).ok().as_deref(), Some(&b"untouched"[..]), "what is outside stays as it is");
    assert_eq!(fs::read_dir(dir.path()).map(Iterator::count).ok(), Some(2), "nothing is made outside");
}

fn archives() -> Vec<Vec<u8>> {
    let layer = tar_of(&[("a", tar::EntryType::Regular, "", b"b")]);
    let id = runtime::digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["a"],"User":"1:2"}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["a:b"],"Layers":["layer.tar"]}]"#;
    let file = tar::EntryType::Regular;
    vec![tar_of(&[
        ("manifest.json", file, "", manifest.as_bytes()),
        ("config.json", file, "", config.as_bytes()),
        ("layer.tar", file, "", &layer),
    ])]
}

fn catalogs() -> Vec<Vec<u8>> {
    let catalog = r#"{"next":4,"images":{},"layers":{"sha256:a":{"dir":"s/3","diff_id":"sha256:b","bytes":1,"inodes":2},"sha256:c":{"dir":"s/../outside","diff_id":"sha256:d","bytes":18446744073709551615,"inodes":0},"sha256:e":{"dir":"1","diff_id":"","bytes":0,"inodes":0}}}"#;
    texts(&[catalog, r#"{"next":0,"images":{},"layers":{}}"#])
}

/// Whatever a node's catalog says, no more than what nobody has is removed, and nothing elsewhere.
fn shared(input: &[u8]) {
    const INDEX: &str = r#"{"next":7,"layers":{"sha256:a":{"dir":"3","diff_id":"sha256:b","bytes":1,"inodes":1},"sha256:f":{"dir":"7","diff_id":"sha256:g","bytes":1,"inodes":1}}}"#;
    let dir = directory();
    let top = dir.path().join("shared");
    for layer in ["3", "5", "7", "draft"] {
        fs::create_dir_all(top.join(layer)).expect("a directory");
    }
    fs::write(top.join("index.json"), INDEX).expect("a file");
    fs::write(dir.path().join("outside"), "untouched").expect("a file");
    let there = |layer: &str| top.join(layer).is_dir();
    match share::sweep(&top, &[input.to_vec()]) {
        Ok(removed) => {
            let left = [there("3"), there("7")].into_iter().filter(|there| *there).count();
            assert_eq!(removed + left, 2, "it says what it did");
            assert!(!there("5") && !there("draft"), "what no index names goes");
        }
        Err(error) => {
            assert!(error.to_string().len() < 8 << 10, "an error is no copy of the catalog");
            assert!(there("3") && there("7"), "what can't be known to be unused stays");
        }
    }
    assert_eq!(fs::read(dir.path().join("outside")).ok().as_deref(), Some(&b"untouched"[..]), "nothing else goes");
}

fn archive(input: &[u8]) {
    if is_sparse(input) {
        return;
    }
    let dir = directory();
    let images = Images::open(dir.path()).expect("a store");
    let before = images.list().len();
    match images.import(Cursor::new(input.to_vec()), Some("some/name:tag")) {
        Ok(imported) => assert!(images.list().len() >= imported.len().min(1), "what is imported is there"),
        Err(error) => {
            assert!(error.to_string().len() < 8 << 10, "an error is no copy of the archive");
            assert_eq!(images.list().len(), before, "what is refused is not there");
        }
    }
}

fn document_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"platform":{"architecture":"amd64","os":"linux","variant":"v8"}}]}"#,
        r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:00","size":-1},"layers":[{"mediaType":"x","digest":"sha256:11","size":9223372036854775807,"annotations":{"a":"b"}}]}"#,
        r#"{"architecture":"amd64","os":"linux","config":{"User":"a:b","Env":["A=B"],"Entrypoint":null,"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","StopSignal":"SIGTERM","Labels":{}},"rootfs":{"type":"layers","diff_ids":["sha256:22"]},"history":[]}"#,
    ])
}

fn documents(input: &[u8]) {
    if let Ok(document) = manifest::parse("a", input) {
        let _ = manifest::choose("a", &document.manifests.unwrap_or_default());
    }
    if let Ok(config) = manifest::parse_config("a", input) {
        let _ = config.check_platform("a");
        let _ = manifest::chain_ids(&config.rootfs.diff_ids);
    }
}

fn names() -> Vec<Vec<u8>> {
    texts(&[
        "busybox",
        "a.b:5000/c/d:e",
        "x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "[::1]:5000/a",
        "localhost/a__b-c",
        "A/b",
    ])
}

fn name(input: &[u8]) {
    let Ok(reference) = Reference::parse(&text(input)) else { return };
    let again = Reference::parse(&reference.to_string()).expect("what was written is read");
    assert_eq!(again, reference, "as it was");
    let _ = (reference.name(), reference.tagged());
}

fn account_seeds() -> Vec<Vec<u8>> {
    let of = |user: &str| {
        join(&[
            b"root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:\nu:x:5:6::/u:/s\n::::::\n",
            b"g:x:7:u, v\nroot:x:0:\n",
            user.as_bytes(),
        ])
    };
    ["", "u", "u:g", "1000", "1000:7", ":g", "4294967295", "-1", "0:4294967295", "2147483648"].map(of).to_vec()
}

fn accounts(input: &[u8]) {
    let [passwd, group, user] = parts(input);
    let dir = directory();
    fs::create_dir(dir.path().join("etc")).expect("a directory");
    fs::write(dir.path().join("etc/passwd"), passwd).expect("a file");
    fs::write(dir.path().join("etc/group"), group).expect("a file");
    let user = text(user);
    if let Ok(identity) = Accounts::of_layers(&[dir.path().to_owned()]).and_then(|known| known.resolve(&user)) {
        let ids = [identity.uid, identity.gid].into_iter().chain(identity.groups);
        assert!(
            ids.into_iter().all(|id| i32::try_from(id).is_ok()),
            "{user:?}: -1 and beyond change nothing in the kernel"
        );
        if let Ok(number) = user.split(':').next().unwrap_or_default().parse::<u32>() {
            assert_eq!(identity.uid, number, "a number is that number");
        }
    }
}

fn profiles() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GE"}]}]}"#,
    ])
}

fn seccomp(input: &[u8]) {
    let Ok(policy) = profile::parse(input) else { return };
    if let Ok(program) = compile::compile(&policy) {
        assert!(!program.is_empty() && program.len() <= 4096, "the kernel takes it");
    }
}

fn cri_seeds() -> Vec<Vec<u8>> {
    let metadata = cri::PodSandboxMetadata { name: "a".into(), uid: "b".into(), namespace: "c".into(), attempt: 1 };
    let sandbox = cri::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: "h".into(),
        log_directory: "/l".into(),
        ..cri::PodSandboxConfig::default()
    };
    let container =
        cri::ContainerConfig { command: vec!["a".into()], working_dir: "/".into(), ..cri::ContainerConfig::default() };
    let run = cri::RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
    let create = cri::CreateContainerRequest {
        pod_sandbox_id: "x".into(),
        config: Some(container),
        sandbox_config: Some(sandbox),
    };
    let exec =
        cri::ExecRequest { container_id: "x".into(), cmd: vec!["sh".into()], tty: true, ..cri::ExecRequest::default() };
    [run.encode_to_vec(), create.encode_to_vec(), exec.encode_to_vec()]
        .into_iter()
        .enumerate()
        .map(|(at, m)| [vec![at as u8], m].concat())
        .collect()
}

fn runtime_messages(input: &[u8]) {
    fn both<T: Message + Default + PartialEq>(bytes: &[u8]) {
        let Ok(message) = T::decode(bytes) else { return };
        let again = T::decode(message.encode_to_vec().as_slice()).expect("what was written is read");
        assert!(again == message, "as it was");
    }
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 5 {
        0 => both::<cri::RunPodSandboxRequest>(rest),
        1 => both::<cri::CreateContainerRequest>(rest),
        2 => both::<cri::ExecRequest>(rest),
        3 => both::<cri::PullImageRequest>(rest),
        _ => both::<cri::UpdateContainerResourcesRequest>(rest),
    }
}

fn spdy_seeds() -> Vec<Vec<u8>> {
    let headers =
        [("streamtype", "stdin"), ("port", "80"), ("requestid", "0")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let frames = [
        Frame::SynStream { id: 1, headers: headers.into(), last: false },
        Frame::SynReply { id: 1 },
        Frame::Data { id: 1, data: "hello".into(), last: false },
        Frame::Ping { id: 2 },
        Frame::Reset { id: 1, status: 1 },
        Frame::SynStream { id: 3, headers: [("a".to_owned(), "b".repeat(300))].into(), last: true },
        Frame::GoAway,
    ];
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
    vec![out.to_vec()]
}

fn spdy(input: &[u8]) {
    let whole = decoded(&mut std::iter::once(input));
    assert_eq!(decoded(&mut input.chunks(5)), whole, "in pieces as whole");
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    let (Ok(frames) | Err((frames, _))) = &whole;
    let ours = |frame: &&Frame| {
        matches!(frame, Frame::SynStream { .. } | Frame::Data { .. } | Frame::Ping { .. } | Frame::Reset { .. })
    };
    let kept: Vec<Frame> = frames.iter().filter(ours).cloned().collect();
    kept.iter().for_each(|frame| encoder.encode(frame, &mut out));
    assert_eq!(decoded(&mut std::iter::once(&out[..])), Ok(kept), "as it was");
}

type Decoded = Result<Vec<Frame>, (Vec<Frame>, &'static str)>;

fn decoded(pieces: &mut dyn Iterator<Item = &[u8]>) -> Decoded {
    let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(why) => return Err((frames, why)),
            }
        }
    }
    Ok(frames)
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let frame = |first: u8, data: &[u8]| [&[first, 0x80 | data.len() as u8, 0, 0, 0, 0], data].concat();
    let resize = br#"{"Width":80,"Height":24}"#;
    vec![
        frame(0x82, b"\0hello"),
        frame(0x81, b"0aGk="),
        [frame(0x02, b"\x04{\"Wid"), frame(0x80, b"th\":1}")].concat(),
        frame(0x88, &[3, 232]),
        frame(0x89, b"ping"),
        resize.to_vec(),
    ]
}

/// A connection from which the input is read, and to which answers go nowhere.
struct From<'a>(&'a [u8]);

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for From<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frames(input: &[u8]) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(websocket::MAX_MESSAGE);
    config.max_frame_size = Some(websocket::MAX_MESSAGE);
    let mut socket = WebSocket::from_raw_socket(From(input), Role::Server, Some(config));
    while let Ok(message) = socket.read() {
        assert!(message.len() <= websocket::MAX_MESSAGE, "no message is larger");
    }
    let _ = websocket::terminal_size(input);
}

fn monitor_seeds() -> Vec<Vec<u8>> {
    let mut all = texts(&["ok 12 345", "err reason of it", "exit 137", "ok 1", ""]);
    all.push(
        [
            protocol::frame(protocol::FRAME_STDOUT, b"hello"),
            protocol::frame(protocol::FRAME_RESIZE, &protocol::size_bytes(80, 24)),
        ]
        .concat(),
    );
    all
}

fn monitor(input: &[u8]) {
    let _ = protocol::Answer::parse(input);
    let _ = protocol::size_of(input);
    let mut buffer = input.to_vec();
    while let Some((kind, data)) = protocol::take_frame(&mut buffer) {
        let mut again = protocol::frame(kind, &data);
        assert_eq!(protocol::take_frame(&mut again), Some((kind, data)), "as it was");
    }
    assert!(buffer.len() < protocol::FRAME_HEADER + usize::from(u16::MAX), "what is left is no whole frame");
}

fn log_lines() -> Vec<Vec<u8>> {
    texts(&[
        "2026-01-02T03:04:05.678Z stdout F hello\n",
        "2026-01-02T03:04:05.678Z stderr P:x part\n2026-01-02T03:04:06Z stderr F end\n",
        "x stdout F\n",
        "  \n",
    ])
}

fn log(input: &[u8]) {
    let options = [
        logs::Options { timestamps: true, ..logs::Options::default() },
        logs::Options { limit_bytes: Some(10), stream: Some("stderr".into()), ..logs::Options::default() },
        logs::Options { since: "2026-01-02T03:04:06Z".parse().ok(), ..logs::Options::default() },
    ];
    for options in options {
        let most = options.limit_bytes.map_or(usize::MAX, |n| n as usize);
        let (mut filter, mut out) = (logs::Filter::new(options), Vec::new());
        for line in input.split_inclusive(|b| *b == b'\n') {
            filter.line(line, &mut out);
        }
        assert!(out.len() <= most.min(input.len()), "no more than there is, nor than is wanted");
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let blocks = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    image: i\n    command: [sh, -c, 'x']\n";
    texts(&[POD, blocks])
}

fn static_pod(input: &[u8]) {
    let text = text(input);
    let Ok(pod) = static_pods::parse(&text, "a.yaml", "Node") else { return };
    assert!(pod.metadata.name.is_some_and(|n| n.ends_with("-node")) && pod.status.is_none());
    let again = static_pods::parse(&text, "a.yaml", "Node").expect("again");
    assert_eq!(again.metadata.uid, pod.metadata.uid, "the same file is the same pod");
}
