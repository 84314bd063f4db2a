"""serve --role: the platform as processes of their own over one PostgreSQL, behind the gateway."""
import re
import signal
import subprocess

import pytest

grpc = pytest.importorskip("grpc")

import harness  # noqa: E402
from backends import Config, Gateway  # noqa: E402
from grpcs import Refused, Server  # noqa: E402
from harness import cli, eventually, money, ok, problem, unique  # noqa: E402
from postgres import Cluster  # noqa: E402
from test_gateway_faults import CALM, NO_BREAKER, QUICK_RETRY  # noqa: E402
from test_ticketing import available, book, make_event, seed_requests, settled, shown, verified  # noqa: E402

ROLES = "identity", "event", "booking", "payment"
PATHS = {"identity": ("POST", "/api/auth/login"), "event": ("GET", "/api/events"), "booking": ("GET", "/api/bookings/x")}


def front(directory, name, **urls):
    """A gateway before these."""
    return Gateway(directory / name, Config([{"name": group, "url": url, "group": group} for group, url in urls.items()],
                                            CALM, QUICK_RETRY + NO_BREAKER)).start()


def stop(*servers):
    """Their exit codes. SIGINT is SIGTERM without its grace; all at once."""
    for s in servers:
        s.process.send_signal(signal.SIGINT)
    return [s.stop() for s in servers]


