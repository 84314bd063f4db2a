"""`./dev stack up --ticketing` from outside: gateway, services, RabbitMQ, and Consul and FerretDB where ./dev interop has built them.

One stack serves the module; the tests run in their order, the last one takes it down and looks for what is left.
"""
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

import harness
from cluster import Stack, alive, descendants, mentions, quick_room
from harness import ROOT, eventually, ok, page, problem
from test_ticketing import SEED, available, make_event, settled

DEPLOY = ROOT / "deploy"
INTEROP = {"consul": "consul", "ferretdb": "mongo"}  # program: part


class Ticketing(Stack):
    PORTS = {"db-master": [5432], "db-replica1": [5433], "db-replica2": [5434], "redis-master": [6379], "redis-replica": [6380],
             "prometheus": [9090], "rabbitmq": [5672, 5673, 5674], "consul": [8500, 8300, 8301, 8302], "mongo": [27017],
             "api1": [8080], "api2": [8180], "identity": [8081], "event1": [8082], "event2": [8182],
             "booking1": [8083, 50051], "booking2": [8183, 50151], "payment": [8084], "gateway": [3000]}
    # gRPC's ports are above those that the system gives to clients, all others below; but FerretDB's, which is odd: clients get even ones.
    OFFSETS, FRONT = range(10960, 15380, 20), "gateway"
    SERVICES = ("api1", "api2", "identity", "event1", "event2", "booking1", "booking2", "payment", "gateway")

    def __init__(self):
        super().__init__(quick_room())
        interop = Path(os.environ.get("STACK_INTEROP") or ROOT / "build-interop")
        self.has = [p for program, p in INTEROP.items() if os.access(interop / program, os.X_OK)]
        self.PORTS = {name: ports for name, ports in self.PORTS.items() if name in self.has or name not in INTEROP.values()}

    def processes(self):
        """All of them, with what they have started."""
        return {p for part in self.PORTS for p in (self.pid(part), *descendants(self.pid(part)))}

    def pid(self, part):
        return int((self.dir / "run" / f"{part}.pid").read_text().split()[0])

    def groups(self):
        """Of each group, how many backends the gateway sends requests to."""
        with self.client() as c:
            groups = c.get("/health").json()["services"]["load_balancer"]
        return {name: g["in"] for name, g in groups.items() if isinstance(g, dict)}

    def verify(self):
        text = (self.dir / "conf" / "api1.env").read_text()
        env = dict(line.split("=", 1) for line in text.splitlines() if line) | {"JWT_SECRET": None}
        r = harness.cli("verify", env=harness.environment(**env))
        assert r.returncode == 0, r.stdout + r.stderr


@pytest.fixture(scope="module")
def stack():
    before = strange_files()
    s = Ticketing()
    s.before = before
    try:
        s("up", "--ticketing")
        yield s
    finally:
        s("down")
        shutil.rmtree(s.home)


def strange_files():
    """Where RabbitMQ and Erlang would leave something if they were not told otherwise."""
    places = [Path("/var/lib/rabbitmq"), Path("/var/log/rabbitmq"), Path.home() / ".erlang.cookie"]
    return {str(p) for place in places for p in (place, *(place.rglob("*") if place.is_dir() else ())) if p.exists()}


def test_all_parts_are_up(stack):
    eventually(lambda: stack.groups() == {"api": 2, "identity": 1, "event": 2, "booking": 2})
    parts = stack.parts()
    assert {name: p["ports"] for name, p in parts.items()} == {n: [p + stack.offset for p in ports] for n, ports in stack.PORTS.items()}
    assert {p["state"] for p in parts.values()} == {"up"}, parts
    assert parts["gateway"]["role"] == "api 2 of 2, identity 1 of 1, event 2 of 2, booking 2 of 2"
    assert parts["rabbitmq"]["role"].startswith("RabbitMQ 3.")
    assert "everything runs already" in stack("up").stderr
    assert "has no app1" in stack("start", "app1", code=1).stderr
    for name, part in parts.items():
        if name in stack.SERVICES:
            with stack.client(name) as c:
                services = ok(c.get("/health"))["services"]
                assert name == "gateway" or services["database"]["engine"] == "postgres", (name, services)
                eventually(lambda: ok(c.get("/health"))["status"] == "UP")
                assert name != "payment" or services["bus"]["engine"] == "rabbitmq"
    if "consul" in stack.has:
        names = {"api-service": 2, "identity-service": 1, "event-service": 2, "booking-service": 2, "payment-service": 1,
                 "gateway-service": 1}
        with stack.client("consul") as c:
            for name, n in names.items():
                eventually(lambda: len(c.get(f"/v1/health/service/{name}?passing=1").json()) == n)
        assert stack.parts()["consul"]["role"] == "9 of 9 instances pass"


