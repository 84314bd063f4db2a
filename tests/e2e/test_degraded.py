"""The binary on a primary that waits for one of two synchronous replicas: commits that are not answered in time, a primary
that stops, a database that is gone altogether, settings of breakers; and what /health and the breakers' list say meanwhile."""
import json
import threading
import time

import pytest

import harness
from harness import cli, environment, new_user, unique
from postgres import Cluster
from test_postgres import Load, lines
from test_replicas import Replica, until

COMMIT = 2  # seconds, DB_COMMIT_TIMEOUT
BOUND = COMMIT + 5  # with the time that a loaded machine takes


class Trio:
    def __init__(self):
        self.primary = Cluster()
        self.replicas = [Replica(self.primary) for _ in range(2)]
        self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        self.primary.sql("SELECT pg_reload_conf()")

    def env(self, **extra):
        """Reads share the replicas; a host more in DB_HOST is for the promotion."""
        reads = {f"DB_READ_{k}_{i + 1}": v for i, r in enumerate(self.replicas)
                 for k, v in (("HOST", "127.0.0.1"), ("PORT", str(r.port)))}
        return {**self.primary.env(), **reads, "DB_COMMIT_TIMEOUT": str(COMMIT), "ENV": "dev", **extra}

    def close(self):
        for c in (*self.replicas, self.primary):
            c.close()


@pytest.fixture
def trio():
    t = Trio()
    yield t
    t.close()


def transfer(user, to, key):
    t0 = time.monotonic()
    r = user.api.post("/api/transactions/transfer", headers={"Idempotency-Key": key},
                      json={"from_user_id": user.id, "to_user_id": to.id, "amount": "0.01"})
    return r, time.monotonic() - t0


def count(cluster):
    return int(cluster.sql("SELECT count(*) FROM journal WHERE kind = 3"))


@pytest.mark.parametrize("how", ["freeze", "kill9"])
def test_without_synchronous_replicas(trio, fresh, how):
    s = fresh(env=trio.env())
    users = [new_user(s, fund="100.00") for _ in range(3)]
    a, b, _ = users
    load = Load([s], users)
    load.progress(5)
    for r in trio.replicas:
        getattr(r, how)()
    key, first = unique("k"), None
    end = time.monotonic() + 20
    while first != 500:  # a commit of its own, not one that was refused for another's
        r, took = transfer(a, b, key)
        assert r.status_code in (500, 503, 201) and took < BOUND, (r.text, took)
        if r.status_code == 503:  # others are at it
            assert "retry-after" in r.headers
            break
        if r.status_code == 201:
            key = unique("k")
        first = r.status_code
        assert time.monotonic() < end
    until(lambda: a.api.get("/health").json()["services"]["connection_manager"]["commits_stalled"])
    for _ in range(5):
        r, took = transfer(a, b, unique("k"))
        assert r.status_code == 503 and took < 1.9 and "retry-after" in r.headers, (r.text, took)
        r = a.api.get(f"/api/transactions?user_id={a.id}&limit=1")
        assert r.status_code == 200 and "x-payflow-stale" not in r.headers, r.text
    h = a.api.get("/health")
    assert h.status_code == 200 and h.json()["status"] == "DEGRADED", h.text
    breakers = a.api.get("/api/v1/metrics/circuit-breakers").json()["circuit_breakers"]
    assert {"database", "replica-1", "replica-2"} <= set(breakers) and breakers["database"]["state"] == "closed"
    assert set(breakers["database"]) >= {"state", "total_requests", "total_failures", "total_successes", "current_failures"}
    trio.replicas[0].thaw() if how == "freeze" else trio.replicas[0].start()
    load.progress(10)
    until(lambda: a.api.get("/health").json()["services"]["database"]["status"] == "UP")
    load.stop()
    assert load.worst < BOUND, load.worst
    r, _ = transfer(a, b, key)
    again, _ = transfer(a, b, key)
    assert r.status_code == again.status_code == 201 and r.text == again.text and "idempotency-replayed" in again.headers
    assert count(trio.primary) in (load.acked + 1, load.acked + 2)  # the first of all may have been before the fault
    assert cli("verify", env=s.env).returncode == 0
    for r in trio.replicas:
        r.thaw() if how == "freeze" else (r.process.poll() is not None and r.start())
    assert s.stop() == 0


