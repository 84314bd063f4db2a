"""Contract §2, row by row."""
from decimal import Decimal

import pytest

from harness import PASSWORD, RFC3339, UUID7, claims, money, new_user, ok, page, problem, unique

TX_FIELDS = {"id", "uuid", "type", "status", "amount", "currency", "description", "created_at"}


def check_tx(t, kind, amount, currency="USD"):
    assert TX_FIELDS <= set(t), t
    assert isinstance(t["id"], int) and UUID7.match(t["uuid"])
    assert t["type"] == kind and t["status"] == "completed"
    assert t["amount"] == Decimal(amount) and t["currency"] == currency
    assert RFC3339.match(t["created_at"])


# --- users -----------------------------------------------------------------------------------------------------------

def test_create_user(dev):
    name = unique("Ünal")
    r = dev.anon.post("/api/users", json={"username": name, "email": unique() + "@example.com", "password": PASSWORD})
    d = ok(r, 201)
    assert {"id", "uuid", "username", "email", "role", "created_at"} <= set(d)
    assert isinstance(d["id"], int) and UUID7.match(d["uuid"])
    assert d["username"] == name and d["role"] == "user" and RFC3339.match(d["created_at"])
    assert "password" not in r.text and "$2b$" not in r.text


def test_ids_count_from_one(fresh):
    s = fresh()
    assert s.admin.id == 1
    assert [new_user(s).id for _ in range(3)] == [2, 3, 4]


def test_admin_role_only_while_there_is_none(dev):
    n = unique()
    body = {"username": n, "email": n + "@example.com", "password": PASSWORD, "role": "admin"}
    problem(dev.anon.post("/api/users", json=body), 403, "forbidden")
    problem(new_user(dev).api.post("/api/users", json=body), 403, "forbidden")
    assert ok(dev.admin.api.post("/api/users", json=body), 201)["role"] == "admin"


@pytest.mark.parametrize("change, field", [
    ({"username": ""}, "username"), ({"username": None}, "username"), ({"username": "a b"}, "username"),
    ({"username": 5}, "username"), ({"username": "x" * 65}, "username"), ({"username": "a\u0007b"}, "username"),
    ({"email": "nobody"}, "email"), ({"email": "a@b@c"}, "email"), ({"email": "@example.com"}, "email"),
    ({"email": "x" * 250 + "@example.com"}, "email"), ({"email": ["a@b.c"]}, "email"),
    ({"password": "ab"}, "password"), ({"password": ""}, "password"), ({"password": "x" * 73}, "password"),
    ({"password": "ü" * 37}, "password"), ({"password": 12345678}, "password"),
    ({"role": "root"}, "role"), ({"role": 1}, "role"),
])
def test_create_user_refuses(dev, change, field):
    n = unique()
    body = {"username": n, "email": n + "@example.com", "password": PASSWORD, **change}
    problem(dev.anon.post("/api/users", json=body), 422, "validation-failed", field)


@pytest.mark.parametrize("field", ["username", "email", "password"])
def test_create_user_needs_each_field(dev, field):
    n = unique()
    body = {"username": n, "email": n + "@example.com", "password": PASSWORD}
    del body[field]
    problem(dev.anon.post("/api/users", json=body), 422, "validation-failed", field)


def test_every_bad_field_is_named_at_once(dev):
    p = problem(dev.anon.post("/api/users", json={"username": "", "email": "x", "password": "a"}), 422)
    assert {str(e["loc"][-1]) for e in p["errors"]} == {"username", "email", "password"}
    assert all(e["loc"][0] == "body" for e in p["errors"])


def test_password_bounds(dev):
    for password in ("abc", "x" * 72, "ü" * 36):
        u = new_user(dev, password=password)
        assert u.key.startswith("pf_")


def test_duplicates(dev):
    u = new_user(dev)
    n = unique()
    problem(dev.anon.post("/api/users", json={"username": u.username, "email": n + "@example.com",
                                              "password": PASSWORD}), 409, "duplicate-username")
    problem(dev.anon.post("/api/users", json={"username": u.username.upper(), "email": n + "@example.com",
                                              "password": PASSWORD}), 409, "duplicate-username")
    problem(dev.anon.post("/api/users", json={"username": n, "email": u.email.upper(),
                                              "password": PASSWORD}), 409, "duplicate-email")


