//! One function for every parser of foreign bytes. Each takes any input without a panic, and what
//! is accepted is written back exactly as it was.

pub mod proof;
pub mod svid;

use ascribe_core::bundle::Bundle;
use ascribe_core::encoding::{self, base64_std};
use ascribe_core::entry::Entry;
use ascribe_core::id::{
    ActionId, Commitment, ContentDigest, EntryHash, EntryId, GrantId, PersonId, Root, SessionId,
    StatementId,
};
use ascribe_core::identity::{Claims, Provider, ProviderKind, key_commitment, token_digest};
use ascribe_core::law::{Denied, Judge as _, State, TokenAsked};
use ascribe_core::pack::{self, HEAD, PackHead, Table};
use ascribe_core::segment::{self, BLOCK, PAYLOAD, Scan};
use ascribe_core::statement::{Signed, SshKey, Statement};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, Unchecked, dearmour, parse_public_key};
use ascribe_sql::{Encoding, Reading};
use ascribe_tlog::{
    AddCheckpoint, Checkpoint, Note, TlogProof, TrustPolicy, VerifierKey, WitnessKey,
    cosignature_lines, decode_entry_bundle, encode_entry_bundle, parse_tile_path, recorded_size,
};
use ascribe_wire::pglog::{Format, Reader, Records};
use ascribe_wire::scim::{Filter, Path};
use ascribe_wire::scp::{Direction, Scp, Source};
use ascribe_wire::sftp::{Replies, Reply, Request, Requests};
use ascribe_wire::{command, quote, source, user, vault};

mod pg;
pub use pg::{pg_client, pg_oauth, pg_server, pg_session, pg_startup};

/// A target: its name, which is its corpus's name too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("armour", armour),
    ("bundle", bundle),
    ("checkpoint", checkpoint),
    ("entry", entry),
    ("entry_bundle", entry_bundle),
    ("exec_kind", exec_kind),
    ("ids", ids),
    ("law", law),
    ("note", note),
    ("pack", pack),
    ("pg_client", pg_client),
    ("pg_oauth", pg_oauth),
    ("pg_server", pg_server),
    ("pg_session", pg_session),
    ("pg_startup", pg_startup),
    ("pglog", pglog),
    ("proof", proof::proof),
    ("public_key", public_key),
    ("scim", scim),
    ("scp", scp),
    ("segment", segment),
    ("segment_sealed", segment_sealed),
    ("sftp", sftp),
    ("snapshot", snapshot),
    ("source_address", source_address),
    ("sql", sql),
    ("sshsig", sshsig),
    ("statement", statement),
    ("svid", svid::svid),
    ("tile_path", tile_path),
    ("tlog_proof", tlog_proof),
    ("token", token),
    ("trust_policy", trust_policy),
    ("user", user),
    ("vault", vault),
    ("verify_bundle", verify_bundle),
    ("vkey", vkey),
    ("witness_answer", witness_answer),
    ("witness_request", witness_request),
];

/// The keys of the golden notes.
const NOTE_KEYS: [&str; 2] = [
    "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "example.org/log+8f13f9e4+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
];
/// The policy under which the bundles of the corpus verify.
const TRUST: &str = include_str!("../trust.policy");

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// What is read from a text must print as that text.
fn prints_back<T: std::str::FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

/// Signed notes.
pub fn note(data: &[u8]) {
    let known: Vec<VerifierKey> = NOTE_KEYS.iter().filter_map(|k| k.parse().ok()).collect();
    assert_eq!(known.len(), NOTE_KEYS.len());
    if let Ok(note) = Note::open(data, &known) {
        let mut again = format!("{}\n", note.text());
        for line in note.signatures() {
            let blob = [&line.key_id(), line.payload()].concat();
            again.push_str(&format!("\u{2014} {} {}\n", line.name(), base64_std(&blob)));
        }
        assert_eq!(again.as_bytes(), data);
        assert!(!note.verified_by().is_empty());
    }
}

