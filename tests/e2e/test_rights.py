"""Who may do what, generated from the route table as /openapi.json publishes it: every route × four callers.

Each operation carries x-right (public, user, owner, admin), x-open (answers key-less in dev) and, for owner, x-subject.
"""
import re
from types import SimpleNamespace

import pytest

from harness import PASSWORD, new_user, ok, start_server, unique

RIGHTS = {"public", "user", "owner", "admin"}
ROLES = ("nobody", "stranger", "owner", "admin")
LATER = "2099-01-01T00:00:00Z"
METHODS = ("get", "post", "put", "delete", "patch")

# Contract §2 and §4: the routes marked open.
OPEN = {
    ("POST", "/api/balances/initialize"), ("GET", "/api/balances"), ("POST", "/api/balances/replay"),
    ("POST", "/api/balances/rebuild"), ("POST", "/api/transactions/deposit"), ("POST", "/api/transactions/withdraw"),
    ("GET", "/api/cache/stats"), ("GET", "/api/cache/keys"), ("POST", "/api/cache/warmup"),
    ("POST", "/api/cache/invalidate"), ("POST", "/api/events"), ("POST", "/api/bookings"),
}
TRIALS = "/api/v1/test/circuit-breaker/"
# What the contract itself says, so that a wrong table is found and not just followed.
ADMIN_ONLY = {
    ("GET", "/api/transactions/stats"), ("GET", "/api/v1/users"), ("GET", "/api/v1/users/{id}"),
    ("PUT", "/api/v1/users/{id}"), ("DELETE", "/api/v1/users/{id}"), ("GET", "/api/v1/admin/audit"),
    ("GET", "/api/v1/admin/journal"), ("GET", "/api/v1/admin/reconciliation"), ("GET", "/api/cache/stats"),
    ("GET", "/api/cache/keys"),
}
PUBLIC = {
    ("POST", "/api/users"), ("POST", "/api/login"), ("POST", "/api/v1/auth/register"), ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/refresh"), ("GET", "/api/v1/ping"), ("GET", "/health"), ("GET", "/health/live"),
    ("GET", "/health/ready"), ("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/metrics/basic"),
    ("POST", "/api/auth/register"), ("POST", "/api/auth/login"), ("GET", "/api/events"), ("GET", "/api/events/{id}"),
    ("GET", "/api/bookings/{id}"), ("DELETE", "/api/bookings/{id}"),
}
QUERY = {
    "/api/users": "id={c.owner.id}", "/api/balances": "user_id={c.owner.id}",
    "/api/balances/history": "user_id={c.owner.id}", "/api/balances/initialize": "user_id={c.owner.id}",
    "/api/balances/replay": "user_id={c.owner.id}", "/api/balances/rebuild": "user_id={c.owner.id}",
    "/api/transactions": "user_id={c.owner.id}", "/api/cache/keys": "pattern=user:*",
    "/api/bookings": "user_id={c.owner.id}", "/api/v1/transactions/history": "user_id={c.owner.id}",
    "/api/v1/balances/at-time": "timestamp=2024-01-01T00:00:00Z",
}


def registration(_):
    n = unique("r")
    return {"username": n, "email": n + "@example.com", "password": PASSWORD}


def event():
    return {"title": "An evening", "location": "here", "date": LATER, "total_tickets": 100}


BODIES = {
    ("POST", "/api/users"): registration,
    ("POST", "/api/login"): lambda c: {"username": c.owner.username, "password": PASSWORD},
    ("PUT", "/api/users"): lambda c: {"id": c.owner.id, "email": c.owner.email},
    ("PUT", "/api/users/{id}"): lambda c: {"email": c.owner.email},
    ("POST", "/api/transactions/deposit"): lambda c: {"user_id": c.owner.id, "amount": 1},
    ("POST", "/api/transactions/withdraw"): lambda c: {"user_id": c.owner.id, "amount": 1},
    ("POST", "/api/transactions/transfer"): lambda c: {"from_user_id": c.owner.id, "to_user_id": c.third.id,
                                                       "amount": 1},
    ("POST", "/api/transactions/batch"): lambda c: {
        "transactions": [{"sender_id": c.owner.id, "receiver_id": c.third.id, "amount": 1}]},
    ("POST", "/api/cache/warmup"): lambda c: {"type": "user", "user_id": c.owner.id},
    ("POST", "/api/cache/invalidate"): lambda c: {"user_id": c.owner.id},
    ("POST", "/api/v1/auth/register"): registration,
    ("POST", "/api/v1/auth/login"): lambda c: {"email": c.owner.email, "password": PASSWORD},
    ("POST", "/api/v1/auth/refresh"): lambda c: {"refresh_token": c.owner.login()["refresh_token"]},
    ("POST", "/api/v1/auth/logout"): lambda c: {},
    ("POST", "/api/auth/register"): registration,
    ("POST", "/api/auth/login"): lambda c: {"email": c.third.email, "password": PASSWORD},  # who has tries left
    ("POST", "/api/events"): lambda c: event(),
    ("POST", "/api/bookings"): lambda c: {"user_id": c.owner.id, "event_id": c.event, "ticket_count": 1},
    ("PUT", "/api/v1/users/{id}"): lambda c: {"email": c.owner.email},
    ("POST", "/api/v1/transactions/credit"): lambda c: {"amount": 1},
    ("POST", "/api/v1/transactions/debit"): lambda c: {"amount": 1},
    ("POST", "/api/v1/transactions/transfer"): lambda c: {"to_user_id": c.third.id, "amount": 1},
    ("POST", "/api/v1/transactions/{id}/rollback"): lambda c: {"reason": "x"},
    ("POST", "/api/v1/scheduled-transactions"): lambda c: {"type": "credit", "amount": 1, "scheduled_at": LATER},
}


