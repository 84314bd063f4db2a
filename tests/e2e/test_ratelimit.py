"""Login tries per account and address, and the general limit per principal with its headers."""
import re

from harness import PASSWORD, new_user, ok, problem, unique

PATHS = ("/api/v1/auth/login", "/auth/login")


def login(server, user, password=PASSWORD, path=PATHS[0], **headers):
    return server.anon.post(path, json={"email": user.email, "password": password}, headers=headers)


def test_sixth_login_is_refused(dev):
    u = new_user(dev)
    assert [login(dev, u).status_code for _ in range(5)] == [200] * 5
    r = login(dev, u)
    problem(r, 429, "rate-limited")
    assert 1 <= int(r.headers["retry-after"]) <= 60
    problem(login(dev, u, "wrong"), 429)
    assert login(dev, new_user(dev)).status_code == 200, "another account is not held back"


def test_wrong_passwords_count(dev):
    u = new_user(dev)
    assert [login(dev, u, "wrong").status_code for _ in range(5)] == [401] * 5
    problem(login(dev, u), 429)


def test_no_way_around(dev):
    """Another spelling of the name, another path, a forwarded address: still the same tries."""
    u = new_user(dev)
    codes = [
        login(dev, u, "w").status_code,
        login(dev, u, "w", PATHS[1]).status_code,
        dev.anon.post(PATHS[0], json={"email": u.email.upper(), "password": "w"}).status_code,
        dev.anon.post(PATHS[0], json={"username": u.username, "password": "w"}).status_code,
        login(dev, u, "w", **{"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}).status_code,
        login(dev, u, "w", **{"X-Forwarded-For": "203.0.113.10", "X-Real-IP": "203.0.113.10"}).status_code,
    ]
    assert codes == [401] * 5 + [429]
    problem(dev.anon.post("/api/login", json={"username": u.username, "password": "w"}), 429)


def test_unknown_accounts_are_limited_too(dev):
    name = unique("ghost") + "@example.com"
    codes = [dev.anon.post(PATHS[0], json={"email": name, "password": "w"}).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]


def test_general_limit(fresh):
    s = fresh(env={"RATE_LIMIT": "40"})
    u, v = new_user(s), new_user(s)
    assert u.key and v.key
    codes = []
    for _ in range(60):
        r = u.api.get(f"/api/users/{u.id}")
        codes.append(r.status_code)
        assert "ratelimit" in r.headers and "ratelimit-policy" in r.headers
        policy = r.headers["ratelimit-policy"]
        assert re.search(r"\b40\b", policy) and re.search(r"\b60\b", policy)
        if r.status_code == 429:
            problem(r, 429, "rate-limited")
            assert 1 <= int(r.headers["retry-after"]) <= 60
    assert set(codes) == {200, 429}
    assert 38 <= codes.count(200) <= 44, codes.count(200)
    assert codes[:38] == [200] * 38 and codes[-10:] == [429] * 10
    assert v.api.get(f"/api/users/{v.id}").status_code == 200, "another principal has its own"


def remaining(r):
    """draft-ietf-httpapi-ratelimit-headers: r=<left>."""
    return int(re.search(r"\br=(\d+)", r.headers["ratelimit"]).group(1))


def test_the_headers_count_down(fresh):
    s = fresh(env={"RATE_LIMIT": "30"})
    u = new_user(s)
    left = [remaining(u.api.get(f"/api/users/{u.id}")) for _ in range(5)]
    assert all(0 <= n <= 30 for n in left) and left == sorted(left, reverse=True) and left[0] - left[-1] in (3, 4)


def test_one_principal_whatever_the_credential(fresh):
    s = fresh(env={"RATE_LIMIT": "30"})
    u = new_user(s)
    assert u.key and u.jwt
    codes = [(u.api, u.bank)[i % 2].get("/api/v1/balances/current").status_code for i in range(50)]
    assert codes.count(200) <= 32


def test_a_limited_write_does_nothing(fresh):
    s = fresh(env={"RATE_LIMIT": "25"})
    u = new_user(s)
    codes = [u.bank.post("/api/v1/transactions/credit", json={"amount": 1}).status_code for _ in range(40)]
    assert codes.count(429) >= 10
    d = ok(s.admin.api.get(f"/api/balances?user_id={u.id}"))
    assert d["balance"] == codes.count(201)


def test_off(fresh):
    s = fresh(env={"RATE_LIMIT": "0"})
    u = new_user(s)
    assert {u.api.get(f"/api/users/{u.id}").status_code for _ in range(300)} == {200}


def test_the_anonymous_are_limited_by_address(fresh):
    s = fresh(env={"RATE_LIMIT": "30"}, admin=False)
    codes = [s.anon.get("/api/cache/stats").status_code for _ in range(50)]
    assert 429 in codes and codes.count(200) <= 34
    for path in ("/health/live", "/health/ready"):
        assert s.anon.get(path).status_code == 200, "probes are not limited"


def test_refused_credentials_count_against_their_address(fresh):
    """A guess costs a look into the store, so it may not be free; who is known already gets in all the same."""
    s = fresh(env={"RATE_LIMIT": "40"})
    u = new_user(s)
    assert u.api.get(f"/api/users/{u.id}").status_code == 200
    guesses = [s.anon.get(f"/api/users/{u.id}", headers={"X-API-Key": f"pf_{i:0{len(u.key) - 3}d}"}) for i in range(60)]
    codes = [r.status_code for r in guesses]
    assert set(codes) == {401, 429} and codes.count(401) <= 42 and codes[-10:] == [429] * 10, codes
    problem(guesses[-1], 429, "rate-limited")
    assert 1 <= int(guesses[-1].headers["retry-after"]) <= 60
    assert u.api.get(f"/api/users/{u.id}").status_code == 200
    assert s.anon.get("/health/live").status_code == 200


def test_what_is_refused_counts_too(fresh):
    """Whatever is wrong with a request, it had to be looked at."""
    s = fresh(env={"RATE_LIMIT": "16"})
    hows = (lambda c: c.post("/api/transactions/deposit", json={"user_id": 2}),
            lambda c: c.post("/api/transactions/deposit", content=b"{", headers={"Content-Type": "application/json"}),
            lambda c: c.get("/api/users/1"),
            lambda c: c.get("/api/v1/admin/audit"),
            lambda c: c.get("/api/users/nobody"))
    for how, u in [(how, new_user(s)) for how in hows]:
        codes = [how(u.bank if how is hows[-1] else u.api).status_code for _ in range(24)]
        assert codes[0] in (400, 403, 404, 422) and codes[-4:] == [429] * 4 and codes.count(429) in range(6, 10), codes


def test_the_anonymous_do_not_use_up_what_others_have(fresh):
    s = fresh(env={"RATE_LIMIT": "20"})
    u = new_user(s)
    assert u.key, "which was not seen at this server yet"
    codes = [s.anon.get("/api/events").status_code for _ in range(30)]
    assert codes[-1] == 429
    assert u.api.get(f"/api/users/{u.id}").status_code == 200


def test_public_routes_do_not_mind_a_bad_credential(fresh):
    """Who logs in again may still send the token that has expired; what anybody may see needs none."""
    s = fresh(env={"RATE_LIMIT": "60"})
    u = new_user(s)
    refresh = u.tokens["refresh_token"]
    for stale in ({"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic eDp5"}, {"X-API-Key": "pf_" + "0" * 43}):
        for path in ("/healthz", "/health/ready", "/metrics", "/api/v1/ping", "/docs"):
            assert s.anon.get(path, headers=stale).status_code == 200, (path, stale)
        assert s.anon.get("/api/events", headers=stale).status_code == 200
        r = s.anon.post("/api/v1/auth/refresh", json={"refresh_token": refresh}, headers=stale)
        refresh = ok(r)["refresh_token"]
        problem(s.anon.get(f"/api/users/{u.id}", headers=stale), 401, "invalid-credentials")
    assert s.anon.post("/api/v1/auth/login", json={"email": u.email, "password": PASSWORD}, headers=stale).status_code == 200
    problem(s.anon.post("/api/users", json={"username": "x1", "email": "x1@example.com", "password": PASSWORD, "role": "admin"},
                        headers=stale), 401, "invalid-credentials")
    event = ok(s.admin.api.post("/api/events", json={"title": "t", "location": "l", "date": "2098-01-01", "total_tickets": 5}), 201)
    booked = ok(u.api.post("/api/bookings", json={"event_id": event["id"], "ticket_count": 1}), 201)["booking_id"]
    problem(s.anon.delete(f"/api/bookings/{booked}", headers=stale), 401, "invalid-credentials")
