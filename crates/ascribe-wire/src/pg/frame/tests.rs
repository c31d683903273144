use proptest::prelude::*;

use super::*;

/// A message of this type.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// What a stream is read as, without regard to how it came: type, whole, and body.
type Told = Vec<(u8, char, Vec<u8>)>;

/// Reads a stream that comes in chunks: what it is, and the error. What comes out is checked to be
/// what went in, as far as it was understood.
fn read(from: Side, chunks: &[&[u8]]) -> (Told, Option<FrameError>) {
    let (mut frames, mut told, mut out) = (Frames::with_whole(from, 2048), Told::new(), Vec::new());
    let input = chunks.concat();
    for chunk in chunks {
        frames.push(Bytes::copy_from_slice(chunk));
        loop {
            match frames.next() {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    assert!(!piece.bytes().is_empty());
                    out.extend_from_slice(piece.bytes());
                    tell(&mut told, piece);
                }
                Err(error) => {
                    assert!(input.starts_with(&out));
                    return (told, Some(error));
                }
            }
        }
        assert!(frames.rest.is_empty());
    }
    assert_eq!(
        frames.is_between(),
        matches!(frames.state, State::Between) && frames.kept.is_empty()
    );
    out.extend_from_slice(&frames.into_rest());
    assert_eq!(out, input);
    (told, None)
}

fn tell(told: &mut Told, piece: Piece) {
    match piece {
        Piece::Whole(frame) => told.push((frame.kind, 'w', frame.body().to_vec())),
        Piece::Large(large) => told.push((large.kind, 'l', large.bytes.to_vec())),
        Piece::Part(part) => {
            let (_, _, body) = told.last_mut().unwrap();
            body.extend_from_slice(&part.bytes);
            if part.last {
                let (kind, _, body) = told.last().unwrap();
                assert_eq!(header(body), Some((*kind, body.len() as u32 - 1)));
            }
        }
        // Bodies of a run are joined, and so are runs of one type.
        Piece::Run(run) => {
            let body: Vec<u8> = run.bodies().flatten().copied().collect();
            assert_eq!(body.len() + HEADER * run.begun as usize, run.bytes.len());
            match told.last_mut() {
                Some((kind, 'r', all)) if *kind == run.kind => all.extend(body),
                _ => told.push((run.kind, 'r', body)),
            }
        }
    }
}

fn stream(from: Side) -> Vec<u8> {
    let kinds: &[u8] = match from {
        Side::Client => b"QPBDECSHFXcfpdd",
        Side::Server => b"RSKZCEN123nsITtVAGHWcvdDDD",
    };
    let mut out = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        out.extend(message(*kind, &vec![*kind; at * 7 % 11]));
    }
    let big = if from == Side::Client { b'B' } else { b'E' };
    out.extend(message(big, &[7; 2048]));
    out.extend(message(big, &[7; 2049]));
    out.extend(message(big, &[7; 5000]));
    out.extend(message(b'd', &[9; 3000]));
    out.extend(message(b'd', b""));
    out.extend(message(b'd', &[8; 30]));
    out
}

#[test]
fn whole_large_and_passing_messages() {
    for from in [Side::Client, Side::Server] {
        let stream = stream(from);
        let (told, error) = read(from, &[&stream]);
        assert_eq!(error, None);
        let forms: String = told.iter().map(|(_, form, _)| *form).collect();
        let expected = match from {
            Side::Client => "wwwwwwwwwwwwwrwllr",
            Side::Server => "wwwwwwwwwwwwwrrrrwwwwwrrwllr",
        };
        assert_eq!(forms, expected, "{from}");
        let (_, _, copied) = told.last().unwrap();
        assert_eq!(copied.len(), 3030);
    }
}

/// However its header comes, a message can be looked at before it is kept, and be taken in parts instead.
#[test]
fn a_message_is_known_before_it_is_kept() {
    let bytes = message(b'Q', &[b'x'; 3000]);
    for first in 0..=HEADER + 10 {
        let mut frames = Frames::with_whole(Side::Client, 4096);
        let (begin, rest) = bytes.split_at(first);
        frames.push(Bytes::copy_from_slice(begin));
        assert_eq!(frames.ahead(), (first >= HEADER).then_some(3000), "{first}");
        if first >= HEADER {
            frames.set_whole(2048);
            assert!(matches!(frames.next(), Ok(Some(Piece::Large(_)) | None)));
            assert_eq!(frames.ahead(), None);
            continue;
        }
        assert_eq!(frames.next(), Ok(None));
        frames.push(Bytes::copy_from_slice(rest));
        assert_eq!(frames.ahead(), Some(3000), "{first}");
        let whole = frames.next().unwrap().unwrap();
        assert!(matches!(whole, Piece::Whole(_)));
        assert_eq!((frames.ahead(), frames.awaited()), (None, 0));
    }
}

