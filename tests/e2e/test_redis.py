"""The shared cache tier: what stands in Redis, limits over two processes, and a Redis that dies, hangs or refuses."""
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import PASSWORD, cli, environment, eventually, new_user, ok


class Redis:
    """A redis-server on a Unix socket in a directory of its own."""

    def __init__(self, path, password=None):
        self.dir, self.password = path, password
        path.mkdir()
        self.socket = str(path / "s")
        self.process = None
        self.start()

    def start(self):
        auth = ["--requirepass", self.password] if self.password else []
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", str(self.dir), "--save", "", *auth],
            stdout=subprocess.DEVNULL)
        eventually(lambda: self.run("PING", check=False) == "PONG")

    def run(self, *args, check=True):
        env = {**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})}
        r = subprocess.run(["redis-cli", "-s", self.socket, *map(str, args)], env=env, capture_output=True, text=True,
                           errors="replace", timeout=10, check=False)
        assert not check or r.returncode == 0, r.stderr
        return r.stdout.strip()

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def signal(self, which):
        self.process.send_signal(which)


@pytest.fixture
def redis(tmp_path):
    made = []

    def make(password=None):
        made.append(Redis(tmp_path / f"redis{len(made)}", password))
        return made[-1]
    yield make
    for r in made:
        r.kill9()


def tier(server):
    tiers = ok(server.anon.get("/api/cache/stats"))["tiers"]
    assert [t["tier"] for t in tiers] == ["local", "redis"]
    return tiers[1]


def connected(server):
    r = ok(server.anon.get("/metrics/basic"))["redis"]
    assert r["configured"] is True
    return r["connected"]


def health(server):
    return ok(server.anon.get("/health"))["status"]


def value_in(redis, key):
    """Whether a value stands there, and not the lease of one who reads."""
    return redis.run("GETRANGE", key, 0, 0) == "V"


def test_keys_lifetimes_and_invalidation(fresh, redis):
    r = redis()
    s = fresh(env={"REDIS_HOST": r.socket})
    eventually(lambda: connected(s))
    assert health(s) == "UP"
    u, v = new_user(s, fund="10"), new_user(s, fund="1")
    t = ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 5}), 201)
    ok(s.admin.api.post("/api/cache/warmup", json={}))
    ok(u.api.get(f"/api/transactions/{t['id']}"))
    for key, seconds in ((f"user:{u.id}", 1800), (f"balance:{u.id}:USD", 600), (f"transaction:{t['id']}", 900)):
        eventually(lambda key=key: value_in(r, key))
        assert seconds - 60 < int(r.run("TTL", key)) <= seconds
    entries = {e["key"] for e in ok(s.admin.api.get("/api/cache/keys"))["entries"]}
    assert {f"user:{u.id}", f"balance:{u.id}:USD", f"transaction:{t['id']}"} <= entries
    assert not [k for k in entries if k.startswith(("rate:", "payflow:"))]

    ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 2}), 201)
    assert not value_in(r, f"balance:{u.id}:USD") and not value_in(r, f"balance:{v.id}:USD")
    assert (u.balance(), v.balance()) == (13, 3)
    ok(s.admin.api.post("/api/cache/warmup", json={"type": "user", "user_id": u.id}))
    assert value_in(r, f"user:{u.id}")
    assert ok(s.admin.api.post("/api/cache/invalidate", json={"user_id": u.id}))["invalidated"] >= 2
    assert not value_in(r, f"user:{u.id}") and not value_in(r, f"balance:{u.id}:USD")
    ok(s.admin.api.post("/api/cache/warmup", json={}))
    assert ok(s.admin.api.post("/api/cache/invalidate", json={"pattern": "*"}))["invalidated"] >= 4
    assert not [k for k in r.run("KEYS", "*:*").split() if k.startswith(("user:", "balance:")) and value_in(r, k)]
    raw = r.run("--no-raw", "GET", f"user:{u.id}")
    assert "$2b" not in raw and "pf_" not in raw
    assert s.stop() == 0
    assert r.run("ZCARD", "payflow:instances") == "0"