/// The text of a checkpoint.
pub fn checkpoint(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(checkpoint) = Checkpoint::parse(text)
    {
        assert_eq!(checkpoint.to_text(), text);
    }
}

/// Trust policies. They hold comments, so that only what they say comes back.
pub fn trust_policy(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(policy) = TrustPolicy::parse(text)
    {
        assert_eq!(TrustPolicy::parse(&policy.to_text()), Ok(policy));
    }
}

/// Paths of tiles.
pub fn tile_path(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(path) = parse_tile_path(text)
    {
        assert_eq!(path.to_string(), text);
    }
}

/// Entry bundles of the tiled log.
pub fn entry_bundle(data: &[u8]) {
    if let Ok(entries) = decode_entry_bundle(data) {
        assert_eq!(encode_entry_bundle(&entries).as_deref(), Ok(data));
    }
}

/// Proofs that travel with their checkpoint.
pub fn tlog_proof(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(proof) = TlogProof::parse(text)
    {
        assert_eq!(proof.to_text(), text);
    }
}

/// What a log asks of a witness.
pub fn witness_request(data: &[u8]) {
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(request.to_text().as_bytes(), data);
    }
}

/// What a witness answers: cosignatures, or the size that it has seen.
pub fn witness_answer(data: &[u8]) {
    if let Ok(lines) = cosignature_lines(data) {
        assert_eq!(lines.concat().as_bytes(), data);
    }
    if let Ok(size) = recorded_size(data) {
        assert_eq!(format!("{size}\n").as_bytes(), data);
    }
}

/// Keys of logs and of witnesses.
pub fn vkey(data: &[u8]) {
    if let Some(text) = text(data) {
        prints_back::<VerifierKey>(text);
        prints_back::<WitnessKey>(text);
    }
}

/// Entries.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = Entry::from_bytes(data) {
        assert_eq!(entry.to_bytes().ok().as_deref(), Some(data));
    }
}

/// Statements.
pub fn statement(data: &[u8]) {
    if let Ok(statement) = encoding::decode::<Statement>(data) {
        assert_eq!(
            statement.to_text().ok().as_deref().map(str::as_bytes),
            Some(data)
        );
    }
}

/// The form of a bundle.
pub fn bundle(data: &[u8]) {
    if let Ok(bundle) = Bundle::parse(data) {
        assert_eq!(bundle.to_bytes().ok().as_deref(), Some(data));
    }
}

/// Every complete batch of a scan is found again at its place, and is what would be written there.
fn check_scan(data: &[u8]) {
    let Scan {
        header, batches, ..
    } = segment::scan(data);
    let Some(header) = header else {
        assert!(batches.is_empty());
        return;
    };
    assert_eq!(data.get(..BLOCK), Some(header.to_block().as_slice()));
    let mut next = 1;
    for (number, batch) in (0..).zip(&batches) {
        assert_eq!((batch.number, batch.block), (number, next));
        next = batch.block + batch.blocks;
        let start = batch.block as usize * BLOCK;
        let bytes = data.get(start..next as usize * BLOCK).unwrap_or_default();
        let again = segment::read_batch(header.first, batch.block, bytes);
        assert_eq!(again.as_ref(), Ok(batch));
        let written = segment::encode_batch(
            header.first,
            batch.block,
            batch.number,
            &batch.records,
            &batch.commit,
        );
        assert_eq!(written.as_deref(), Ok(bytes));
    }
}

/// Segments.
pub fn segment(data: &[u8]) {
    check_scan(data);
}

/// Packs: whole ones, and with the head's checksum made right.
pub fn pack(data: &[u8]) {
    if let Some((head, sealed)) = pack::decode(data) {
        assert_eq!(pack::encode(&head, &sealed).as_deref(), Some(data));
    }
    let Some((head, rest)) = data.split_at_checked(HEAD) else {
        return;
    };
    let mut head = head.to_vec();
    let sum = crc32c(head.iter().take(HEAD - 4).copied());
    if let Some(place) = head.last_chunk_mut::<4>() {
        *place = sum.to_le_bytes();
    }
    let Some(head) = PackHead::decode(&head) else {
        return;
    };
    let total = data.len() as u64;
    if let Some(table) = Table::decode(&head, rest, total) {
        for index in head.first..head.size.min(head.first.saturating_add(64)) {
            let Some((start, len)) = table.find(index) else {
                continue;
            };
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let bytes = data.get(start..start + len).unwrap_or_default();
            assert_eq!(bytes.len(), len);
            let _: Option<Vec<pack::Sealed>> = pack::decode_sealed(index, bytes);
        }
    }
    let _: Option<Vec<_>> = pack::decode_keys(&head.origin, head.segment, data);
}

