"""Contract §3, row by row. Rollback, schedules and pages have files of their own; breakers belong to a later issue."""
import time
from decimal import Decimal

import pytest

from harness import PASSWORD, RFC3339, UUID7, claims, new_user, ok, page, problem, reconciled, unique, utc

V1 = "/api/v1"


def register(server, client=None, **change):
    n = unique("b")
    body = {"username": n, "email": n + "@example.com", "password": PASSWORD, **change}
    return (client or server.anon).post(V1 + "/auth/register", json=body), body


def test_register(dev):
    r, body = register(dev)
    d = ok(r, 201)
    d = d.get("user", d)
    assert UUID7.match(d["id"]) and d["username"] == body["username"] and d["role"] == "user"
    assert "$2b$" not in r.text and PASSWORD not in r.text
    r, _ = register(dev, role="admin")
    problem(r, 403)
    r, _ = register(dev, dev.admin.bank, role="admin")
    assert ok(r, 201)
    r, _ = register(dev, username=body["username"])
    problem(r, 409, "duplicate-username")
    r, _ = register(dev, password="x" * 73)
    problem(r, 422, loc="password")


def test_login(dev):
    u = new_user(dev)
    for who in ({"email": u.email}, {"username": u.username}):
        r = dev.anon.post(V1 + "/auth/login", json={**who, "password": u.password})
        d = ok(r)
        assert {"access_token", "refresh_token", "token_type", "expires_in", "user"} <= set(d)
        assert d["token_type"] == "Bearer" and d["expires_in"] == 900
        assert d["user"]["id"] == u.uuid
        c = claims(d["access_token"])
        assert {"sub", "role", "iss", "aud", "iat", "exp", "jti", "typ"} <= set(c)
        assert c["exp"] - c["iat"] == 900 and c["role"] == "user"
        assert abs(c["iat"] - time.time()) < 30
        assert r.headers.get("cache-control", "").find("no-store") >= 0, "tokens must not be cached"
    problem(dev.anon.post(V1 + "/auth/login", json={"email": u.email, "password": "no"}), 401, "invalid-credentials")
    problem(dev.anon.post(V1 + "/auth/login", json={"password": "no"}), 422)


def test_users_is_admin_only(dev):
    u, v = new_user(dev), new_user(dev)
    a = dev.admin.bank
    assert page(a.get(V1 + "/users"))["data"][0]["id"] == v.uuid
    for form in (u.id, u.uuid):
        d = ok(a.get(f"{V1}/users/{form}"))
        assert d["id"] == u.uuid and d["username"] == u.username
    n = unique()
    d = ok(a.put(f"{V1}/users/{u.uuid}", json={"username": n, "email": n + "@example.com"}))
    assert d["username"] == n and ok(a.get(f"{V1}/users/{u.id}"))["email"] == n + "@example.com"
    for r in (v.bank.get(V1 + "/users"), v.bank.get(f"{V1}/users/{u.id}"), v.bank.get(f"{V1}/users/{v.id}"),
              v.bank.put(f"{V1}/users/{v.id}", json={"username": unique()}), v.bank.delete(f"{V1}/users/{v.id}")):
        problem(r, 403, "forbidden")
    ok(a.delete(f"{V1}/users/{v.uuid}"))
    problem(a.get(f"{V1}/users/{v.uuid}"), 404)
    problem(dev.anon.get(V1 + "/users"), 401)


def test_credit_and_debit(dev):
    u = new_user(dev)
    t = ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 1000.00, "currency": "USD",
                                                          "description": "maaş"}), 201)
    assert UUID7.match(t["id"]) and t["amount"] == 1000 and t["currency"] == "USD" and t["description"] == "maaş"
    assert t["status"] == "completed" and t["balance_after"] == 1000 and RFC3339.match(t["created_at"])
    assert t["to_user_id"] == u.uuid
    t = ok(u.bank.post(V1 + "/transactions/debit", json={"amount": "250.25"}), 201)
    assert t["balance_after"] == Decimal("749.75") and t["from_user_id"] == u.uuid
    problem(u.bank.post(V1 + "/transactions/debit", json={"amount": "749.76"}), 422, "insufficient-funds")
    problem(u.bank.post(V1 + "/transactions/debit", json={}), 422, loc="amount")
    problem(dev.anon.post(V1 + "/transactions/credit", json={"amount": 1}), 401)
    assert u.balance() == Decimal("749.75")