def test_values_come_back_from_redis(fresh, redis):
    r = redis()
    s = fresh(env={"REDIS_URL": f"unix:{r.socket}"})
    eventually(lambda: connected(s))
    u = new_user(s)
    ok(u.api.get(f"/api/users/{u.id}"))
    before = tier(s)["hits"]
    for _ in range(12):  # each after the life of a local copy; an answer that is late counts as none
        time.sleep(3.1)
        assert ok(u.api.get(f"/api/users/{u.id}"))["username"] == u.username
        if tier(s)["hits"] >= before + 3:
            break
    assert tier(s)["hits"] >= before + 3


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_redis_fails_under_load(fresh, redis, how):
    r = redis()
    s = fresh(env={"REDIS_HOST": r.socket})
    eventually(lambda: connected(s))
    u, v = new_user(s, fund="1000"), new_user(s)
    over, done, slowest = threading.Event(), [0], [0.0]
    wrong = []

    def pay():
        paid = 0
        while not over.is_set():
            begin = time.monotonic()
            a = u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 1})
            b = v.api.get("/api/balances", params={"user_id": v.id})
            c = u.api.get(f"/api/users/{u.id}")
            slowest[0] = max(slowest[0], time.monotonic() - begin)
            paid += a.status_code == 201
            if a.status_code != 201 or c.status_code != 200 or b.json().get("balance") != paid:
                wrong.append((a.text, b.text, c.text, paid))
            time.sleep(0.01)
        done[0] = paid

    load = threading.Thread(target=pay)
    load.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            if how == "kill":
                r.kill9()
            else:
                r.signal(signal.SIGSTOP)
            eventually(lambda: health(s) == "DEGRADED")
            assert not tier(s)["up"] and not connected(s)
            time.sleep(0.5)
            if how == "kill":
                r.start()
            else:
                r.signal(signal.SIGCONT)
            eventually(lambda: health(s) == "UP")
    finally:
        over.set()
        load.join()
    assert not wrong, wrong[:3]
    assert done[0] > 20 and slowest[0] < 10, (done, slowest)
    assert v.balance() == done[0]
    assert u.balance() == 1000 - done[0]


def test_a_wrong_password_costs_speed_only(fresh, redis):
    r = redis("the-right-password")
    s = fresh(env={"REDIS_HOST": r.socket, "REDIS_PASSWORD": "the-wrong-password"})
    u = new_user(s, fund="5")
    assert u.balance() == 5
    assert health(s) == "DEGRADED"
    log = eventually(lambda: "cannot be used" in s.log_tail(200) and s.log_tail(200))
    assert "WRONGPASS" in log and "the-wrong-password" not in log
    good = fresh("good", env={"REDIS_URL": f"unix:{r.socket}", "REDIS_PASSWORD": "the-right-password"})
    eventually(lambda: connected(good))
    assert "the-right-password" not in good.log_tail(200)


def test_limits_are_shared(fresh, redis):
    """Two processes on two stores, which must not share cached values, but have the same addresses and names before
    them: so each has its own token secret."""
    r = redis()
    env = {"REDIS_HOST": r.socket, "RATE_LIMIT": "60"}
    a = fresh("a", env=env)
    b = fresh("b", env={**env, "JWT_SECRET": "another-secret-of-thirty-two-bytes-0123456789"})
    eventually(lambda: connected(a) and connected(b))
    login = {"email": "nobody@example.com", "password": PASSWORD}
    codes = [(a, b)[i % 2].anon.post("/api/v1/auth/login", json=login).status_code for i in range(8)]
    assert codes == [401] * 5 + [429] * 3, codes

    r.run("FLUSHALL")
    time.sleep(1)
    statuses = []
    for i in range(100):
        statuses.append((a, b)[i % 2].anon.get("/api/balances", params={"user_id": 1}).status_code)
        time.sleep(0.02)  # time to tell each other: 10 ms and a round trip
    allowed = sum(c != 429 for c in statuses)
    assert 40 <= allowed <= 75, allowed  # each on its own would allow all 100


def test_settings(tmp_path):
    def start(**env):
        return cli("serve", "--data", tmp_path / "d", env=environment(**env))
    for env, line in (({"REDIS_CLUSTER": "true"}, "REDIS_CLUSTER"), ({"REDIS_URL": "redis://"}, "REDIS_URL"),
                      ({"REDIS_URL": "rediss://h"}, "TLS"), ({"REDIS_POOL_SIZE": "0"}, "REDIS_POOL_SIZE")):
        p = start(**env)
        assert p.returncode == 78 and line in p.stderr and len(p.stderr.splitlines()) == 1, p.stderr
    (tmp_path / "secret").write_text("from-a-file\n")
    p = cli("config", "print",
            env=environment(REDIS_URL="redis://u:in-the-url@h", REDIS_PASSWORD_FILE=tmp_path / "secret"))
    assert p.returncode == 0 and "in-the-url" not in p.stdout and "from-a-file" not in p.stdout
    assert "REDIS_PASSWORD_FILE" in p.stdout
