"""HTTP/2 frames written by hand, for whatever serves gRPC."""
import socket
import struct
import time

from hpack import Decoder, Encoder

DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INTERNAL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 2, 7, 11


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(m):
    data = m if isinstance(m, bytes) else m.SerializeToString()
    return b"\0" + struct.pack(">I", len(data)) + data


def connect(server):
    """server: has a port."""
    s = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class Hand:
    """A connection whose frames are written by hand."""

    def __init__(self, server, settings=(), begin=True):
        self.server, self.encoder, self.decoder = server, Encoder(), Decoder()
        self.s, self.buffer, self.stream, self.over = connect(server), b"", -1, False
        if begin:
            self.send(PREFACE + frame(SETTINGS, payload=b"".join(struct.pack(">HI", k, v) for k, v in settings)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.s.close()

    def send(self, data):
        """False: the server has closed."""
        try:
            self.s.sendall(data)
        except OSError:
            self.over = True
        return not self.over

    def head(self, path, extra=(), end=False, flags=END_HEADERS, **changes):
        """The bytes of a header block on a new stream."""
        self.stream += 2
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
                  "content-type": "application/grpc", "te": "trailers", **changes}
        block = self.encoder.encode([(k, v) for k, v in fields.items() if v is not None] + list(extra))
        return frame(HEADERS, flags | (END_STREAM if end else 0), self.stream, block)

    def ask(self, m, path, **kw):
        """The bytes of a whole call."""
        return self.head(path, **kw) + frame(DATA, END_STREAM, self.stream, message(m))

    def frames(self, timeout=15.0):
        """What comes, as (kind, flags, stream, payload), until the server closes or the time is up."""
        end = time.monotonic() + timeout
        while True:
            while len(self.buffer) >= 9:
                n = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + n:
                    break
                kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
                payload, self.buffer = self.buffer[9:9 + n], self.buffer[9 + n:]
                yield kind, flags, stream, payload
            self.s.settimeout(max(0.01, end - time.monotonic()))
            try:
                got = self.s.recv(65536)
            except TimeoutError:
                return
            except OSError:
                got = b""
            if not got:
                self.over = True
                return
            self.buffer += got

    def answer(self, stream, timeout=15.0):
        """The header fields (trailers too) of a stream that the server ends."""
        out = {}
        for kind, flags, of, payload in self.frames(timeout):
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                if of == stream:
                    out.update(fields)
            if of == stream and kind == RST:
                out["rst"] = int.from_bytes(payload, "big")
            if of == stream and (kind == RST or flags & END_STREAM and kind in (DATA, HEADERS)):
                return out
        raise AssertionError(f"stream {stream} was not ended: {out}")

    def goaway(self, timeout=20.0):
        """(error, debug text) of the last GOAWAY; then the connection must be over."""
        seen = None
        for kind, _, _, payload in self.frames(timeout):
            if kind == GOAWAY:
                seen = int.from_bytes(payload[4:8], "big"), payload[8:]
        assert self.over, "the connection is still open"
        return seen