def test_transfer(dev):
    u, v = new_user(dev, fund="100"), new_user(dev)
    for n, to in enumerate((v.uuid, v.id), 1):
        t = ok(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": to, "amount": 10.5}), 201)
        assert (t["from_user_id"], t["to_user_id"], t["amount"]) == (u.uuid, v.uuid, Decimal("10.50"))
        assert t["type"] == "transfer" and t["balance_after"] == 100 - n * Decimal("10.5")
    problem(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": u.uuid, "amount": 1}), 422, "same-account")
    problem(u.bank.post(V1 + "/transactions/transfer",
                        json={"to_user_id": "01890000-0000-7000-8000-000000000000", "amount": 1}), 404)
    problem(u.bank.post(V1 + "/transactions/transfer", json={"amount": 1}), 422, loc="to_user_id")
    problem(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": v.uuid, "amount": 79.01}), 422,
            "insufficient-funds")
    assert (u.balance(), v.balance()) == (79, 21)


def test_current_balance(dev):
    u = new_user(dev, fund="3.30")
    ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 500, "currency": "JPY"}), 201)
    d = ok(u.bank.get(V1 + "/balances/current"))
    assert d["balance"] == Decimal("3.30") and d["currency"] == "USD"
    assert {(b["currency"], b["balance"]) for b in d["balances"]} == {("USD", Decimal("3.30")), ("JPY", 500)}
    d = ok(u.bank.get(V1 + "/balances/current?currency=JPY"))
    assert (d["currency"], d["balance"]) == ("JPY", 500)
    assert u.bank.get(V1 + "/balances/current?currency=xx").status_code in (400, 422)


def test_current_balance_of_a_new_user(dev):
    d = ok(new_user(dev).bank.get(V1 + "/balances/current"))
    assert d["balance"] == 0 and d["balances"] == []


def test_historical(dev):
    u = new_user(dev)
    marks = []
    for amount in ("1", "2", "3"):
        ok(u.bank.post(V1 + "/transactions/credit", json={"amount": amount}), 201)
        time.sleep(0.02)
        marks.append(utc())
        time.sleep(0.02)
    d = page(u.bank.get(V1 + "/balances/historical"))["data"]
    assert [e["balance"] for e in d] == [6, 3, 1] and [e["amount"] for e in d] == [3, 2, 1]
    d = page(u.bank.get(V1 + "/balances/historical", params={"from": marks[0], "to": marks[1]}))["data"]
    assert [e["balance"] for e in d] == [3]
    d = page(u.bank.get(V1 + "/balances/historical", params={"to": marks[0]}))["data"]
    assert [e["balance"] for e in d] == [1]
    d = page(u.bank.get(V1 + "/balances/historical", params={"limit": 1}))
    assert [e["balance"] for e in d["data"]] == [6] and d["has_more"] is True
    assert page(u.bank.get(V1 + "/balances/historical", params={"from": marks[2]}))["data"] == []
    assert u.bank.get(V1 + "/balances/historical?from=yesterday").status_code in (400, 422)


