"""Idempotency-Key: the first answer again, never the effect again."""
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import PASSWORD, new_user, ok, page, problem, unique

JSON = {"Content-Type": "application/json"}
DEPOSIT = "/api/transactions/deposit"


def key(value):
    return {"Idempotency-Key": value}


def replayed(r):
    return r.headers.get("idempotency-replayed") == "true"


def routes(u, v):
    """Every POST that moves money or creates something: (client, path, body)."""
    tx = ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)["id"]
    n = unique()
    later = "2099-01-01T00:00:00Z"
    return [
        (u.api, DEPOSIT, {"user_id": u.id, "amount": "1.5", "description": "ş"}),
        (u.api, "/api/transactions/withdraw", {"user_id": u.id, "amount": 1}),
        (u.api, "/api/transactions/transfer", {"from_user_id": u.id, "to_user_id": v.id, "amount": 1}),
        (u.api, "/api/transactions/batch", {"transactions": [{"sender_id": u.id, "receiver_id": v.id, "amount": 1}]}),
        (u.api, "/api/transactions/batch",
         {"transactions": [{"sender_id": u.id, "receiver_id": v.id, "amount": a} for a in (1, 10 ** 9)],
          "atomic": False}),
        (u.bank, "/api/v1/transactions/credit", {"amount": 1}),
        (u.bank, "/api/v1/transactions/debit", {"amount": 1}),
        (u.bank, "/api/v1/transactions/transfer", {"to_user_id": v.uuid, "amount": 1}),
        (u.bank, f"/api/v1/transactions/{tx}/rollback", {"reason": "oops"}),
        (u.bank, "/api/v1/scheduled-transactions", {"type": "credit", "amount": 1, "scheduled_at": later}),
        (u.api, "/api/users", {"username": n, "email": n + "@example.com", "password": PASSWORD}),
        (u.bank, "/api/v1/auth/register", {"username": n + "b", "email": n + "b@example.com", "password": PASSWORD}),
        (u.api, f"/api/balances/initialize?user_id={u.id}&currency=SEK", None),
    ]


def test_replay_byte_for_byte(dev):
    u, v = new_user(dev, fund="100"), new_user(dev)
    for client, path, body in routes(u, v):
        k = unique("key")
        send = {"content": json.dumps(body).encode(), "headers": {**JSON, **key(k)}} if body else {"headers": key(k)}
        first = client.post(path, **send)
        assert first.status_code == 201 and not replayed(first), (path, first.text)
        before = (u.balance(), v.balance())
        for _ in range(2):
            again = client.post(path, **send)
            assert again.status_code == 201, (path, again.text)
            assert again.content == first.content, path
            assert again.headers["content-type"] == first.headers["content-type"]
            assert replayed(again), path
        assert (u.balance(), v.balance()) == before, path
        if body:
            send["content"] = json.dumps({**body, "other": 1}).encode()
            problem(client.post(path, **send), 422, "idempotency-key-reused")


def test_same_key_other_path_or_method(dev):
    u = new_user(dev, fund="10")
    k = unique("key")
    body = {"user_id": u.id, "amount": 1}
    ok(u.api.post(DEPOSIT, json=body, headers=key(k)), 201)
    problem(u.api.post("/api/transactions/withdraw", json=body, headers=key(k)), 422, "idempotency-key-reused")
    assert u.balance() == 11


def test_same_key_other_query(dev):
    u, v = new_user(dev), new_user(dev)
    path, k = "/api/balances/initialize?user_id=%d&currency=EUR", unique("key")
    assert dev.admin.api.post(path % u.id, headers=key(k)).status_code in (200, 201)
    problem(dev.admin.api.post(path % v.id, headers=key(k)), 422, "idempotency-key-reused")


def test_quoted_and_bare_are_one(dev):
    u = new_user(dev)
    k = unique("key")
    body = {"user_id": u.id, "amount": 1}
    first = u.api.post(DEPOSIT, json=body, headers=key(f'"{k}"'))
    again = u.api.post(DEPOSIT, json=body, headers=key(k))
    assert (first.status_code, again.content, replayed(again)) == (201, first.content, True)
    assert u.balance() == 1


@pytest.mark.parametrize("bad", ["x" * 256, "", '""', '"' + "x" * 256 + '"', "a\tb"])
def test_bad_keys(user, bad):
    problem(user.api.post(DEPOSIT, json={"user_id": user.id, "amount": 1}, headers=key(bad)), 400, "malformed-header")
    assert user.balance() == 1000


def test_longest_key(user):
    for k in ("y" * 255, '"' + "z" * 255 + '"'):
        first = user.api.post(DEPOSIT, json={"user_id": user.id, "amount": 1}, headers=key(k))
        again = user.api.post(DEPOSIT, json={"user_id": user.id, "amount": 1}, headers=key(k))
        assert ok(first, 201) and again.content == first.content


