"""Lists: limit, offset, cursor; newest first; nothing lost or twice, also while rows are added."""
import pytest

from harness import new_user, ok, page

N = 137


@pytest.fixture(scope="module")
def rich(dev):
    """A user with N deposits of 0.01, 0.02 … (more than one stretch of the history's marks)."""
    u = new_user(dev)
    for i in range(1, N + 1):
        ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": f"{i // 100}.{i % 100:02d}"}), 201)
    return u


def lists(u):
    return [(u.api, f"/api/transactions?user_id={u.id}"), (u.api, f"/api/balances/history?user_id={u.id}"),
            (u.bank, "/api/v1/transactions/history"), (u.bank, "/api/v1/balances/historical")]


def cents(rows):
    return [int(r["amount"] * 100) for r in rows]


ALL = list(range(N, 0, -1))
WHICH = pytest.mark.parametrize("which", range(4), ids=["transactions", "balances", "history", "historical"])


def url(u, which, **query):
    client, path = lists(u)[which]
    sep = "&" if "?" in path else "?"
    return client, path + (sep + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")


def fetch(u, which, **query):
    client, path = url(u, which, **query)
    return page(client.get(path))


@WHICH
def test_default_is_twenty(rich, which):
    d = fetch(rich, which)
    assert d["limit"] == 20 and d["offset"] == 0 and d["has_more"] is True and d["next_cursor"]
    assert cents(d["data"]) == ALL[:20]


@WHICH
@pytest.mark.parametrize("limit", [1, 2, 64, 99, 100])
def test_limits(rich, which, limit):
    d = fetch(rich, which, limit=limit)
    assert d["limit"] == limit and cents(d["data"]) == ALL[:limit] and d["has_more"] is True


@WHICH
@pytest.mark.parametrize("limit", ["0", "-1", "101", "1e1", "x", "1.5", "99999999999999999999", "+5", " 5"])
def test_bad_limits(rich, which, limit):
    client, path = url(rich, which, limit=limit)
    assert client.get(path).status_code in (400, 422)


@WHICH
@pytest.mark.parametrize("offset", [0, 1, 63, 64, 65, 72, 73, 127, 128, 129, N - 1, N, N + 1, 10 ** 6])
def test_offsets(rich, which, offset):
    d = fetch(rich, which, limit=7, offset=offset)
    assert d["offset"] == offset and cents(d["data"]) == ALL[offset:offset + 7]
    assert d["has_more"] is (offset + 7 < N)


@WHICH
@pytest.mark.parametrize("offset", ["-1", "x", "1.5", "99999999999999999999"])
def test_bad_offsets(rich, which, offset):
    client, path = url(rich, which, offset=offset)
    assert client.get(path).status_code in (400, 422)


@WHICH
@pytest.mark.parametrize("limit", [1, 10, 37, 100])
def test_cursors_walk_the_whole(rich, which, limit):
    seen, cursor = [], None
    while True:
        d = fetch(rich, which, limit=limit, **({"cursor": cursor} if cursor else {}))
        seen += cents(d["data"])
        assert bool(d["next_cursor"]) == d["has_more"]
        cursor = d["next_cursor"]
        if not cursor:
            break
        assert len(d["data"]) == limit, "a page before the last is full"
    assert seen == ALL


@WHICH
@pytest.mark.parametrize("cursor", ["x", "0", "-1", "AAAA", "../..", "%27%20OR%201=1", "e30", "A" * 3000, "%00"])
def test_bad_cursors(rich, which, cursor):
    client, path = url(rich, which, cursor=cursor)
    assert client.get(path).status_code in (400, 422)


def test_a_cursor_of_one_list_shows_no_other_users_rows(dev, rich):
    cursor = fetch(rich, 0, limit=5)["next_cursor"]
    poor = new_user(dev, fund="1")
    client, path = url(poor, 0, cursor=cursor)
    r = client.get(path)
    assert r.status_code in (400, 422) or len(r.json()["data"]) <= 1


@WHICH
def test_a_walk_is_steady_while_rows_are_added(dev, which):
    u = new_user(dev)
    for i in range(1, 31):
        ok(u.bank.post("/api/v1/transactions/credit", json={"amount": f"0.{i:02d}"}), 201)
    seen, cursor = [], None
    while True:
        d = fetch(u, which, limit=4, **({"cursor": cursor} if cursor else {}))
        seen += cents(d["data"])
        cursor = d["next_cursor"]
        if not cursor:
            break
        ok(u.bank.post("/api/v1/transactions/credit", json={"amount": "9.99"}), 201)
    assert seen == list(range(30, 0, -1))


def test_balances_chain(rich):
    """Each entry's balance is the one before plus its amount."""
    rows, cursor = [], None
    while True:
        d = fetch(rich, 1, limit=100, **({"cursor": cursor} if cursor else {}))
        rows += d["data"]
        cursor = d["next_cursor"]
        if not cursor:
            break
    rows.reverse()
    total = 0
    for r in rows:
        total += r["amount"]
        assert r["balance"] == total
    assert total == rich.balance()


def test_empty_and_exact_pages(dev):
    u = new_user(dev)
    ok(u.api.post(f"/api/balances/initialize?user_id={u.id}"), 201)
    for which in range(4):
        d = fetch(u, which)
        assert (d["data"], d["has_more"], d["next_cursor"]) == ([], False, None)
    for _ in range(5):
        ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)
    for which in range(4):
        d = fetch(u, which, limit=5)
        assert (len(d["data"]), d["has_more"], d["next_cursor"]) == (5, False, None)
        assert fetch(u, which, limit=4)["has_more"] is True


def test_users_list(dev):
    made = [new_user(dev).id for _ in range(25)]
    seen, cursor = [], None
    while True:
        d = page(dev.admin.api.get("/api/users", params={"limit": 10, **({"cursor": cursor} if cursor else {})}))
        seen += [u["id"] for u in d["data"]]
        cursor = d["next_cursor"]
        if not cursor:
            break
    assert seen == sorted(seen, reverse=True) and set(made) <= set(seen) and len(seen) == len(set(seen))
    d = page(dev.admin.api.get("/api/users?limit=3&offset=2"))
    assert [u["id"] for u in d["data"]] == seen[2:5]


def test_schedules_list(dev):
    u = new_user(dev)
    made = [ok(u.bank.post("/api/v1/scheduled-transactions",
                           json={"type": "credit", "amount": 1, "scheduled_at": "2099-01-01T00:00:00Z"}), 201)["id"]
            for _ in range(7)]
    first = page(u.bank.get("/api/v1/scheduled-transactions?limit=4"))
    second = page(u.bank.get("/api/v1/scheduled-transactions", params={"limit": 4, "cursor": first["next_cursor"]}))
    assert [s["id"] for s in first["data"] + second["data"]] == made[::-1]
    assert second["has_more"] is False


def test_a_mixed_history_has_both_sides_once(dev):
    u, v = new_user(dev, fund="100"), new_user(dev, fund="100")
    for i in range(40):
        a, b = (u, v) if i % 2 else (v, u)
        ok(a.bank.post("/api/v1/transactions/transfer", json={"to_user_id": b.id, "amount": f"0.{i + 1:02d}"}), 201)
    for who in (u, v):
        for which in range(4):
            rows = fetch(who, which, limit=100)["data"]
            assert len(rows) == 41
            assert [abs(c) for c in cents(rows)][:-1] == list(range(40, 0, -1))
