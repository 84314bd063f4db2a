"""The cache's endpoints, and the one promise that matters: never older than the caller's own last acknowledged write."""
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from harness import new_user, ok, problem, unique


def keys(server, pattern="*"):
    d = ok(server.anon.get("/api/cache/keys?pattern=" + quote(pattern)))
    rows = d.get("keys", d.get("data"))
    return {r if isinstance(r, str) else r["key"] for r in rows}


def numbers(x, name):
    """Every number under that field name, anywhere in the answer."""
    if isinstance(x, dict):
        own = [x[name]] if name in x and isinstance(x[name], int) else []
        return own + [n for v in x.values() for n in numbers(v, name)]
    if isinstance(x, list):
        return [n for v in x for n in numbers(v, name)]
    return []


def stats(server):
    return ok(server.anon.get("/api/cache/stats"))


def test_stats(fresh):
    s = fresh()
    d = stats(s)
    for field in ("hits", "misses", "entries", "bytes"):
        assert numbers(d, field), f"stats lack {field}: {d}"
    assert "ratio" in str(d)
    u = new_user(s)
    u.api.get(f"/api/users/{u.id}")
    before = sum(numbers(stats(s), "hits"))
    for _ in range(10):
        u.api.get(f"/api/users/{u.id}")
    assert sum(numbers(stats(s), "hits")) >= before + 10


def test_keys(fresh):
    s = fresh()
    u = new_user(s, fund="1")
    ok(u.api.get(f"/api/users/{u.id}"))
    u.balance()
    t = ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
    ok(u.api.get(f"/api/transactions/{t['id']}"))
    u.balance()
    have = keys(s)
    assert {f"user:{u.id}", f"balance:{u.id}:USD", f"transaction:{t['id']}"} <= have
    assert keys(s, "user:*") == {k for k in have if k.startswith("user:")}
    assert keys(s, f"balance:{u.id}:???") == {f"balance:{u.id}:USD"}
    assert keys(s, "nothing*") == set()
    assert keys(s, f"user:[{u.id}]") == {f"user:{u.id}"}
    assert "pf_" not in str(have) and "$2b" not in str(have)


@pytest.mark.parametrize("pattern", ["[", "[a", "\\", "*" * 200 + "x", "a" * 5000, "**", "?", "[!a]*", "%"])
def test_odd_patterns(dev, pattern):
    r = dev.anon.get("/api/cache/keys?pattern=" + quote(pattern))
    assert r.status_code in (200, 400, 422) and r.elapsed.total_seconds() < 2


def test_warmup(fresh):
    s = fresh()
    u = new_user(s, fund="1")
    ok(s.anon.post("/api/cache/invalidate", json={"pattern": "*"}))
    assert ok(s.anon.post("/api/cache/warmup", json={"type": "user", "user_id": u.id}))["warmed"] >= 1
    assert f"user:{u.id}" in keys(s)
    ok(s.anon.post("/api/cache/warmup", json={"type": "user", "user_id": u.uuid}))
    for body in ({}, None):
        r = s.anon.post("/api/cache/warmup", json=body) if body is not None else s.anon.post("/api/cache/warmup")
        assert ok(r)["warmed"] >= 1
    problem(s.anon.post("/api/cache/warmup", json={"type": "user", "user_id": 999999999}), 404)
    problem(s.anon.post("/api/cache/warmup", json={"type": "zzz", "user_id": u.id}), 422)
    problem(s.anon.post("/api/cache/warmup", json={"type": "user", "user_id": "x y"}), 422)


def test_invalidate(fresh):
    s = fresh()
    u, v = new_user(s, fund="1"), new_user(s, fund="1")
    for who in (u, v):
        ok(who.api.get(f"/api/users/{who.id}"))
        who.balance()
    assert ok(s.anon.post("/api/cache/invalidate", json={"user_id": u.id}))["invalidated"] >= 2
    have = keys(s)
    assert not {f"user:{u.id}", f"balance:{u.id}:USD"} & have
    assert {f"user:{v.id}", f"balance:{v.id}:USD"} <= have
    n = ok(s.anon.post("/api/cache/invalidate", json={"pattern": "balance:*"}))["invalidated"]
    assert n >= 1 and keys(s, "balance:*") == set() and f"user:{v.id}" in keys(s)
    assert ok(s.anon.post("/api/cache/invalidate", json={"pattern": "none:*"}))["invalidated"] == 0
    for bad in ({}, {"pattern": 5}, {"user_id": {}}, {"pattern": ""}):
        problem(s.anon.post("/api/cache/invalidate", json=bad), 422)


def test_own_writes_are_read(dev):
    u, v = new_user(dev), new_user(dev)
    for i in range(1, 41):
        ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 2}), 201)
        assert u.balance() == i * 2 - (i - 1)
        ok(u.api.post("/api/transactions/transfer",
                      json={"from_user_id": u.id, "to_user_id": v.id, "amount": 1}), 201)
        assert u.balance() == i and v.balance() == i
        assert ok(u.bank.get("/api/v1/balances/current"))["balance"] == i
        name = unique("c")
        ok(u.api.put(f"/api/users/{u.id}", json={"username": name}))
        assert ok(u.api.get(f"/api/users/{u.id}"))["username"] == name
        assert ok(dev.admin.bank.get(f"/api/v1/users/{u.uuid}"))["username"] == name


def test_a_rolled_back_transaction_reads_so_at_once(dev):
    u = new_user(dev)
    for _ in range(20):
        t = ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)
        assert ok(u.bank.get(f"/api/v1/transactions/{t['id']}"))["status"] == "completed"
        ok(u.bank.post(f"/api/v1/transactions/{t['id']}/rollback", json={}), 201)
        assert ok(u.bank.get(f"/api/v1/transactions/{t['id']}"))["status"] == "rolled_back"


def test_own_writes_are_read_under_load(dev):
    """Each of 8 users reads back its own write while others fill the cache with theirs and one empties it."""
    done = threading.Event()

    def churn():
        c = dev.client()
        while not done.is_set():
            c.post("/api/cache/invalidate", json={"pattern": "*"})
            c.post("/api/cache/warmup")

    def write_and_read(u):
        for i in range(1, 61):
            ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
            assert u.balance() == i
    users = [new_user(dev) for _ in range(8)]
    assert all(u.key for u in users)
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write_and_read, users))
    finally:
        done.set()
        thread.join()


def test_deleted_users_leave_the_cache(dev):
    u = new_user(dev)
    ok(u.api.get(f"/api/users/{u.id}"))
    ok(dev.admin.api.delete(f"/api/users/{u.id}"))
    problem(dev.admin.api.get(f"/api/users/{u.id}"), 404)
    assert f"user:{u.id}" not in keys(dev)