def canonical(method, path):
    """The table's key: the same route whatever its path parameter is called, the root alias under its full name."""
    return method, re.sub(r"\{[^}]+\}", "{id}", path)


@pytest.fixture(scope="module")
def table(prod):
    doc = prod.anon.get("/openapi.json").json()
    return [SimpleNamespace(method=m.upper(), path=p, op=op, right=op.get("x-right"), open=bool(op.get("x-open")),
                            subject=op.get("x-subject", ""), key=canonical(m.upper(), p))
            for p, item in doc["paths"].items() for m, op in item.items() if m in METHODS]


# Calls that use up a person or a credential: they get people of their own (prod's passwords are slow to hash).
CONSUMING = {("POST", "/api/users/api-key"), ("DELETE", "/api/users"), ("DELETE", "/api/users/{id}"),
             ("DELETE", "/api/v1/users/{id}"), ("POST", "/api/v1/auth/logout"), ("POST", "/api/v1/auth/refresh")}
DELETES_USER = {key for key in CONSUMING if key[0] == "DELETE"}
CASTS = {}


def cast(server):
    people = [new_user(server, fund="100000"), new_user(server, fund="100000"), new_user(server),
              new_user(server, role="admin")]
    return dict(zip(("owner", "stranger", "third", "admin"), people))


def scene(server, op):
    """People and what they own."""
    if op.key in CONSUMING:
        people = cast(server)
    else:
        people = CASTS.get(server.base)
        if not people:
            people = CASTS[server.base] = cast(server)
            for name in ("owner", "stranger", "admin"):  # before the login routes use up the tries of a minute
                assert people[name].key and people[name].jwt
    c = SimpleNamespace(**people)
    if op.key in DELETES_USER:
        ok(c.owner.api.post("/api/transactions/withdraw", json={"user_id": c.owner.id, "amount": 100000}), 201)
    c.id = c.owner.id
    if "transactions/{" in op.path and "scheduled" not in op.path:
        c.id = ok(c.owner.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)["id"]
    elif "events/{" in op.path:
        c.id = ok(c.owner.api.post("/api/events", json=event()), 201)["id"]
    elif op.path == "/api/bookings":
        c.event = ok(c.owner.api.post("/api/events", json=event()), 201)["id"]
    elif "scheduled-transactions/{" in op.path:
        body = {"type": "credit", "amount": 1, "scheduled_at": LATER}
        c.id = ok(c.owner.bank.post("/api/v1/scheduled-transactions", json=body), 201)["id"]
    elif "api-keys/{" in op.path:  # one to spare
        ok(server.anon.post("/api/login", json={"username": c.owner.username, "password": c.owner.password}))
        c.key_id = ok(c.owner.api.get(f"/api/users/{c.owner.id}/api-keys"))["data"][0]["id"]
    return c


def call(server, op, role, path=None):
    c = scene(server, op)
    target = (path or op.path).replace("{key_id}", str(getattr(c, "key_id", "")))
    target = re.sub(r"\{[^}]+\}", str(c.id), target)
    query = QUERY.get(op.path)
    if query and op.key not in {("POST", "/api/users"), ("PUT", "/api/users"), ("POST", "/api/bookings")}:
        target += "?" + query.format(c=c)
    who = None if role == "nobody" else getattr(c, role)
    if who is None:
        client = server.client()
    else:
        client = who.bank if op.path.startswith("/api/v1/") else who.api
    kw = {}
    if op.key in BODIES:
        kw["json"] = BODIES[op.key](c)
    return client.request(op.method, target, **kw)


def test_every_route_has_a_right(table):
    bad = [(o.method, o.path, o.right) for o in table if o.right not in RIGHTS]
    assert not bad, f"routes without a right: {bad}"
    nameless = [(o.method, o.path) for o in table if o.right == "owner" and not o.subject]
    assert not nameless, f"owner routes that do not say where the owner is named: {nameless}"


def test_every_body_is_known_here(table):
    unknown = [(o.method, o.path) for o in table
               if o.op.get("requestBody", {}).get("required") and o.key not in BODIES]
    assert not unknown, f"add a body for {unknown} to BODIES"


