//! ImageService, and the transfers that CRI has no call for: loading archives, pulls with progress. Does I/O.

use std::io::Read;

use futures::StreamExt;
use tonic::{Request, Status, Streaming};
use wire::cri::image_service_server::ImageService;
use wire::cri::*;
use wire::images::image_transfer_server::ImageTransfer;
use wire::images::{
    AdoptRequest, AdoptResponse, ImportRequest, ImportResponse, ImportedImage, LayerProgress, PullProgress,
    PullRequest, SaveChunk, SaveRequest, ShareRequest, ShareResponse, TagRequest, TagResponse,
};

use super::{Answer, BoxStream, Service, ok, stream};
use crate::error::Error;
use crate::images::share::{SharedImage, SharedLayer};
use crate::images::{Credentials, ImageError, PullOptions, Registries};

/// Chunks of an archive waiting to be unpacked; the sender waits beyond that.
const IMPORT_QUEUE: usize = 16;
/// The same of an archive that is saved, and how big they are.
const SAVE_QUEUE: usize = 8;
const SAVE_CHUNK: usize = 256 << 10;

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = BoxStream<StreamImagesResponse>;

    async fn list_images(&self, r: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        ok(ListImagesResponse { images: self.images(r.into_inner().filter) })
    }

    async fn stream_images(&self, r: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        stream(self.images(r.into_inner().filter), |images| StreamImagesResponse { images })
    }

    async fn image_status(&self, r: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        match self.runtime.images.get(&name) {
            Ok(image) => {
                // An image whose configuration can't be read must not pass for one that names no user.
                self.runtime.images.config(&image.id).map_err(Error::Image)?;
                ok(ImageStatusResponse { image: Some(self.describe(&image)), info: Default::default() })
            }
            Err(ImageError::NotFound(_)) => ok(ImageStatusResponse::default()),
            Err(e) => Err(Error::Image(e).into()),
        }
    }

    async fn pull_image(&self, r: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let r = r.into_inner();
        let name = r.image.unwrap_or_default().image;
        let options =
            PullOptions { credentials: credentials(r.auth)?, registries: self.registries().await?, progress: None };
        let image = self.runtime.images.clone().pull(&name, options).await.map_err(Error::Image)?;
        ok(PullImageResponse { image_ref: image.id })
    }

    async fn remove_image(&self, r: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        let runtime = self.runtime.clone();
        let removed = crate::runtime::blocking(move || {
            let in_use = runtime.layers_in_use();
            runtime.images.remove(&name, &in_use)
        });
        match removed.await? {
            Ok(()) | Err(ImageError::NotFound(_)) => ok(RemoveImageResponse {}),
            Err(e) => Err(Error::Image(e).into()),
        }
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let runtime = self.runtime.clone();
        ok(crate::runtime::blocking(move || runtime.image_fs_info()).await?)
    }
}

#[tonic::async_trait]
impl ImageTransfer for Service {
    type PullStream = BoxStream<PullProgress>;
    type SaveStream = BoxStream<SaveChunk>;

    async fn save(&self, r: Request<SaveRequest>) -> Answer<Self::SaveStream> {
        let names = r.into_inner().images;
        // What isn't here is told before anything is sent.
        for name in &names {
            self.runtime.images.get(name).map_err(Error::Image)?;
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(SAVE_QUEUE);
        let images = self.runtime.images.clone();
        tokio::task::spawn_blocking(move || {
            let mut out = std::io::BufWriter::with_capacity(SAVE_CHUNK, ChannelWriter(sender.clone()));
            let saved = images.save_archive(&names, &mut out);
            if let Err(error) = saved {
                let _ = sender.blocking_send(Err(Error::Image(error).into()));
            }
        });
        ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)))
    }

    async fn tag(&self, r: Request<TagRequest>) -> Answer<TagResponse> {
        let (r, runtime) = (r.into_inner(), self.runtime.clone());
        let tagged = crate::runtime::blocking(move || runtime.images.tag(&r.image, &r.name)).await?;
        ok(TagResponse { name: tagged.map_err(Error::Image)? })
    }

    async fn share(&self, r: Request<ShareRequest>) -> Answer<ShareResponse> {
        let (r, runtime) = (r.into_inner(), self.runtime.clone());
        let shared = crate::runtime::blocking(move || {
            let dir = std::path::PathBuf::from(r.directory);
            r.images.iter().map(|name| runtime.images.share(name, &dir)).collect::<Result<Vec<_>, _>>()
        });
        ok(ShareResponse { images: shared.await?.map_err(Error::Image)?.into_iter().map(on_the_wire).collect() })
    }

    async fn adopt(&self, r: Request<AdoptRequest>) -> Answer<AdoptResponse> {
        let (r, runtime) = (r.into_inner(), self.runtime.clone());
        let adopted = crate::runtime::blocking(move || {
            let mut images = r.images.into_iter().map(off_the_wire);
            images.try_for_each(|shared| runtime.images.adopt(&shared).map(drop))
        });
        adopted.await?.map_err(Error::Image)?;
        ok(AdoptResponse {})
    }

    async fn import(&self, r: Request<Streaming<ImportRequest>>) -> Answer<ImportResponse> {
        let mut messages = r.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(IMPORT_QUEUE);
        let first = messages.message().await?.unwrap_or_default();
        let name = first.name.clone();
        let feed = async move {
            let mut next = Some(first);
            while let Some(message) = next {
                // The reader is gone when the archive has been refused: its error is the answer.
                if !message.data.is_empty() && sender.send(Ok(message.data)).await.is_err() {
                    return;
                }
                next = match messages.message().await {
                    Ok(next) => next,
                    Err(status) => {
                        // A broken stream must not look like the archive's end.
                        let _ = sender.send(Err(std::io::Error::other(status.message().to_owned()))).await;
                        return;
                    }
                };
            }
        };
        let images = self.runtime.images.clone();
        let load = crate::runtime::blocking(move || images.import(ChannelReader::new(receiver), Some(&name)));
        let ((), loaded) = tokio::join!(feed, load);
        let imported = loaded?.map_err(Error::Image)?;
        ok(ImportResponse { images: imported.into_iter().map(|i| ImportedImage { id: i.id, names: i.tags }).collect() })
    }

    async fn pull(&self, r: Request<PullRequest>) -> Answer<Self::PullStream> {
        let r = r.into_inner();
        let (sender, receiver) = tokio::sync::watch::channel(Vec::new());
        let credentials = (!r.username.is_empty())
            .then(|| Credentials::Password { username: r.username.clone(), password: r.password.clone() });
        let options = PullOptions { credentials, registries: self.registries().await?, progress: Some(sender) };
        let images = self.runtime.images.clone();
        let name = r.image;
        let pulled = tokio::spawn(async move { images.pull(&name, options).await });
        let layers = tokio_stream::wrappers::WatchStream::from_changes(receiver).map(|layers| {
            let layer = |l: crate::images::Progress| LayerProgress {
                digest: l.digest,
                done: l.done,
                total: l.total,
                state: l.state.name().to_owned(),
            };
            Ok(PullProgress { layers: layers.into_iter().map(layer).collect(), image_ref: String::new() })
        });
        let last = futures::stream::once(async move {
            match pulled.await {
                Ok(Ok(image)) => Ok(PullProgress { layers: Vec::new(), image_ref: image.id }),
                Ok(Err(e)) => Err(Error::Image(e).into()),
                Err(e) => Err(crate::error::status(tonic::Code::Internal, &e.to_string())),
            }
        });
        ok(Box::pin(layers.chain(last)))
    }
}

