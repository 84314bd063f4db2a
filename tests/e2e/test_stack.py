"""`./dev stack` from outside: the real NGINX, PostgreSQL, Redis and Prometheus around two instances, on ports of its own.

One stack serves the module; the tests run in their order, the last one takes it down and looks for what is left.
"""
import http.server
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

import harness
import test_seeds
from cluster import PORTS, Stack, mentions
from harness import ROOT, eventually, ok, problem


@pytest.fixture(scope="module")
def stack():
    s = Stack()
    try:
        s("up")
        with s.client(key=s.key) as c:
            ok(c.post("/api/balances/initialize?user_id=1"), 201)
        yield s
    finally:
        s("down")
        shutil.rmtree(s.home)


def test_up_twice_changes_nothing(stack):
    before = stack.parts()
    assert {name: p["ports"] for name, p in before.items()} == {n: [p + stack.offset for p in ports] for n, ports in PORTS.items()}
    assert {p["state"] for p in before.values()} == {"up"}, before
    stack.pids = [p["pid"] for p in before.values()]
    assert "everything runs already" in stack("up").stderr
    assert [p["pid"] for p in stack.parts().values()] == stack.pids
    assert "db-master" in stack("status").stdout
    stack("up", code=1, STACK_OFFSET=str(stack.offset + 1))
    assert "was made with ticketing False" in stack("up", "--ticketing", code=1).stderr


