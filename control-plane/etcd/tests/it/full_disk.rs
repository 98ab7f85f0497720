//! A full disk, made by a small tmpfs: writes answer a clear error, reads go on, and with space back all works again.

use std::path::Path;

use etcd::{Error, Etcd, OpenError, Options};

use crate::support::{contents, put, small};

/// A small file system, unmounted when dropped. `None`, with the reason printed, without the right to mount.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().expect("dir");
        let options = std::ffi::CString::new(format!("size={size}")).expect("no zero");
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options.as_c_str())) {
            Ok(()) => Some(Tmpfs(dir)),
            Err(e) => {
                eprintln!("skipped: mounting a tmpfs needs root ({e})");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_space_is_back() {
    let Some(disk) = Tmpfs::mount("1m") else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 600 << 10]).expect("ballast");
    let options = small(&disk.path().join("data"));
    let etcd = Etcd::open(options.clone()).expect("open");
    let mut acked = Vec::new();
    let refused = loop {
        let (key, value) = (format!("key{:04}", acked.len()), format!("{}{}", acked.len(), "x".repeat(3000)));
        match etcd.put(put(&key, &value)).await {
            Ok(_) => acked.push((key, value)),
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert!(refused.to_string().contains("no space left"), "{refused}");
    assert!(acked.len() > 50, "{}", acked.len());
    let revision = etcd.revision();
    for _ in 0..3 {
        assert!(matches!(etcd.put(put("more", vec![b'x'; 3000])).await, Err(Error::DiskFull { .. })));
    }
    assert_eq!(contents(&etcd).await, acked, "reads go on");
    assert_eq!(etcd.revision(), revision);
    std::fs::remove_file(&ballast).expect("remove");
    etcd.put(put("later", "again")).await.expect("writes work again");
    acked.push(("later".into(), "again".into()));
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(options).expect("open");
    assert_eq!(contents(&etcd).await, acked, "nothing acknowledged is lost");
    etcd.close();
}

#[tokio::test]
async fn a_checkpoint_that_finds_no_space_leaves_everything_as_it_was() {
    let Some(disk) = Tmpfs::mount("1m") else { return };
    let options = Options { checkpoint_bytes: 1 << 30, ..small(&disk.path().join("data")) };
    let etcd = Etcd::open(options.clone()).expect("open");
    for n in 0..150 {
        etcd.put(put(format!("key{n:04}"), vec![b'x'; 3000])).await.expect("put");
    }
    let before = contents(&etcd).await;
    let failed = etcd.defragment().await.expect_err("450 KB twice do not fit in 1 MB");
    assert!(matches!(failed, Error::DiskFull { .. }), "{failed}");
    assert_eq!(contents(&etcd).await, before);
    etcd.put(put("still", "works")).await.expect("put");
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(options).expect("open");
    assert_eq!(contents(&etcd).await.len(), before.len() + 1);
    etcd.close();
}

#[tokio::test]
async fn a_start_without_space_says_so_and_leaves_nothing_half_made() {
    let Some(disk) = Tmpfs::mount("200k") else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 160 << 10]).expect("ballast");
    let options = small(&disk.path().join("data"));
    let refused = Etcd::open(options.clone()).err().expect("no space");
    assert!(matches!(refused, OpenError::DiskFull { .. }), "{refused}");
    std::fs::remove_file(&ballast).expect("remove");
    Etcd::open(options).expect("opens once there is space").close();
}
