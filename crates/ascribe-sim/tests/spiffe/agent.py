"""SPIFFE's Workload API as an agent serves it: gRPC's own server, messages by protobuf.

agent.py SOCKET IDENTITIES: the file has a JSON object, read anew at each call, with `x509` (a list of id, chain and
key: files in DER) and `jwt` (a list of id and the address that signs a token for `audience` and `claims`).
"""

import json
import sys
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TYPES = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "X509SVIDRequest": [],
    "X509SVID": [("spiffe_id", 1, "string"), ("x509_svid", 2, "bytes"), ("x509_svid_key", 3, "bytes"),
                 ("bundle", 4, "bytes"), ("hint", 5, "string")],
    "X509SVIDResponse": [("svids", 1, "X509SVID")],
    "JWTSVIDRequest": [("audience", 1, "strings"), ("spiffe_id", 2, "string")],
    "JWTSVID": [("spiffe_id", 1, "string"), ("svid", 2, "string"), ("hint", 3, "string")],
    "JWTSVIDResponse": [("svids", 1, "JWTSVID")],
}


def described():
    file = descriptor_pb2.FileDescriptorProto(name="workload.proto", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number, label=TYPES.LABEL_OPTIONAL)
            if kind in ("string", "bytes"):
                made.type = TYPES.TYPE_STRING if kind == "string" else TYPES.TYPE_BYTES
                continue
            made.label = TYPES.LABEL_REPEATED
            made.type = TYPES.TYPE_STRING if kind == "strings" else TYPES.TYPE_MESSAGE
            if kind != "strings":
                made.type_name = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in MESSAGES}


message = described()
socket, identities = sys.argv[1:]


def known(kind, context):
    """What the caller is known by. A call without the header is refused (Workload Endpoint 3)."""
    if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
    with open(identities) as file:
        found = json.load(file).get(kind, [])
    if not found:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    return found


def content(path):
    with open(path, "rb") as file:
        return file.read()


def x509(_, context):
    svids = [
        message["X509SVID"](spiffe_id=one["id"], x509_svid=content(one["chain"]), x509_svid_key=content(one["key"]),
                            bundle=content(one["bundle"]))
        for one in known("x509", context)
    ]
    yield message["X509SVIDResponse"](svids=svids)
    # The stream stays open: a new SVID would follow.
    left = threading.Event()
    if context.add_callback(left.set):
        left.wait()


def jwt(request, context):
    svids = []
    for one in known("jwt", context):
        if request.spiffe_id in ("", one["id"]):
            asked = {"audience": request.audience[0], "claims": json.dumps({"sub": one["id"]})}
            with urllib.request.urlopen(one["signer"] + "?" + urllib.parse.urlencode(asked)) as answer:
                svids.append(message["JWTSVID"](spiffe_id=one["id"], svid=answer.read().decode()))
    if not svids:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    return message["JWTSVIDResponse"](svids=svids)


server = grpc.server(ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {
    "FetchX509SVID": grpc.unary_stream_rpc_method_handler(
        x509, message["X509SVIDRequest"].FromString, lambda answer: answer.SerializeToString()),
    "FetchJWTSVID": grpc.unary_unary_rpc_method_handler(
        jwt, message["JWTSVIDRequest"].FromString, lambda answer: answer.SerializeToString()),
}),))
server.add_insecure_port("unix:" + socket)
server.start()
print("listening", flush=True)
server.wait_for_termination()
