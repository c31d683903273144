//! A disk that fails on demand and forgets what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::{Journal, Object, Objects};

/// What the next matching call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The write fails, nothing arrives.
    WriteLost,
    /// The write fails, everything arrives.
    WriteKept,
    /// Half arrives, and is said so.
    WriteShort,
    /// The sync fails, pending writes are lost.
    SyncLost,
    /// The sync fails, pending writes arrived.
    SyncKept,
    /// The sync fails; pending writes can be read until the power goes, but no later sync writes
    /// them: what Linux does with pages whose writing failed.
    SyncCached,
    /// Power goes away between write and sync.
    Crash,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    durable: BTreeMap<u64, Vec<u8>>,
    pending: Vec<(u64, u64, Vec<u8>)>,
    /// Blocks that only the cache has, by segment and offset.
    cached: BTreeMap<(u64, u64), Vec<u8>>,
    /// After so many more writes.
    pub(super) fault: Option<(u32, Fault)>,
    pub(super) full: bool,
    dead: bool,
    /// A slow reader has begun, may go on, and went on by itself.
    pub(super) reading: bool,
    pub(super) let_go: bool,
    pub(super) gave_up: bool,
    objects: BTreeMap<String, Vec<u8>>,
    /// After so many more objects or removals nothing arrives any more.
    pub(super) objects_until: Option<u32>,
    /// So many removals of segments fail.
    pub(super) removals_fail: u32,
    /// Objects whose names end so are refused.
    pub(super) refused: Option<&'static str>,
    /// Objects whose names end so are lost after they were written.
    pub(super) lost: Option<&'static str>,
    /// Bytes of snapshots so far.
    pub(super) snapshots: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk(pub(super) Arc<Mutex<Inner>>);

fn put(to: &mut BTreeMap<u64, Vec<u8>>, segment: u64, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    to.get_mut(&segment).unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
}

