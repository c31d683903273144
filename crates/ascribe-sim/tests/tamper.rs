//! Whoever can write to the data directory: what they change shows, or changes no claim.

#[cfg(test)]
mod tamper {
    mod scene;
    mod world;

    use std::fs;
    use std::path::Path;

    use ascribe_core::entry::Status;
    use ascribe_core::id::{ActionId, Root};
    use ascribe_core::record::RecordError;
    use ascribe_core::statement::{Say, Seen};
    use ascribe_ledger::LedgerError;
    use ascribe_tlog::Hash;
    use ascribe_verify::{Report, Verdict};

    use self::scene::{
        BLOCK, Judged, PAYLOAD, Scene, copy, judge, pick, reseal, rounds, segment, used,
    };
    use self::world::{ORIGIN, Who, World};

    #[test]
    fn a_flipped_byte_is_refused_by_file_and_offset_or_is_a_rollback() {
        let scene = Scene::new();
        let mut places = Vec::new();
        for (number, bytes) in scene.segments.iter().enumerate() {
            for round in 0..rounds() {
                for block in (0..used(bytes)).skip(round % 2).step_by(2) {
                    let here = &bytes[block * BLOCK..][..BLOCK];
                    // Not the padding, which is zero; the checksum is at the end.
                    let matter: Vec<usize> = (0..BLOCK).filter(|at| here[*at] != 0).collect();
                    let at = pick(places.len(), matter.len());
                    places.push((number, block * BLOCK + matter[at]));
                }
            }
        }
        let last = scene.segments.len() - 1;
        scene.each(places.len(), |dir, item| {
            let (number, at) = places[item];
            let file = segment(dir, number);
            let mut changed = scene.segments[number].clone();
            changed[at] ^= 1 << pick(item, 8);
            fs::write(&file, &changed).unwrap();
            match scene.judge(dir) {
                Judged::Refused(why) => {
                    let name = format!("{number:08}.seg");
                    assert!(why.contains(&name) && why.contains("offset"), "{why}");
                }
                Judged::RolledBack => assert_eq!(number, last, "offset {at}"),
                other => panic!("segment {number}, offset {at}: {other:?}"),
            }
            fs::write(&file, &scene.segments[number]).unwrap();
        });
    }