def test_the_table_says_what_the_contract_says(table):
    keys = {o.key: o for o in table}
    missing = (OPEN | ADMIN_ONLY | PUBLIC) - set(keys)
    assert not missing, missing
    assert {o.key for o in table if o.open} == OPEN
    assert {k for k in ADMIN_ONLY if keys[k].right != "admin"} == set()
    assert {k for k in PUBLIC if keys[k].right != "public"} == set()
    api = {o.key for o in table if o.right == "public" and o.path.startswith("/api/")}
    more = {k for k in api - PUBLIC if not re.match(r"/api/v1/(metrics|test/circuit-breaker)/", k[1])}
    assert not more, "more is public than the contract says"


def judge(op, role, r):
    """None if the answer fits the right; else what is wrong."""
    s = r.status_code
    what = f"{op.right:6} {role:8} {op.method} {op.path} -> {s} {r.text[:120]}"
    if s >= 500 and not op.path.startswith(TRIALS):  # those fail on purpose
        return what
    if role == "nobody":
        good = s not in (401, 403) if op.right == "public" else s == 401 and "www-authenticate" in r.headers
    elif op.right == "public":
        good = s not in (401, 403)
    elif op.right == "user":
        good = s not in (401, 403)
    elif op.right == "owner":
        if role == "stranger":
            good = s in (403, 404) or (op.subject.startswith("self") and s not in (401, 403))
        else:
            good = s not in (401, 403, 404)
    else:
        good = s not in (401, 403, 404) if role == "admin" else s == 403
    return None if good else what


@pytest.mark.parametrize("role", ROLES)
def test_rights(prod, table, role):
    wrong = [w for op in table if (w := judge(op, role, call(prod, op, role)))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("role", ["nobody", "stranger"])
def test_the_same_without_the_prefix(prod, table, role):
    """The Banking routes at the root have the rights of their full names."""
    taken = {o.path for o in table}
    wrong = []
    for op in table:
        alias = op.path[len("/api/v1"):]
        if op.path.startswith("/api/v1/") and alias not in taken:
            r = call(prod, op, role, alias)
            if r.status_code == 404 and role == "nobody" and not op.path.startswith(TRIALS):  # not in prod
                wrong.append(f"no alias {op.method} {alias}")
            elif w := judge(op, role, r):
                wrong.append("alias of " + w)
    assert not wrong, "\n".join(wrong)


def test_open_routes_in_dev_and_closed_in_prod(dev, prod, table):
    for op in table:
        if not op.open:
            continue
        r = call(dev, op, "nobody")
        assert r.status_code in (200, 201), (op.method, op.path, r.text)
        assert call(prod, op, "nobody").status_code == 401, (op.method, op.path)


def test_closed_routes_are_closed_in_dev_too(dev, table):
    wrong = [w for op in table if not op.open and (w := judge(op, "nobody", call(dev, op, "nobody")))]
    assert not wrong, "\n".join(wrong)


def test_staging_is_as_closed_as_prod(tmp_path):
    s = start_server(tmp_path / "data", env={"ENV": "staging"})
    try:
        for method, path in OPEN:
            assert s.anon.request(method, path + "?user_id=1").status_code == 401, path
    finally:
        s.kill9()


def test_what_a_user_does_to_another_in_prod(prod):
    """The money paths once more, by hand: nothing of the victim's changes."""
    u, v = new_user(prod, fund="10"), new_user(prod, fund="10")
    attempts = [
        ("POST", "/api/transactions/withdraw", {"user_id": v.id, "amount": 1}),
        ("POST", "/api/transactions/withdraw", {"user_id": v.uuid, "amount": 1}),
        ("POST", "/api/transactions/transfer", {"from_user_id": v.uuid, "to_user_id": u.id, "amount": 1}),
        ("POST", "/api/transactions/deposit", {"user_id": v.id, "amount": 1}),
        ("PUT", "/api/users", {"id": v.uuid, "password": "taken over 1"}),
        ("PUT", f"/api/users/{v.uuid}", {"email": "x@example.com"}),
        ("PUT", f"/api/users/{u.id}", {"id": v.id, "email": "y@example.com"}),
        ("DELETE", f"/api/users/{v.uuid}", None),
        ("GET", f"/api/users/{v.uuid}", None),
        ("GET", f"/api/balances?user_id={v.uuid}", None),
        ("GET", f"/api/balances/history?user_id={v.uuid}", None),
        ("GET", f"/api/transactions?user_id={v.uuid}", None),
    ]
    for client in (u.api, u.bank):
        for method, path, body in attempts:
            r = client.request(method, path, json=body) if body else client.request(method, path)
            if path == f"/api/users/{u.id}":
                assert r.status_code in (200, 400, 403, 404, 409, 422)
            else:
                assert r.status_code in (403, 404), (method, path, r.status_code, r.text)
    assert v.balance() == 10
    assert ok(v.api.get(f"/api/users/{v.id}"))["email"] == v.email
