//! Where captures are kept: a folder, or an S3-compatible store.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::de::DeserializeOwned;

use crate::spool::Spool;

/// How long a bundle waits for a store that is away. The default gives up with its tenth try, after three seconds.
#[cfg(feature = "s3")]
const AWAY_MAX: std::time::Duration = std::time::Duration::from_secs(120);

/// A store, and the folder in it below which captures lie as `DATE/CAPTURE/`.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) root: Path,
    /// Where the store is a folder of this machine.
    pub(crate) spool: Option<Spool>,
    uri: String,
}

impl Artifacts {
    /// Below `root` in a folder, which is made if absent.
    ///
    /// # Errors
    /// When the folder cannot be made or `root` is no path.
    pub fn folder(folder: &FilePath, root: &str) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(std::io::Error::other)?;
        let root = Path::parse(root).map_err(std::io::Error::other)?;
        Ok(Self { store: Arc::new(store), root, spool: Some(Spool::new(folder)), uri: String::new() })
    }

    /// Keeps no more than so many bytes in the folder, and three bundles more while they are written. Has no effect on a
    /// bucket.
    #[must_use]
    pub fn bounded(mut self, bytes_max: u64) -> Self {
        if let Some(spool) = &mut self.spool {
            spool.bytes_max = Some(bytes_max);
        }
        self
    }

    /// Below `root` in a bucket. Credentials come from `AWS_ACCESS_KEY_ID` and its siblings in the environment, or from
    /// the workload's identity.
    ///
    /// # Errors
    /// When the settings do not make a client.
    #[cfg(feature = "s3")]
    pub fn s3(bucket: &str, region: &str, endpoint: Option<&str>, root: &str) -> object_store::Result<Self> {
        use object_store::RetryConfig;
        use object_store::aws::AmazonS3Builder;
        // One provider for the process; a second caller finds it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry =
            RetryConfig { max_retries: usize::MAX, retry_timeout: AWAY_MAX, ..RetryConfig::default() };
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_region(region);
        let mut builder = builder.with_retry(retry);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let root = Path::parse(root)?;
        let uri = format!("s3://{bucket}/");
        Ok(Self { store: Arc::new(builder.build()?), root, spool: None, uri })
    }

    /// Folder of a capture.
    pub(crate) fn capture(&self, date: &str, name: &str) -> Path {
        self.root.clone().join(date).join(name)
    }

    /// What stands before a path to say where it lies; empty for a folder.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// A file below the root; `None` when there is none or it would lie elsewhere.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read(&self, path: &str) -> object_store::Result<Option<Vec<u8>>> {
        let Some(path) = Path::parse(path).ok().filter(|path| path.prefix_matches(&self.root)) else {
            return Ok(None);
        };
        match self.store.get(&path).await {
            Ok(found) => Ok(Some(found.bytes().await?.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A JSON file; `None` when there is none, or when it is not whole.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn read_json<T: DeserializeOwned>(
        &self,
        path: &Path,
    ) -> object_store::Result<Option<T>> {
        match self.store.get(path).await {
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).ok()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
