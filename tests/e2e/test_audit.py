"""The audit log: who did what, when, from where, with what outcome; append-only, the admin's."""
import time

import pytest

from harness import PASSWORD, SECRET, new_user, ok, page, problem, unique, utc

PATH = "/api/v1/admin/audit"


def audit(server, **query):
    return page(server.admin.bank.get(PATH, params={"limit": 100, **query}))["data"]


def text(entry):
    return str({k: v for k, v in entry.items() if k not in ("created_at", "ts", "at")}).lower()


def test_what_an_entry_says(dev):
    u = new_user(dev)
    assert u.jwt
    e = audit(dev)[0]
    assert {"actor", "action", "entity"} <= set(e), e
    assert any(k in e for k in ("outcome", "result")), "with what outcome"
    assert any(k in e for k in ("created_at", "at", "timestamp", "ts")), "when"
    assert "127.0.0.1" in str(e), "from where"


def test_everything_that_is_no_journal_entry_is_there(fresh):
    """Each deed adds at least one entry whose action is not that of the deed before."""
    s = fresh()
    u = new_user(s)
    a = s.admin
    assert a.key and a.jwt and u.key

    def deeds():
        yield "login", lambda: s.anon.post("/api/login", json={"username": u.username, "password": u.password})
        yield "login", lambda: s.anon.post("/api/v1/auth/login", json={"email": u.email, "password": u.password})
        yield "login", lambda: s.anon.post("/api/login", json={"username": u.username, "password": "wrong"})
        yield "user", lambda: s.anon.post("/api/users", json={
            "username": unique(), "email": unique() + "@example.com", "password": PASSWORD})
        yield "user", lambda: a.api.put(f"/api/users/{u.id}", json={"email": unique() + "@example.com"})
        yield "user", lambda: a.api.put(f"/api/users/{u.id}", json={"role": "admin"})
        yield "key", lambda: u.api.post("/api/users/api-key")
        yield "cache", lambda: a.api.post("/api/cache/invalidate", json={"pattern": "*"})
        ok(a.api.post(f"/api/balances/initialize?user_id={u.id}"), 201)
        yield "rebuild", lambda: a.api.post(f"/api/balances/rebuild?user_id={u.id}")
        yield "schedule", lambda: a.bank.post("/api/v1/scheduled-transactions", json={
            "type": "credit", "amount": 1, "scheduled_at": "2099-01-01T00:00:00Z"})
        yield "user", lambda: a.api.delete(f"/api/users/{u.id}")
    missing = []
    for word, deed in deeds():
        before = len(audit(s))
        r = deed()
        entries = audit(s)
        new = entries[:len(entries) - before]
        if not any(word in text(e) for e in new):
            missing.append(f"{r.request.method} {r.request.url.path} ({r.status_code}): {new or 'no trace'}")
    assert not missing, "\n".join(missing)


def test_a_refused_login_reads_as_refused(dev):
    u = new_user(dev)
    problem(dev.anon.post("/api/login", json={"username": u.username, "password": "wrong"}), 401)
    refused = audit(dev)[0]
    ok(dev.anon.post("/api/login", json={"username": u.username, "password": u.password}))
    accepted = audit(dev)[0]
    outcome = next(k for k in ("outcome", "result") if k in accepted)
    assert refused[outcome] != accepted[outcome]


def test_filters(dev):
    u, v = new_user(dev), new_user(dev)
    for who in (u, v):
        ok(who.api.put(f"/api/users/{who.id}", json={"email": unique() + "@example.com"}))
    for form in (u.id, u.uuid):
        mine = audit(dev, actor=form)
        assert mine and all(e["actor"] in (u.id, u.uuid, str(u.id)) or u.uuid in str(e["actor"]) for e in mine)
    action = audit(dev, actor=u.id)[0]["action"]
    same = audit(dev, action=action)
    assert same and {e["action"] for e in same} == {action}
    entity = audit(dev, actor=u.id)[0]["entity"]
    assert all(e["entity"] == entity for e in audit(dev, entity=entity)) and audit(dev, entity=entity)
    assert audit(dev, action="no.such.action") == [] or \
        dev.admin.bank.get(PATH, params={"action": "no.such.action"}).status_code == 422


def test_time_window(dev):
    new_user(dev)
    time.sleep(0.02)
    begin = utc()
    time.sleep(0.02)
    u = new_user(dev)
    assert u.key
    time.sleep(0.02)
    end = utc()
    time.sleep(0.02)
    new_user(dev)
    inside = audit(dev, **{"from": begin, "to": end})
    assert 1 <= len(inside) <= 3
    assert audit(dev, **{"from": utc(-0.001)}) == [] or len(audit(dev, **{"from": utc()})) == 0
    for bad in ({"from": "x"}, {"to": "2024-99-01T00:00:00Z"}):
        assert dev.admin.bank.get(PATH, params=bad).status_code in (400, 422)


def test_pages(dev):
    for _ in range(12):
        new_user(dev)
    whole = audit(dev)
    first = page(dev.admin.bank.get(PATH, params={"limit": 5}))
    second = page(dev.admin.bank.get(PATH, params={"limit": 5, "cursor": first["next_cursor"]}))
    assert first["data"] + second["data"] == whole[:10]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_append_only(dev, method):
    problem(dev.admin.bank.request(method, PATH), 405)


def test_rights(dev, user):
    problem(user.bank.get(PATH), 403)
    problem(dev.anon.get(PATH), 401)


def test_no_secrets_in_it(dev):
    u = new_user(dev)
    first = u.key
    new = ok(u.api.post("/api/users/api-key"))["api_key"]
    t = u.login()
    dev.anon.post("/api/login", json={"username": u.username, "password": "my-typo-password"})
    ok(u.bank.put("/api/users", json={"id": u.id, "password": "brand new secret 1"}))
    r = dev.admin.bank.get(PATH, params={"limit": 100})
    for secret in (first, new, t["access_token"], t["refresh_token"], PASSWORD, "my-typo-password",
                   "brand new secret 1", "$2b$", SECRET):
        assert secret not in r.text
        assert secret not in dev.log_text()


def test_survives(fresh):
    s = fresh()
    u = new_user(s)
    assert u.key and s.admin.jwt
    before = audit(s)
    s.restart(kill=True)
    after = audit(s)
    assert after[-len(before):] == before


def test_refused_attempts_are_written_down(dev):
    u = new_user(dev)
    problem(u.api.delete(f"/api/users/{dev.admin.id}"), 403)
    problem(u.bank.get("/api/v1/admin/audit"), 403)
    rows = [r for r in audit(dev, actor=u.id) if r["outcome"] == "forbidden"]
    assert {r["action"] for r in rows} == {"deleteUserById", "auditLog"}