def test_login(dev):
    u = new_user(dev)
    for who in ({"username": u.username}, {"email": u.email}):
        d = ok(dev.anon.post("/api/login", json={**who, "password": u.password}))
        assert d["api_key"].startswith("pf_") and len(d["api_key"]) >= 40
        assert d["user"]["id"] == u.id and d["user"]["uuid"] == u.uuid
        assert ok(dev.client(key=d["api_key"]).get(f"/api/users/{u.id}"))["id"] == u.id


def test_login_refused_alike(dev):
    u = new_user(dev)
    wrong = problem(dev.anon.post("/api/login", json={"username": u.username, "password": "wrong"}), 401,
                    "invalid-credentials")
    unknown = problem(dev.anon.post("/api/login", json={"username": unique("nobody"), "password": "wrong"}), 401,
                      "invalid-credentials")
    assert wrong["detail"] == unknown["detail"]
    problem(dev.anon.post("/api/login", json={"username": u.username}), 422, loc="password")


def test_both_credentials_on_both_surfaces(dev):
    u = new_user(dev, fund="3")
    assert claims(u.jwt)["sub"]
    assert ok(u.bank.get(f"/api/users/{u.id}"))["id"] == u.id
    assert ok(u.api.get("/api/v1/balances/current"))["balance"] == 3


def test_get_user_in_every_form(dev):
    u = new_user(dev)
    for client in (u.api, dev.admin.api):
        for path in (f"/api/users?id={u.id}", f"/api/users?id={u.uuid}", f"/api/users/{u.id}", f"/api/users/{u.uuid}"):
            d = ok(client.get(path))
            assert (d["id"], d["uuid"], d["username"]) == (u.id, u.uuid, u.username)
    problem(dev.admin.api.get("/api/users/999999999"), 404, "not-found")
    problem(dev.admin.api.get("/api/users?id=01890000-0000-7000-8000-000000000000"), 404, "not-found")
    assert new_user(dev).api.get(f"/api/users/{u.id}").status_code in (403, 404)
    problem(dev.anon.get(f"/api/users/{u.id}"), 401)


@pytest.mark.parametrize("bad", ["abc", "1.5", "-1", "0", "99999999999999999999", "0x1", "1e3"])
def test_bad_user_id(dev, bad):
    for path in (f"/api/users/{bad}", f"/api/users?id={bad}", f"/api/balances?user_id={bad}"):
        assert dev.admin.api.get(path).status_code in (400, 404, 422), path


def test_list_users_is_the_admins(dev):
    u = new_user(dev)
    data = page(dev.admin.api.get("/api/users?limit=100"))["data"]
    assert data[0]["id"] == u.id, "newest first"
    problem(u.api.get("/api/users"), 403, "forbidden")


def test_put_user(dev):
    u = new_user(dev)
    n = unique("renamed")
    d = ok(u.api.put("/api/users", json={"id": u.id, "username": n, "email": n + "@example.com"}))
    assert d["username"] == n and d["email"] == n + "@example.com" and d["id"] == u.id
    d = ok(u.api.put(f"/api/users/{u.uuid}", json={"username": n + "2"}))
    assert d["username"] == n + "2" and d["email"] == n + "@example.com"
    d = ok(u.api.put("/api/users", json={"id": u.uuid, "password": "another one 7"}))
    ok(dev.anon.post("/api/login", json={"username": n + "2", "password": "another one 7"}))
    problem(dev.anon.post("/api/login", json={"username": n + "2", "password": PASSWORD}), 401)
    assert ok(dev.admin.api.get(f"/api/users/{u.id}"))["username"] == n + "2"