    #[test]
    fn a_changed_byte_under_a_new_checksum_is_refused_or_only_hides_content() {
        let scene = Scene::new();
        let mut places = Vec::new();
        for (number, bytes) in scene.segments.iter().enumerate() {
            let mut sealed = bytes.clone();
            reseal(&mut sealed, 1);
            assert!(sealed == *bytes, "the checksum is not what it was");
            for round in 0..rounds() {
                for block in (0..used(bytes)).skip(round % 2).step_by(2) {
                    let here = &bytes[block * BLOCK..][..PAYLOAD];
                    let matter: Vec<usize> = (0..PAYLOAD).filter(|at| here[*at] != 0).collect();
                    if !matter.is_empty() {
                        let at = matter[pick(places.len() + 1, matter.len())];
                        places.push((number, block, at));
                    }
                }
            }
        }
        let hidden = std::sync::atomic::AtomicUsize::new(0);
        scene.each(places.len(), |dir, item| {
            let (number, block, at) = places[item];
            let file = segment(dir, number);
            let mut changed = scene.segments[number].clone();
            changed[block * BLOCK + at] ^= 1 << pick(item, 8);
            reseal(&mut changed, block);
            fs::write(&file, &changed).unwrap();
            match scene.judge(dir) {
                Judged::Refused(_) => {}
                // Sealed content lies beside the tree: without it, what it committed to is missing.
                // Of a session's origin no action tells.
                Judged::Same | Judged::Unreadable => {
                    hidden.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Judged::RolledBack => panic!("segment {number}, block {block}, byte {at}"),
            }
            fs::write(&file, &scene.segments[number]).unwrap();
        });
        let hidden = hidden.into_inner();
        assert!(hidden > 0 && hidden < places.len() / 2, "{hidden}");
    }

    #[test]
    fn a_truncated_segment_is_refused_unless_nothing_or_only_the_newest_is_gone() {
        let scene = Scene::new();
        let last = scene.segments.len() - 1;
        let mut cuts = Vec::new();
        for (number, bytes) in scene.segments.iter().enumerate() {
            let end = used(bytes) * BLOCK;
            for length in [
                0,
                1,
                511,
                512,
                513,
                end / 2,
                end - 512,
                end - 1,
                end,
                end + 512,
            ] {
                cuts.push((number, length.min(bytes.len()), end));
            }
            cuts.extend((1..12).map(|n| (number, end * n / 12, end)));
        }
        scene.each(cuts.len(), |dir, item| {
            let (number, length, end) = cuts[item];
            let file = segment(dir, number);
            fs::write(&file, &scene.segments[number][..length]).unwrap();
            let judged = scene.judge(dir);
            let fits = match &judged {
                Judged::Refused(_) => length < end,
                Judged::Same => length >= end,
                Judged::RolledBack => number == last && length < end,
                Judged::Unreadable => false,
            };
            assert!(fits, "segment {number}, {length} of {end}: {judged:?}");
            fs::write(&file, &scene.segments[number]).unwrap();
        });
    }

    #[test]
    fn swapped_replaced_and_doubled_segments_are_refused() {
        let scene = Scene::new();
        let dir = scene.copy("spoilt");
        let count = scene.segments.len();
        let refused = |what: &str| {
            let judged = scene.judge(&dir);
            assert!(matches!(judged, Judged::Refused(_)), "{what}: {judged:?}");
        };
        let put = |number: usize, bytes: &[u8]| fs::write(segment(&dir, number), bytes).unwrap();
        for a in 0..count {
            for b in 0..count {
                if a == b {
                    continue;
                }
                put(a, &scene.segments[b]);
                refused(&format!("{b} in place of {a}"));
                put(b, &scene.segments[a]);
                refused(&format!("{a} and {b} swapped"));
                put(a, &scene.segments[a]);
                put(b, &scene.segments[b]);
            }
            put(count, &scene.segments[a]);
            refused(&format!("{a} once more at the end"));
            let zeros = vec![0; scene.segments[a].len()];
            put(count, &zeros);
        }
        assert_eq!(scene.judge(&dir), Judged::Same);
        // Of a log with the same name and another key.
        let stranger = Scene::of(World::new(1));
        for number in 0..count {
            assert!(stranger.segments[number] != scene.segments[number]);
            put(number, &stranger.segments[number]);
            refused(&format!("a stranger's {number}"));
            put(number, &scene.segments[number]);
        }
    }

    #[test]
    fn swapped_blocks_are_refused() {
        let scene = Scene::new();
        let dir = scene.copy("spoilt");
        for (number, bytes) in scene.segments.iter().enumerate() {
            let blocks = used(bytes);
            for item in 0..6 {
                let (a, b) = (pick(item, blocks), pick(item + 50, blocks));
                if a == b {
                    continue;
                }
                let mut swapped = bytes.clone();
                let (from, to) = (a * BLOCK, b * BLOCK);
                swapped[from..from + BLOCK].copy_from_slice(&bytes[to..to + BLOCK]);
                swapped[to..to + BLOCK].copy_from_slice(&bytes[from..from + BLOCK]);
                fs::write(segment(&dir, number), &swapped).unwrap();
                let judged = scene.judge(&dir);
                assert!(matches!(judged, Judged::Refused(_)), "{a} {b}: {judged:?}");
            }
            fs::write(segment(&dir, number), bytes).unwrap();
        }
    }

    #[test]
    fn a_deleted_segment_is_refused_and_the_newest_is_a_rollback() {
        let scene = Scene::new();
        let last = scene.segments.len() - 1;
        for number in 0..=last {
            let dir = scene.copy(&format!("without{number}"));
            fs::remove_file(segment(&dir, number)).unwrap();
            // An allocated next segment would be a gap.
            if number == last && segment(&dir, last + 1).exists() {
                fs::remove_file(segment(&dir, last + 1)).unwrap();
            }
            match scene.judge(&dir) {
                Judged::Refused(_) => assert!(number < last),
                judged => assert_eq!((number, judged), (last, Judged::RolledBack)),
            }
            if number == last {
                let refused = scene.world.open(&dir).err();
                let noticed = matches!(refused, Some(LedgerError::Rollback { .. }));
                assert!(noticed, "the copy of the head tells: {refused:?}");
            }
        }
    }

    /// Every file of the archive, by its name in the directory.
    fn archive(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![dir.join("tree"), dir.join("evidence"), dir.join("snapshot")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(path).unwrap().map(|file| file.unwrap().path()));
            } else {
                let name = path.strip_prefix(dir).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }

    /// What can become of a directory in which this file of the archive is spoilt.
    fn bears(name: &str, judged: &Judged, file_is_there: bool) -> bool {
        // All of its entries have left the segments; of later ones some have.
        let all_read = name == "tree/tile/entries/000";
        match judged {
            Judged::RolledBack => false,
            Judged::Refused(why) => why.contains("entr") || why.contains(name),
            // Tiles of hashes, the published checkpoint and the snapshot follow from the entries.
            Judged::Same => !all_read,
            Judged::Unreadable => {
                name.ends_with(".pack") || (name.ends_with(".keys") && !file_is_there)
            }
        }
    }

    #[test]
    fn a_spoilt_file_of_the_archive_is_refused_or_only_hides_content() {
        let scene = Scene::archived();
        let names = archive(&scene.world.data());
        for part in ["entries/000", "tile/0/000", ".pack", ".keys", "snapshot"] {
            assert!(names.iter().any(|name| name.contains(part)), "no {part}");
        }
        const WAYS: usize = 6;
        let refusals = std::sync::atomic::AtomicUsize::new(0);
        scene.each(names.len() * WAYS, |dir, item| {
            let (name, way) = (&names[item / WAYS], item % WAYS);
            let file = dir.join(name);
            let good = fs::read(&file).unwrap();
            let mut bad = good.clone();
            match way {
                0 => fs::remove_file(&file).unwrap(),
                1 => bad.truncate(good.len() / 2),
                2 => bad.push(0),
                3 => bad.clear(),
                _ => bad[pick(item, good.len())] ^= 1 << pick(item, 8),
            }
            if way > 0 {
                fs::write(&file, &bad).unwrap();
            }
            let judged = scene.judge(dir);
            assert!(bears(name, &judged, way > 0), "{name}, {way}: {judged:?}");
            if matches!(judged, Judged::Refused(_)) {
                refusals.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            fs::write(&file, &good).unwrap();
        });
        assert!(refusals.into_inner() > names.len());
    }

    #[test]
    fn swapped_files_of_the_archive_are_refused() {
        let scene = Scene::archived();
        let dir = scene.copy("spoilt");
        let names = archive(&dir);
        let mut pairs = 0;
        for kind in ["tree/tile/entries/", ".pack", ".keys"] {
            let same: Vec<&String> = names.iter().filter(|name| name.contains(kind)).collect();
            for pair in same.windows(2) {
                let [a, b] = [dir.join(pair[0]), dir.join(pair[1])];
                let (was_a, was_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
                fs::write(&a, &was_b).unwrap();
                fs::write(&b, &was_a).unwrap();
                let judged = scene.judge(&dir);
                // What still lies in a segment is not read from the archive.
                let refused = matches!(judged, Judged::Refused(_));
                assert!(refused || judged == Judged::Same, "{pair:?}: {judged:?}");
                pairs += usize::from(refused);
                fs::write(&a, &was_a).unwrap();
                fs::write(&b, &was_b).unwrap();
            }
        }
        assert!(pairs >= 3, "{pairs}");
    }

    #[test]
    fn an_older_copy_is_noticed_by_the_head_copy_and_by_whoever_remembers() {
        let world = World::new(0);
        let ledger = world.open(&world.data()).unwrap();
        let grant = world.grant(&ledger);
        world.run(&ledger, grant, 2);
        let early = ledger.checkpoint_note();
        let older = world.path("older");
        copy(&world.data(), &older);
        world.run(&ledger, grant, 2);
        ledger.shutdown();
        let newest = ledger.checkpoint_note();
        drop(ledger);
        let judged = |earlier| judge(&world, &older, earlier).unwrap();
        let codes = |report: &Report| -> Vec<_> {
            let notes = report.notes.iter().map(|note| note.code);
            notes
                .chain(report.problems.iter().map(|p| p.code))
                .collect()
        };
        let unaware = judged(None);
        assert_eq!(unaware.verdict, Verdict::Verified);
        assert_eq!(unaware.actions.len(), 2);
        assert!(codes(&unaware).contains(&"rollback_not_detectable"));
        let remembers_early = judged(Some(&early));
        assert_eq!(remembers_early.verdict, Verdict::Verified);
        assert!(codes(&remembers_early).contains(&"rollback_detectable_before"));
        let remembers_newest = judged(Some(&newest));
        assert_eq!(remembers_newest.verdict, Verdict::Failed);
        assert_eq!(codes(&remembers_newest), ["missing"]);
        match world.open(&older) {
            Err(LedgerError::Rollback { size, known, .. }) => assert!(size < known),
            other => panic!("{other:?}"),
        }
        let policy = world.path("trust.policy");
        fs::write(&policy, world.trust().to_text()).unwrap();
        let (older, data) = (older.to_str().unwrap(), world.data());
        let (policy, head) = (policy.to_str().unwrap(), world.path("head"));
        let head = head.to_str().unwrap();
        for (dir, checkpoint, code) in [
            (older, None, 0),
            (older, Some(head), 4),
            (data.to_str().unwrap(), Some(head), 0),
        ] {
            let mut args = vec!["verify", dir, "--trust", policy];
            args.extend(
                checkpoint
                    .into_iter()
                    .flat_map(|file| ["--checkpoint", file]),
            );
            let out = world.ascribe(&args);
            assert_eq!(out.status.code(), Some(code), "{args:?}: {out:#?}");
        }
    }

    #[test]
    fn a_directory_as_a_crash_left_it_verifies_with_open_intents_unknown() {
        let world = World::new(0);
        let ledger = world.open(&world.data()).unwrap();
        let grant = world.grant(&ledger);
        let session = world.session(&ledger, grant);
        let done = world.intent(&ledger, session, "id -un");
        world.finish(&ledger, session, done);
        let before = world.path("before");
        copy(&world.data(), &before);
        let open = world.intent(&ledger, session, "systemctl restart replica");
        let crashed = world.path("crashed");
        copy(&world.data(), &crashed);
        ledger.shutdown();
        drop(ledger);

        let outcomes = |dir: &Path| -> Vec<(ActionId, Status)> {
            let report = judge(&world, dir, None).unwrap();
            assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
            let outcome =
                |a: &ascribe_core::attribution::ActionRecord| (a.action_id, a.what.outcome.status);
            report.actions.iter().map(outcome).collect()
        };
        let known = (done, Status::Succeeded);
        assert_eq!(outcomes(&before), [known]);
        assert_eq!(outcomes(&crashed), [known, (open, Status::Unknown)]);

        // The write of the open intent, torn after each of its blocks.
        let (was, is) = (
            fs::read(segment(&before, 0)).unwrap(),
            fs::read(segment(&crashed, 0)).unwrap(),
        );
        let (begin, end) = (used(&was), used(&is));
        assert!(end > begin + 1, "the write is one block");
        let torn = world.path("torn");
        copy(&before, &torn);
        for blocks in begin..end {
            let mut bytes = was.clone();
            bytes[begin * BLOCK..blocks * BLOCK]
                .copy_from_slice(&is[begin * BLOCK..blocks * BLOCK]);
            fs::write(segment(&torn, 0), &bytes).unwrap();
            assert_eq!(outcomes(&torn), [known], "{blocks} blocks");
        }

        // The next start writes down that nobody knows, and closes the session.
        fs::remove_file(world.path("head")).unwrap();
        let recovered = world.open(&crashed).unwrap();
        assert!(recovered.with_state(|state| state.open_sessions().is_empty()));
        drop(recovered);
        assert_eq!(outcomes(&crashed), [known, (open, Status::Unknown)]);
    }

    #[test]
    fn without_the_wrapping_key_content_is_missing_and_the_rest_is_proven() {
        let scene = Scene::new();
        fs::remove_file(scene.world.path("wrap.key")).unwrap();
        assert_eq!(scene.judge(&scene.world.data()), Judged::Unreadable);
        let report = judge(&scene.world, &scene.world.data(), None).unwrap();
        assert!(report.actions.iter().all(|a| a.what.content == "missing"));
        assert!(report.notes.iter().any(|note| note.code == "missing"));
    }

    /// Recorded, it would make every later verification of the whole ledger fail.
    #[test]
    fn a_statement_signed_for_another_history_is_not_recorded() {
        let world = World::new(0);
        let ledger = world.open(&world.data()).unwrap();
        world.grant(&ledger);
        let now = world.seen(&ledger);
        let set = |seen: Seen| {
            let say = Say::TargetSet(world.target());
            world.say(&ledger, (Who::Ada, seen), say, None)
        };
        for (size, root) in [
            (now.size, Root(Hash::ZERO)),
            (now.size - 1, now.root),
            (now.size + 1, now.root),
            (u64::from(u32::MAX), now.root),
        ] {
            match set(Seen { size, root }) {
                Err(RecordError::Denied(denied)) => assert_eq!(denied.code, "seen"),
                other => panic!("{size}: {other:?}"),
            }
        }
        assert_eq!(world.seen(&ledger), now, "nothing was recorded");
        let unaware = Seen {
            size: 0,
            root: Root(Hash::ZERO),
        };
        set(unaware).unwrap();
        set(now).unwrap();
        ledger.shutdown();
        drop(ledger);
        let report = judge(&world, &world.data(), None).unwrap();
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        assert_eq!(report.origin.as_deref(), Some(ORIGIN));
    }
}
