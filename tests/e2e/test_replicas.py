"""The binary on a PostgreSQL primary with a streaming replica: reads go there, never older than what was written;
without the primary they are marked stale and writes answer 503 at once; with it back all is as before."""
import time

import pytest

import harness
from harness import new_user
from postgres import Cluster, Replica


@pytest.fixture(scope="module")
def pair():
    primary = Cluster()
    replica = Replica(primary)
    yield primary, replica
    replica.close()
    primary.close()


def until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_reads_go_on_without_the_primary(pair, fresh):
    primary, replica = pair
    env = {**primary.env(), "DB_READ_HOST_1": "127.0.0.1", "DB_READ_PORT_1": str(replica.port)}
    s = fresh(env=env)
    a, b = new_user(s, fund="100.00"), new_user(s)
    path = f"/api/transactions?user_id={a.id}"

    def transfer():
        return a.api.post("/api/transactions/transfer", headers={"Idempotency-Key": harness.unique("k")},
                          json={"from_user_id": a.id, "to_user_id": b.id, "amount": "0.01"})

    def listed():
        r = a.api.get(path + "&limit=1")
        assert r.status_code == 200 and "x-payflow-stale" not in r.headers, r.text
        return r.json()["data"][0]["id"]
    for pause in ("resume", "pause", "resume"):
        replica.sql(f"SELECT pg_wal_replay_{pause}()")
        for _ in range(20):
            made = transfer()
            assert made.status_code == 201
            assert listed() == made.json()["id"]
    used = replica.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'payflow'")
    assert int(used) > 0

    def caught_up():
        """The replica has all, and the instance has seen that."""
        newest = "SELECT max(seq) FROM journal"
        until(lambda: replica.sql(newest) == primary.sql(newest), 15)  # a standby tries again after 5 s
        time.sleep(1.5)

    for stop, start in ((primary.kill9, primary.start), (primary.freeze, primary.thaw)):
        unseen = new_user(s, fund="1.00")
        assert unseen.key and unseen.jwt, "neither of which was used yet"
        last = listed()
        caught_up()
        stop()
        until(lambda: a.api.get(path).headers.get("x-payflow-stale") == "true")
        time.sleep(1)
        r = a.api.get(path)
        assert r.status_code == 200 and int(r.headers["age"]) >= 1 and r.json()["data"][0]["id"] == last
        for who, its in ((unseen.api, f"/api/balances?user_id={unseen.id}"), (unseen.bank, "/api/v1/balances/current")):
            r = who.get(its)
            assert r.status_code == 200 and r.headers.get("x-payflow-stale") == "true", "its credential is on the replica too"
        r = s.anon.get(path, headers={"X-API-Key": "pf_" + "0" * 43})
        assert r.status_code == 503, "it may be one that the replica did not get"
        t0 = time.monotonic()
        r = transfer()
        assert r.status_code == 503 and "retry-after" in r.headers and time.monotonic() - t0 < 2, r.text
        for path_of in "/health", "/health/ready":
            h = a.api.get(path_of)
            assert h.status_code == 200 and h.json()["status"] == "DEGRADED", h.text
        start()
        until(lambda: transfer().status_code == 201, 20)
        until(lambda: a.api.get("/health").json()["status"] == "UP", 20)
        until(lambda: "x-payflow-stale" not in a.api.get(path).headers, 20)
    assert s.stop() == 0
