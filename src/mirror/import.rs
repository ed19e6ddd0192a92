//! Where the older service stopped, as the place where a stream begins that was never read before.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bb8_redis::redis::{self, RedisError};
use slog::{Logger, info, warn};

use super::{KEYS, Position};
use crate::{
    config::RedisUrl,
    redis_client,
    source::{StreamCheckpoint, node::HourFile},
};

/// What Redis calls a key that holds something else than a text.
const WRONG_TYPE: &str = "WRONGTYPE";

/// The places at which streams begin, by the names of the streams.
pub type Imported = HashMap<Arc<str>, (HourFile, u64)>;

/// Redis gave no answer. The daemon does not start: beginning elsewhere could not be undone.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot import positions from {url}: {error}; a stream that was never read before would begin \
     elsewhere. Mend it, or set redis.positions to \"off\" or \"mirror\""
)]
pub struct ImportError {
    url: RedisUrl,
    error: RedisError,
}

/// Why a position cannot be followed; the stream begins at `source.from`.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the key does not hold a position: {0}")]
    NoPosition(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} is no hour file of {key} in a configured node directory", path.display())]
    Elsewhere { path: PathBuf, key: &'static str },
}

/// Asks for the places of streams that the store does not know. Asks nobody when it knows all.
///
/// # Errors
/// When a place is needed and Redis does not answer.
pub async fn import(
    url: &RedisUrl,
    nodes: &[PathBuf],
    known: &[StreamCheckpoint],
    logger: &Logger,
) -> Result<Imported, ImportError> {
    let mut imported = Imported::new();
    for key in KEYS {
        let name = |node: &PathBuf| -> Arc<str> { node.join(key).to_string_lossy().into() };
        // Where the directory is not there, no position can point into it.
        let is_new = |node: &&PathBuf| {
            node.join(key).is_dir() && known.iter().all(|known| known.name != name(node))
        };
        let new: Vec<_> = nodes.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            continue;
        }
        let answer = get(url, key).await;
        let value = match answer {
            Err(error) if error.code() == Some(WRONG_TYPE) => {
                Err(Unusable::NoPosition(error.to_string()))
            }
            answer => Ok(answer.map_err(|error| ImportError { url: url.clone(), error })?),
        };
        match value.and_then(|value| value.map(|text| place(&text, key, &new)).transpose()) {
            Ok(None) => info!(logger, "Redis has no position to import"; "key" => key),
            Ok(Some((node, file, offset))) => {
                info!(logger, "position imported"; "key" => key, "stream" => &*name(&node),
                    "file" => %file, "offset_bytes" => offset);
                imported.insert(name(&node), (file, offset));
            }
            Err(error) => warn!(logger, "position not imported, the stream begins at source.from";
                "key" => key, "error" => %error),
        }
    }
    Ok(imported)
}

async fn get(url: &RedisUrl, key: &str) -> Result<Option<Vec<u8>>, RedisError> {
    let mut connection = redis_client::connect(&redis_client::open(url)?).await?;
    redis::cmd("GET").arg(key).query_async(&mut connection).await
}

/// The node directory, the file and the offset of a position.
fn place(
    text: &[u8],
    key: &'static str,
    nodes: &[PathBuf],
) -> Result<(PathBuf, HourFile, u64), Unusable> {
    let Position { file_path: path, position } =
        serde_json::from_slice(text).map_err(|error| Unusable::NoPosition(error.to_string()))?;
    // Links and `..` are followed: both sides may name the same directory differently.
    let real = match fs::canonicalize(&path) {
        Ok(real) if real.is_file() => real,
        Ok(_) => {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(Unusable::File { path, error });
        }
        Err(error) => return Err(Unusable::File { path, error }),
    };
    let hour_file = |node: &Path| -> Option<HourFile> {
        let directory = fs::canonicalize(node.join(key).join("hourly")).ok()?;
        real.strip_prefix(directory).ok()?.to_str()?.parse().ok()
    };
    let found = nodes.iter().find_map(|node| Some((node.clone(), hour_file(node)?)));
    let (node, file) = found.ok_or(Unusable::Elsewhere { path, key })?;
    Ok((node, file, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = KEYS[0];

    // H18
    #[test]
    fn a_position_is_found_in_its_node_directory_through_links_too() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("node");
        let other = directory.path().join("other");
        let day = node.join(KEY).join("hourly/20260315");
        fs::create_dir_all(&day).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(day.join("9"), "x").unwrap();
        fs::write(day.join("odd"), "x").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&node, &link).unwrap();
        let nodes = [other.clone(), link.clone()];
        let read = |path: &Path| {
            let text = serde_json::to_vec(&Position { file_path: path.into(), position: 7 });
            place(&text.unwrap(), KEY, &nodes)
        };

        let found = read(&day.join("9")).unwrap();

        assert_eq!(found, (link, HourFile { day: 20_260_315, hour: 9 }, 7));
        assert!(matches!(read(&day.join("8")), Err(Unusable::File { .. })));
        assert!(matches!(read(&day), Err(Unusable::File { .. })));
        assert!(matches!(read(&day.join("odd")), Err(Unusable::Elsewhere { .. })));
        let elsewhere = place(br#"{"file_path":"/proc/version","position":1}"#, KEY, &nodes);
        assert!(matches!(elsewhere, Err(Unusable::Elsewhere { .. })));
        for text in ["", "7", "{}", r#"{"file_path":"/x","position":-1}"#] {
            let nothing = place(text.as_bytes(), KEY, &nodes);
            assert!(matches!(nothing, Err(Unusable::NoPosition(_))), "{text}");
        }
    }
}
