"""Checks ascribe bundles and exported ledgers from the specifications alone.

    check.py POLICY PATH...

A PATH is a bundle (docs/spec/bundle.md) or a directory as `ascribe ledger export` writes it (C2SP
tlog-tiles). Prints `ok PATH` or `refused PATH: REASON` for each, and exits with 4 after a refusal.

Python's standard library and stock `ssh-keygen` only. Checked: C2SP signed-note and tlog-checkpoint
with Ed25519 (RFC 8032), the tree and its proofs (RFC 6962, RFC 9162), tiles, the encoding of
entries, writers' chains, the law chain, links, counts, statements' SSHSIG signatures, signed heads,
openings. The law itself (who may do what) is not judged here.
"""

import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import sys
import tempfile


class Refused(Exception):
    """The evidence does not hold."""


def demand(holds, reason):
    if not holds:
        raise Refused(reason)


# Ed25519, RFC 8032 section 5.1.7.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


def point(text):
    value = int.from_bytes(text, "little")
    y, sign = value & ((1 << 255) - 1), value >> 255
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = add(q, p)
        p = add(p, p)
        n >>= 1
    return q


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def ed25519(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    key, r = point(public), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= L:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(digest, "little") % L
    left, right = times(s, BASE), add(r, times(k, key))
    same = lambda i: (left[i] * right[2] - right[i] * left[2]) % P == 0
    return same(0) and same(1)


# Encodings.


def std64(text):
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("not base64")
    demand(base64.b64encode(value).decode() == text, "base64 in another spelling")
    return value


def url64(text):
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Refused("not base64url")
    spelled = base64.urlsafe_b64encode(value).decode().rstrip("=")
    demand(spelled == text, "base64url in another spelling")
    return value


def digest(text):
    value = url64(text)
    demand(len(value) == 32, "a digest has 32 bytes")
    return value


def spell(value):
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def canonical(data):
    """One JSON object in its one spelling (docs/spec/entry.md)."""

    def unique(pairs):
        value = dict(pairs)
        demand(len(value) == len(pairs), "a name is given twice")
        demand(all(name.isascii() for name in value), "a name is not ASCII")
        return value

    def whole(text):
        value = int(text)
        demand(abs(value) < 2**53, "a number is too large")
        return value

    def never(text):
        raise Refused("a number is no integer")

    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=whole,
            parse_float=never,
            parse_constant=never,
        )
    except ValueError:
        raise Refused("not JSON")
    again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    demand(isinstance(value, dict) and again == text, "not in canonical form")
    return value


def exactly(value, *names):
    demand(isinstance(value, dict) and set(value) == set(names), f"not {names}")
    return [value[name] for name in names]


# RFC 6962 and RFC 9162.


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_hash(leaves):
    """MTH of RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


def included(leaf, index, size, path, root):
    """RFC 9162 section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


# C2SP signed-note, tlog-checkpoint, tlog-policy.


def verifier_key(text):
    name, key_id, key = text.split("+", 2)
    key = std64(key)
    demand(len(key) == 33 and key[0] == 1, "the log's key is not Ed25519")
    expected = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    demand(key_id == expected, "the log's key has another id")
    return name, bytes.fromhex(key_id), key[1:]


class Policy:
    def __init__(self, text):
        self.logs, self.pin, quorum = [], None, None
        demand(text.endswith("\n"), "the policy is cut off")
        for line in text[:-1].split("\n"):
            words = line.split()
            if words[:2] == ["#", "ascribe-first-entry"]:
                self.pin = digest(words[2])
            elif not words or words[0].startswith("#"):
                continue
            elif words[0] == "log":
                self.logs.append(verifier_key(words[1]))
            elif words[0] == "quorum":
                quorum = words[1]
            else:
                raise Refused(f"this checker knows no `{words[0]}` in a policy")
        demand(quorum == "none", "this checker knows no quorum but `none`")
        demand(self.pin is not None, "the policy pins no first entry")

    def checkpoint(self, note):
        """Origin, size and root of a note that a trusted log signed."""
        text, found, lines = note.rpartition("\n\n")
        demand(found and lines.endswith("\n"), "not a signed note")
        text += "\n"
        demand(all(c == "\n" or c >= " " for c in note), "a control character")
        signed = set()
        for line in lines[:-1].split("\n"):
            dash, name, signature = (line.split(" ") + ["", ""])[:3]
            demand(dash == "\u2014" and name and line.count(" ") == 2, "a signature line")
            signature = std64(signature)
            demand(len(signature) > 4, "a signature line")
            for known, key_id, key in self.logs:
                if known == name and key_id == signature[:4]:
                    good = ed25519(key, text.encode(), signature[4:])
                    demand(good, "the log's signature does not verify")
                    signed.add(name)
        parts = text.split("\n")
        demand(len(parts) == 4 and parts[3] == "", "not a checkpoint")
        origin, size, root = parts[:3]
        demand(origin in signed, "no trusted log signed the checkpoint")
        demand(size == "0" or size.isdigit() and size[0] != "0", "not a size")
        root = std64(root)
        demand(len(root) == 32, "not a root")
        return origin, int(size), root


