"""The black box and its handles: a real `payflow serve` per Server, httpx clients, users with both credentials.

Nothing here knows the program's inside; it is started, spoken to over HTTP, signalled and killed.
"""
import base64
import fcntl
import hashlib
import hmac
import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
from httpcore.backends.sync import SyncBackend

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get("PAYFLOW_BIN", str(ROOT / "build" / "payflow"))
SECRET = "e2e-only-jwt-secret-0123456789abcdef0123456789"
PASSWORD = "correct horse 9"
UUID7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")
TRUST = ssl.create_default_context()  # one for all clients: each would take 30 ms to make its own, without TLS too
LIVE = []  # servers whose logs are shown when a test fails
_counter = itertools.count(1)


def _send_at_once():
    """httpx sends head and body apart; without TCP_NODELAY each POST would wait 40 ms for a delayed ACK."""
    plain = SyncBackend.connect_tcp

    def connect_tcp(self, *args, **kw):
        stream = plain(self, *args, **kw)
        stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream
    SyncBackend.connect_tcp = connect_tcp


_send_at_once()


_claimed = set()
_claims = []  # the file whose byte of a port's number is locked, opened once: closing any handle of it would give all back


def claim(port):
    """No other test takes it for as long as this process lives, even if nobody listens there yet; false if one has."""
    if not _claims:
        name = Path(tempfile.gettempdir()) / f"payflow-test-ports-{os.getuid()}"
        _claims.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    if port in _claimed:
        return False
    try:
        fcntl.lockf(_claims[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _claimed.add(port)
    return True


def free_port():
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if claim(port):
            return port


def environment(**extra):
    """What a payflow process sees: nothing inherited but PATH, then the test defaults, then extra (None removes)."""
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "BCRYPT_COST": "4" if extra.get("ENV", "dev") == "dev" else "10",
        "RATE_LIMIT": "0",
        "JWT_SECRET": SECRET,
        "LOG_LEVEL": "info",
        "GATEWAY_LISTEN": "off",
        "GRPC_LISTEN": "off",
    }
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        if name in os.environ:
            env[name] = os.environ[name]
    for name, value in extra.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = str(value)
    return env


def cli(*args, env=None, timeout=180, binary=False):
    """Runs `payflow ARGS…`; never raises on a non-zero exit."""
    return subprocess.run([BIN, *map(str, args)], env=env or environment(), timeout=timeout, text=not binary,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False)


class Server:
    def __init__(self, data, env=None, args=(), scheme="http", verify=TRUST, host="127.0.0.1", prefix=()):
        """prefix: words before the command line, of a program that becomes what it is given, such as `ip netns exec`."""
        self.data = Path(data)
        self.data.mkdir(parents=True, exist_ok=True)
        self.env = environment(**(env or {}))
        self.args = list(args)
        self.scheme = scheme
        self.verify = verify
        self.host = host
        self.prefix = list(prefix)
        self.port = free_port()
        self.log_path = self.data.parent / (self.data.name + ".log")
        self.process = None
        self.ready_s = None
        self.admin = None

    @property
    def base(self):
        return f"{self.scheme}://{self.host}:{self.port}"

    def start(self, timeout=60.0):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, BIN, "serve", "--listen", f"{self.host}:{self.port}", "--data", str(self.data), *self.args],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self not in LIVE:
            LIVE.append(self)
        begin = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log_tail()}")
            if self._ready():
                self.ready_s = time.monotonic() - begin
                return self
            if time.monotonic() - begin > timeout:
                raise AssertionError(f"not ready after {timeout} s:\n{self.log_tail()}")
            time.sleep(0.004)

    def _ready(self):
        try:
            if self.scheme != "http":
                return httpx.get(self.base + "/health/ready", verify=self.verify, timeout=2).status_code == 200
            with socket.create_connection((self.host, self.port), timeout=2) as s:
                s.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return s.recv(64).startswith(b"HTTP/1.1 200")
        except (OSError, httpx.HTTPError):
            return False

    def stop(self, timeout=30):
        """SIGTERM; the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise AssertionError(f"serve did not end within {timeout} s of SIGTERM") from None
        if self in LIVE:
            LIVE.remove(self)
        return self.process.returncode

    def kill9(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self, kill=False):
        if kill:
            self.kill9()
        else:
            assert self.stop() == 0
        return self.start()

    def log_text(self):
        """The lines so far that are whole. A thread of the server writes them: they come a moment after what they tell of."""
        try:
            text = self.log_path.read_text("utf-8", "replace")
        except OSError:
            return ""
        return text[:text.rfind("\n") + 1]

    def log_tail(self, lines=40):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def client(self, key=None, jwt=None, headers=None):
        h = dict(headers or {})
        if key:
            h["X-API-Key"] = key
        if jwt:
            h["Authorization"] = "Bearer " + jwt
        return httpx.Client(base_url=self.base, headers=h, timeout=30, verify=self.verify, trust_env=False)

    @property
    def anon(self):
        if not hasattr(self, "_anon"):
            self._anon = self.client()
        return self._anon


@dataclass
class User:
    server: Server
    id: int
    uuid: str
    username: str
    email: str
    password: str
    role: str
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def key(self):
        if "key" not in self._cache:
            r = self.server.anon.post("/api/login", json={"username": self.username, "password": self.password})
            assert r.status_code == 200, r.text
            self._cache["key"] = r.json()["api_key"]
        return self._cache["key"]

    def login(self):
        r = self.server.anon.post("/api/v1/auth/login", json={"email": self.email, "password": self.password})
        assert r.status_code == 200, r.text
        return r.json()

    @property
    def tokens(self):
        if "tokens" not in self._cache:
            self._cache["tokens"] = self.login()
        return self._cache["tokens"]

    @property
    def jwt(self):
        return self.tokens["access_token"]

    @property
    def api(self):
        """A client with the API key."""
        if "api" not in self._cache:
            self._cache["api"] = self.server.client(key=self.key)
        return self._cache["api"]

    @property
    def bank(self):
        """A client with the JWT."""
        if "bank" not in self._cache:
            self._cache["bank"] = self.server.client(jwt=self.jwt)
        return self._cache["bank"]

    def balance(self, currency="USD"):
        r = self.api.get("/api/balances", params={"user_id": self.id, "currency": currency})
        if r.status_code == 404:  # no account in this currency yet; users asked about here always exist
            return Decimal(0)
        assert r.status_code == 200, r.text
        return money(r)["balance"]


def unique(prefix="u"):
    return f"{prefix}{os.getpid()}x{next(_counter)}"


def new_user(server, fund=None, role=None, currency="USD", name=None, password=PASSWORD):
    """Registers a user over the PayFlow surface; fund: an amount deposited by the admin."""
    name = name or unique()
    body = {"username": name, "email": name + "@example.com", "password": password}
    client = server.anon
    if role:
        body["role"] = role
        if server.admin:
            client = server.admin.api
    r = client.post("/api/users", json=body)
    assert r.status_code == 201, r.text
    d = r.json()
    u = User(server, d["id"], d["uuid"], name, body["email"], password, d["role"])
    if fund is not None:
        r = server.admin.api.post("/api/transactions/deposit",
                                  json={"user_id": u.id, "amount": str(fund), "currency": currency})
        assert r.status_code == 201, r.text
    return u


def start_server(data, env=None, args=(), admin=True, **kw):
    s = Server(data, env, args, **kw).start()
    if admin:
        s.admin = new_user(s, role="admin", name="root")
    return s


def money(r):
    """The body with numbers as Decimal, so that no float stands between the wire and the check."""
    return json.loads(r.text, parse_float=Decimal)


def problem(r, status, slug=None, loc=None):
    """Asserts a whole problem document; returns it. loc: a field that `errors` must name."""
    assert r.status_code == status, f"{r.request.method} {r.request.url}: {r.status_code} {r.text[:600]}"
    kind = r.headers["content-type"].split(";")[0]
    assert kind == "application/problem+json", kind
    p = r.json()
    missing = {"type", "title", "status", "detail", "instance", "request_id", "error", "code"} - set(p)
    assert not missing, f"problem lacks {missing}: {p}"
    assert p["status"] == p["code"] == status
    assert p["error"] == p["title"] and p["title"]
    assert re.fullmatch(r"/problems/[a-z0-9-]+", p["type"]), p["type"]
    assert p["request_id"] == r.headers["x-request-id"]
    if slug:
        assert p["type"] == "/problems/" + slug, p
    if loc is not None:
        assert any(loc in map(str, e["loc"]) for e in p.get("errors", [])), f"errors does not name {loc}: {p}"
    for e in p.get("errors", []):
        assert {"loc", "msg", "type"} <= set(e), e
        assert isinstance(e["loc"], list) and e["msg"]
    if status == 401:
        assert r.headers.get("www-authenticate"), "401 without WWW-Authenticate"
    if status in (429, 503):
        assert int(r.headers["retry-after"]) >= 1
    assert not re.search(r"(?i)select |insert |sqlite|/src/|\.c:\d|0x[0-9a-f]{6,}", r.text), r.text
    return p


def ok(r, status=200):
    assert r.status_code == status, f"{r.request.method} {r.request.url}: {r.status_code} {r.text[:600]}"
    return money(r)


def page(r):
    """A list answer: its data, after checking the envelope."""
    d = ok(r)
    assert {"data", "limit", "offset", "has_more", "next_cursor"} <= set(d), d.keys()
    assert isinstance(d["data"], list) and isinstance(d["has_more"], bool)
    assert len(d["data"]) <= d["limit"]
    return d


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forge(payload, header=None, secret=SECRET, digest=hashlib.sha256):
    """A JWT signed with HMAC whatever its header claims."""
    head = b64(json.dumps(header or {"alg": "HS256", "typ": "JWT"}, separators=(",", ":")).encode())
    body = b64(json.dumps(payload).encode())
    sign = hmac.new(secret.encode(), f"{head}.{body}".encode(), digest).digest()
    return f"{head}.{body}.{b64(sign)}"


def claims(token):
    return json.loads(unb64(token.split(".")[1]))


def raw(port, data, timeout=5.0, shutdown=False):
    """Sends bytes, reads until the peer closes or the time is up; what came back."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        try:
            s.sendall(data)
            if shutdown:
                s.shutdown(socket.SHUT_WR)
            while True:
                chunk = s.recv(65536)
                if not chunk:
                    break
                out += chunk
        except OSError:  # timed out, reset, or closed before we were done
            pass
    return out


