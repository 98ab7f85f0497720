//! `/logs/`: the host's log files, for those who may see `nodes/log`. Does I/O.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio_util::io::ReaderStream;

use super::{Reply, full, text};

/// Answers with what is below `root` at a path: a list of a directory, or a file as it grew until now.
pub async fn serve(root: &Path, parts: &[&str], path: &str) -> Reply {
    let Ok(found) = find(root, parts).await else { return text(StatusCode::NOT_FOUND, "404 page not found\n") };
    let Ok(metadata) = tokio::fs::metadata(&found).await else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if metadata.is_file() {
        return file(&found).await;
    }
    if !metadata.is_dir() {
        return text(StatusCode::FORBIDDEN, "neither a file nor a directory\n");
    }
    if !path.ends_with('/') {
        return moved(path.rsplit('/').next().unwrap_or_default());
    }
    page(&found).await
}

/// Where a path leads. Links may not lead out: pods can put them there.
async fn find(root: &Path, parts: &[&str]) -> std::io::Result<PathBuf> {
    let outside = || std::io::Error::from(std::io::ErrorKind::NotFound);
    if parts.iter().any(|part| matches!(*part, "." | "..") || part.contains(['/', '\0'])) {
        return Err(outside());
    }
    let root = tokio::fs::canonicalize(root).await?;
    let found = tokio::fs::canonicalize(parts.iter().fold(root.clone(), |path, part| path.join(part))).await?;
    if found.starts_with(&root) { Ok(found) } else { Err(outside()) }
}

async fn file(path: &Path) -> Reply {
    let Ok(file) = tokio::fs::File::open(path).await else {
        return text(StatusCode::FORBIDDEN, "403 Forbidden\n");
    };
    let mut reply = Response::new(StreamBody::new(ReaderStream::new(file).map_ok(Frame::data)).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn moved(name: &str) -> Reply {
    let mut reply = text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(to) = HeaderValue::from_str(&format!("{name}/")) {
        reply.headers_mut().insert(LOCATION, to);
    }
    reply
}

async fn page(dir: &Path) -> Reply {
    let mut names = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(dir).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let slash = if entry.file_type().await.is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
        }
    }
    names.sort();
    let mut reply = Response::new(full(listed(&names)));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    reply
}

/// A page of links.
fn listed(names: &[String]) -> String {
    let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let line = |name: &String| format!("<a href=\"{0}\">{0}</a>\n", escape(name));
    format!("<!doctype html>\n<pre>\n{}</pre>\n", names.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_and_directories_are_served_and_nothing_outside() {
        let root = std::env::temp_dir().join(format!("host-logs-{}", std::process::id()));
        std::fs::create_dir_all(root.join("pods")).unwrap();
        std::fs::write(root.join("syslog"), "one\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("out")).unwrap();
        std::os::unix::fs::symlink("syslog", root.join("in")).unwrap();
        let get = async |parts: &[&str], path: &str| {
            let reply = serve(&root, parts, path).await;
            let code = reply.status().as_u16();
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8_lossy(&body).into_owned())
        };
        let links = ["in", "out", "pods/", "syslog"].map(|name| format!("<a href=\"{name}\">{name}</a>\n")).concat();
        assert_eq!(get(&[], "/logs/").await, (200, format!("<!doctype html>\n<pre>\n{links}</pre>\n")));
        assert_eq!(get(&["syslog"], "/logs/syslog").await, (200, "one\n".to_owned()));
        assert_eq!(get(&["in"], "/logs/in").await.0, 200);
        assert_eq!(get(&["pods"], "/logs/pods").await.0, 301);
        for parts in [&["out"][..], &[".."], &["pods", "..", "..", "etc"], &["../etc"], &["none"]] {
            assert_eq!(get(parts, "/logs/x").await.0, 404, "{parts:?}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
