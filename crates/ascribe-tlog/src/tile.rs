//! C2SP tlog-tiles v0.1.0: which tiles a tree has, their paths, and entry bundles.

use std::fmt::{self, Write as _};

/// Largest entry in a bundle, in bytes.
pub const MAX_ENTRY_SIZE: usize = 65_535;

/// Why a bundle is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// An entry is larger than 65,535 bytes.
    #[error("an entry is larger than 65,535 bytes")]
    TooLarge,
    /// The bundle ends inside an entry.
    #[error("the entry bundle ends inside an entry")]
    Truncated,
    /// More than 256 entries.
    #[error("an entry bundle holds more than 256 entries")]
    TooMany,
    /// A path that names no tile, or not in the one form it has.
    #[error("not the path of a tile")]
    Path,
}

/// Hashes, or entries, in a full tile.
const WIDTH: u64 = 256;
/// Highest level in a path.
const MAX_LEVEL: u8 = 63;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of the tree at this level, 0 to 63; leaf hashes at level 0.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// Which tile: kind, index and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    /// What it holds.
    pub kind: TileKind,
    /// Its index in its level.
    pub n: u64,
    /// How many items it holds: 1 to 255, or 256 when it is full.
    pub width: u16,
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self.kind {
            TileKind::Hashes(level) => tile_path(level, self.n, self.width),
            TileKind::Entries => entries_path(self.n, self.width),
        })
    }
}

/// Reads a path as [`tile_path`] and [`entries_path`] write it, and in no other spelling.
///
/// # Errors
/// When it is none.
pub fn parse_tile_path(path: &str) -> Result<TilePath, TileError> {
    read_path(path)
        .filter(|tile| tile.to_string() == path)
        .ok_or(TileError::Path)
}

fn read_path(path: &str) -> Option<TilePath> {
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
    };
    let (groups, width) = match rest.split_once(".p/") {
        Some((groups, width)) => (
            groups,
            width.parse().ok().filter(|w| (1..=255).contains(w))?,
        ),
        None => (rest, 256),
    };
    let mut n: u64 = 0;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let value: u64 = digits.parse().ok().filter(|value| *value < 1000)?;
        n = n.checked_mul(1000)?.checked_add(value)?;
    }
    Some(TilePath { kind, n, width })
}

/// The hash tiles of a tree of this size, level by level, full and partial. Its entry bundles have
/// the indexes and widths of level 0.
pub fn tiles_of(size: u64) -> impl Iterator<Item = TilePath> {
    let nodes = move |level: u8| size.checked_shr(u32::from(level) * 8).unwrap_or(0);
    (0..=MAX_LEVEL)
        .map(move |level| (level, nodes(level)))
        .take_while(|(_, nodes)| *nodes > 0)
        .flat_map(|(level, nodes)| {
            (0..nodes.div_ceil(WIDTH)).map(move |n| TilePath {
                kind: TileKind::Hashes(level),
                n,
                width: u16::try_from((nodes - n * WIDTH).min(WIDTH)).unwrap_or(256),
            })
        })
}

/// `tile/<level>/<n>[.p/<width>]`, for levels 0 to 63 and widths 1 to 256; a width of 256 is a full
/// tile.
pub fn tile_path(level: u8, n: u64, width: u16) -> String {
    path(&format!("tile/{level}"), n, width)
}

/// `tile/entries/<n>[.p/<width>]`.
pub fn entries_path(n: u64, width: u16) -> String {
    path("tile/entries", n, width)
}

fn path(base: &str, n: u64, width: u16) -> String {
    let mut groups = vec![n % 1000];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut out = base.to_owned();
    for (i, group) in groups.iter().enumerate().rev() {
        let x = if i > 0 { "x" } else { "" };
        write!(out, "/{x}{group:03}").unwrap_or_default();
    }
    if width < 256 {
        write!(out, ".p/{width}").unwrap_or_default();
    }
    out
}

