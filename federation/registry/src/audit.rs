//! Reads an image whole, as a puller does: every manifest and every blob, each hashed.
//!
//! A registry's HEAD can lie, and content at rest can rot and still be served with 200: only reading finds it.

use futures::StreamExt;

use crate::{
    backend,
    closure::{self, Closure},
    copy::End,
    error::{Error, Why},
    name::ImageRef,
    retry::Retry,
};

/// Reads all that `image` reaches at `end` and checks it by digest. Memory: one piece of a blob. Cancel safe.
///
/// # Errors
/// The first thing that is missing, unreadable or not what its digest says; tries again as `retry` says.
pub async fn audit(end: &End, image: &ImageRef, retry: &Retry) -> Result<Closure, Error> {
    let from = backend::open(&end.endpoint, end.connect.clone())?;
    let roots = closure::resolve(&*from, std::slice::from_ref(image), retry).await?;
    let closure = closure::walk(from.clone(), &roots, false, retry).await?;
    for blob in &closure.blobs {
        let read = || async {
            let error = |why| Error::new(from.endpoint().at(&blob.repository, blob.digest.as_str()), why);
            let mut stream = from.blob(&blob.repository, &blob.digest, 0).await?;
            let (mut hasher, mut size) = (blob.digest.hasher(), 0u64);
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                size += piece.len() as u64;
                hasher.update(&piece);
            }
            let found = hasher.finish();
            if found != blob.digest || size != blob.size {
                return Err(error(Why::Corrupt(format!("{size} of {} bytes, digest {found}", blob.size))));
            }
            Ok(())
        };
        retry.run(blob.digest.as_str(), read).await?;
    }
    Ok(closure)
}