def test_the_seeds_curl_lines(stack):
    """Word for word, but for the port and the event's id, which its reader is told to put in."""
    commands = re.findall(r"^curl .*?(?=\n\n|\Z)", SEED, re.S | re.M)
    assert len(commands) == 3
    event = answer = None
    for command in commands:
        command = command.replace("http://localhost:3000", f"http://localhost:{stack.port('gateway')}")
        command = command.replace("BURAYA_EVENT_ID_YAPISTIR", (event or {}).get("id", ""))
        r = subprocess.run(["bash", "-c", command.strip() + " -sS --max-time 20 -w '\\n%{http_code}'"], capture_output=True, text=True,
                           timeout=30, check=False)
        body, _, status = r.stdout.rpartition("\n")
        assert (r.returncode, status) == (0, "201"), r.stdout + r.stderr
        answer = json.loads(body)
        event = answer if "/api/events" in command else event
    assert answer["status"] == "PENDING" and answer["user_id"] == "kerem_user" and answer["ticket_count"] == 2
    with stack.client() as c:
        assert settled(c, answer)["status"] == "CONFIRMED"
        assert available(c, event) == 98
        token = ok(c.post("/api/auth/login", json={"email": "kerem@test.com", "password": "123"}))["token"]
        number = harness.claims(token)["sub"]
        me = ok(c.get(f"/api/users/{number}", headers={"Authorization": "Bearer " + token}))  # from an instance of the API
        assert me["email"] == "kerem@test.com"
        six = c.post("/api/bookings", json={"user_id": "kerem_user", "event_id": event["id"], "ticket_count": 6})
        assert settled(c, ok(six, 201))["reason"] == "declined"
        problem(c.post("/api/bookings", json={"user_id": "x", "event_id": event["id"], "ticket_count": 99}), 409, "sold-out")
        found = page(c.get("/api/events?q=tarkan"))["data"]
        assert [e["id"] for e in found] == [event["id"]]
    if "mongo" in stack.has:  # where the document is
        assert stack.psql("db-master", "SELECT count(*) FROM event_document") == "0"


def test_each_service_answers_its_own_routes(stack):
    with stack.client("identity") as identity, stack.client("event1") as event, stack.client("booking1") as booking:
        for c, path in ((identity, "/api/events"), (event, "/api/users"), (booking, "/api/events")):
            assert c.get(path).status_code == 404, (c.base_url, path)
        assert ok(event.get("/api/events"))["data"]


class Callers:
    """Fifty who want one ticket each and ask until they are told; and one who looks at the event all the while."""

    def __init__(self, stack, event, n=50):
        self.stack, self.event = stack, event
        self.answers, self.retried, self.looks, self.stop = [], Counter(), Counter(), threading.Event()
        self.gate = threading.Semaphore(8)  # at a time, so that the sale lasts longer than what happens to it
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(n)]
        self.looker = threading.Thread(target=self._look)

    def _ask(self, n):
        with self.gate, self.stack.client() as c:
            body = {"user_id": f"fan {n}", "event_id": self.event["id"], "ticket_count": 1}
            while not self.stop.is_set():
                try:
                    r = c.post("/api/bookings", json=body, headers={"Idempotency-Key": f"{self.event['id']} {n}"})
                except httpx.HTTPError as e:
                    self.retried[type(e).__name__] += 1
                    continue
                if r.status_code in (201, 409) and r.json().get("type") != "/problems/request-in-progress":
                    self.answers.append((r.status_code, r.json()))
                    return
                self.retried[r.status_code] += 1
                self.stop.wait(0.1)

    def _look(self):
        with self.stack.client() as c:
            while not self.stop.is_set():
                self.looks[c.get("/api/events/" + self.event["id"]).status_code] += 1
                self.stop.wait(0.01)

    def __enter__(self):
        for t in (self.looker, *self.threads):
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in (self.looker, *self.threads):
            t.join()


def test_a_hot_event_while_services_die(stack):
    with stack.client() as c:
        event = make_event(c, 20)
    victims = [stack.pid(part) for part in ("booking1", "event1")]
    with Callers(stack, event) as callers:
        eventually(lambda: len(callers.answers) >= 5)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(callers.answers) == 50, timeout=60)
        seen = sum(callers.looks.values())
        eventually(lambda: sum(callers.looks.values()) > seen + 20)
    assert set(callers.looks) == {200}, "a look is asked again of the other one"
    sold = [b for status, b in callers.answers if status == 201]
    assert len(sold) == 20 and len({b["booking_id"] for b in sold}) == 20, callers.retried
    assert {b["type"] for status, b in callers.answers if status == 409} == {"/problems/sold-out"}
    with stack.client() as c:
        for b in sold:
            assert settled(c, b, timeout=30)["status"] == "CONFIRMED"
        assert available(c, event) == 0
    eventually(lambda: stack.psql("db-master", "SELECT count(*) FROM outbox") == "0")
    assert stack.psql("db-master", "SELECT count(*) FROM booking WHERE state <= 2") == "0"
    assert {n: p["state"] for n, p in stack.parts().items() if p["state"] != "up"} == {"booking1": "down", "event1": "down"}
    assert stack.groups() == {"api": 2, "identity": 1, "event": 1, "booking": 1}
    stack("up")
    eventually(lambda: stack.groups() == {"api": 2, "identity": 1, "event": 2, "booking": 2})
    stack.verify()


