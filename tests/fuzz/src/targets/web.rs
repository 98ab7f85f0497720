//! HTTP as servers meet it: frames of HTTP/2, paths, queries, headers, names of proxied pods, pages behind the proxy.

use apiserver::authn::impersonation;
use apiserver::http::negotiate::{self, Offer};
use apiserver::http::request::{Query, RequestInfo};
use apiserver::proxy::html::Rewriter;
use apiserver::proxy::target::ProxiedName;
use apiserver::registry::options::{DeleteOptions, ListOptions, WriteOptions};
use apiserver::registry::read;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use kubelet::params;
use serving::authority::Filter;

use crate::input::{join, parts, text, texts, value};
use crate::table::{FLAT, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "authority",
        what: "HTTP/2 as its clients send it",
        run: authority,
        seeds: connections,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "request",
        what: "paths and queries",
        run: request,
        seeds: requests,
        memory: 600,
        nests: &[("/a", "b", ""), ("?a=b&", "c", "")],
        depth: 20_000,
    },
    Target {
        name: "accept",
        what: "Accept and Content-Type",
        run: accept,
        seeds: accepts,
        memory: 600,
        nests: &[("a/b;c=d,", "e/f", "")],
        depth: 1_000,
    },
    Target {
        name: "headers",
        what: "impersonation and credentials in headers",
        run: headers,
        seeds: header_seeds,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "proxied-name",
        what: "scheme, name and port of what is proxied",
        run: proxied,
        seeds: proxied_seeds,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "html",
        what: "pages that come through the proxy",
        run: html,
        seeds: pages,
        memory: 600,
        nests: &[("<a href=/x>", "y", "</a>")],
        depth: 5_000,
    },
    Target {
        name: "continue",
        what: "continue parameters of lists",
        run: continued,
        seeds: continues,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "kubelet-query",
        what: "paths and queries of the kubelet's port",
        run: kubelet_query,
        seeds: kubelet_queries,
        memory: 600,
        nests: &[("/a", "", "")],
        depth: 2_000,
    },
];

fn connections() -> Vec<Vec<u8>> {
    let with = |flags: u8, block: &[u8]| {
        let head = [0, 0, block.len() as u8, 1, flags, 0, 0, 0, 1];
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &head, block].concat()
    };
    vec![
        with(5, b"\x82\x86\x41\x0dhttp://a:2379\x04\x02/x"),
        with(4, b"\x83\x86\x00\x0a:authority\x03%2F\x44\x02/x"),
        with(0x2d, b"\x01\0\0\0\0\x09\x82\x81\x41\x81\x63\xbe\0"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ]
}

fn authority(input: &[u8]) {
    let filtered = |bytes: &[u8], step: usize| {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        for piece in bytes.chunks(step) {
            let length = filter.take(piece);
            out.extend_from_slice(&piece[..length]);
            out.append(filter.ready());
        }
        filter.end();
        out.append(filter.ready());
        out
    };
    let whole = filtered(input, usize::MAX);
    assert_eq!(filtered(input, 7), whole, "in pieces as whole");
    assert!(whole.len() <= 2 * input.len(), "a text is at most eight fifths of what it was packed to");
}

fn requests() -> Vec<Vec<u8>> {
    let of = |path: &str, query: &str| join(&[path.as_bytes(), query.as_bytes()]);
    vec![
        of("/api/v1/namespaces/a/pods/b/log", "follow=true&tailLines=3"),
        of("/apis/apps/v1/deployments", "watch=1&resourceVersion=5&labelSelector=a%3Db"),
        of("/api/v1/watch/namespaces/a/secrets/b", "fieldSelector=metadata.name%3Dc&limit=5"),
        of("/api/v1/proxy/nodes/x", ""),
        of("//..//%2e%2e/", "&&=%zz"),
        of("/api/v1/namespaces/a/finalize", "dryRun=All&fieldManager=x&fieldValidation=Strict&force=true"),
        of("/healthz", "continue=abc&resourceVersionMatch=Exact&sendInitialEvents=true"),
    ]
}

fn request(input: &[u8]) {
    let [path, query] = parts(input);
    let (path, query) = (text(path), text(query));
    let query = Query::parse(Some(&query));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let _ = RequestInfo::parse(&method, &path, &query);
    }
    let _ = WriteOptions::parse(&query, "PatchOptions");
    for watch in [false, true] {
        let _ = ListOptions::parse(&query, watch);
    }
    let _ = DeleteOptions::from_query(&query);
    if let Some(body) = value(input) {
        let _ = DeleteOptions::from_body(&body, &query);
    }
}

