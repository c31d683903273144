//! Golden and property tests of the segment codec.

use proptest::prelude::*;

use super::*;
use crate::id::SessionId;

fn header() -> Header {
    Header {
        origin: Hash([1; 32]),
        first: 7,
        number: 3,
        root_before: Hash([2; 32]),
    }
}

fn batch(block: u64, number: u64, first: u64, records: &[Record]) -> Vec<u8> {
    let count = records
        .iter()
        .filter(|r| matches!(r, Record::Entry(_)))
        .count() as u32;
    let commit = Commit {
        first,
        count,
        size: first + u64::from(count),
        root: Hash([9; 32]),
        at: 1_764_000_000_123,
        signature: [5; 64],
    };
    encode_batch(7, block, number, records, &commit).unwrap()
}

fn records(n: usize) -> Vec<Record> {
    let scope = Scope::Session(SessionId::new([4; 16]));
    vec![
        Record::Entry(vec![b'{'; n]),
        Record::Key {
            scope: scope.clone(),
            wrapped: vec![6; 60],
        },
        Record::Openings {
            index: 7,
            scope,
            nonce: [3; 12],
            ciphertext: vec![8; 40],
        },
    ]
}

/// Header, three batches (1, 3 and 1 blocks), eight unused blocks.
fn sample() -> Vec<u8> {
    let mut bytes = header().to_block();
    bytes.extend(batch(1, 0, 7, &records(10)));
    bytes.extend(batch(2, 1, 8, &records(1200)));
    bytes.extend(batch(5, 2, 9, &records(11)));
    assert_eq!(bytes.len(), 6 * BLOCK);
    bytes.resize(14 * BLOCK, 0);
    bytes
}

#[test]
fn golden_bytes() {
    let bytes = sample();
    assert_eq!(&bytes[..17], MAGIC);
    assert_eq!(&bytes[BLOCK..BLOCK + 5], [16, 0, 0, 0, 254]);
    assert_eq!(&bytes[BLOCK + 21..BLOCK + 27], [10, 0, 0, 0, 1, b'{']);
    let sums: Vec<u32> = (0..6)
        .map(|b| {
            u32::from_le_bytes(
                bytes[b * BLOCK + PAYLOAD..(b + 1) * BLOCK]
                    .try_into()
                    .unwrap(),
            )
        })
        .collect();
    assert_eq!(sums, GOLDEN);
}

const GOLDEN: [u32; 6] = [
    1_824_875_749,
    3_500_394_939,
    267_183_487,
    216_776_801,
    62_194_685,
    2_852_991_926,
];

#[test]
fn a_whole_segment_is_read_back() {
    let scan = scan(&sample());
    assert_eq!(scan.header, Some(header()));
    assert_eq!(scan.end, End::Clean(6));
    assert_eq!(scan.batches.len(), 3);
    assert_eq!(scan.batches[1].records, records(1200));
    let b = &scan.batches[1];
    let bytes = sample();
    assert_eq!(
        read_batch(7, 2, &bytes[2 * BLOCK..5 * BLOCK]).as_ref(),
        Ok(b)
    );
}

#[test]
fn an_unused_segment_is_empty() {
    assert_eq!(
        scan(&[0; 4 * BLOCK]),
        Scan {
            header: None,
            batches: vec![],
            end: End::Clean(0)
        }
    );
}

#[test]
fn a_torn_last_batch_is_dropped() {
    let mut bytes = sample();
    bytes[5 * BLOCK..].fill(0);
    for torn in [
        vec![2],
        vec![3],
        vec![4],
        vec![2, 3],
        vec![3, 4],
        vec![2, 4],
    ] {
        let mut bytes = bytes.clone();
        for block in torn {
            bytes[block * BLOCK..(block + 1) * BLOCK].fill(0);
        }
        let scan = scan(&bytes);
        assert_eq!((scan.batches.len(), scan.end), (1, End::TornTail(2)));
    }
    bytes[5 * BLOCK - 4..5 * BLOCK].fill(0);
    assert_eq!(scan(&bytes).end, End::TornTail(2));
}

#[test]
fn a_torn_batch_before_a_later_commit_is_corruption() {
    for block in 1..5 {
        let mut bytes = sample();
        bytes[block * BLOCK..(block + 1) * BLOCK].fill(0);
        let end = scan(&bytes).end;
        assert!(matches!(end, End::Corrupt(_)), "{block}: {end:?}");
    }
}

#[test]
fn blocks_cannot_change_places() {
    let mut bytes = sample();
    let (a, b) = bytes.split_at_mut(4 * BLOCK);
    a[3 * BLOCK..].swap_with_slice(&mut b[..BLOCK]);
    let Corrupt { offset, .. } = match scan(&bytes).end {
        End::Corrupt(corrupt) => corrupt,
        end => panic!("{end:?}"),
    };
    assert_eq!(offset, 3 * 512);
}

#[test]
fn a_missing_header_before_data_is_corruption() {
    let mut bytes = sample();
    bytes[..BLOCK].fill(0);
    assert!(matches!(
        scan(&bytes).end,
        End::Corrupt(Corrupt { offset: 0, .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        scan(&bytes);
        read_batch(7, 1, &bytes).err();
    }

    #[test]
    fn any_changed_byte_of_data_is_noticed(at in 0..6 * BLOCK, xor in 1u8..) {
        let mut bytes = sample();
        bytes[at] ^= xor;
        let found = scan(&bytes);
        // Zeroing one checksum byte may at most make the last batch look torn, never altered.
        let torn = found.end == End::TornTail(5) && found.batches.len() == 2;
        prop_assert!(matches!(found.end, End::Corrupt(_)) || torn);
    }

    #[test]
    fn any_payload_with_good_checksums_is_read_without_panic(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..PAYLOAD), 1..6),
        blocks in 0u32..8, len in any::<u32>(), kind in any::<u8>(),
    ) {
        let mut bytes = header().to_block();
        for (payload, number) in payloads.iter().zip(1..) {
            let mut head = Vec::new();
            let total = (blocks * 508).to_le_bytes();
            push_record(&mut head, BATCH, &[&0u64.to_le_bytes(), &blocks.to_le_bytes(), &total]).unwrap();
            head.extend(len.to_le_bytes());
            head.push(kind);
            head.extend(payload);
            head.truncate(PAYLOAD);
            push_block(&mut bytes, 7, number, &head);
        }
        scan(&bytes);
    }

    #[test]
    fn batches_round_trip(sizes in proptest::collection::vec(0usize..3000, 1..8)) {
        let mut bytes = header().to_block();
        let mut expected = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let block = (bytes.len() / BLOCK) as u64;
            bytes.extend(batch(block, number as u64, 7 + number as u64, &records(*size)));
            expected.push(records(*size));
        }
        let blocks = (bytes.len() / BLOCK) as u64;
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        let found = scan(&bytes);
        prop_assert_eq!(found.end, End::Clean(blocks));
        prop_assert_eq!(found.batches.into_iter().map(|b| b.records).collect::<Vec<_>>(), expected);
    }
}