/// States, as a snapshot holds them.
pub fn snapshot(data: &[u8]) {
    if let Some(state) = State::from_snapshot(data) {
        let bytes = state.to_snapshot().unwrap_or_default();
        let again = State::from_snapshot(&bytes);
        let again = again.and_then(|state| state.to_snapshot().ok());
        assert_eq!(again, Some(bytes));
    }
}

fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |s, _| {
            (s >> 1) ^ (0x82f6_3b78 & (s & 1).wrapping_neg())
        })
    })
}

/// Blocks with these payloads and the right checksums.
pub fn seal(payloads: &[u8]) -> Vec<u8> {
    // Magic and origin stand before the first index.
    let first = payloads.get(49..57).unwrap_or(&[0; 8]);
    let mut sealed = Vec::new();
    for (chunk, number) in payloads.chunks(PAYLOAD).take(64).zip(0u64..) {
        let mut payload = chunk.to_vec();
        payload.resize(PAYLOAD, 0);
        let place = number.to_le_bytes();
        let covered = first.iter().chain(&place).chain(&payload).copied();
        let sum = crc32c(covered).max(1);
        sealed.extend_from_slice(&payload);
        sealed.extend_from_slice(&sum.to_le_bytes());
    }
    sealed
}

/// Segments whose checksums are right whatever they hold: the input is the payloads of the blocks.
pub fn segment_sealed(data: &[u8]) {
    check_scan(&seal(data));
}