# Sealed content.

# Unicode's White_Space.
SPACE = set(map(chr, [*range(9, 14), 32, 133, 160, 5760, *range(8192, 8203)]))
SPACE |= set(map(chr, [8232, 8233, 8239, 8287, 12288]))


def facts(text):
    visible = [c for c in text if c not in SPACE]
    words = "".join(" " if c in SPACE else c for c in text).split(" ")
    return {
        "chars": len(visible),
        "words": sum(1 for word in words if word),
        "distinct": len(set(visible)),
    }


PROSE = ["justification", "remark", "reason", "emergency", "finding", "confirmed", "task"]
# What else a statement of that type seals: elsewhere the same word is in the clear.
PLAIN = {
    "person-add": "name",
    "read": "query",
    "login": "token",
    "directory-file": "file",
    "reconciliation": "findings",
}


def fingerprint(key):
    """As OpenSSH prints it."""
    blob = base64.b64decode(key.split(" ")[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def commitments(body):
    """Each commitment in order: field, digest, and the stated facts of prose."""
    ((kind, body),) = body.items()
    if kind == "genesis":
        return [("name", admin["name"], None) for admin in body["admins"]]
    if kind == "statement":
        ((tag, said),) = json.loads(body["text"])["say"].items()
        found = []
        for field in PROSE:
            if field in said:
                prose = said[field]
                stated = {name: prose[name] for name in ("chars", "words", "distinct")}
                found.append((field, prose["commit"], stated))
        if tag in PLAIN:
            found.append((PLAIN[tag], said[PLAIN[tag]], None))
        return found
    if kind == "session.open":
        return [("from", body["from"], None)]
    if kind == "intent":
        found = [(field, body[field], None) for field in ("command", "env") if field in body]
        if "values" in body.get("sql", {}):
            found.append(("values", body["sql"]["values"], None))
        return found
    if kind == "evidence":
        chunks = body["chunks"]
        return [(f"{c['stream']}/{c['seq']}", c["commit"], None) for c in chunks]
    if kind == "directory.change" and "resource" in body:
        return [("resource", body["resource"], None)]
    if kind == "refusal" and "detail" in body:
        return [("detail", body["detail"], None)]
    return []


def open_commitments(entries, openings):
    left = {}
    before = -1
    for index, opening in openings:
        field, salt, content = exactly(opening, "field", "salt", "bytes")
        salt, content = url64(salt), url64(content)
        demand(index >= before and index in entries, "an opening without its entry")
        before = index
        message = b"ascribe/commit/v1\0" + field.encode() + b"\0" + content
        commit = spell(hmac.new(salt, message, hashlib.sha256).digest())
        ahead = left.setdefault(index, commitments(entries[index]["body"]))
        while ahead:
            name, wanted, stated = ahead.pop(0)
            if (name, wanted) == (field, commit):
                break
        else:
            raise Refused(f"entry {index}: an opening that does not match")
        demand(len(salt) == 32, "a salt has 32 bytes")
        text = content.decode("utf-8", "replace")
        demand(stated in (None, facts(text)), f"entry {index}: prose is not as stated")


# Chains, links and signatures.

LAW = {"genesis", "statement", "grant", "grant.extend", "session.open", "session.close"}
LAW |= {"provider.keys", "directory.change"}
FRAME = {"v", "log", "id", "at", "writer", "law", "refs", "body"}


class Log:
    """Follows entries in order, whole or as an excerpt about one session."""

    def __init__(self, origin, session):
        self.origin, self.session = origin, session
        self.entries, self.hashes, self.law, self.at, self.version = {}, {}, None, "", 1
        self.chains, self.writers, self.keys = {}, {}, {}
        # Delegations: in whose name and to which key; and the keys that took one.
        self.delegated, self.agents, self.taken = {}, {}, {}
        self.statements, self.seen, self.ids, self.counts = [], [], set(), {}
        self.owner, self.closed = {}, set()
        # Which provider or directory an entry set, or said yes to; the same by the statement.
        self.sets, self.asked = {}, {}

    def take(self, index, data):
        demand(len(data) <= 65535, "an entry is too large")
        entry = canonical(data)
        wanted = FRAME - ({"law"} if index == 0 else set())
        demand(wanted - {"refs"} <= set(entry) <= wanted, f"entry {index}: its members")
        demand(entry["v"] in (1, 2, 3, 4) and entry["log"] == self.origin, f"entry {index}: its frame")
        demand(entry["v"] >= self.version, f"entry {index}: its version goes back")
        demand(entry["at"] >= self.at, f"entry {index}: time goes back")
        demand(entry["id"] not in self.ids, f"entry {index}: its id is taken")
        demand(entry.get("law") == self.law, f"entry {index}: the law chain")
        self.at, self.version = entry["at"], entry["v"]
        self.ids.add(entry["id"])
        here = spell(leaf_hash(data))
        self.writer(index, entry["writer"], here)
        for ref in entry.get("refs", []):
            _, parent, at = exactly(ref, "rel", "hash", "index")
            demand(at < index, f"entry {index}: a link forward")
            known = self.hashes.get(at)
            absent = known is None and self.session is not None
            demand(absent or known == parent, f"entry {index}: a link to something else")
        ((kind, body),) = entry["body"].items()
        demand((kind == "genesis") == (index == 0), "there is one first entry")
        read = False
        if kind == "statement":
            read = self.statement(index, body)
        self.count(index, kind, body)
        if kind == "genesis":
            for admin in body["admins"]:
                self.keys.setdefault(admin["person"], set()).update(admin["keys"])
            self.writers = {w["id"]: url64(w["key"]) for w in body["writers"]}
        if kind == "session.open":
            self.login(index, body, entry.get("refs", []))
        if kind in ("directory.refusal", "login.refusal"):
            named = "provider" if kind == "login.refusal" else "directory"
            self.counted(index, entry, body, named)
        if kind == "head":
            self.head(index, entry["writer"]["id"], body)
        if kind == "cosigned":
            # What witnesses cosigned is of this tree, as what signers had seen.
            _, size, root = body["note"].split("\n")[:3]
            demand(size == str(body["size"]), f"entry {index}: the cosigned size")
            self.seen.append((index, body["size"], base64.b64decode(root, validate=True)))
        if (kind in LAW and not read) or body.get("settles"):
            self.law = here
        self.entries[index], self.hashes[index] = entry, here

    def writer(self, index, writer, here):
        names = ("id", "seq", "prev") if writer.get("seq") else ("id", "seq")
        exactly(writer, *names)
        last = self.chains.get(writer["id"])
        if last is None:
            follows = writer["seq"] == 0 or self.session is not None
        elif last[0] + 1 == writer["seq"]:
            follows = last[1] == writer["prev"]
        else:
            follows = self.session is not None and writer["seq"] > last[0]
        demand(follows, f"entry {index}: its writer's chain")
        self.chains[writer["id"]] = (writer["seq"], here)

    def statement(self, index, signed):
        text, signature = exactly(signed, "text", "sig")
        say = canonical(text.encode())
        names = ("v", "log", "by", "at", "id", "seen", "say")
        _, log, by, _, _, seen, said = exactly(say, *names)
        demand(log == self.origin, f"entry {index}: a statement for another log")
        ((kind, what),) = said.items()
        self.seen.append((index, seen["size"], digest(seen["root"])))
        signature = url64(signature)
        keys = self.signers(by, kind, what, signature)
        self.statements.append((index, kind, text, signature, sorted(keys)))
        if kind == "delegation":
            self.delegated[say["id"]] = (by, what["key"])
        if kind == "acceptance":
            self.agents.setdefault(by, set()).update(keys)
            self.taken[what["of"]] = index
        if kind == "login":
            self.keys.setdefault(by, set()).update(keys)
        if kind == "person-add":
            self.keys.setdefault(what["person"], set()).update(what["keys"])
        if kind == "key-add":
            self.keys.setdefault(what["person"], set()).add(what["key"])
        if kind == "key-revoke":
            self.keys.get(what["person"], set()).discard(what["key"])
        if kind in ("provider-set", "directory-set"):
            self.sets[index] = self.asked[say["id"]] = (kind.removesuffix("-set"), what["name"])
        if kind == "approval" and what["of"] in self.asked:
            self.sets[index] = self.asked[what["of"]]
        return kind == "read"

    def signers(self, by, kind, what, signature):
        """The keys of which one must have signed."""
        if kind == "acceptance":
            person, key = self.delegated.get(what["of"], (None, None))
            return {key} if person == by else set()
        if kind == "login":
            # It introduces its key, which the signature holds (OpenSSH PROTOCOL.sshsig).
            start = len("SSHSIG") + 4
            (length,) = struct.unpack_from(">I", signature, start)
            blob = signature[start + 4 : start + 4 + length]
            (length,) = struct.unpack_from(">I", blob)
            return {f"{blob[4 : 4 + length].decode()} {base64.b64encode(blob).decode()}"}
        keys = set(self.keys.get(by, ()))
        if kind in ("delegation", "delegation-revoke", "connect"):
            keys |= self.agents.get(by, set())
        return keys

    def login(self, index, body, refs):
        """The key that logged in: the person's, or the agent's that the session names."""
        if "certificate" in body or "login" in body:
            return
        keys = self.keys.get(body["person"], set())
        if "delegation" in body:
            named = [ref["index"] for ref in refs if ref["rel"] == "acceptance"]
            taken = [self.taken.get(body["delegation"])]
            demand(named == taken, f"entry {index}: another acceptance")
            person, key = self.delegated.get(body["delegation"], (None, None))
            keys = {key} & self.agents.get(body["person"], set()) if person == body["person"] else set()
        demand(body["key"] in map(fingerprint, keys), f"entry {index}: the login's key")

    def counted(self, index, entry, body, named):
        """How many refusals the server counts, by reason, of a provider or a directory that there is, or of none."""
        demand(set(body) - {named} == {"from", "refused", "until"}, f"entry {index}: its body")
        demand(entry["writer"]["id"] == "server", f"entry {index}: counted by another")
        demand(body["from"] <= body["until"] <= entry["at"], f"entry {index}: when it was refused")
        found = [exactly(one, "code", "count") for one in body["refused"]]
        codes = [code for code, _ in found]
        demand(1 <= len(codes) <= 64 and codes == sorted(set(codes)), f"entry {index}: the codes")
        demand(all(count > 0 for _, count in found), f"entry {index}: a count of none")
        parents = [(ref["rel"], self.sets.get(ref["index"])) for ref in entry.get("refs", [])]
        wanted = [(named, (named, body[named]))] if named in body else []
        demand(parents == wanted, f"entry {index}: its parent")

    def head(self, index, writer, head):
        seq, hash_, sig = exactly(head, "seq", "hash", "sig")
        message = f"ascribe/head/v1\n{self.origin}\n{writer}\n{seq}\n{hash_}\n"
        good = ed25519(self.writers.get(writer, b""), message.encode(), url64(sig))
        demand(good, f"entry {index}: the signed head")

    def count(self, index, kind, body):
        session = body.get("session")
        if kind == "intent":
            self.owner[body["action"]] = session
        if kind in ("outcome", "evidence"):
            session = self.owner.get(body["action"])
            demand(session is not None, f"entry {index}: of no action")
        if kind in ("intent", "outcome", "evidence", "refusal") and session:
            demand(session not in self.closed, f"entry {index}: after its session's close")
            actions, entries = self.counts.get(session, (0, 0))
            self.counts[session] = (actions + (kind == "intent"), entries + 1)
        if kind == "session.close":
            demand(session not in self.closed, f"entry {index}: closed twice")
            self.closed.add(session)
            counted = (body["actions"], body["entries"])
            whole = self.session in (None, session)
            expected = self.counts.get(session, (0, 0))
            demand(not whole or counted == expected, f"entry {index}: the counts")

    def check_signatures(self):
        """Each statement by stock `ssh-keygen`."""
        with tempfile.TemporaryDirectory() as work:
            for index, kind, text, signature, keys in self.statements:
                body = base64.b64encode(signature).decode()
                lines = [body[i : i + 70] for i in range(0, len(body), 70)]
                begin, end = ("-----%s SSH SIGNATURE-----" % word for word in ("BEGIN", "END"))
                allowed, sig = (os.path.join(work, name) for name in ("allowed", "sig"))
                with open(sig, "w") as file:
                    file.write("\n".join([begin, *lines, end, ""]))
                with open(allowed, "w") as file:
                    file.writelines(f"signer {key}\n" for key in keys)
                command = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "signer"]
                command += ["-n", f"ascribe.{kind}.v1", "-s", sig]
                done = subprocess.run(command, input=text.encode(), capture_output=True)
                demand(done.returncode == 0, f"entry {index}: the signature of a {kind}")


def check_bundle(data, policy):
    try:
        text = data.decode("utf-8")
    except ValueError:
        raise Refused("not UTF-8")
    demand(text.endswith("\n"), "cut off")
    lines = [canonical(line.encode()) for line in text[:-1].split("\n")]
    demand(len(lines) >= 2, "no checkpoint")
    version, name, session = exactly(lines[0], "bundle", "log", "session")
    demand(version == 1, "an unknown version")
    (note,) = exactly(lines[1], "checkpoint")
    origin, size, root = policy.checkpoint(note)
    demand(origin == name, "of another log")
    log, openings, before = Log(origin, session), [], -1
    for line in lines[2:]:
        if "entry" not in line:
            index, opening = exactly(line, "index", "opening")
            openings.append((index, opening))
            continue
        entry, index, path = exactly(line, "entry", "index", "proof")
        demand(not openings and index > before, "out of order")
        entry = entry.encode()
        leaf, path = leaf_hash(entry), [digest(step) for step in path]
        demand(included(leaf, index, size, path, root), f"entry {index}: its proof")
        demand(before >= 0 or (index == 0 and leaf == policy.pin), "the first entry")
        before = index
        log.take(index, entry)
    demand(session in log.closed, "the session's end is absent")
    open_commitments(log.entries, openings)
    log.check_signatures()


def read(*path):
    try:
        with open(os.path.join(*path), "rb") as file:
            return file.read()
    except OSError:
        raise Refused(f"no {path[-1]}")


def tile_path(n):
    """C2SP tlog-tiles: groups of three digits, all but the last with an x."""
    groups = [f"{n % 1000:03}"]
    while n >= 1000:
        n //= 1000
        groups.insert(0, f"x{n % 1000:03}")
    return "/".join(groups)


def tiles(nodes):
    for n in range(-(-nodes // 256)):
        width = min(256, nodes - 256 * n)
        yield tile_path(n) + ("" if width == 256 else f".p/{width}"), width


def check_tree(directory, policy):
    note = read(directory, "checkpoint")
    try:
        origin, size, root = policy.checkpoint(note.decode())
    except ValueError:
        raise Refused("not UTF-8")
    entries = []
    for path, width in tiles(size):
        data = read(directory, "tile/entries/" + path)
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            demand(len(data) >= 2 + length, f"tile/entries/{path} is cut off")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
        demand(not data, f"tile/entries/{path} is too long")
    leaves = [leaf_hash(entry) for entry in entries]
    demand(leaves and leaves[0] == policy.pin, "the first entry")
    demand(tree_hash(leaves) == root, "the root")
    level, nodes = 0, leaves
    while nodes:
        at = 0
        for path, width in tiles(len(nodes)):
            stored = read(directory, f"tile/{level}/{path}")
            expected = b"".join(nodes[at : at + width])
            demand(stored == expected, f"tile/{level}/{path} is not of this tree")
            at += width
        whole = len(nodes) // 256
        nodes = [tree_hash(nodes[256 * n : 256 * (n + 1)]) for n in range(whole)]
        level += 1
    log = Log(origin, None)
    for index, entry in enumerate(entries):
        log.take(index, entry)
    for index, seen, claimed in log.seen:
        demand(seen == 0 or tree_hash(leaves[:seen]) == claimed, f"entry {index}: what was seen")
    log.check_signatures()


def main():
    policy = Policy(read(sys.argv[1]).decode())
    refusals = 0
    for path in sys.argv[2:]:
        try:
            if os.path.isdir(path):
                check_tree(path, policy)
            else:
                check_bundle(read(path), policy)
            print(f"ok {path}")
        except (Refused, KeyError, TypeError, AttributeError, ValueError) as reason:
            refusals += 1
            print(f"refused {path}: {reason!r}")
    sys.exit(4 if refusals else 0)


if __name__ == "__main__":
    main()