#[test]
fn a_burst_of_rows_is_one_run() {
    let rows: Vec<u8> = (0..100).flat_map(|n| message(b'D', &vec![0; n])).collect();
    let mut frames = Frames::new(Side::Server);
    frames.push(rows.clone().into());
    let Some(Piece::Run(run)) = frames.next().unwrap() else {
        panic!("no run");
    };
    assert_eq!((run.begun, run.bytes.as_ref()), (100, rows.as_slice()));
    assert_eq!(frames.next(), Ok(None));
}

#[test]
fn lengths_and_types_that_cannot_be() {
    let from = Side::Client;
    let length = |kind: u8, length: u32| {
        let bytes = [&[kind][..], &length.to_be_bytes()].concat();
        read(from, &[&bytes]).1
    };
    for (kind, most) in [
        (b'Q', MAX_LENGTH),
        (b'd', MAX_LENGTH),
        (b'E', MAX_SMALL),
        (b'p', MAX_AUTH),
    ] {
        for bad in [0, 3, most + 1, u32::MAX] {
            let error = FrameError::Length {
                kind,
                from,
                length: bad,
                most,
            };
            assert_eq!(length(kind, bad), Some(error));
        }
        for good in [4, most] {
            assert_eq!(length(kind, good), None);
        }
    }
    for kind in 0..=u8::MAX {
        for (from, known) in [
            (Side::Client, &b"QPBFDECSHXcfpd"[..]),
            (Side::Server, b"dDTtVAENSRGHWvC123nsIZcK"),
        ] {
            let expected = (!known.contains(&kind)).then_some(FrameError::Type { kind, from });
            assert_eq!(read(from, &[&[kind]]).1, expected, "{kind}");
        }
    }
}

#[test]
fn what_is_wrong_comes_after_what_is_right() {
    for good in [message(b'd', b"x"), message(b'Q', b"x\0")] {
        let bytes = [&good[..], b"d\0\0\0\x03", b"!"].concat();
        let (told, error) = read(Side::Client, &[&bytes]);
        assert_eq!(told.len(), 1);
        assert!(matches!(
            error,
            Some(FrameError::Length {
                kind: b'd',
                length: 3,
                ..
            })
        ));
    }
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let mut frames = Frames::new(Side::Client);
    frames.push(Bytes::from_static(b"Q\x3f\xff\xff\xfe"));
    assert_eq!(frames.next(), Ok(None));
    assert!(frames.kept.capacity() < 4096);
}

#[test]
fn a_password_is_wiped_where_nothing_else_holds_it() {
    let password = message(b'p', b"hunter2\0");
    for size in [3, password.len()] {
        let mut frames = Frames::new(Side::Client);
        let mut whole = None;
        for chunk in password.chunks(size) {
            frames.push(Bytes::copy_from_slice(chunk));
            whole = frames.next().unwrap().or(whole);
        }
        let Some(Piece::Whole(frame)) = whole else {
            panic!("no message")
        };
        let held = frame.clone();
        assert!(!frame.wipe());
        assert!(held.wipe());
    }
}

proptest! {
    #[test]
    fn any_chunking_is_read_alike(cuts in proptest::collection::vec(0..12_000usize, 0..40), client: bool) {
        let from = if client { Side::Client } else { Side::Server };
        let stream = stream(from);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        prop_assert_eq!(read(from, &chunks), read(from, &[&stream]));
    }

    #[test]
    fn foreign_bytes_are_read_alike(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(5), Just(b'd'), Just(b'C'), any::<u8>()], 0..200), size in 1..7usize, client: bool) {
        let from = if client { Side::Client } else { Side::Server };
        let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
        let (told, error) = read(from, &chunks);
        let (whole, same) = read(from, &[&bytes]);
        prop_assert_eq!((told, error), (whole, same));
    }
}

#[test]
fn each_byte_by_itself() {
    for from in [Side::Client, Side::Server] {
        let stream = stream(from);
        let chunks: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(from, &chunks), read(from, &[&stream]));
    }
}