/// Ids, digests and times.
pub fn ids(data: &[u8]) {
    let Some(text) = text(data) else { return };
    prints_back::<EntryId>(text);
    prints_back::<StatementId>(text);
    prints_back::<PersonId>(text);
    prints_back::<GrantId>(text);
    prints_back::<SessionId>(text);
    prints_back::<ActionId>(text);
    prints_back::<EntryHash>(text);
    prints_back::<Commitment>(text);
    prints_back::<ContentDigest>(text);
    prints_back::<Root>(text);
    prints_back::<Timestamp>(text);
    if let Ok(time) = Timestamp::parse_human(text) {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
}

/// Entries, one a line, under the law of an empty log: one that is denied leaves no trace, so that
/// the same entry is denied again.
pub fn law(data: &[u8]) {
    let mut state = State::new("demo.invalid/ascribe");
    for line in data.split(|&b| b == b'\n').take(64) {
        if let Err(denied) = state.apply(&SshSignatures, line) {
            let again = state.apply(&SshSignatures, line).map(|_| ());
            assert_eq!(again.map_err(|d| d.code), Err(denied.code));
        }
    }
}

/// The addresses that a certificate may be used from: an address, a space, the list.
pub fn source_address(data: &[u8]) {
    if let Some((from, list)) = text(data).and_then(|text| text.split_once(' '))
        && let Ok(from) = from.parse::<std::net::IpAddr>()
    {
        let allowed = source::allows(list, from);
        // One bad item spoils a list; one more network only adds to it.
        assert!(!source::allows(&format!("{list},"), from));
        let more = format!("{list},{from}");
        assert!(!allowed || more.len() > 4096 || source::allows(&more, from));
        let other = "192.0.2.1";
        let is_other = from.to_canonical().to_string() == other;
        assert!(allowed || is_other || !source::allows(&format!("{list},{other}"), from));
    }
}

/// Answers of Vault: what is taken from one fits where it goes, and what is told holds no secret.
pub fn vault(data: &[u8]) {
    for secret in [vault::kv1(data, "password"), vault::kv2(data, "password")]
        .into_iter()
        .flatten()
    {
        let secret = secret.expose();
        assert!((1..=vault::MAX_PASSWORD).contains(&secret.len()) && !secret.contains(&0));
    }
    for issued in [vault::dynamic(data), vault::fixed(data)]
        .into_iter()
        .flatten()
    {
        assert!((1..64).contains(&issued.user.len()) && !issued.user.contains('\0'));
        assert_eq!(
            issued.lease.clone(),
            issued.lease.and(vault::lease(data).ok())
        );
    }
    if let Ok(token) = vault::token(data) {
        assert!(vault::held_token(token.secret.expose()).is_some());
        let told = vault::told(data, &[&token.secret]);
        let token = token.secret.expose();
        // Others may be part of how we tell things.
        let plain = token.len() > 7 && token.iter().all(u8::is_ascii_alphanumeric);
        assert!(
            !plain
                || !told
                    .as_bytes()
                    .windows(token.len())
                    .any(|part| part == token)
        );
    }
    drop((vault::renewed(data), vault::renewed_token(data)));
}

/// Filters and paths of SCIM: what is understood is written back in one form, and read again as the same.
pub fn scim(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let written = |filter: &Filter| {
        // Control characters and quotes are escaped as JSON has it.
        let value: String = filter
            .value
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        format!("{} eq \"{value}\"", filter.attribute)
    };
    if let Ok(filter) = Filter::parse(text) {
        let again = written(&filter);
        assert!(again.len() > 1024 || Filter::parse(&again) == Ok(filter));
    }
    if let Ok(path) = Path::parse(text) {
        let schema = path
            .schema
            .as_ref()
            .map_or(String::new(), |s| format!("{s}:"));
        let filter = path
            .filter
            .as_ref()
            .map_or(String::new(), |f| format!("[{}]", written(f)));
        let sub = path.sub.as_ref().map_or(String::new(), |s| format!(".{s}"));
        let again = format!("{schema}{}{filter}{sub}", path.attribute);
        assert!(again.len() > 1024 || Path::parse(&again) == Ok(path));
    }
}

/// SSH user names.
pub fn user(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(user) = user::parse(text)
    {
        let grant = user.grant.map(|g| format!("+{g}")).unwrap_or_default();
        assert_eq!(format!("{}{grant}@{}", user.account, user.target), text);
    }
}

/// Kinds of commands.
pub fn exec_kind(data: &[u8]) {
    let kind = command::exec_kind(data);
    assert!(["ssh.exec", "ssh.scp", "ssh.rsync", "ssh.sftp"].contains(&kind));
    assert_eq!(kind == "ssh.scp", command::scp_direction(data).is_some());
}

/// What an SFTP reader made of bytes in chunks: the pieces apart from bulk, and what it hands on. Each
/// byte is seen once, understood or not.
macro_rules! sftp_pieces {
    ($reader:ty, $bulk:path, $bytes:expr, $chunk:expr) => {{
        let (mut reader, mut pieces, mut out) = (<$reader>::default(), Vec::new(), Vec::new());
        let (mut seen, mut pushed) = (Vec::new(), 0);
        'all: for part in $bytes.chunks($chunk) {
            reader.bytes.push(part.to_vec());
            pushed += part.len();
            loop {
                let next = reader.next();
                if next.is_ok() {
                    seen.extend_from_slice(reader.bytes.fresh());
                }
                match next {
                    Ok(Some($bulk(_))) => {}
                    Ok(Some(piece)) => pieces.push(format!("{piece:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        pieces.push(error.to_string());
                        break 'all;
                    }
                }
            }
            out.extend_from_slice(&reader.bytes.ready());
        }
        seen.extend(reader.bytes.unseen().concat());
        assert_eq!(seen, &$bytes[..pushed]);
        (pieces, out)
    }};
}

/// SFTP in both directions: the same however it is split, and nothing but what came is handed on.
/// The first byte says how it is split.
pub fn sftp(data: &[u8]) {
    let Some((chunk, bytes)) = data.split_first() else {
        return;
    };
    let (chunk, whole) = (usize::from(*chunk) + 1, bytes.len().max(1));
    let (pieces, out) = sftp_pieces!(Requests, Request::Data, bytes, whole);
    let (split, parts) = sftp_pieces!(Requests, Request::Data, bytes, chunk);
    assert_eq!(pieces, split);
    assert!(bytes.starts_with(&out) && bytes.starts_with(&parts));
    let (pieces, out) = sftp_pieces!(Replies, Reply::Bytes, bytes, whole);
    let (split, parts) = sftp_pieces!(Replies, Reply::Bytes, bytes, chunk);
    assert_eq!(pieces, split);
    assert!(bytes.starts_with(&out) && bytes.starts_with(&parts));
    let mut reader = Requests::default();
    reader.bytes.push(bytes.to_vec());
    while let Ok(Some(request)) = reader.next() {
        if let Request::Operate(_, operation) = request {
            assert!(operation.kind.starts_with("sftp."));
            let text = operation.text(|_| None);
            assert!(!text.chars().any(ascribe_core::text::is_unsafe));
        }
    }
    let quoted = quote::quote(bytes);
    assert_eq!(quote::unquote(&quoted).as_deref(), Some(bytes));
}

/// The classic scp protocol from both sides. The first byte says how the source is split, the second
/// how much of the rest is what the sink answers.
pub fn scp(data: &[u8]) {
    let [chunk, answers, bytes @ ..] = data else {
        return;
    };
    let (answers, source) = bytes.split_at(usize::from(*answers).min(bytes.len()));
    let run = |chunk: usize| {
        let (mut scp, mut out) = (Scp::new(Direction::ToTarget), Vec::new());
        let (mut pieces, mut seen) = (Vec::new(), 0);
        scp.sink.push(answers.to_vec());
        for part in source.chunks(chunk) {
            scp.source.push(part.to_vec());
            loop {
                let next = scp.next_source();
                let fresh = scp.source.fresh();
                assert!(
                    source
                        .get(seen..)
                        .is_some_and(|rest| rest.starts_with(fresh))
                );
                seen += fresh.len();
                match next {
                    Ok(None) => break,
                    Ok(Some(Source::Data(_))) => {}
                    Ok(Some(Source::Wait)) => {
                        out.extend_from_slice(&scp.source.ready());
                        match scp.next_sink() {
                            Ok(Some(piece)) => pieces.push(format!("{piece:?}")),
                            Ok(None) => return (pieces, out),
                            Err(error) => {
                                pieces.push(error.to_string());
                                return (pieces, out);
                            }
                        }
                        scp.sink.ready();
                    }
                    Ok(Some(piece)) => pieces.push(format!("{piece:?}")),
                    Err(error) => {
                        pieces.push(error.to_string());
                        return (pieces, out);
                    }
                }
            }
            out.extend_from_slice(&scp.source.ready());
        }
        (pieces, out)
    };
    let (whole, split) = (run(source.len().max(1)), run(usize::from(*chunk) + 1));
    assert_eq!(whole.0, split.0);
    assert!(source.starts_with(&whole.1) && source.starts_with(&split.1));
}

/// SSH public keys: a key that was read is read again as itself.
pub fn public_key(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(key) = parse_public_key(text)
    {
        assert_eq!(parse_public_key(&key.0).as_ref(), Ok(&key));
        assert_eq!(key.fingerprint().len(), "SHA256:".len() + 43);
    }
}

/// Armoured signatures: white space is free, what is inside comes back.
pub fn armour(data: &[u8]) {
    if let Some(text) = text(data)
        && let Ok(blob) = dearmour(text)
    {
        let signed = Signed {
            text: String::new(),
            sig: encoding::Bytes(blob),
        };
        assert_eq!(dearmour(&signed.armoured()), Ok(signed.sig.0));
    }
}

/// Signature blobs. The corpus signs `{"a":1}`.
pub fn sshsig(data: &[u8]) {
    if let Some(key) = SshSignatures.sshsig("ascribe.request.v1", b"{\"a\":1}", data) {
        assert_eq!(parse_public_key(&key.0), Ok(key));
        assert_eq!(
            SshSignatures.sshsig("ascribe.approval.v1", b"{\"a\":1}", data),
            None
        );
    }
}

/// What stands in a claim for the commitment to the session key.
const COMMITMENT: &str = "COMMITMENT";

/// Issuer and audience of the corpus's tokens, a session key, and the claims that are asked for.
const ISSUER: &str = "https://id.example/11111111-2222-4333-8444-555555555555";
const AUDIENCE: &str = "ascribe";
const SESSION_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOHU8jiIKT4KL4NzRwX9lPp7HrRgmnONpiNqoZ9HM0oI";
const FACTS: [&str; 3] = ["a/b", "kubernetes.io/namespace", "repository_id"];
/// Groups that are looked for, with the claim that lists them.
const GROUPS: [(&str, &str); 2] = [("groups", "staff"), ("realm_access/roles", "DBA")];

/// The provider of this kind.
fn provider(kind: ProviderKind) -> Provider {
    Provider {
        algorithms: vec!["RS256".into(), "ES256".into(), "EdDSA".into()],
        audience: match kind {
            ProviderKind::Gitlab => proof::AUDIENCE.into(),
            _ => AUDIENCE.into(),
        },
        authn: None,
        issuer: ISSUER.into(),
        jwks_uri: String::new(),
        kind,
        max_keys_age_seconds: None,
        name: String::new(),
        observers: None,
        withdrawn: false,
    }
}

/// What is asked of every token.
fn asked(key: &SshKey) -> TokenAsked<'_> {
    TokenAsked {
        key,
        rz: &[7; 32],
        facts: &FACTS,
        groups: &GROUPS,
        managers: &[],
    }
}