def raw_status(answer):
    m = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(m.group(1)) if m else None


def export(data, env=None):
    """The journal by `payflow journal export`, one dict per entry, amounts as Decimal."""
    r = cli("journal", "export", "--data", data, env=env)
    assert r.returncode == 0, r.stderr
    return [json.loads(line, parse_float=Decimal) for line in r.stdout.splitlines()]


def utc(offset=0.0):
    """Now plus offset seconds as RFC 3339 with microseconds."""
    t = time.time() + offset
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + f".{int(t % 1 * 1_000_000):06d}Z"


def eventually(check, timeout=60.0, every=0.05):
    """Polls until check() is truthy; its value. What has a bound of its own to keep gives it."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(every)


def reconciled(r):
    """Every sum named in the answer is 0 and it calls itself consistent."""
    d = ok(r)
    flags, sums = [], []

    def walk(x, name=""):
        if isinstance(x, dict):
            for k, v in x.items():
                walk(v, k)
        elif isinstance(x, list):
            for v in x:
                walk(v, name)
        elif isinstance(x, bool) and name in ("consistent", "ok", "balanced"):
            flags.append(x)
        elif name in ("sum", "difference", "trial_balance", "total") and isinstance(x, (int, Decimal)):
            sums.append(x)
    walk(d)
    return bool(flags) and all(flags) and all(s == 0 for s in sums)
