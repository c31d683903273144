//! C2SP tlog-tiles v0.1.0: paths and entry bundles.

use std::fmt::Write as _;

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
}

/// `tile/<level>/<n>[.p/<width>]`; a width of 256 is a full tile.
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