def test_secrets_are_in_closed_files_and_on_no_command_line(stack):
    files = [p for p in (stack.dir / "secrets").rglob("*") if p.is_file()]
    words = set()
    for p in files:
        assert stat.S_IMODE(p.stat().st_mode) == 0o600, p
        words |= {w for w in p.read_text().strip().replace("@", ":").split(":") if len(w) > 20}
    assert len(words) >= 6
    for name in ("redis-master.conf", "app1.env"):
        assert stat.S_IMODE((stack.dir / "conf" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((stack.dir / "conf" / "nginx" / "key.pem").stat().st_mode) == 0o600
    for w in words:
        assert not mentions(w)
    if os.geteuid() == 0:
        owners = {name: Path(f"/proc/{p['pid']}").stat().st_uid for name, p in stack.parts().items()}
        assert [n for n, uid in owners.items() if uid == 0] == ["nginx"], "only NGINX needs root, for its ports"


def test_http_and_https(stack):
    with stack.client() as c, stack.client(n=1, scheme="https") as tls, stack.client(n=2) as third:
        r = c.get("/health", headers={"X-Request-Id": "mine-1"})
        assert ok(r)["status"] == "UP"
        assert r.headers["x-request-id"] == "mine-1" and "strict-transport-security" not in r.headers
        r = tls.get("/health")
        assert ok(r)["status"] == "UP" and "max-age" in r.headers["strict-transport-security"]
        assert ok(third.get("/health"))["status"] == "UP"
        r = third.get("/nginx_status")
        assert r.status_code == 200 and r.text.startswith("Active connections:")
        problem(c.get("/nginx_status"), 404, "not-found")
        problem(c.get("/metrics"), 404, "not-found")
        for header in ("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy", "x-request-id"):
            for path in ("/health", "/metrics"):  # an instance's answer, and NGINX's own
                assert len(c.get(path).headers.get_list(header)) == 1, (header, path)


def test_credentials_are_asked_for(stack):
    with stack.client() as nobody, stack.client(key=stack.key) as operator:
        problem(nobody.post("/api/transactions/deposit", json={"user_id": 1, "amount": 1}), 401)
        problem(nobody.get("/api/balances?user_id=1"), 401)
        assert ok(operator.get("/api/users/1"))["username"] == "operator"
        r = nobody.post("/api/users", json={"username": "eve", "email": "eve@example.com", "password": "correct horse", "role": "admin"})
        problem(r, 403)
        password = (stack.dir / "secrets" / "operator.password").read_text().strip()
        ok(nobody.post("/api/login", json={"username": "operator", "password": password}))


def test_limits_are_the_instances_own(stack):
    mib = 1 << 20
    with stack.client(key=stack.key) as c:
        def post(path, size):
            body = b'{"user_id":1,"amount":1,"x":"' + b"a" * (size - 31) + b'"}'
            assert len(body) == size
            return c.post(path, content=body, headers={"Content-Type": "application/json"})
        assert post("/api/transactions/deposit", mib).status_code == 201
        problem(post("/api/transactions/deposit", mib + 1), 413, "body-too-large")
        assert post("/api/transactions/batch", 16 * mib).status_code == 422
        problem(post("/api/transactions/batch", 16 * mib + 1), 413, "body-too-large")
        problem(c.get("/health?x=" + "a" * 15000, headers={"X-Big": "b" * 5000}), 431, "headers-too-large")  # the instance
        for r in (c.get("/health?x=" + "a" * 17000), c.get("/health", headers={"X-Big": "b" * 17000})):  # NGINX
            problem(r, 431, "headers-too-large")
    assert b"400" in harness.raw(stack.port("nginx"), b"GET / HTTP/1.1\r\nno colon\r\n\r\n").split(b"\r\n")[0]
    answer = harness.raw(stack.port("nginx"), b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b'"type":"/problems/malformed-request"' in answer


def test_too_many_requests(stack):
    seen = Counter()
    refused = []

    def hurry():
        with stack.client() as c:
            for _ in range(1500):
                if refused:
                    return
                r = c.get("/api/v1/ping")
                seen[r.status_code] += 1
                if r.status_code == 429:
                    refused.append(r)
    threads = [threading.Thread(target=hurry) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert refused and set(seen) == {200, 429} and seen[200] >= 200, seen
    problem(refused[0], 429, "rate-limited")
    with stack.client() as c:
        assert all(c.get("/health/live").status_code == 200 for _ in range(50)), "probes are never refused"
    time.sleep(2.5)


def test_replicas_stream(stack):
    stack.psql("db-master", "CREATE TABLE stack_probe (n int)")
    stack.psql("db-master", "INSERT INTO stack_probe VALUES (42)")
    for replica in ("db-replica1", "db-replica2"):
        eventually(lambda: stack.psql(replica, "SELECT n FROM stack_probe") == "42")
        assert "read-only" in stack.psql(replica, "INSERT INTO stack_probe VALUES (1)")
        eventually(lambda: stack.psql(replica, "SELECT count(*) FROM journal") == stack.psql("db-master", "SELECT count(*) FROM journal"))
    stack.psql("db-master", "DROP TABLE stack_probe")
    rows = stack.psql("db-master", "SELECT application_name, state, sync_state FROM pg_stat_replication ORDER BY 1")
    assert rows == "db-replica1|streaming|quorum\ndb-replica2|streaming|quorum"
    assert stack.psql("db-master", "SHOW synchronous_standby_names").startswith("ANY 1 (")


def test_the_redis_replica_follows(stack):
    auth = "AUTH " + (stack.dir / "secrets" / "redis_password").read_text().strip()
    assert "NOAUTH" in stack.redis("redis-master", "GET x")[0]
    assert stack.redis("redis-master", auth, "SET stack:probe 42") == ["+OK", "+OK"]
    eventually(lambda: stack.redis("redis-replica", auth, "GET stack:probe") == ["+OK", "42"])
    assert "READONLY" in stack.redis("redis-replica", auth, "SET stack:probe 1")[1]
    stack.redis("redis-master", auth, "DEL stack:probe")


def test_instances_use_all_that_they_were_given(stack):
    for app in ("app1", "app2"):
        with stack.client(app) as c:
            services = ok(c.get("/health"))["services"]
            assert services["database"]["engine"] == "postgres" and services["database"]["writable"]
            assert {t["tier"]: t["up"] for t in services["cache"]["tiers"]} == {"local": True, "redis": True}
    for server in ("db-master", "db-replica1", "db-replica2"):
        eventually(lambda: int(stack.psql(server, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'payflow'")) >= 2)


def test_prometheus_scrapes_both(stack):
    with stack.client("prometheus") as c:
        def scraped():
            found = c.get("/api/v1/query", params={"query": 'up{job="payflow"}'}).json()["data"]["result"]
            return {f["metric"]["instance"]: f["value"][1] for f in found} == {"app1": "1", "app2": "1"}
        eventually(scraped, timeout=30)
        found = c.get("/api/v1/query", params={"query": "payflow_http_request_duration_seconds_count"}).json()["data"]["result"]
        assert {f["metric"]["instance"] for f in found} == {"app1", "app2"}
        assert "status" in found[0]["metric"], "a rule counts by it"
        rules = c.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert len(rules) == 3 and all(not r.get("lastError") for r in rules)


class Dummy(http.server.ThreadingHTTPServer):
    """In an instance's place: notes what comes, and breaks off when told to."""
    allow_reuse_address = True

    def __init__(self, port):
        self.came, self.breaks = [], 0
        super().__init__(("127.0.0.1", port), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path != "/x":  # Prometheus comes by
                self.send_error(404)
                return
            self.server.came.append(dict(self.headers))
            if self.server.breaks:
                self.server.breaks -= 1
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        do_GET = do_POST = answer

        def log_message(self, *_):
            pass


def test_nobody_forges_an_address(stack):
    """The client's own is that of the audit log, though here it is an address that the instances trust."""
    name = harness.unique("ghost")
    with stack.client() as c:
        r = c.post("/api/v1/auth/login", json={"email": name, "password": "x"},
                   headers={"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"})
        assert r.status_code == 401, r.text
    with stack.client(key=stack.key) as c:
        rows = ok(c.get("/api/v1/admin/audit", params={"action": "login.refused"}))["data"]
    assert [row["address"] for row in rows if row["entity_id"] == name] == ["127.0.0.1"]


def test_what_nginx_sends_and_never_sends_twice(stack):
    stack("stop", "app1")
    stack("stop", "app2")
    dummies = [Dummy(stack.port("app1")), Dummy(stack.port("app2"))]

    def came():
        found = [c for d in dummies for c in d.came]
        for d in dummies:
            d.came = []
        return found
    try:
        with stack.client() as c:
            assert c.get("/x", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil",
                                        "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Request-Id": 'a"b'}).text == "ok"
            sent, = came()
            sent = {k.lower(): v for k, v in sent.items()}
            assert (sent["x-forwarded-for"], sent["x-real-ip"], sent["x-forwarded-proto"]) == ("127.0.0.1", "127.0.0.1", "http")
            assert sent["x-forwarded-host"] == sent["host"] == f"localhost:{stack.port('nginx')}"
            assert "forwarded" not in sent and len(sent["x-request-id"]) == 32 and '"' not in sent["x-request-id"]
            # Broken off: a GET goes to the other one, a POST to nobody.
            dummies[0].breaks = dummies[1].breaks = 1
            problem(c.post("/x", content=b"1"), 502, "internal-error")
            assert len(came()) == 1
            for d in dummies:
                d.breaks = 0
            dummies[0].breaks = 1
            assert [c.get("/x").status_code for _ in range(2)] == [200, 200]
            assert len(came()) == 3
            # Not reached: a POST goes to the other one.
            dummies[0].shutdown()
            dummies[0].server_close()
            time.sleep(5.5)  # what failed before is forgotten
            assert [c.post("/x", content=b"1").status_code for _ in range(4)] == [200] * 4
            assert len(came()) == 4
    finally:
        for d in dummies:
            d.shutdown()
            d.server_close()
        stack("start", "app1")
        stack("start", "app2")
    time.sleep(5.5)


def test_one_instance_dies(stack):
    """Requests go on through the other; each deposit counts once, however often its client had to ask."""
    with stack.client(key=stack.key) as c:
        before = ok(c.get("/api/balances?user_id=1"))["balance"]
        victim = stack.parts()["app1"]["pid"]
        codes = Counter()
        for n in range(60):
            if n == 15:
                os.kill(victim, signal.SIGKILL)
            assert c.get("/api/v1/ping").status_code == 200
            for _ in range(10):
                r = c.post("/api/transactions/deposit", json={"user_id": 1, "amount": "1.00"}, headers={"Idempotency-Key": f"stack-{n}"})
                codes[r.status_code] += 1
                if r.status_code == 201:
                    break
                assert r.status_code in (502, 503), r.text
            else:
                raise AssertionError("no instance took it")
            time.sleep(0.03)
        assert codes[201] == 60, codes
        assert ok(c.get("/api/balances?user_id=1"))["balance"] == before + 60
    assert stack.parts()["app1"]["state"] == "down"
    stack("status", code=1)
    stack("up")
    assert {p["state"] for p in stack.parts().values()} == {"up"}


def test_promotion_loses_nothing(stack):
    with stack.client(key=stack.key) as c:
        def deposit(key):
            return c.post("/api/transactions/deposit", json={"user_id": 1, "amount": "1.00"}, headers={"Idempotency-Key": key})
        before = ok(c.get("/api/balances?user_id=1"))["balance"]
        for n in range(20):
            assert deposit(f"before-{n}").status_code == 201
        os.kill(stack.parts()["db-master"]["pid"], signal.SIGKILL)
        stack("promote")
        eventually(lambda: deposit("after").status_code == 201, timeout=10, every=0.3)
        assert ok(c.get("/api/balances?user_id=1"))["balance"] == before + 21
        new = next(n for n, p in stack.parts().items() if p["role"].startswith("primary"))
        os.kill(stack.parts()[new]["pid"], signal.SIGSTOP)  # the postmaster: it takes no connection
        assert f"{new} runs, may be the primary" in stack("start", "db-master", code=1).stderr
        stack("stop", new)
        assert f"{new} was the primary after it" in stack("start", "db-master", code=1).stderr
        stack("start", new)
        stack("start", "db-master")  # comes back as a replica
        roles = {n: p["role"] for n, p in stack.parts().items() if n.startswith("db-")}
        assert sorted(r.split()[0].strip(";") for r in roles.values()) == ["primary", "replica", "replica"], roles
        assert roles["db-master"].startswith("replica")
        assert deposit("last").status_code == 201


def test_down_keep_and_up_again(stack):
    with stack.client(key=stack.key) as c:
        before = ok(c.get("/api/balances?user_id=1"))["balance"]
    stack("down", "--keep")
    assert not mentions(str(stack.dir)) and (stack.dir / "data").is_dir()
    stack("up")
    with stack.client(key=stack.key) as c:
        assert ok(c.get("/api/balances?user_id=1"))["balance"] == before
    assert {p["state"] for p in stack.parts().values()} == {"up"}


def test_down_leaves_nothing(stack):
    parts = stack.parts()
    stack.pids = [p["pid"] for p in parts.values()]
    os.kill(parts["nginx"]["pid"], signal.SIGKILL)  # its workers live on
    os.kill(parts["db-replica1"]["pid"], signal.SIGSTOP)
    stack("down")
    stack.nothing_left()
    stack("down")
    assert stack("status", code=1).stdout == ""


def test_a_failed_up_says_why_and_leaves_nothing(stack):
    """After the stack of the module is down: the same folder and ports."""
    stack("down")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", stack.port("prometheus")))
        s.listen()
        r = stack("up", code=1)
        assert f"prometheus: port {stack.port('prometheus')} is taken" in r.stderr
    stack.nothing_left()
    broken = stack.home / "broken"
    broken.write_text("#!/bin/sh\necho boom-boom >&2\nexit 78\n")
    broken.chmod(0o755)
    r = stack("up", "--no-admin", code=1, STACK_BIN=str(broken))
    assert "app1 ended" in r.stderr and "boom-boom" in r.stderr
    stack.nothing_left()
    stack.dir.mkdir()
    (stack.dir / "mine").write_text("x")
    assert "holds something that is not a stack" in stack("up", code=1).stderr
    stack("down")
    assert (stack.dir / "mine").read_text() == "x", "down removes only what up made"
    shutil.rmtree(stack.dir)


class Shell(test_seeds.Shell):
    """The seed's lines with each port moved, and the key on those that show none: the stack asks everybody for one."""

    def __init__(self, stack, server):
        super().__init__(server)
        self.stack = stack

    def __call__(self, line, status):
        port = "nginx", 2 if "localhost:8080" in line else 0
        self.server.port = self.stack.port(*port)
        if self.key and "X-API-Key" not in line:
            line, bar, jq = line.partition(" | jq")
            line += f' -H "X-API-Key: {self.key}"{bar}{jq}'
        return super().__call__(line, status)


def test_the_seeds_curl_lines(stack, monkeypatch):
    """Those of test_seeds.py for PayFlow, through NGINX, on a stack where nobody is registered yet."""
    stack("down")
    stack("up", "--no-admin")
    try:
        server = harness.Server(stack.home / "unused")
        shells = []

        def shell(s):
            shells.append(Shell(stack, s))
            return shells[-1]
        monkeypatch.setattr(test_seeds, "Shell", shell)
        server.port = stack.port("nginx")
        anonymous = Shell(stack, server)
        test_seeds.test_payflow_api(lambda **_: server)
        for line in ("curl http://localhost/api/cache/stats", "curl -X POST http://localhost/api/cache/warmup",
                     "curl -X GET http://localhost/api/transactions/stats", "curl http://localhost:8080/api/balances?user_id=1"):
            anonymous(line, 401)
        sh = shells[0]
        d = sh('''curl -X POST -H "Content-Type: application/json" -d '{"username": "testuser", "email": "test@example.com", "password": "password123"}' http://localhost:8080/api/users''', 201)
        me = d["id"]
        sh(f"curl -X POST http://localhost:8080/api/balances/initialize?user_id={me}", 201)
        for kind, amount in (("deposit", 100), ("withdraw", 30)):
            sh(f'''curl -X POST -H "Content-Type: application/json" -d '{{"user_id": {me}, "amount": {amount}}}' http://localhost:8080/api/transactions/{kind}''', 201)
        assert sh(f"curl http://localhost:8080/api/balances?user_id={me}", 200)["balance"] == Decimal(70)
        for word in ("replay", "rebuild"):
            d = sh(f"curl -X POST http://localhost:8080/api/balances/{word}?user_id={me}", 200)
            assert (d["balance"], d["consistent"]) == (70, True)
        sh('''curl -X POST "http://localhost:8080/api/cache/warmup" -H "Content-Type: application/json" -d '{"type": "user", "user_id": 1}' | jq''', 200)
        for body in ('{"user_id": 1}', '{"pattern": "user:*"}'):
            sh(f'''curl -X POST "http://localhost:8080/api/cache/invalidate" -H "Content-Type: application/json" -d '{body}' | jq''', 200)
        sh('curl -X GET "http://localhost:8080/api/cache/keys?pattern=user:*" | jq', 200)
    finally:
        stack("down")
    stack.nothing_left()


def names(path, pattern=r"^([A-Z][A-Z0-9_]*)="):
    return set(re.findall(pattern, (ROOT / "deploy" / path).read_text(), re.M))


def test_the_copies_for_containers_and_systemd_are_complete():
    """What is filled in by hand names the settings that the templates name."""
    template = names("instance.env.template")
    assert len(template) > 15 and names("docker/instance.env") == template
    unit = set(re.findall(r"\b([A-Z_]+)=%", (ROOT / "deploy/systemd/payflow.service").read_text()))
    assert unit == {"JWT_SECRET_FILE", "DB_PASSWORD_FILE", "REDIS_URL_FILE", "DATA_DIR"}
    assert names("systemd/payflow.env") | unit == template | {"DB_SSLMODE", "DB_SSLROOTCERT"}
    placeholders = names("nginx/payflow.conf.template", r"\$\{([A-Z0-9_]+)\}")
    assert placeholders == names("nginx/defaults.env") == names("docker/nginx.env")


def test_prometheus_takes_the_shared_files(tmp_path):
    for name in ("prometheus/prometheus.yml", "prometheus/rules.yml", "docker/targets.json"):
        shutil.copy(ROOT / "deploy" / name, tmp_path)
    r = subprocess.run(["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True, check=False)
    assert r.returncode == 0 and "3 rules found" in r.stdout, r.stdout + r.stderr