/// What a token of this kind says.
fn judge(kind: ProviderKind, keys: &[u8], token: &[u8]) -> Result<Claims, Denied> {
    let provider = provider(kind);
    let key = SshKey(SESSION_KEY.into());
    let asked = asked(&key);
    let checked = SshSignatures.token(&provider, keys, token, &asked);
    // What is looked at before anything is checked finds what is good.
    let said = Unchecked::read(token);
    if let Ok(claims) = &checked
        && kind != ProviderKind::SpiffeX509
    {
        let same = |said: &Unchecked| {
            said.is_meant_for(&provider) && said.facts(&FACTS).as_ref() == Some(&claims.facts)
        };
        assert!(said.is_ok_and(|said| same(&said)));
    }
    checked
}

/// Signs a header and claims, each on a line after the provider's kind, with a key that is known, so that what
/// comes after the signature is reached. None for what is not in this form.
pub fn signed_token(data: &[u8]) -> Option<Result<Claims, Denied>> {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let kind = encoding::decode(&[b"\"", parts.next()?, b"\""].concat()).ok()?;
    let header = parts.next()?;
    let commitment = key_commitment(&SshKey(SESSION_KEY.into()), &[7; 32]);
    let claims = text(parts.next()?)?.replace(COMMITMENT, &commitment);
    if kind == ProviderKind::Gitlab {
        return Some(proof::signed(header, claims.as_bytes()));
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let x = encoding::base64url(key.verifying_key().as_bytes());
    let keys = format!(r#"{{"keys":[{{"crv":"Ed25519","kid":"k","kty":"OKP","x":"{x}"}}]}}"#);
    let signed = format!(
        "{}.{}",
        encoding::base64url(header),
        encoding::base64url(claims.as_bytes())
    );
    let signature = ed25519_dalek::Signer::sign(&key, signed.as_bytes());
    let token = format!("{signed}.{}", encoding::base64url(&signature.to_bytes()));
    Some(judge(kind, keys.as_bytes(), token.as_bytes()))
}

/// A token and a JWK Set of an issuer whose private keys nobody has any more.
const PUBLISHED: (&[u8], &[u8]) = (
    include_bytes!("../corpus/token/keys"),
    include_bytes!("../corpus/token/published"),
);

/// What the token says under these keys.
pub fn published(keys: &[u8], token: &[u8]) -> Result<Claims, Denied> {
    judge(ProviderKind::Oidc, keys, token)
}

/// Tokens and JWK Sets.
pub fn token(data: &[u8]) {
    if let Ok(keys) = SshSignatures.provider_keys(data) {
        assert!(keys.len() <= 64);
        assert_eq!(
            keys.iter().collect::<std::collections::BTreeSet<_>>().len(),
            keys.len()
        );
    }
    // What is good is what was signed then; an ECDSA signature has a second spelling.
    let same = token_digest(data) == token_digest(PUBLISHED.1);
    assert!(published(PUBLISHED.0, data).is_err() || same);
    if let Ok(claims) = published(data, PUBLISHED.1) {
        let keys = SshSignatures.provider_keys(data);
        assert!(keys.is_ok_and(|keys| keys.contains(&claims.key)));
    }
    if let Some(Ok(claims)) = signed_token(data) {
        assert!(claims.issued < claims.expires);
        assert!(claims.facts.is_sorted_by(|a, b| a.claim < b.claim));
        assert!(
            claims
                .facts
                .iter()
                .all(|fact| FACTS.contains(&fact.claim.as_str()))
        );
        assert!(
            claims
                .groups
                .iter()
                .all(|group| { GROUPS.contains(&(group.claim.as_str(), group.value.as_str())) })
        );
        let again = encoding::encode(&claims).map(|bytes| encoding::decode(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if claims == again));
    }
}

/// Bundles against a trust policy: what is verified has the form of a bundle, and any report can
/// be printed.
pub fn verify_bundle(data: &[u8]) {
    let trust = TrustPolicy::parse(TRUST);
    assert!(trust.is_ok(), "the trust policy of the corpus");
    let Ok(trust) = trust else { return };
    let report = ascribe_verify::verify_bundle(data, &trust);
    assert!(!ascribe_verify::render(&report).is_empty());
    if report.problems.is_empty() {
        assert!(Bundle::parse(data).is_ok());
    }
}

/// Texts of SQL, the first byte of which says how the rest is read. Ranges are in order and apart, and
/// a statement by itself is what it was among others.
pub fn sql(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else {
        return;
    };
    let encoding = match first & 3 {
        0 | 1 => Encoding::Utf8,
        2 => Encoding::AsciiSafe,
        _ => Encoding::Other,
    };
    let reading = Reading {
        encoding,
        standard_conforming_strings: first & 4 == 0,
        replication: first & 8 != 0,
    };
    let mut end = 0;
    for statement in ascribe_sql::read(text, reading).unwrap_or_default() {
        assert!(end <= statement.range.start && statement.range.end <= text.len());
        assert!(!statement.classes.is_empty());
        end = statement.range.end;
        let own = &text[statement.range.clone()];
        let alone = ascribe_sql::read(own, reading).expect("a statement by itself");
        assert_eq!(alone.len(), 1);
        let same = &alone[0];
        assert_eq!(same.range, 0..own.len());
        assert_eq!(same.classes, statement.classes);
        assert_eq!(same.flags, statement.flags);
        assert_eq!(same.objects, statement.objects);
    }
}

/// Logs of PostgreSQL, the first byte of which says the format. In pieces they say what they say whole.
pub fn pglog(bytes: &[u8]) {
    let Some((first, log)) = bytes.split_first() else {
        return;
    };
    let format = match first % 3 {
        0 => Format::Csv,
        1 => Format::Json,
        _ => Format::Stderr,
    };
    let read = |size: usize| -> Records {
        let mut reader = Reader::new(format);
        let mut records: Records = log
            .chunks(size)
            .flat_map(|piece| reader.push(piece))
            .collect();
        records.extend(reader.finish());
        records
    };
    let whole = read(log.len().max(1));
    assert_eq!(read(7), whole);
    assert!(whole.len() <= log.iter().filter(|byte| **byte == b'\n').count() + 1);
}
