"""A client of libpq that logs in by OAUTHBEARER: `oauth_client.py LIBPQ SQL`.

It connects to CONNECT and shows TOKEN, where that is set. What libpq asks for it with goes to standard error as
`asked URI SCOPE`, the statement's one value to standard output.
"""

import ctypes
import os
import sys


class Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("poll", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
BEARER_TOKEN = 1

library, sql = sys.argv[1:]
libpq = ctypes.CDLL(library)
for name in ["PQconnectdb", "PQexec"]:
    getattr(libpq, name).restype = ctypes.c_void_p
for name in ["PQerrorMessage", "PQresultErrorMessage", "PQgetvalue"]:
    getattr(libpq, name).restype = ctypes.c_char_p
# Outlives the hook, which only points to it.
token = os.environ.get("TOKEN", "").encode()


def supply(kind, _connection, data):
    if kind != BEARER_TOKEN or not token:
        return 0
    request = ctypes.cast(data, ctypes.POINTER(Request)).contents
    told = [request.openid_configuration, request.scope]
    print("asked", *[(text or b"-").decode() for text in told], file=sys.stderr)
    request.token = token
    return 1


hook = Hook(supply)
if hasattr(libpq, "PQsetAuthDataHook"):
    libpq.PQsetAuthDataHook(hook)
connection = ctypes.c_void_p(libpq.PQconnectdb(os.environ["CONNECT"].encode()))
if libpq.PQstatus(connection) != 0:
    print(libpq.PQerrorMessage(connection).decode(), file=sys.stderr)
    sys.exit(2)
result = ctypes.c_void_p(libpq.PQexec(connection, sql.encode()))
if libpq.PQntuples(result) != 1:
    print(libpq.PQresultErrorMessage(result).decode(), file=sys.stderr)
    sys.exit(1)
print(libpq.PQgetvalue(result, 0, 0).decode())
libpq.PQfinish(connection)