impl Inner {
    fn settle(&mut self) {
        for (segment, offset, bytes) in std::mem::take(&mut self.pending) {
            put(&mut self.durable, segment, offset, &bytes);
        }
    }
    /// Does one more object, or one more removal, arrive?
    fn arrives(&mut self) -> bool {
        match &mut self.objects_until {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }
    fn armed(&mut self) -> Option<Fault> {
        match self.fault {
            Some((0, fault)) => Some(fault),
            _ => None,
        }
    }
}

impl Disk {
    /// Power comes back: of each unsynced write, any of its blocks may have arrived.
    pub(super) fn crash(&self, mut seed: u64) {
        let mut inner = self.0.lock().unwrap();
        let pending = std::mem::take(&mut inner.pending);
        for (segment, offset, bytes) in pending {
            for (i, block) in bytes.chunks(512).enumerate() {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                if seed >> 63 == 1 {
                    put(&mut inner.durable, segment, offset + i as u64 * 512, block);
                }
            }
        }
        inner.fault = None;
        inner.objects_until = None;
        inner.dead = false;
        inner.cached.clear();
    }
    /// The process is started again; the power stayed on.
    pub(super) fn restart(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.fault = None;
        inner.dead = false;
    }
    pub(super) fn arm(&self, after: u32, fault: Fault) {
        self.0.lock().unwrap().fault = Some((after, fault));
    }
}

impl Journal for Disk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().unwrap().durable.keys().copied().collect())
    }
    fn allocate(&self, segment: u64, bytes: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if inner.full || inner.dead {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.durable.insert(segment, vec![0; bytes as usize]);
        Ok(())
    }
    fn bytes(&self, segment: u64) -> io::Result<u64> {
        let inner = self.0.lock().unwrap();
        inner
            .durable
            .get(&segment)
            .map(|b| b.len() as u64)
            .ok_or(io::ErrorKind::NotFound.into())
    }
    fn read(&self, segment: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if std::thread::current().name() == Some("slow reader") {
            self.0.lock().unwrap().reading = true;
            let begun = std::time::Instant::now();
            while !self.0.lock().unwrap().let_go {
                if begun.elapsed() > std::time::Duration::from_secs(20) {
                    self.0.lock().unwrap().gave_up = true;
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        let inner = self.0.lock().unwrap();
        let mut now = inner
            .durable
            .get(&segment)
            .ok_or(io::ErrorKind::NotFound)?
            .clone();
        for ((of, at), block) in &inner.cached {
            if *of == segment {
                now[*at as usize..*at as usize + block.len()].copy_from_slice(block);
            }
        }
        for (of, at, bytes) in &inner.pending {
            if *of == segment {
                now[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
            }
        }
        now.get(offset as usize..offset as usize + len)
            .map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    }
    fn write_at(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if inner.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some((after @ 1.., _)) = &mut inner.fault {
            *after -= 1;
        }
        match inner.armed() {
            Some(Fault::WriteLost) => {
                inner.dead = true;
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(Fault::WriteShort) => {
                inner.dead = true;
                inner
                    .pending
                    .push((segment, offset, bytes[..bytes.len() / 2].to_vec()));
                return Err(io::ErrorKind::WriteZero.into());
            }
            Some(Fault::WriteKept) => {
                inner.dead = true;
                inner.pending.push((segment, offset, bytes.to_vec()));
                inner.settle();
                return Err(io::Error::from_raw_os_error(5));
            }
            _ => {}
        }
        let end = offset + bytes.len() as u64;
        inner
            .cached
            .retain(|(of, at), _| *of != segment || !(offset..end).contains(at));
        inner.pending.push((segment, offset, bytes.to_vec()));
        Ok(())
    }
    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if !inner.arrives() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if inner.removals_fail > 0 {
            inner.removals_fail -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        inner.durable.remove(&segment);
        inner.pending.retain(|(of, _, _)| *of != segment);
        Ok(())
    }
    fn sync(&self, _: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if inner.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match inner.armed() {
            Some(Fault::SyncLost) => {
                inner.dead = true;
                inner.pending.clear();
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(Fault::SyncKept) => {
                inner.dead = true;
                inner.settle();
                return Err(io::Error::from_raw_os_error(28));
            }
            Some(Fault::SyncCached) => {
                inner.dead = true;
                for (segment, offset, bytes) in std::mem::take(&mut inner.pending) {
                    for (at, block) in (offset..).step_by(512).zip(bytes.chunks(512)) {
                        inner.cached.insert((segment, at), block.to_vec());
                    }
                }
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(Fault::Crash) => {
                inner.dead = true;
                return Err(io::Error::from_raw_os_error(5));
            }
            _ => {}
        }
        inner.settle();
        Ok(())
    }
    fn name(&self, segment: u64) -> String {
        format!("memory/{segment}")
    }
}

impl Objects for Disk {
    fn put(&self, objects: &[Object]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let before = inner.objects.clone();
        for (at, (name, bytes)) in objects.iter().enumerate() {
            if !inner.arrives() {
                // Nothing is synced yet: of what was renamed, any part may be undone.
                let undone = objects.iter().take(at).enumerate();
                for (_, (name, _)) in undone.filter(|(n, _)| (n * 7 + at * 3) % 5 < 3) {
                    match before.get(name) {
                        Some(old) => inner.objects.insert(name.clone(), old.clone()),
                        None => inner.objects.remove(name),
                    };
                }
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if inner.refused.is_some_and(|end| name.ends_with(end)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if inner.lost.is_some_and(|end| name.ends_with(end)) {
                continue;
            }
            if name == "snapshot" {
                inner.snapshots += bytes.len();
            }
            inner.objects.insert(name.clone(), bytes.clone());
        }
        Ok(())
    }
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().objects.get(name).cloned())
    }
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.get(name)?.map(|bytes| bytes.len() as u64))
    }
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.get(name)?.ok_or(io::ErrorKind::NotFound)?;
        bytes
            .get(offset as usize..offset as usize + len)
            .map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if !inner.arrives() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        inner.objects.remove(name);
        Ok(())
    }
    fn name(&self, name: &str) -> String {
        format!("memory/{name}")
    }
}
