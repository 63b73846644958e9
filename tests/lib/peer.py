# SPDX-License-Identifier: BSD-2-Clause
"""The other side of a connection, made to lie: TLS with a pre-shared key, frames and payloads of docs/wire-protocol.md.

    with Peer.connect(port) as c:                # a client with the right password ...
        c.hello(mode=1); c.wait(WELCOME)
        c.send(BATCH, begin(1, "file") + data(1, 0, b"x") + commit(1, "file", 1))
    server = Server(port, serve)                 # a module daemon: serve(peer) runs in a thread for each replicator that was let in

Nothing here checks what it sends: that is the point. OpenSSL and xxHash are called by ctypes, since Python's ssl had no pre-shared keys before 3.13.
"""
import contextlib
import ctypes
import ctypes.util
import hashlib
import os
import socket
import struct
import threading

from lib.procs import PASSWORD, USER
from lib.wait import SLOW

HELLO, WELCOME, REFUSE, BATCH, ACK, FAIL, HOLD, SYNC, SYNCED, PING, PONG = range(1, 12)
LIST, LISTING, SUMS, SUMSET, MODULES, MODLIST, NOTICE = range(12, 19)
INF = 2**64 - 1
TLS12, TLS13 = 0x0303, 0x0304
AES128, AES256, CHACHA = ("TLS_AES_128_GCM_SHA256", b"\x13\x01"), ("TLS_AES_256_GCM_SHA384", b"\x13\x02"), ("TLS_CHACHA20_POLY1305_SHA256", b"\x13\x03")
GREETING = b"TANDEM1\n" + struct.pack("<II", 1, 1) + b"\1\2\3\4\5\6\7\x08"

# --- libraries ---

_ssl, _crypto, _xxh = (ctypes.CDLL(ctypes.util.find_library(name) or name) for name in ("ssl", "crypto", "xxhash"))
_P, _I, _S, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_long
_USE = ctypes.CFUNCTYPE(_I, _P, _P, ctypes.POINTER(_P), ctypes.POINTER(_S), ctypes.POINTER(_P))
_FIND = ctypes.CFUNCTYPE(_I, _P, _P, _S, ctypes.POINTER(_P))
for _lib, _name, _result, *_args in (
        (_ssl, "TLS_client_method", _P), (_ssl, "TLS_server_method", _P), (_ssl, "SSL_CTX_new", _P, _P), (_ssl, "SSL_CTX_free", None, _P),
        (_ssl, "SSL_CTX_ctrl", _L, _P, _I, _L, _P), (_ssl, "SSL_CTX_set_ciphersuites", _I, _P, ctypes.c_char_p), (_ssl, "SSL_new", _P, _P),
        (_ssl, "SSL_CTX_set_psk_use_session_callback", None, _P, _USE), (_ssl, "SSL_CTX_set_psk_find_session_callback", None, _P, _FIND),
        (_ssl, "SSL_free", None, _P), (_ssl, "SSL_set_fd", _I, _P, _I), (_ssl, "SSL_connect", _I, _P), (_ssl, "SSL_accept", _I, _P),
        (_ssl, "SSL_read", _I, _P, _P, _I), (_ssl, "SSL_write", _I, _P, ctypes.c_char_p, _I), (_ssl, "SSL_get_error", _I, _P, _I),
        (_ssl, "SSL_session_reused", _I, _P), (_ssl, "SSL_SESSION_new", _P), (_ssl, "SSL_SESSION_set1_master_key", _I, _P, ctypes.c_char_p, _S),
        (_ssl, "SSL_SESSION_set_cipher", _I, _P, _P), (_ssl, "SSL_SESSION_set_protocol_version", _I, _P, _I),
        (_ssl, "SSL_SESSION_set_max_early_data", _I, _P, ctypes.c_uint32), (_ssl, "SSL_CIPHER_find", _P, _P, ctypes.c_char_p),
        (_ssl, "SSL_write_early_data", _I, _P, ctypes.c_char_p, _S, ctypes.POINTER(_S)), (_ssl, "SSL_get_early_data_status", _I, _P),
        (_crypto, "ERR_get_error", ctypes.c_ulong), (_crypto, "ERR_clear_error", None), (_crypto, "ERR_reason_error_string", ctypes.c_char_p, ctypes.c_ulong),
        (_xxh, "XXH3_64bits", ctypes.c_uint64, ctypes.c_char_p, _S)):
    _f = getattr(_lib, _name)
    _f.restype, _f.argtypes = _result, _args


def psk(user=USER, password=PASSWORD):
    """The key of docs/wire-protocol.md."""
    return hashlib.scrypt(password.encode(), salt=b"tandem psk 1\0" + user.encode(), n=16384, r=8, p=1, maxmem=64 << 20, dklen=32)


