use ascribe_tlog::{Tree, leaf_hash};

use super::*;

const ORIGIN: &str = "example.org/log";

fn log_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap()
}

fn own_key() -> SigningKey {
    SigningKey::from_seed("witness.example", &[2; 32]).unwrap()
}

fn policy() -> TrustPolicy {
    TrustPolicy::parse(&format!("log {}\nquorum none\n", log_key().verifier())).unwrap()
}

fn open(dir: &Path) -> Done<Store> {
    Store::open(dir, own_key(), &[policy()])
}

/// A history by its name: other names have other entries.
fn tree(name: &str, size: u64) -> Tree {
    let mut tree = Tree::new();
    for n in 0..size {
        tree.push(leaf_hash(format!("{name} {n}").as_bytes()));
    }
    tree
}

fn request(tree: &Tree, old: u64) -> AddCheckpoint {
    let size = tree.size();
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: tree.root(),
    };
    let proof = tree.consistency_proof(old, size).filter(|_| old > 0);
    AddCheckpoint {
        old,
        proof: proof.unwrap_or_default(),
        note: log_key().sign_note(&checkpoint.to_text()).unwrap(),
    }
}

fn add(store: &Store, request: &AddCheckpoint) -> u16 {
    store
        .add(request.to_text().as_bytes(), 1_764_000_000)
        .status
}

#[test]
fn each_answer_is_that_of_the_specification() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (five, nine) = (tree("a", 5), tree("a", 9));
    let answer = store.add(request(&five, 0).to_text().as_bytes(), 7);
    assert_eq!(answer.status, 200);
    let note = format!("{}{}", request(&five, 0).note, answer.body);
    let note = Note::open(note.as_bytes(), &[log_key().verifier()]).unwrap();
    assert_eq!(own_key().witness().unwrap().cosigned(&note), Ok(Some(7)));
    // Where it is thought to be somewhere else it says where it is.
    for old in [0, 3] {
        let stale = store.add(request(&nine, old).to_text().as_bytes(), 7);
        assert_eq!(
            (stale.status, stale.content_type),
            (409, "text/x.tlog.size")
        );
        assert_eq!(stale.body, "5\n");
    }
    // The same again is cosigned again; another history of that size is not.
    assert_eq!(add(&store, &request(&five, 5)), 200);
    assert_eq!(add(&store, &request(&tree("b", 5), 5)), 422);
    assert_eq!(add(&store, &request(&tree("b", 9), 5)), 422);
    let mut short = request(&nine, 5);
    short.proof.pop();
    assert_eq!(add(&store, &short), 422);
    assert_eq!(add(&store, &request(&nine, 5)), 200);
    assert_eq!(add(&store, &request(&nine, 10)), 400);
    assert_eq!(add(&store, &request(&five, 9)), 400);
    assert_eq!(store.add(b"old 9\n", 7).status, 400);
    let forged = AddCheckpoint {
        note: request(&nine, 9)
            .note
            .replace(" example.org/log ", " example.org/lag "),
        ..request(&nine, 9)
    };
    assert_eq!(add(&store, &forged), 403);
    let other = SigningKey::from_seed(ORIGIN, &[9; 32]).unwrap();
    let text = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 9,
        root: nine.root(),
    }
    .to_text();
    let forged = AddCheckpoint {
        note: other.sign_note(&text).unwrap(),
        ..request(&nine, 9)
    };
    assert_eq!(add(&store, &forged), 403);
    let unknown = AddCheckpoint {
        note: forged.note.replace(ORIGIN, "example.org/other"),
        ..forged
    };
    assert_eq!(add(&store, &unknown), 404);
}

#[test]
fn what_was_cosigned_is_remembered_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let name = name_of(ORIGIN);
    assert_eq!((name.len(), store.monitored(&name)), (64, None));
    assert_eq!(add(&store, &request(&tree("a", 5), 0)), 200);
    assert!(open(dir.path()).is_err(), "two of them use one directory");
    drop(store);
    let store = open(dir.path()).unwrap();
    let shown = store.monitored(&name).unwrap();
    assert!(
        shown.starts_with("example.org/log\n5\n") && shown.lines().count() == 6,
        "{shown}"
    );
    assert_eq!(add(&store, &request(&tree("b", 7), 0)), 409);
    assert_eq!(add(&store, &request(&tree("b", 7), 5)), 422);
    assert_eq!(add(&store, &request(&tree("a", 7), 5)), 200);
}

#[test]
fn a_witness_that_forgot_does_not_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(add(&store, &request(&tree("a", 5), 0)), 200);
    drop(store);
    let file = dir.path().join(format!("{}.checkpoint", name_of(ORIGIN)));
    let good = std::fs::read_to_string(&file).unwrap();
    let unsigned = good.lines().take(5).collect::<Vec<_>>().join("\n");
    for bad in [
        String::new(),
        good.replace("\n5\n", "\n4\n"),
        format!("{unsigned}\n"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(refused.help.unwrap().contains("new key"));
    }
    std::fs::write(&file, good).unwrap();
    assert!(open(dir.path()).is_ok());
}

#[test]
fn nothing_is_cosigned_that_could_not_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    // Where the new state would be written first, a directory stands.
    let file = dir.path().join(format!("{}.new", name_of(ORIGIN)));
    std::fs::create_dir(&file).unwrap();
    assert_eq!(add(&store, &request(&tree("a", 5), 0)), 500);
    std::fs::remove_dir(&file).unwrap();
    // It has not seen that either.
    assert_eq!(add(&store, &request(&tree("b", 3), 0)), 200);
}

#[test]
fn of_many_who_ask_at_once_one_is_cosigned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(add(&store, &request(&tree("a", 5), 0)), 200);
    // Each of them continues the five entries in another way.
    let forks: Vec<Tree> = (0u64..8)
        .map(|n| {
            let mut fork = tree("a", 5);
            fork.push(leaf_hash(&n.to_be_bytes()));
            fork
        })
        .collect();
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = forks
            .iter()
            .map(|fork| scope.spawn(|| add(&store, &request(fork, 5))))
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(409)), (1, 7), "{answers:?}");
}