def test_secrets_are_in_closed_files_and_nothing_is_written_elsewhere(stack):
    words = set()
    for p in (stack.dir / "secrets").rglob("*"):
        if p.is_file():
            assert stat.S_IMODE(p.stat().st_mode) == 0o600, p
            words |= {w for w in re.split(r"[@:/\s]", p.read_text()) if len(w) > 20}
    assert (stack.dir / "secrets" / "app" / "amqp_url").exists() and len(words) >= 7
    assert stat.S_IMODE((stack.dir / "conf" / "rabbitmq.conf").stat().st_mode) == 0o600
    for w in words:
        assert not mentions(w)
    for pid in stack.processes():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target, flags = os.readlink(fd), Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text()
            except OSError:
                continue
            writes = int(re.search(r"flags:\s+([0-7]+)", flags)[1], 8) & (os.O_WRONLY | os.O_RDWR)
            if writes and target.startswith("/") and not target.startswith(("/dev/", "/memfd:")):
                assert target.startswith(str(stack.dir)), (pid, target)
    if os.geteuid() == 0:
        assert not [p for p in stack.PORTS if Path(f"/proc/{stack.pid(p)}").stat().st_uid == 0], "nothing of it needs root"


def test_down_leaves_nothing(stack):
    stack.pids = stack.processes()
    assert len(stack.pids) > len(stack.PORTS)
    names = [Path(f"/proc/{p}/comm").read_text().strip() for p in stack.pids if alive(p)]
    assert names.count("epmd") == 1, "RabbitMQ's own, on a port of the stack"
    stack("down", "--keep")
    assert not [p for p in stack.pids if alive(p)]
    for log in stack.dir.glob("logs/*.log"):
        text = log.read_text("utf-8", "replace")
        assert "Sanitizer" not in text and "runtime error" not in text, log
    stack("down")
    stack.nothing_left()
    assert strange_files() - stack.before == set()


# ---- the copies for containers ----

def names(path):
    return set(re.findall(r"^([A-Z][A-Z0-9_]*)=", (DEPLOY / path).read_text(), re.M))


def test_the_copies_for_containers_are_complete(tmp_path):
    """What is filled in by hand says what the templates say, and the program knows it all."""
    assert names("docker/ticketing.env") == names("ticketing.env.template") | {"TRUSTED_PROXIES", "ALLOW_OPEN_BIND"}
    ports = {n.upper(): p for n, p in Ticketing.PORTS.items() if n in Ticketing.SERVICES}
    values = {f"{n}_{what}": str(value) for n, own in ports.items()
              for what, value in zip(("HOST", "PORT", "GRPC"), (n.lower(), *own))}
    values |= {"BOOKING1_HOST": "10.91.7.41", "BOOKING2_HOST": "10.91.7.42"}  # gRPC is called at numeric addresses
    compose = (DEPLOY / "docker" / "compose.yaml").read_text()
    assert all(f"ipv4_address: {values[n]}}}" in compose for n in ("BOOKING1_HOST", "BOOKING2_HOST"))
    template = (DEPLOY / "ticketing.yaml.template").read_text()
    filled = re.sub(r"\$\{([A-Z0-9_]+)\}", lambda m: values[m[1]], template.partition("consul_config:")[2])
    assert (DEPLOY / "docker" / "ticketing.yaml").read_text().partition("consul_config:")[2] == filled
    env = {}
    for path in ("docker/instance.env", "docker/ticketing.env"):
        env |= dict(line.split("=", 1) for line in (DEPLOY / path).read_text().splitlines() if line and line[0] != "#")
    secret = tmp_path / "secret"
    secret.write_text("amqp://x:y@z/")
    for name in [n for n in env if n.endswith("_FILE")]:
        env[name] = str(secret)
    (tmp_path / "redis").write_text("redis://:x@redis:6379")
    (tmp_path / "mongo").write_text("mongodb://x:y@z/payflow")
    (tmp_path / "jwt").write_text("0123456789" * 5)
    env |= {"REDIS_URL_FILE": str(tmp_path / "redis"), "MONGO_URL_FILE": str(tmp_path / "mongo"), "JWT_SECRET_FILE": str(tmp_path / "jwt"),
            "JWT_SECRET": None}
    r = harness.cli("config", "print", "-o", "json", "--config", DEPLOY / "docker" / "ticketing.yaml", env=harness.environment(**env))
    assert r.returncode == 0, r.stderr
    printed = json.loads(r.stdout)
    strangers = [n for n in env if printed.get(n.removesuffix("_FILE"), {}).get("origin", "default") == "default" and n != "JWT_SECRET"]
    assert not strangers, "the program takes no notice of them"