def test_at_time(dev):
    before = utc(-1)
    u = new_user(dev)
    points = [(utc(), 0)]
    for total in (5, 12):
        time.sleep(0.02)
        ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 5 if total == 5 else 7}), 201)
        time.sleep(0.02)
        points.append((utc(), total))
    for stamp, balance in points:
        d = ok(u.bank.get(V1 + "/balances/at-time", params={"timestamp": stamp}))
        assert d["balance"] == balance and d["currency"] == "USD"
    assert ok(u.bank.get(V1 + "/balances/at-time", params={"timestamp": before}))["balance"] == 0
    assert ok(u.bank.get(V1 + "/balances/at-time", params={"timestamp": "1970-01-01T00:00:00Z"}))["balance"] == 0
    problem(u.bank.get(V1 + "/balances/at-time", params={"timestamp": utc(60)}), 422)


@pytest.mark.parametrize("bad", ["", "now", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01",
                                 "2024-01-01T25:00:00Z", "1e9", "2024-01-01T00:00:00"])
def test_at_time_refuses(dev, user, bad):
    assert user.bank.get(V1 + "/balances/at-time", params={"timestamp": bad}).status_code in (400, 422)


def test_at_time_needs_its_parameter(user):
    assert user.bank.get(V1 + "/balances/at-time").status_code in (400, 422)


def test_at_time_among_many_entries(dev):
    u = new_user(dev)
    points = []
    for n in range(1, 131):
        ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 1}), 201)
        if n in (1, 2, 63, 64, 65, 66, 127, 128, 129, 130):
            time.sleep(0.005)
            points.append((utc(), n))
            time.sleep(0.005)
    for stamp, n in points:
        d = ok(u.bank.get(V1 + "/balances/at-time", params={"timestamp": stamp}))
        assert d["balance"] == n
        d = page(u.bank.get(V1 + "/balances/historical", params={"to": stamp, "limit": 2}))["data"]
        assert [e["balance"] for e in d] == [n, n - 1][:n]