def test_put_user_refusals(dev):
    u, v = new_user(dev), new_user(dev)
    problem(u.api.put("/api/users", json={"id": u.id, "role": "admin"}), 403, "forbidden")
    assert u.api.put("/api/users", json={"id": v.id, "username": unique()}).status_code in (403, 404)
    problem(u.api.put(f"/api/users/{u.id}", json={"username": v.username}), 409, "duplicate-username")
    problem(u.api.put(f"/api/users/{u.id}", json={"email": v.email}), 409, "duplicate-email")
    problem(u.api.put(f"/api/users/{u.id}", json={"email": "x"}), 422, loc="email")
    problem(dev.admin.api.put("/api/users", json={"username": unique()}), 422, loc="id")
    problem(dev.admin.api.put("/api/users", json={"id": 999999999, "username": unique()}), 404)
    assert ok(dev.admin.api.put(f"/api/users/{v.id}", json={"role": "admin"}))["role"] == "admin"
    assert ok(dev.admin.api.put(f"/api/users/{v.id}", json={"role": "user"}))["role"] == "user"


def test_delete_user(dev):
    u = new_user(dev, fund="5.00")
    assert u.key
    problem(u.api.delete(f"/api/users?id={u.id}"), 409, "user-holds-money")
    t = ok(u.api.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": 5}), 201)
    assert new_user(dev).api.delete(f"/api/users/{u.id}").status_code in (403, 404)
    ok(u.api.delete(f"/api/users/{u.id}"))
    problem(u.api.get(f"/api/users/{u.id}"), 401)
    problem(dev.anon.post("/api/login", json={"username": u.username, "password": u.password}), 401)
    r = dev.admin.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1})
    assert r.status_code in (404, 409)
    assert ok(dev.admin.api.get(f"/api/transactions/{t['id']}"))["id"] == t["id"], "history stays"
    v = new_user(dev)
    ok(dev.admin.api.delete(f"/api/users?id={v.uuid}"))


def test_last_admin_stays(fresh):
    s = fresh()
    problem(s.admin.api.delete("/api/users?id=1"), 409, "last-admin")
    problem(s.admin.api.put("/api/users/1", json={"role": "user"}), 409, "last-admin")
    second = new_user(s, role="admin")
    assert second.role == "admin"
    ok(s.admin.api.delete("/api/users?id=1"))
    problem(second.api.delete(f"/api/users/{second.id}"), 409, "last-admin")


# --- balances --------------------------------------------------------------------------------------------------------

def test_initialize(dev):
    u = new_user(dev)
    path = f"/api/balances/initialize?user_id={u.id}"
    ok(dev.anon.post(path), 201)
    ok(dev.anon.post(path), 200)
    ok(u.api.post(f"/api/balances/initialize?user_id={u.uuid}"), 200)
    ok(u.api.post(path + "&currency=JPY"), 201)
    problem(dev.anon.post(path + "&currency=XXQ"), 422)
    problem(dev.anon.post("/api/balances/initialize?user_id=999999999"), 404)
    assert dev.anon.post("/api/balances/initialize").status_code in (400, 422)


def test_balance(dev):
    u = new_user(dev, fund="12.34")
    for client in (dev.anon, u.api, dev.admin.api):
        for who in (u.id, u.uuid):
            d = ok(client.get(f"/api/balances?user_id={who}"))
            assert {"user_id", "balance", "held", "available", "currency", "updated_at"} <= set(d)
            assert d["user_id"] == u.id and d["currency"] == "USD"
            assert d["balance"] == d["available"] == Decimal("12.34") and d["held"] == 0
            assert RFC3339.match(d["updated_at"])
    problem(dev.anon.get("/api/balances?user_id=999999999"), 404)
    assert dev.anon.get("/api/balances").status_code in (400, 422)


def test_balance_history(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    ok(u.api.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": "2.50"}), 201)
    ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 1}), 201)
    d = page(u.api.get(f"/api/balances/history?user_id={u.id}&limit=10&offset=0"))["data"]
    assert [(e["type"], e["amount"], e["balance"]) for e in d] == [
        ("transfer", -1, Decimal("6.50")), ("withdraw", Decimal("-2.50"), Decimal("7.50")), ("deposit", 10, 10)]
    assert all(e["transaction_id"] and RFC3339.match(e["created_at"]) for e in d)
    d = page(v.api.get(f"/api/balances/history?user_id={v.uuid}"))["data"]
    assert [(e["type"], e["amount"], e["balance"]) for e in d] == [("transfer", 1, 1)]