fn accepts() -> Vec<Vec<u8>> {
    texts(&[
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        "application/vnd.kubernetes.protobuf;q=0.9, */*;q=0.1",
        "application/yaml",
        "text/html, application/xml;q=0.9;;,",
        "application/json;stream=watch",
        "a/b;c=\"d\\\"e\"",
    ])
}

fn accept(input: &[u8]) {
    let text = text(input);
    for at in 0..16u8 {
        let bit = |n: u8| at & (1 << n) != 0;
        let _ = negotiate::accept(&text, Offer { custom: bit(0), table: bit(1), collection: bit(2), watch: bit(3) });
    }
    let _ = (negotiate::body_encoding(&text, false), negotiate::media_type(&text), negotiate::clauses(&text).len());
}

fn header_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "impersonate-user: a\nimpersonate-group: b\nimpersonate-extra-x%2fy: z\nimpersonate-uid: 1",
        "authorization: Bearer a.b.c\nsec-websocket-protocol: base64url.bearer.authorization.k8s.io.YWJj, v4",
    ])
}

fn headers(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|b| *b == b'\n').take(100) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) else {
            continue;
        };
        headers.append(name, value);
    }
    let _ = impersonation::wanted(&headers);
    let _ = client::delegated::bearer(&headers);
    let credentials = apiserver::authn::Credentials { headers: &headers, certificates: &[], audiences: &[] };
    let _ = credentials.bearer();
    apiserver::authn::strip_token_protocol(&mut headers);
}

fn proxied_seeds() -> Vec<Vec<u8>> {
    texts(&["https:a:443", "a", "http:a:web", "a:80", "::", "https:[::1]:1"])
}

fn proxied(input: &[u8]) {
    let _ = ProxiedName::parse(&text(input));
}

fn pages() -> Vec<Vec<u8>> {
    texts(&[
        "<html><a href=\"/x?y\">z</a><img src='/i'><form action=/f><!-- <a href=\"/c\"> --><script>if (a<b) {}</script>",
        "<a\nhref = \"http://own/x\" href=//y>",
        "<a href=\"/",
        "<<<a href='",
    ])
}

fn html(input: &[u8]) {
    let rewritten = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut rewriter = Rewriter::new("/api/v1/namespaces/a/services/b/proxy", "own".to_owned());
        let mut out: Vec<u8> = pieces.flat_map(|piece| rewriter.push(piece)).collect();
        out.extend(rewriter.finish());
        out
    };
    let whole = rewritten(&mut std::iter::once(input));
    let pieces = rewritten(&mut input.chunks(7));
    assert_eq!(pieces, whole, "in pieces as whole");
}

fn continues() -> Vec<Vec<u8>> {
    let mut all = [read::encode_token(7, "ns/name"), read::encode_token(-1, "a/b\0")].map(String::into_bytes).to_vec();
    all.extend(
        [&b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0="[..], b"{\"v\":\"meta.k8s.io/v1\",\"rv\":5,\"start\":\"a\"}"]
            .map(<[u8]>::to_vec),
    );
    all
}

/// As it comes, and what is inside of it: nobody guesses base64.
fn continued(input: &[u8]) {
    for text in [text(input), URL_SAFE_NO_PAD.encode(input).into()] {
        let Ok(token) = read::decode_token(&text) else { continue };
        assert!(!token.start.is_empty() && !token.start.contains(".."), "it stays in its list");
        let again = read::decode_token(&read::encode_token(token.rv, &token.start)).ok();
        assert!(
            again.is_some_and(|again| (again.rv, again.start) == (token.rv, token.start)),
            "what was written is read"
        );
    }
}

fn kubelet_queries() -> Vec<Vec<u8>> {
    let seeds: [(&[u8], &[u8]); 3] = [
        (b"/exec/ns/pod/container", b"command=sh&command=-c&command=echo+a%20%26b&tty=1&bad=%zz"),
        (b"/containerLogs/ns/pod/c%2f..", b"tailLines=5&follow=true&sinceTime=2026-01-02T03:04:05Z&limitBytes=1"),
        (b"//logs/../%2e%2e/%", b"&&=&a&%="),
    ];
    seeds.iter().map(|(path, query)| join(&[path, query])).collect()
}

fn kubelet_query(input: &[u8]) {
    let [path, query] = parts(input);
    let (path, query) = (text(path), text(query));
    assert!(params::parts(&path).len() <= path.split('/').count(), "a part is between two slashes");
    let params = params::Params::of(Some(&query));
    let said: usize = params.0.iter().map(|(name, values)| name.len().max(1) * values.len()).sum();
    // What is no text becomes a sign of three bytes.
    assert!(said <= query.len() * 3 + 1, "{said} bytes of names in {} bytes", query.len());
}