def test_scope_is_the_principal(dev):
    u, v = new_user(dev), new_user(dev)
    k = unique("key")
    for who in (u, v):
        r = who.bank.post("/api/v1/transactions/credit", json={"amount": 2}, headers=key(k))
        assert r.status_code == 201 and not replayed(r)
        assert who.balance() == 2
    body = {"user_id": u.id, "amount": 2}
    k = unique("key")
    answers = [c.post(DEPOSIT, json=body, headers=key(k)) for c in (u.api, dev.admin.api, dev.anon)]
    assert [r.status_code for r in answers] == [201] * 3 and not any(map(replayed, answers))
    assert u.balance() == 8
    assert replayed(u.bank.post(DEPOSIT, json=body, headers=key(k))), "the principal is the user, not the credential"


def test_refusals_are_not_stored(dev):
    u = new_user(dev)
    k = unique("key")
    problem(u.api.post(DEPOSIT, json={"user_id": u.id, "amount": 0}, headers=key(k)), 422)
    problem(u.api.post(DEPOSIT, content=b"{", headers={**JSON, **key(k)}), 400)
    ok(u.api.post(DEPOSIT, json={"user_id": u.id, "amount": 4}, headers=key(k)), 201)
    k = unique("key")
    body = {"user_id": u.id, "amount": 5}
    problem(u.api.post("/api/transactions/withdraw", json=body, headers=key(k)), 422, "insufficient-funds")
    ok(u.api.post(DEPOSIT, json={"user_id": u.id, "amount": 4}), 201)
    r = u.api.post("/api/transactions/withdraw", json=body, headers=key(k))
    assert r.status_code == 201 and not replayed(r)
    assert u.balance() == 3


def test_a_replay_ignores_what_happened_since(dev):
    """The answer is the first one even when the money is long gone."""
    u = new_user(dev, fund="5")
    k = unique("key")
    body = {"user_id": u.id, "amount": 5}
    first = u.api.post("/api/transactions/withdraw", json=body, headers=key(k))
    assert ok(first, 201)["balance_after"] == 0
    again = u.api.post("/api/transactions/withdraw", json=body, headers=key(k))
    assert again.content == first.content and again.status_code == 201


def test_survives_kill_9(fresh):
    s = fresh()
    u, v = new_user(s, fund="100"), new_user(s)
    calls = []
    for client, path, body in routes(u, v):
        send = {"headers": {**JSON, **key(unique("key"))}}
        if body:
            send["content"] = json.dumps(body).encode()
        calls.append((client, path, send, client.post(path, **send)))
    before = (u.balance(), v.balance())
    s.restart(kill=True)
    for client, path, send, first in calls:
        again = client.post(path, **send)
        assert (again.status_code, again.content) == (201, first.content), (path, again.text)
        assert replayed(again)
    assert (u.balance(), v.balance()) == before
    s.restart()
    client, path, send, first = calls[0]
    assert client.post(path, **send).content == first.content


def storm(threads, work):
    """Runs work(i) in that many threads, all let go at once; the results."""
    barrier = threading.Barrier(threads)

    def run(i):
        barrier.wait()
        return work(i)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.mark.parametrize("path", [DEPOSIT, "/api/transactions/withdraw", "/api/transactions/transfer"])
def test_a_hundred_at_once(dev, path):
    u, v = new_user(dev, fund="50"), new_user(dev)
    k = unique("storm")
    body = {"user_id": u.id, "from_user_id": u.id, "to_user_id": v.id, "amount": 7}
    clients = [dev.client(key=u.key) for _ in range(100)]
    answers = storm(100, lambda i: clients[i].post(path, json=body, headers=key(k)))
    done = [r for r in answers if r.status_code == 201]
    for r in answers:
        if r.status_code != 201:
            problem(r, 409, "request-in-flight")
    assert done and len({r.content for r in done}) == 1
    assert sum(not replayed(r) for r in done) == 1
    assert u.balance() == (57 if path == DEPOSIT else 43)
    final = u.api.post(path, json=body, headers=key(k))
    assert final.content == done[0].content and replayed(final)
    assert len(page(u.api.get(f"/api/transactions?user_id={u.id}"))["data"]) == 2


def test_a_hundred_registrations_at_once(dev):
    n = unique("storm")
    u = new_user(dev)
    body = {"username": n, "email": n + "@example.com", "password": PASSWORD}
    clients = [dev.client(key=u.key) for _ in range(50)]
    answers = storm(50, lambda i: clients[i].post("/api/users", json=body, headers=key(n)))
    done = {r.content for r in answers if r.status_code == 201}
    assert len(done) == 1
    assert {r.status_code for r in answers} <= {201, 409}
    without = storm(20, lambda i: clients[i].post("/api/users", json={**body, "username": n + "x",
                                                                      "email": n + "x@example.com"}))
    assert sorted(r.status_code for r in without) == [201] + [409] * 19


def test_racing_withdrawals_never_overdraw(dev):
    u = new_user(dev, fund="10")
    clients = [dev.client(key=u.key) for _ in range(40)]
    answers = storm(40, lambda i: clients[i].post("/api/transactions/withdraw", json={"user_id": u.id, "amount": 1}))
    codes = sorted(r.status_code for r in answers)
    assert codes == [201] * 10 + [422] * 30
    assert u.balance() == 0