@pytest.mark.parametrize("verb", ["replay", "rebuild"])
def test_replay_and_rebuild(dev, verb):
    u = new_user(dev, fund="10")
    ok(u.api.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": 4}), 201)
    for who in (u.id, u.uuid):
        d = ok(dev.anon.post(f"/api/balances/{verb}?user_id={who}"))
        assert d["user_id"] == u.id and d["currency"] == "USD" and d["events_replayed"] == 2
        assert d["balance"] == d["stored_balance"] == 6 and d["consistent"] is True
    assert u.balance() == 6
    problem(dev.anon.post(f"/api/balances/{verb}?user_id=999999999"), 404)


# --- transactions ----------------------------------------------------------------------------------------------------

def test_deposit(dev):
    u = new_user(dev)
    for who in (u.id, u.uuid):
        t = ok(dev.anon.post("/api/transactions/deposit", json={"user_id": who, "amount": 100.5,
                                                                "description": "Para yatırma ✓"}), 201)
        check_tx(t, "deposit", "100.50")
        assert t["to_user_id"] == u.id and t["description"] == "Para yatırma ✓"
        assert t.get("from_user_id") is None
    assert u.balance() == 201
    problem(dev.anon.post("/api/transactions/deposit", json={"user_id": 999999999, "amount": 1}), 404, "not-found")
    problem(dev.anon.post("/api/transactions/deposit", json={"amount": 1}), 422, loc="user_id")
    problem(dev.anon.post("/api/transactions/deposit", json={"user_id": u.id}), 422, loc="amount")


def test_balance_after_is_the_callers(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    t = ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 5}), 201)
    assert t["balance_after"] == 15
    t = ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 4}), 201)
    assert t["balance_after"] == 11
    assert ok(v.api.get(f"/api/transactions/{t['id']}"))["balance_after"] == 4


def test_withdraw(dev):
    u = new_user(dev, fund="10.00")
    t = ok(dev.anon.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": "9.99"}), 201)
    check_tx(t, "withdraw", "9.99")
    assert t["from_user_id"] == u.id
    problem(u.api.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": "0.02"}), 422,
            "insufficient-funds")
    ok(u.api.post("/api/transactions/withdraw", json={"user_id": u.uuid, "amount": "0.01"}), 201)
    assert u.balance() == 0
    problem(u.api.post("/api/transactions/withdraw", json={"user_id": u.id, "amount": 1, "currency": "EUR"}), 422)


def test_transfer(dev):
    u, v = new_user(dev, fund="50"), new_user(dev)
    body = {"from_user_id": u.id, "to_user_id": v.uuid, "amount": 25.00, "description": "Transfer"}
    t = ok(u.api.post("/api/transactions/transfer", json=body), 201)
    check_tx(t, "transfer", "25.00")
    assert (t["from_user_id"], t["to_user_id"]) == (u.id, v.id)
    ok(dev.admin.api.post("/api/transactions/transfer", json={**body, "from_user_id": u.uuid, "amount": 5}), 201)
    assert (u.balance(), v.balance()) == (20, 30)
    problem(u.api.post("/api/transactions/transfer", json={**body, "amount": "20.01"}), 422, "insufficient-funds")
    problem(u.api.post("/api/transactions/transfer", json={**body, "to_user_id": u.uuid}), 422, "same-account")
    problem(u.api.post("/api/transactions/transfer", json={**body, "to_user_id": 999999999}), 404)
    problem(v.api.post("/api/transactions/transfer", json=body), 403, "forbidden")
    problem(dev.anon.post("/api/transactions/transfer", json=body), 401)
    assert (u.balance(), v.balance()) == (20, 30)


def test_currencies_are_apart(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 7, "currency": "EUR"}), 201)
    ok(u.api.post("/api/transactions/transfer",
                  json={"from_user_id": u.id, "to_user_id": v.id, "amount": 3, "currency": "EUR"}), 201)
    assert (u.balance("USD"), u.balance("EUR"), v.balance("EUR")) == (10, 4, 3)
    for bad in ("usd", "XXQ", "", 840, None, "US", "USDX"):
        r = u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 7, "currency": bad})
        if bad is None:
            assert r.status_code in (201, 422)
        else:
            problem(r, 422)