def test_what_was_cut_off_is_acknowledged_once_a_replica_has_it(trio, fresh):
    s = fresh(env=trio.env())
    a, b = new_user(s, fund="100.00"), new_user(s)
    assert transfer(a, b, unique("k"))[0].status_code == 201  # the first use of a key is written down too
    time.sleep(0.5)
    for r in trio.replicas:
        r.freeze()
    key = unique("k")
    r, took = transfer(a, b, key)
    assert r.status_code == 500 and took < BOUND, r.text
    trio.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    until(lambda: count(trio.primary) == 2)  # visible, and nowhere else
    end = time.monotonic() + 3 * COMMIT
    while time.monotonic() < end:
        r, took = transfer(a, b, key)
        assert r.status_code in (500, 503) and took < BOUND, r.text
    trio.replicas[0].thaw()
    until(lambda: transfer(a, b, key)[0].status_code == 201)
    r, _ = transfer(a, b, key)
    assert "idempotency-replayed" in r.headers
    trio.primary.kill9()
    trio.replicas[0].sql("SELECT pg_promote(true, 30)", db="postgres")
    assert count(trio.replicas[0]) == 2
    s.kill9()


def test_a_primary_that_stops_answers_in_time(trio, fresh):
    s = fresh(env=trio.env())
    a, b = new_user(s, fund="100.00"), new_user(s, fund="1.00")
    path = f"/api/transactions?user_id={a.id}"
    assert a.api.get(path).status_code == 200 and b.api.get("/health").status_code == 200
    time.sleep(2)  # the replicas have it, and the instance knows
    worst, bad, stop = [], [], threading.Event()

    def run(call):
        while not stop.is_set():
            t0 = time.monotonic()
            r = call()
            worst.append(time.monotonic() - t0)
            if r.status_code not in (200, 201, 500, 503):
                bad.append(r.text)
    calls = [lambda: a.api.get(path), lambda: transfer(a, b, unique("k"))[0],
             lambda: b.api.get(f"/api/balances?user_id={b.id}"),
             lambda: s.anon.post("/api/users", json={"username": unique("u"), "email": unique("u") + "@e.org",
                                                     "password": harness.PASSWORD})]
    threads = [threading.Thread(target=run, args=(c,), daemon=True) for c in calls * 2]
    for t in threads:
        t.start()
    time.sleep(0.5)
    trio.primary.freeze()
    time.sleep(6)
    trio.primary.thaw()
    until(lambda: transfer(a, b, unique("k"))[0].status_code == 201)
    stop.set()
    for t in threads:
        t.join(20)
    assert not bad and max(worst) < 4.9, (bad[:2], max(worst))  # the database was away for 6 s, and a call of it may take 5 s
    assert s.stop() == 0


