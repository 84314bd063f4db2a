"""What stands behind a gateway in the tests: a scripted backend that may do anything a socket can, and the gateway itself."""
import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field

import harness


@dataclass
class Request:
    line: str
    headers: list  # (name, value) in order, names as sent
    body: bytes
    raw_head: bytes = b""
    connection: int = 0

    @property
    def method(self):
        return self.line.split(" ")[0]

    @property
    def target(self):
        return self.line.split(" ")[1]

    def get(self, name):
        """All values of a header."""
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def one(self, name):
        values = self.get(name)
        assert len(values) <= 1, f"{name} {len(values)} times: {values}"
        return values[0] if values else None


class Closed(Exception):
    """The other side has closed."""


class Wire:
    """A connection, read by pieces."""

    def __init__(self, sock, number=0):
        self.sock = sock
        self.number = number
        self.buffer = b""

    def fill(self):
        got = self.sock.recv(65536)
        if not got:
            raise Closed
        self.buffer += got

    def until(self, mark):
        while mark not in self.buffer:
            self.fill()
        head, self.buffer = self.buffer.split(mark, 1)
        return head + mark

    def exactly(self, n):
        while len(self.buffer) < n:
            self.fill()
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def chunks(self):
        body = b""
        while True:
            n = int(self.until(b"\r\n").split(b";")[0], 16)
            part = self.exactly(n + 2)
            if n == 0:
                return body
            body += part[:-2]

    def head(self):
        raw = self.until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = [(line.split(":", 1)[0], line.split(":", 1)[1].strip()) for line in lines]
        return Request(first, headers, b"", raw, self.number)

    def body_of(self, request):
        if request.one("transfer-encoding"):
            return self.chunks()
        return self.exactly(int(request.one("content-length") or 0))


def answer(status=200, body=b"{}", headers=(), reason="OK"):
    """The bytes of a plain answer."""
    head = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    head += [f"{n}: {v}" for n, v in headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def echo(wire, request):
    """What arrived, as JSON."""
    wire.sock.sendall(answer(body=json.dumps({
        "line": request.line, "headers": request.headers, "body": request.body.decode("latin-1")}).encode()))


class Backend:
    """`act(wire, request)` answers each request whose body has been read; `on_head` may answer before that: if it
    returns True the body is not read. Checks of /health/ready are answered 200 unless `healthy` is False."""

    def __init__(self, act=echo, on_head=None):
        self.act = act
        self.on_head = on_head
        self.healthy = True
        self.requests = []
        self.connections = 0
        self.lock = threading.Lock()
        self.sockets = set()
        self.open()

    def open(self, port=0):
        while True:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", port))
            self.port = self.listener.getsockname()[1]
            if port or harness.claim(self.port):
                break
            self.listener.close()  # somebody who is about to listen there has it
        self.listener.listen(256)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        """Stops listening and cuts all connections."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def cut(self):
        with self.lock:
            for s in self.sockets:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                number = self.connections
                self.sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock, number)
        try:
            while True:
                request = wire.head()
                if request.target == "/health/ready":
                    sock.sendall(answer() if self.healthy else answer(503, reason="No"))
                    continue
                with self.lock:
                    self.requests.append(request)
                if self.on_head and self.on_head(wire, request):
                    continue
                request.body = wire.body_of(request)
                if self.act(wire, request) is False:
                    break
        except (Closed, OSError):
            pass
        finally:
            with self.lock:
                self.sockets.discard(sock)
            sock.close()


def poll(check, seconds=10.0, what="it"):
    """The first true value of check() within the time."""
    end = time.monotonic() + seconds
    while True:
        got = check()
        if got:
            return got
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)


@dataclass
class Config:
    """The YAML of a gateway."""
    backends: list = field(default_factory=list)  # dicts
    balancer: str = ""  # lines of load_balancer, two blanks in
    rest: str = ""  # top-level lines

    def text(self):
        out = ["load_balancer:", self.balancer.rstrip("\n")] if self.balancer else ["load_balancer:"]
        if self.backends:
            out.append("  backends:")
        for b in self.backends:
            lines = [f"{k}: {v}" for k, v in b.items()]
            out += [f"    - {lines[0]}"] + [f"      {line}" for line in lines[1:]]
        return "\n".join(out) + "\n" + self.rest


class Gateway(harness.Server):
    def __init__(self, directory, config, env=None, args=()):
        self.config = config
        super().__init__(directory, env=env, args=args)
        self.yaml = self.data.parent / (self.data.name + ".yaml")
        self.write()
        self.args = ["--role", "gateway", "--config", str(self.yaml), *args]

    def write(self):
        self.yaml.write_text(self.config.text())

    def health(self):
        return self.anon.get("/health").json()

    def backends(self, group="api"):
        return {b["name"]: b for b in self.health()["services"]["load_balancer"][group]["backends"]}

    def metric(self, name, **labels):
        """The sum of the series that have these labels."""
        total = 0.0
        for line in self.anon.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def raw(self, data, timeout=20):
        """Sends bytes, returns all that comes until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            s.sendall(data)
            return drain(s)


def drain(sock):
    out = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            got = sock.recv(1 << 20)
            if not got:
                break
            out += got
    return out


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def sanitized():
    with open(harness.BIN, "rb") as f:
        return b"__asan_init" in f.read()