def test_descriptions(dev):
    u = new_user(dev)
    for text in ("", "ğüşiöç 💸", 'quotes " and \\ back', "x" * 500, "line\nbreak\ttab"):
        t = ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1, "description": text}), 201)
        assert ok(u.api.get(f"/api/transactions/{t['uuid']}"))["description"] == text
    for bad in ("x" * 501, 5, ["a"]):
        problem(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1, "description": bad}), 422,
                loc="description")


def test_get_transaction(dev):
    u, v = new_user(dev, fund="9"), new_user(dev)
    t = ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 4}), 201)
    for client in (u.api, v.api, dev.admin.api):
        for form in (t["id"], t["uuid"]):
            d = ok(client.get(f"/api/transactions/{form}"))
            assert (d["id"], d["uuid"], d["amount"]) == (t["id"], t["uuid"], 4)
    problem(new_user(dev).api.get(f"/api/transactions/{t['id']}"), 404, "not-found")
    problem(u.api.get("/api/transactions/999999999"), 404)
    problem(u.api.get("/api/transactions/01890000-0000-7000-8000-000000000000"), 404)
    problem(dev.anon.get(f"/api/transactions/{t['id']}"), 401)


def test_list_transactions(dev):
    u, v = new_user(dev, fund="9"), new_user(dev)
    ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 4}), 201)
    data = page(u.api.get(f"/api/transactions?user_id={u.id}"))["data"]
    assert [t["type"] for t in data] == ["transfer", "deposit"]
    data = page(dev.admin.api.get(f"/api/transactions?user_id={u.uuid}&type=deposit"))["data"]
    assert [t["type"] for t in data] == ["deposit"]
    assert v.api.get(f"/api/transactions?user_id={u.id}").status_code in (403, 404)


def test_stats(dev):
    u = new_user(dev, fund="1")
    r = dev.admin.api.get("/api/transactions/stats")
    ok(r)
    for word in ("deposit", "USD", "completed", "hour", "day"):
        assert word in r.text, f"stats say nothing of {word}: {r.text}"
    problem(u.api.get("/api/transactions/stats"), 403)
    problem(dev.anon.get("/api/transactions/stats"), 401)


# --- batch -----------------------------------------------------------------------------------------------------------

def test_batch_atomic(dev):
    u, v, w = new_user(dev, fund="250"), new_user(dev), new_user(dev)
    items = [{"sender_id": u.id, "receiver_id": v.id, "amount": 100, "description": "Test işlem 1"},
             {"sender_id": u.uuid, "receiver_id": w.uuid, "amount": 150, "description": "Test işlem 2"}]
    ok(u.api.post("/api/transactions/batch", json={"transactions": items}), 201)
    assert (u.balance(), v.balance(), w.balance()) == (0, 100, 150)
    descriptions = [t["description"] for t in page(u.api.get(f"/api/transactions?user_id={u.id}"))["data"][:2]]
    assert descriptions == ["Test işlem 2", "Test işlem 1"]


def test_batch_atomic_is_all_or_nothing(dev):
    u, v = new_user(dev, fund="100"), new_user(dev)
    item = {"sender_id": u.id, "receiver_id": v.id, "amount": 60}
    for bad in ({**item, "amount": 50}, {**item, "amount": "0.001"}, {**item, "receiver_id": u.id},
                {**item, "receiver_id": 999999999}, {**item, "amount": None}, {"sender_id": u.id}, 7):
        r = u.api.post("/api/transactions/batch", json={"transactions": [item, bad]})
        p = problem(r, 422)
        assert any("1" in map(str, e["loc"]) for e in p["errors"]), f"the failing index is not named: {p}"
        assert (u.balance(), v.balance()) == (100, 0)
    assert len(page(u.api.get(f"/api/transactions?user_id={u.id}"))["data"]) == 1


def test_batch_money_received_in_it_can_be_spent(dev):
    u, v, w = new_user(dev, fund="10"), new_user(dev), new_user(dev)
    ok(dev.admin.api.post("/api/transactions/batch", json={"transactions": [
        {"sender_id": u.id, "receiver_id": v.id, "amount": 10},
        {"sender_id": v.id, "receiver_id": w.id, "amount": 10}]}), 201)
    assert (u.balance(), w.balance()) == (0, 10)