/// Entries with their lengths, big-endian u16.
///
/// # Errors
/// When an entry is too large or there are more than 256.
pub fn encode_entry_bundle<T: AsRef<[u8]>>(entries: &[T]) -> Result<Vec<u8>, TileError> {
    if entries.len() > 256 {
        return Err(TileError::TooMany);
    }
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let len = u16::try_from(entry.len()).map_err(|_| TileError::TooLarge)?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(entry);
    }
    Ok(out)
}

/// The entries of a bundle.
///
/// # Errors
/// When it ends inside an entry or holds more than 256.
pub fn decode_entry_bundle(mut bundle: &[u8]) -> Result<Vec<Vec<u8>>, TileError> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let (len, rest) = bundle
            .split_first_chunk::<2>()
            .ok_or(TileError::Truncated)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (entry, rest) = rest.split_at_checked(len).ok_or(TileError::Truncated)?;
        if entries.len() == 256 {
            return Err(TileError::TooMany);
        }
        entries.push(entry.to_vec());
        bundle = rest;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(tile_path(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile_path(2, 0, 1), "tile/2/000.p/1");
        assert_eq!(entries_path(273, 112), "tile/entries/273.p/112");
    }

    #[test]
    fn paths_are_read_in_one_spelling() {
        for (path, kind, n, width) in [
            ("tile/0/000", TileKind::Hashes(0), 0, 256),
            ("tile/63/999.p/255", TileKind::Hashes(63), 999, 255),
            ("tile/0/x001/000", TileKind::Hashes(0), 1000, 256),
            (
                "tile/0/x001/x234/067.p/12",
                TileKind::Hashes(0),
                1_234_067,
                12,
            ),
            (
                "tile/entries/x018/x446/x744/x073/x709/x551/615",
                TileKind::Entries,
                u64::MAX,
                256,
            ),
        ] {
            let tile = TilePath { kind, n, width };
            assert_eq!(parse_tile_path(path), Ok(tile));
            assert_eq!(tile.to_string(), path);
        }
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/64/000",
            "tile/00/000",
            "tile/+0/000",
            "tile/-1/000",
            "tile/data/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/+00",
            "tile/0/x000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x1/000",
            "tile/0/000/",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/1/2",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/../000",
            "tile/8/0/000",
        ] {
            assert_eq!(parse_tile_path(bad), Err(TileError::Path), "{bad:?}");
        }
    }

    #[test]
    fn trees_have_the_tiles_of_the_specification() {
        // Per level: full tiles, and the width of a partial one.
        let cases: [(u64, &[(u64, u16)]); 8] = [
            (0, &[]),
            (1, &[(0, 1)]),
            (255, &[(0, 255)]),
            (256, &[(1, 0), (0, 1)]),
            (257, &[(1, 1), (0, 1)]),
            (65_536, &[(256, 0), (1, 0), (0, 1)]),
            (70_000, &[(273, 112), (1, 17), (0, 1)]),
            (65_535, &[(255, 255), (0, 255)]),
        ];
        for (size, levels) in cases {
            let mut found = vec![(0, 0); levels.len()];
            for tile in tiles_of(size) {
                let TileKind::Hashes(level) = tile.kind else {
                    panic!("{tile}")
                };
                let found = &mut found[usize::from(level)];
                match tile.width {
                    256 => found.0 += 1,
                    width => found.1 = width,
                }
            }
            assert_eq!(found, levels, "{size}");
        }
        assert_eq!(tiles_of(u64::MAX).next().map(|tile| tile.width), Some(256));
    }

    #[test]
    fn bundles_round_trip() {
        let entries = [b"".to_vec(), vec![1; 65_535]];
        let bundle = encode_entry_bundle(&entries).unwrap();
        assert_eq!(decode_entry_bundle(&bundle).unwrap(), entries);
        assert_eq!(
            decode_entry_bundle(&bundle[..bundle.len() - 1]),
            Err(TileError::Truncated)
        );
        assert_eq!(
            encode_entry_bundle(&[vec![0; 65_536]]),
            Err(TileError::TooLarge)
        );
    }
}