impl Service {
    async fn registries(&self) -> Result<Registries, Status> {
        let Some(path) = self.runtime.config.registries.clone() else { return Ok(Registries::default()) };
        let read = crate::runtime::blocking(move || Registries::read(&path)).await?;
        read.map_err(|why| crate::error::status(tonic::Code::FailedPrecondition, &why))
    }

    fn images(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let name = filter.and_then(|f| f.image).unwrap_or_default().image;
        if name.is_empty() {
            return self.runtime.images.list().iter().map(|i| self.describe(i)).collect();
        }
        self.runtime.images.find(&name).iter().map(|i| self.describe(i)).collect()
    }

    fn describe(&self, image: &crate::images::Image) -> Image {
        let user = self.runtime.images.config(&image.id).map(|c| c.config.user.clone()).unwrap_or_default();
        let user = user.split(':').next().unwrap_or_default().to_owned();
        let uid = user.parse::<i64>().ok();
        Image {
            id: image.id.clone(),
            repo_tags: image.tags.clone(),
            repo_digests: image.digests.clone(),
            size: image.size,
            uid: uid.map(|value| Int64Value { value }),
            username: if uid.is_some() { String::new() } else { user },
            spec: None,
            pinned: image.pinned,
        }
    }
}

fn on_the_wire(shared: SharedImage) -> wire::images::SharedImage {
    let layer = |layer: SharedLayer| wire::images::SharedLayer {
        directory: layer.dir,
        diff_id: layer.diff_id,
        bytes: layer.bytes,
        inodes: layer.inodes,
    };
    wire::images::SharedImage {
        config: shared.config.into(),
        tags: shared.tags,
        digests: shared.digests,
        layers: shared.layers.into_iter().map(layer).collect(),
    }
}

fn off_the_wire(shared: wire::images::SharedImage) -> SharedImage {
    let layer = |layer: wire::images::SharedLayer| SharedLayer {
        dir: layer.directory,
        diff_id: layer.diff_id,
        bytes: layer.bytes,
        inodes: layer.inodes,
    };
    SharedImage {
        config: shared.config.to_vec(),
        tags: shared.tags,
        digests: shared.digests,
        layers: shared.layers.into_iter().map(layer).collect(),
    }
}

/// The CRI's three ways to say who asks.
fn credentials(auth: Option<AuthConfig>) -> Result<Option<Credentials>, Status> {
    let Some(auth) = auth else { return Ok(None) };
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credentials::Bearer(auth.registry_token)));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credentials::Identity(auth.identity_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::Password { username: auth.username, password: auth.password }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    use base64::Engine;
    let bad = || Status::invalid_argument("auth is not base64 of user:password");
    let text = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|_| bad())?;
    let text = String::from_utf8(text).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Credentials::Password { username: username.to_owned(), password }))
}

/// Sends from a thread what an async task reads.
struct ChannelWriter(tokio::sync::mpsc::Sender<Result<SaveChunk, Status>>);

impl std::io::Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let chunk = SaveChunk { data: bytes.to_vec().into() };
        self.0.blocking_send(Ok(chunk)).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads on a thread what an async task sends.
struct ChannelReader {
    chunks: tokio::sync::mpsc::Receiver<Result<bytes::Bytes, std::io::Error>>,
    current: bytes::Bytes,
}

impl ChannelReader {
    fn new(chunks: tokio::sync::mpsc::Receiver<Result<bytes::Bytes, std::io::Error>>) -> Self {
        ChannelReader { chunks, current: bytes::Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