def test_the_last_good_answer(fresh):
    """No replica, and the primary gone: what was read before, marked; never to another caller, never a movement."""
    cluster = Cluster()
    try:
        s = fresh(env={**cluster.env(), "CACHE_ENTRIES": "16"})
        a, b = new_user(s, fund="100.00"), new_user(s)
        path = f"/api/transactions?user_id={a.id}"
        good = a.api.get(path)
        assert good.status_code == 200 and "x-payflow-stale" not in good.headers
        assert b.api.get(path).status_code == 403 and s.admin.api.get("/health").status_code == 200
        cluster.kill9()
        until(lambda: a.api.get("/health").json()["services"]["circuit_breakers"]["database"]["state"] == "open")
        time.sleep(1)
        r = a.api.get(path)
        assert r.status_code == 200 and r.headers["x-payflow-stale"] == "true" and int(r.headers["age"]) >= 1, r.text
        assert r.json() == good.json()
        assert a.api.get(path + "&limit=3").status_code == 503
        assert s.admin.api.get(path).status_code == 503
        r, took = transfer(a, b, unique("k"))
        assert r.status_code == 503 and "x-payflow-stale" not in r.headers and took < 1.9
        h = a.api.get("/health")
        assert h.status_code == 503 and h.json()["services"]["fallback_manager"]["last_good_answers"] >= 1, h.text
        cluster.start()
        until(lambda: transfer(a, b, unique("k"))[0].status_code == 201)
        r = a.api.get(path)
        assert r.status_code == 200 and "x-payflow-stale" not in r.headers and r.json() != good.json()
        assert s.stop() == 0
    finally:
        cluster.close()


def test_a_server_that_comes_late_is_waited_for(tmp_path):
    cluster = Cluster()
    try:
        cluster.kill9()
        s = harness.Server(tmp_path / "d", env={**cluster.env(), "DB_CONNECT_TIMEOUT": "20"})
        timer = threading.Timer(2, cluster.start)
        timer.start()
        s.start()
        timer.join()
        assert s.stop() == 0
        assert "trying again" in s.log_text() and harness.PASSWORD not in s.log_text()
        cluster.kill9()
        t0 = time.monotonic()
        r = cli("serve", "--port", "0", "--data", tmp_path / "d", env=environment(**cluster.env(), DB_CONNECT_TIMEOUT="2"))
        assert r.returncode == 78 and 1 < time.monotonic() - t0 < 10 and len(lines(r.stderr)) == 1, r.stderr
        assert "refused" in r.stderr
    finally:
        cluster.close()


def test_settings_of_the_file_reach_the_parts(tmp_path, fresh):
    cluster = Cluster()
    try:
        (tmp_path / "p.yaml").write_text(
            "resilience4j: {circuitbreaker: {instances: {database: {waitDurationInOpenState: 60s}}}}\n"
            "fallback: {shouldCache: false, defaultResponse: '{\"data\":[]}'}\n"
            "load_balancer: {health_check: {interval: 2s, timeout: 300ms, unhealthy_threshold: 3}}\n")
        env = cluster.env()  # a replica that is none yet: its checks are what is looked at
        env |= {"DB_READ_HOST_1": "127.0.0.1", "DB_READ_PORT_1": "1"}
        s = fresh(env=env, args=("--config", str(tmp_path / "p.yaml")))
        a = new_user(s, fund="1.00")
        path = f"/api/transactions?user_id={a.id}"
        assert a.api.get(path).status_code == 200
        assert a.api.get("/health").json()["services"]["load_balancer"]["health_check"] == {
            "interval_ms": 2000, "timeout_ms": 300, "healthy_threshold": 1, "unhealthy_threshold": 3}
        cluster.kill9()
        breaker = lambda: a.api.get("/api/v1/metrics/circuit-breakers").json()["circuit_breakers"]["database"]["state"]
        until(lambda: breaker() == "open")
        cluster.start()
        time.sleep(2)
        assert breaker() == "open"  # it is to stay so for a minute
        r = a.api.get(path)
        assert r.status_code == 200 and r.json() == {"data": []} and "age" not in r.headers, r.text
        out = json.loads(cli("config", "print", "-o", "json", "--config", tmp_path / "p.yaml").stdout)
        assert out["fallback.shouldCache"]["value"] == "false"
        s.kill9()
    finally:
        cluster.close()
    (tmp_path / "bad.yaml").write_text("resilience4j: {circuitbreaker: {instances: {database: {slidingWindowSize: 0}}}}\n")
    r = cli("serve", "--config", tmp_path / "bad.yaml", "--data", tmp_path / "d", env=environment())
    assert r.returncode == 78 and len(lines(r.stderr)) == 1 and "database" in r.stderr