class Platform:
    """One process a role. They make the secret for their tokens themselves, all at once, in one directory."""

    def __init__(self, directory):
        self.pg = Cluster()
        self.servers = {}
        env = self.pg.env(JWT_SECRET=None)
        cli("migrate", "up", env=harness.environment(**env))
        for role in ROLES:
            s = (Server if role == "booking" else harness.Server)(
                directory / role, env=env, args=["--role", role, "--data", str(directory / "shared")])
            self.servers[role] = s
        for s in self.servers.values():  # start() waits; these are to start together
            s.process = subprocess.Popen([harness.BIN, "serve", "--listen", f"127.0.0.1:{s.port}", *s.args], env=s.env,
                                         stdin=subprocess.DEVNULL, stdout=s.log_path.open("ab"), stderr=subprocess.STDOUT)
            harness.LIVE.append(s)
        for s in self.servers.values():
            eventually(lambda s=s: s.process.poll() is not None or s._ready(), every=0.01)
            assert s.process.poll() is None, s.log_tail()
        self.gateway = front(directory, "gateway", identity=self["identity"].base, event=self["event"].base,
                             api=self["booking"].base, booking=f"http://127.0.0.1:{self['booking'].grpc_port}")

    def __getitem__(self, role):
        return self.servers[role]

    def close(self):
        codes = stop(self.gateway, *self.servers.values())
        verified("-", env=harness.environment(**self.pg.env()))
        self.pg.close()
        assert set(codes) == {0}, codes


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    p = Platform(tmp_path_factory.mktemp("roles"))
    yield p
    p.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One process that does everything, behind a gateway."""
    d = tmp_path_factory.mktemp("whole")
    s = Server(d / "all").start()
    g = front(d, "gateway", api=s.base, identity=s.base, event=s.base, booking=f"http://127.0.0.1:{s.grpc_port}")
    s.gateway = g
    yield s
    assert stop(g, s) == [0, 0]
    verified(s.data)


def test_each_answers_its_own(platform):
    for role in ROLES:
        client = platform[role].anon
        for path in "/health", "/healthz", "/health/live", "/health/ready", "/metrics", "/metrics/basic":
            assert client.get(path).status_code == 200, (role, path)
        for of, (method, path) in PATHS.items():
            r = client.request(method, path, json={} if method == "POST" else None)
            missing = r.status_code == 404 and "booking" not in r.json()["detail"]
            assert missing == (of != role), (role, path, r.text)
        for path in "/api/users", "/api/v1/ping", "/api/balances", "/docs", "/openapi.json":
            assert client.get(path).status_code == 404, (role, path)
        health = ok(client.get("/health"))
        services = health["services"]
        assert health["status"] == "UP", health
        assert ("documents" in services, "bus" in services) == (role == "event", role == "payment"), (role, services.keys())


def test_who_does_which_job(platform):
    def held(role):
        return {name for name, j in ok(platform[role].anon.get("/health"))["services"]["jobs"].items()
                if isinstance(j, dict) and j["held"]}
    eventually(lambda: held("booking") == {"holds"} and held("payment") == {"relay"})
    assert held("identity") == held("event") == set()


@pytest.mark.parametrize("which", ["platform", "whole"])
def test_the_seeds_lines(request, which):
    """As they are written, through the gateway and gRPC."""
    gateway = request.getfixturevalue(which).gateway
    event = None
    for method, url, body in seed_requests():
        body = body.replace("BURAYA_EVENT_ID_YAPISTIR", (event or {}).get("id", ""))
        r = gateway.anon.request(method, url.removeprefix("http://localhost:3000"), content=body,
                                 headers={"Content-Type": "application/json"})
        answer = ok(r, 201)
        event = answer if "/events" in url else event
    assert event["available_tickets"] == 100
    assert answer["status"] == "PENDING" and answer["user_id"] == "kerem_user" and answer["ticket_count"] == 2
    assert settled(gateway.anon, answer)["status"] == "CONFIRMED"
    assert available(gateway.anon, event) == 98
    big = book(gateway.anon, event, "kerem_user", 6)
    big = settled(gateway.anon, big)
    assert (big["status"], big["user_id"]) == ("CANCELLED", "kerem_user") and big["reason"]
    assert available(gateway.anon, event) == 98
    problem(gateway.anon.delete("/api/bookings/" + answer["booking_id"]), 409, "wrong-state")


@pytest.mark.parametrize("which", ["platform", "whole"])
def test_the_gateway_answers_as_the_service(request, which):
    p = request.getfixturevalue(which)
    gateway = p.gateway
    direct = p["booking"] if which == "platform" else p
    mail = unique("ann") + "@test.com"
    who = ok(gateway.anon.post("/api/auth/register", json={"email": mail, "password": "12345"}), 201)
    token = ok(gateway.anon.post("/api/auth/login", json={"email": mail, "password": "12345"}))["token"]
    event = make_event(gateway.anon)
    with gateway.client(jwt=token) as by_gateway, direct.client(jwt=token) as by_service:
        key, body = {"Idempotency-Key": unique("k")}, {"event_id": event["id"], "ticket_count": 1}
        for user_id in {}, {"user_id": None}, {"user_id": who["id"]}, {"user_id": str(who["id"])}, {"user_id": who["username"]}:
            b = ok(by_gateway.post("/api/bookings", json={**body, **user_id}), 201)
            assert b["user_id"] == who["id"] and isinstance(b["user_id"], int), (user_id, b)
        for first, second in (by_gateway, by_service), (by_service, by_gateway):
            key = {"Idempotency-Key": unique("k")}
            a, b = (c.post("/api/bookings", json={**body, "user_id": who["id"]}, headers=key) for c in (first, second))
            assert a.status_code == b.status_code == 201 and b.headers["idempotency-replayed"] == "true"
            assert a.content == b.content, (a.text, b.text)
        done = settled(by_service, money(a))
        assert by_gateway.get("/api/bookings/" + done["booking_id"]).content == \
            by_service.get("/api/bookings/" + done["booking_id"]).content
        guest = book(by_gateway, event, "987654321")
        assert guest["user_id"] == "987654321" == shown(by_service, guest)["user_id"]
        for c in by_gateway, by_service:
            problem(c.post("/api/bookings", json={**body, "user_id": 987654321}), 404, "not-found")
            problem(c.post("/api/bookings", json={**body, "user_id": "x", "ticket_count": 10001}), 422, "validation-failed",
                    "ticket_count")
            problem(c.get("/api/bookings/nonsense"), 404, "not-found")
            assert {b["user_id"] for b in ok(c.get("/api/bookings"))["data"]} == {who["id"]}
        for c in gateway.anon, direct.anon:
            problem(c.get("/api/bookings/" + done["booking_id"]), 404, "not-found")


def test_payment_is_away_for_a_while(platform):
    event = make_event(platform.gateway.anon)
    platform["payment"].kill9()
    b = book(platform.gateway.anon, event, "g", 2)
    assert shown(platform.gateway.anon, b)["status"] == "PENDING"
    s = platform["payment"]
    s.start()
    assert settled(platform.gateway.anon, b, 20)["status"] == "CONFIRMED"


def test_a_service_is_away_for_a_while(platform):
    s = platform["booking"]
    event = make_event(platform.gateway.anon)
    s.kill9()
    r = platform.gateway.anon.post("/api/bookings", json={"user_id": "g", "event_id": event["id"], "ticket_count": 1})
    p = problem(r, 502 if r.status_code == 502 else 503)  # 502: it was sent before its connection was seen to be gone
    assert p["type"] in (("/problems/bad-gateway",) if r.status_code == 502 else ("/problems/unavailable", "/problems/busy"))
    assert available(platform.gateway.anon, event) == 100
    s.start()
    key = {"Idempotency-Key": unique("k")}
    body = {"user_id": "g", "event_id": event["id"], "ticket_count": 1}
    eventually(lambda: platform.gateway.anon.post("/api/bookings", json=body, headers=key).status_code == 201)
    assert available(platform.gateway.anon, event) == 99
    with s.calls() as c, pytest.raises(Refused):
        c.get("nobody's")


def test_several_in_one_process(fresh):
    s = fresh(admin=False, args=["--role", "identity", "--role=event"])
    assert s.anon.post("/api/auth/register", json={"email": "a@b.com", "password": "123"}).status_code == 201
    make_event(s.anon)
    assert s.anon.get("/api/bookings/x").status_code == 404 and s.anon.get("/api/users").status_code == 404
    # one SQLite store is one process's
    for role in "booking", "all":
        r = cli("serve", "--role", role, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--data", s.data, timeout=20)
        assert r.returncode == 78 and "in use" in r.stderr, (r.returncode, r.stderr)


def test_words_and_ports(tmp_path):
    assert cli("serve", "--role", "nobody").returncode == 2
    r = cli("serve", "--role", "gateway", "--role", "event")
    assert r.returncode == 2 and "gateway" in r.stderr
    text = cli("serve", "--help").stdout
    started = []
    for role, port in {"identity": 8081, "event": 8082, "booking": 8083, "payment": 8084, "api": 8080}.items():
        assert re.search(rf"\b{role}\b[^\n]*|\({port}\)", text) and str(port) in text
        started.append((port, subprocess.Popen(
            [harness.BIN, "serve", "--role", role, "--data", str(tmp_path / role), "--grpc-listen", "127.0.0.1:0"],
            env=harness.environment(GRPC_LISTEN=None), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(tmp_path / f"{role}.log", "w+b"))))
    try:
        for (port, process), role in zip(started, ("identity", "event", "booking", "payment", "api")):
            log = tmp_path / f"{role}.log"  # whoever else may have the port: it is named
            eventually(lambda: re.search(rf'"port":{port},|cannot listen.*{port}', log.read_text()) or process.poll(), every=0.02)
            assert re.search(rf'"port":{port},|cannot listen.*{port}', log.read_text()), log.read_text()
    finally:
        for _, process in started:
            process.terminate()
        for _, process in started:
            assert process.wait(15) in (0, 1)