def test_batch_each_alone(dev):
    u, v = new_user(dev, fund="100"), new_user(dev)
    item = {"sender_id": u.id, "receiver_id": v.id, "amount": 60}
    r = u.api.post("/api/transactions/batch", json={"atomic": False, "transactions": [
        item, item, {**item, "amount": 40}, {**item, "receiver_id": u.id, "amount": 1}, {**item, "amount": 0}]})
    results = ok(r, 201)["results"]
    assert len(results) == 5
    assert [x["index"] for x in results] == list(range(5))
    assert [x["status"] in ("ok", "completed") for x in results] == [True, False, True, False, False], results
    assert "insufficient-funds" in str(results[1]) and "same-account" in str(results[3])
    assert (u.balance(), v.balance()) == (0, 100)


def test_batch_rights(dev):
    u, v = new_user(dev, fund="100"), new_user(dev, fund="1")
    mine = {"sender_id": u.id, "receiver_id": v.id, "amount": 1}
    theirs = {"sender_id": v.id, "receiver_id": u.id, "amount": 1}
    problem(u.api.post("/api/transactions/batch", json={"transactions": [mine, theirs]}), 403)
    assert u.api.post("/api/transactions/batch",
                      json={"transactions": [mine, theirs], "atomic": False}).status_code in (201, 403)
    assert v.balance() <= 2, "money was taken from another's account"
    problem(dev.anon.post("/api/transactions/batch", json={"transactions": [mine]}), 401)


@pytest.mark.parametrize("body", [{}, {"transactions": []}, {"transactions": {}}, {"transactions": None},
                                  {"transactions": [{}], "atomic": "no"}])
def test_batch_shape(dev, body):
    problem(dev.admin.api.post("/api/transactions/batch", json=body), 422)


def test_batch_ten_thousand(dev):
    u, v = new_user(dev, fund="200.00"), new_user(dev)  # enough for one item too many
    item = {"sender_id": u.id, "receiver_id": v.id, "amount": "0.01"}
    problem(u.api.post("/api/transactions/batch", json={"transactions": [item] * 10_001}), 422)
    assert v.api.get(f"/api/transactions?user_id={v.id}").json()["data"] == []
    r = u.api.post("/api/transactions/batch", json={"transactions": [item] * 10_000})
    ok(r, 201)
    assert (u.balance(), v.balance()) == (100, 100)
    last = page(v.api.get(f"/api/balances/history?user_id={v.id}&limit=1"))["data"][0]
    assert last["balance"] == 100


# --- money on the wire -----------------------------------------------------------------------------------------------

def test_dates_and_numbers_are_exact_on_the_wire(dev):
    u = new_user(dev, fund="7.10")
    r = u.api.get(f"/api/balances?user_id={u.id}")
    assert '"balance":7.10' in r.text.replace(" ", "")
    assert money(r)["balance"].as_tuple().exponent == -2


def test_api_keys_are_listed_and_revoked_one_by_one(dev):
    u, other = new_user(dev), new_user(dev)
    assert u.key and other.key  # made on first use
    second = ok(dev.anon.post("/api/login", json={"username": u.username, "password": u.password}))["api_key"]
    keys = ok(u.api.get(f"/api/users/{u.id}/api-keys"))["data"]
    assert [second.startswith(keys[0]["prefix"]), u.key.startswith(keys[1]["prefix"])] == [True, True]
    assert second not in str(keys) and u.key not in str(keys)
    problem(other.api.get(f"/api/users/{u.id}/api-keys"), 403)
    problem(other.api.delete(f"/api/users/{u.id}/api-keys/{keys[0]['id']}"), 403)
    problem(other.api.delete(f"/api/users/{other.id}/api-keys/{keys[0]['id']}"), 404)
    ok(u.api.delete(f"/api/users/{u.id}/api-keys/{keys[0]['id']}"))
    problem(dev.client(key=second).get(f"/api/users/{u.id}"), 401)
    ok(u.api.get(f"/api/users/{u.id}"))
    problem(u.api.delete(f"/api/users/{u.id}/api-keys/{keys[0]['id']}"), 404)
    assert len(ok(u.api.get(f"/api/users/{u.id}/api-keys"))["data"]) == 1