def test_get_transaction(dev):
    u, v = new_user(dev, fund="9"), new_user(dev)
    t = ok(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": v.id, "amount": 4}), 201)
    seq = ok(u.api.get(f"/api/transactions/{t['id']}"))["id"]
    for client in (u.bank, v.bank, dev.admin.bank):
        for form in (t["id"], seq):
            assert ok(client.get(f"{V1}/transactions/{form}"))["id"] == t["id"]
    problem(new_user(dev).bank.get(f"{V1}/transactions/{t['id']}"), 404, "not-found")
    problem(u.bank.get(f"{V1}/transactions/nonsense"), 404)


@pytest.fixture(scope="module")
def story(dev):
    """One user's transactions of many kinds, and their ids in order."""
    u, v, w = new_user(dev), new_user(dev), new_user(dev)
    ids = {}
    ids["in"] = ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 100}), 201)["id"]
    ids["yen"] = ok(u.bank.post(V1 + "/transactions/credit", json={"amount": 70, "currency": "JPY"}), 201)["id"]
    ids["out"] = ok(u.bank.post(V1 + "/transactions/debit", json={"amount": 10}), 201)["id"]
    time.sleep(0.01)
    ids["mark"] = utc()
    time.sleep(0.01)
    ids["to_v"] = ok(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": v.id, "amount": 20}), 201)["id"]
    ids["to_w"] = ok(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": w.id, "amount": 30}), 201)["id"]
    ids["undo"] = ok(dev.admin.bank.post(f"{V1}/transactions/{ids['to_w']}/rollback", json={}), 201)["id"]
    return u, v, w, ids


@pytest.mark.parametrize("query, expected", [
    ({}, ["undo", "to_w", "to_v", "out", "yen", "in"]),
    ({"type": "transfer"}, ["to_w", "to_v"]),
    ({"type": "credit"}, ["yen", "in"]),
    ({"type": "debit"}, ["out"]),
    ({"type": "rollback"}, ["undo"]),
    ({"currency": "JPY"}, ["yen"]),
    ({"status": "rolled_back"}, ["to_w"]),
    ({"status": "completed"}, ["undo", "to_v", "out", "yen", "in"]),
    ({"min_amount": "20", "currency": "USD"}, ["undo", "to_w", "to_v", "in"]),
    ({"max_amount": "20", "currency": "USD"}, ["to_v", "out"]),
    ({"min_amount": "10.01", "max_amount": "29.99", "currency": "USD"}, ["to_v"]),
    ({"from": "MARK"}, ["undo", "to_w", "to_v"]),
    ({"to": "MARK"}, ["out", "yen", "in"]),
    ({"counterparty": "V"}, ["to_v"]),
    ({"counterparty": "W"}, ["undo", "to_w"]),
    ({"type": "transfer", "limit": "1"}, ["to_w"]),
])
def test_history_filters(story, query, expected):
    u, v, w, ids = story
    for form in ("uuid", "id"):
        names = {"MARK": ids["mark"], "V": getattr(v, form), "W": getattr(w, form)}
        q = {k: names.get(x, x) for k, x in query.items()}
        data = page(u.bank.get(V1 + "/transactions/history", params=q))["data"]
        assert [t["id"] for t in data] == [ids[e] for e in expected], (q, [t["type"] for t in data])


def test_history_of_another(dev, story):
    u, v, _, ids = story
    data = page(dev.admin.bank.get(V1 + "/transactions/history", params={"user_id": v.uuid}))["data"]
    assert [t["id"] for t in data] == [ids["to_v"]]
    r = v.bank.get(V1 + "/transactions/history", params={"user_id": u.uuid})
    assert r.status_code in (403, 404), "a user reads another's history"


@pytest.mark.parametrize("query", [
    "type=nothing", "status=odd", "currency=QQQ", "from=x", "to=2024-99-99T00:00:00Z", "min_amount=abc",
    "max_amount=1.234", "min_amount=-1", "counterparty=zzz", "limit=0", "limit=101", "limit=x", "cursor=!!!",
])
def test_history_refuses(user, query):
    assert user.bank.get(f"{V1}/transactions/history?{query}").status_code in (400, 404, 422), query


def test_ping(dev):
    r = dev.anon.get(V1 + "/ping")
    assert ok(r) == {"message": "pong"}


def test_without_the_prefix(dev, user):
    assert ok(dev.anon.get("/ping")) == {"message": "pong"}
    assert ok(user.bank.get("/balances/current"))["balance"] == 1000
    ok(user.bank.post("/transactions/credit", json={"amount": 1}), 201)
    assert len(page(user.bank.get("/transactions/history"))["data"]) == 2
    problem(dev.anon.get("/users"), 401)
    problem(user.bank.get("/users"), 403)
    n = unique()
    ok(dev.anon.post("/auth/register", json={"username": n, "email": n + "@example.com", "password": PASSWORD}), 201)


def test_journal(dev, user):
    t = ok(user.bank.post(V1 + "/transactions/credit", json={"amount": "3.21", "description": "mark me"}), 201)
    seq = ok(user.api.get(f"/api/transactions/{t['id']}"))["id"]
    r = dev.admin.bank.get(V1 + "/admin/journal", params={"after_seq": seq - 1, "limit": 1})
    d = ok(r)
    entry = d["data"][0]
    assert entry["seq"] == seq and entry["amount"] == Decimal("3.21") and entry["currency"] == "USD"
    assert entry["description"] == "mark me"
    assert entry["debit"] != entry["credit"]
    first = ok(dev.admin.bank.get(V1 + "/admin/journal", params={"after_seq": 0, "limit": 2}))["data"]
    assert [e["seq"] for e in first] == [1, 2], "the log is read forward"
    problem(user.bank.get(V1 + "/admin/journal"), 403)
    problem(dev.anon.get(V1 + "/admin/journal"), 401)


def test_reconciliation(dev, user):
    ok(user.bank.post(V1 + "/transactions/credit", json={"amount": 5, "currency": "KWD"}), 201)
    r = dev.admin.bank.get(V1 + "/admin/reconciliation")
    ok(r)
    assert "USD" in r.text and "KWD" in r.text
    assert reconciled(r), r.text
    problem(user.bank.get(V1 + "/admin/reconciliation"), 403)