class Refused(OSError):
    """The other side, or TLS, ended it."""


class Peer:
    """One end of a TLS connection over a connected socket, blocking."""

    def __init__(self, sock, server, key, user=USER, module="m", suite=AES128, versions=(TLS13, TLS13), early=None):
        """key None: no pre-shared key is offered. early: bytes to send before the handshake is done. The socket is ours from here on."""
        self.sock, self.identity, self.early_accepted = sock, f"{user}/{module}".encode(), False
        self._in = b""
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(20 * SLOW), 0))
        self._ctx = _ssl.SSL_CTX_new(_ssl.TLS_server_method() if server else _ssl.TLS_client_method())
        _ssl.SSL_CTX_ctrl(self._ctx, 123, versions[0], None)
        _ssl.SSL_CTX_ctrl(self._ctx, 124, versions[1], None)
        _ssl.SSL_CTX_set_ciphersuites(self._ctx, suite[0].encode())
        self._lock = threading.Lock()  # an SSL object is used by one thread at a time
        self._key, self._suite, self._early = key, suite, early
        if key:
            self._callback = _FIND(self._find) if server else _USE(self._use)
            (_ssl.SSL_CTX_set_psk_find_session_callback if server else _ssl.SSL_CTX_set_psk_use_session_callback)(self._ctx, self._callback)
        self._ssl = _ssl.SSL_new(self._ctx)
        _ssl.SSL_set_fd(self._ssl, sock.fileno())
        try:
            self._handshake(server)
        except OSError:
            self.close()
            raise

    @classmethod
    def connect(cls, port, user=USER, password=PASSWORD, module="m", key=None, **options):
        """A client that was greeted and let in."""
        s = socket.create_connection(("127.0.0.1", port))
        s.settimeout(20 * SLOW)
        greeting = s.recv(24, socket.MSG_WAITALL)
        if len(greeting) != 24:
            s.close()
            raise Refused("no greeting")
        s.settimeout(None)
        return cls(s, False, key or psk(user, password), user, module, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._ssl:
            _ssl.SSL_free(self._ssl)
            _ssl.SSL_CTX_free(self._ctx)
            self._ssl = None
        self.sock.close()

    def _session(self, ssl):
        s = _ssl.SSL_SESSION_new()
        _ssl.SSL_SESSION_set1_master_key(s, self._key, len(self._key))
        _ssl.SSL_SESSION_set_cipher(s, _ssl.SSL_CIPHER_find(ssl, self._suite[1]))
        _ssl.SSL_SESSION_set_protocol_version(s, TLS13)
        if self._early:
            _ssl.SSL_SESSION_set_max_early_data(s, 1 << 16)
        return s

    def _find(self, ssl, _identity, _len, out):
        out[0] = self._session(ssl)
        return 1

    def _use(self, ssl, _md, identity, length, out):
        identity[0] = ctypes.cast(ctypes.c_char_p(self.identity), _P)
        length[0] = len(self.identity)
        out[0] = self._session(ssl)
        return 1

    def _failed(self, what, result):
        error, e = _ssl.SSL_get_error(self._ssl, result), _crypto.ERR_get_error()
        if error in (2, 3):  # WANT_READ, WANT_WRITE: the time-out of the socket
            raise TimeoutError(what)
        reason = _crypto.ERR_reason_error_string(e)
        raise Refused(f"{what}: {reason.decode() if reason else f'error {error}'}")

    def _handshake(self, server):
        _crypto.ERR_clear_error()
        if self._early:
            sent = _S()
            if _ssl.SSL_write_early_data(self._ssl, self._early, len(self._early), ctypes.byref(sent)) != 1:
                self._failed("early data", 0)
        r = (_ssl.SSL_accept if server else _ssl.SSL_connect)(self._ssl)
        if r != 1:
            self._failed("handshake", r)
        self.early_accepted = _ssl.SSL_get_early_data_status(self._ssl) == 2

    # bytes and frames

    def write(self, raw):
        for at in range(0, len(raw), 1 << 20):
            piece = raw[at:at + (1 << 20)]
            _crypto.ERR_clear_error()
            r = _ssl.SSL_write(self._ssl, piece, len(piece))
            if r <= 0:
                self._failed("write", r)

    def read(self, n):
        """Exactly n bytes."""
        scratch = ctypes.create_string_buffer(1 << 16)
        while len(self._in) < n:
            _crypto.ERR_clear_error()
            r = _ssl.SSL_read(self._ssl, scratch, len(scratch))
            if r <= 0:
                self._failed("read", r)
            self._in += scratch.raw[:r]
        out, self._in = self._in[:n], self._in[n:]
        return out

    def send(self, kind, payload=b""):
        self.write(frame(kind, payload))

    def get(self):
        """The next frame: type and payload, expanded (the server of these tests compresses listings)."""
        sent, expanded, kind, method = struct.unpack("<IIBB", self.read(16)[:10])
        payload = self.read(sent)
        return kind, payload if method == 0 else (method, expanded, payload)

    def wait(self, *kinds):
        """The payload of the next frame of one of the types; PING is answered, others are thrown away."""
        while True:
            kind, payload = self.get()
            if kind in kinds:
                return payload
            if kind == PING:
                self.send(PONG, payload)

    def hello(self, mode=1, source=b"S" * 16, mirror="test"):
        self.send(HELLO, struct.pack("<IQI", 1, 0, mode) + string(mirror) + source + position())

    def refusal(self):
        """Wait for REFUSE or the end; the code, None for an end without a word."""
        try:
            return struct.unpack("<I", self.wait(REFUSE)[:4])[0]
        except Refused:
            return None


class Server:
    """A module daemon that is none: serve(peer) for every replicator that connects; `fails` holds what went wrong with others."""

    def __init__(self, port, serve, **options):
        self.serve, self.options, self.fails, self.peers = serve, {"key": psk(), **options}, [], 0
        self.ended = False
        self._socks = []
        self._sock = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                s = self._sock.accept()[0]
            except OSError:
                return
            if self.ended:
                s.close()
                return
            self._socks.append(s)
            self._threads.append(threading.Thread(target=self._one, args=(s,), daemon=True))
            self._threads[-1].start()

    def _one(self, s):
        try:
            s.sendall(GREETING)
            with Peer(s, True, **self.options) as peer:
                self.peers += 1
                self.serve(peer)
        except OSError as e:
            self.fails.append(e)
        finally:
            s.close()

    def cut(self):
        """End the connections that stand."""
        for s in self._socks:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.ended = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.cut()
        for t in self._threads:
            t.join(30 * SLOW)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# --- payloads ---

def frame(kind, payload=b"", method=0, expanded=None):
    return struct.pack("<IIBBHI", len(payload), len(payload) if expanded is None else expanded, kind, method, 0,
                       _xxh.XXH3_64bits(payload, len(payload)) & 0xffffffff) + payload


def string(text):
    text = os.fsencode(text)
    return struct.pack("<H", len(text)) + text + b"\0"


def blob(data_):
    return struct.pack("<I", len(data_)) + data_


def position(journal=b"\0" * 16, epoch=0, seq=0, digest=0):
    return journal + struct.pack("<QQQ", epoch, seq, digest)


def begin(xid, path, mode=1, size=0):
    return struct.pack("<BII", 2, xid, mode) + string(path) + struct.pack("<QQ", 0, size)


def data(xid, off, content):
    return struct.pack("<BIQ", 3, xid, off) + blob(content)


def commit(xid, path, size, mode=0o100600):
    return struct.pack("<BII", 6, xid, 0) + string(path) + struct.pack("<QQIIIqIB", 0, size, mode, os.geteuid(), os.getegid(), 1000, 5, 0)


def list_(ident, path, alone=0):
    return struct.pack("<I", ident) + string(path) + bytes([alone])


def sums(ident, path, block=0, off=0, length=INF):
    return struct.pack("<I", ident) + string(path) + struct.pack("<IQQ", block, off, length) + b"k" * 8


def welcome(flags=1, applied=position(), durable=position(), window=1 << 20, outstanding=(), count=None):
    return (struct.pack("<IQI", 1, 0, flags) + applied + durable + struct.pack("<QI", window, len(outstanding) if count is None else count)
            + b"".join(struct.pack("<Q", n) for n in outstanding) + string("") + string("0" * 36))


def failure(code=13, path="", path2="", xid=0, seq=0, text="a lie"):
    return struct.pack("<IiIQ", code, 0, xid, seq) + string(path) + string(path2) + string(text)


def entry(name, mode=0o100644, size=0, ino=1, target=""):
    return string(name) + struct.pack("<IIIqIQQIQQQ", mode, 0, 0, 1000, 0, size, ino, 1, 0, 0, 0) + string(target)


def listing(ident, entries, last=True, code=0, count=None):
    return struct.pack("<IIBI", ident, code, last, len(entries) if count is None else count) + b"".join(entries)


def sumset(ident, count, last=True, size=0, first=0, code=0, body=None):
    return struct.pack("<IIBQQI", ident, code, last, size, first, count) + (b"\1" * 20 * count if body is None else body)
