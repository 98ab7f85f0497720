//! `/logs/`: the host's log files, for those who may see `nodes/log`. Does I/O.

use std::path::Path;

use futures::TryStreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use linux::root::Beneath;
use rustix::fs::FileType;
use tokio_util::io::ReaderStream;

use super::reply::{Reply, full, text};

/// What a path leads to.
enum Found {
    File(std::fs::File),
    /// Names, directories with a slash.
    Directory(Vec<String>),
    Other,
}

/// Answers with what is below `root` at a path: a list of a directory, or a file as it grew until now.
pub async fn serve(root: &Path, parts: &[&str], path: &str) -> Reply {
    let (root, parts) = (root.to_owned(), parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
    let found = tokio::task::spawn_blocking(move || find(&root, &parts)).await;
    match found.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
        Ok(Found::File(found)) => file(found),
        Ok(Found::Directory(_)) if !path.ends_with('/') => moved(path.rsplit('/').next().unwrap_or_default()),
        Ok(Found::Directory(names)) => page(&names),
        Ok(Found::Other) => text(StatusCode::FORBIDDEN, "neither a file nor a directory\n"),
        Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Where a path leads. Links may not lead out: pods can put them there. What the links come to is opened without taking
/// any, so that none can be put in between.
fn find(root: &Path, parts: &[String]) -> std::io::Result<Found> {
    let outside = || std::io::Error::from(std::io::ErrorKind::NotFound);
    if parts.iter().any(|part| matches!(part.as_str(), "." | "..") || part.contains(['/', '\0'])) {
        return Err(outside());
    }
    let root = root.canonicalize()?;
    let found = parts.iter().fold(root.clone(), |path, part| path.join(part)).canonicalize()?;
    let found = found.strip_prefix(&root).map_err(|_| outside())?;
    let logs = Beneath::open(&root)?;
    let kind = match found.as_os_str().is_empty() {
        true => FileType::Directory,
        false => FileType::from_raw_mode(logs.stat(found)?.st_mode),
    };
    Ok(match kind {
        FileType::RegularFile => Found::File(logs.file(found)?),
        FileType::Directory => {
            let entries = logs.dir(found)?.entries()?;
            let slash = |kind: FileType| if kind.is_dir() { "/" } else { "" };
            Found::Directory(
                entries.iter().map(|(n, kind)| format!("{}{}", n.to_string_lossy(), slash(*kind))).collect(),
            )
        }
        _ => Found::Other,
    })
}

fn file(file: std::fs::File) -> Reply {
    let stream = ReaderStream::new(tokio::fs::File::from_std(file));
    let mut reply = Response::new(StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync());
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

fn page(names: &[String]) -> Reply {
    let mut names = names.to_vec();
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
