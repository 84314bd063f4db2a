"""The connection to PostgreSQL is lost at COMMIT: before it was sent, on its way, or done and its answer lost. Whatever it was,
the client's retry gets the first result, and it happened once."""
import os
import random
import time

import pytest

import harness
import history as past
from harness import cli, new_user, ok
from history import History, Load
from pgproxy import AFTER, BEFORE, WHILE, Proxy
from postgres import Cluster

SECONDS = float(os.environ.get("PAYFLOW_CUT_SECONDS", "10"))
CLIENTS = 8


@pytest.fixture(scope="module")
def proxied():
    cluster = Cluster()
    proxy = Proxy(cluster.port)
    yield cluster, proxy
    proxy.close()
    cluster.close()


@pytest.fixture(scope="module")
def server(proxied, tmp_path_factory):
    cluster, proxy = proxied
    s = harness.start_server(tmp_path_factory.mktemp("cut") / "data", env=cluster.env(DB_PORT=str(proxy.port), DB_SSLMODE="disable"))
    yield s
    assert s.stop() == 0


def test_movements(proxied, server):
    cluster, proxy = proxied
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    users = [new_user(server) for _ in range(2 * CLIENTS)]
    history = History()
    with Load(history, [(u.id, u.key) for u in users], [server.port], think=0.005) as load:
        proxy.plan = lambda: rng.choice((BEFORE, WHILE, AFTER)) if rng.random() < 0.1 else None
        time.sleep(SECONDS)
        harness.eventually(lambda: min(proxy.cuts.values()) >= 3 and len(history.acknowledged()) > 100, timeout=180)
        proxy.plan = lambda: None
        load.came_back()
    print(f"{proxy.cuts}, {len(history.acknowledged())} acknowledged, slowest {max(c.slowest for c in load.clients):.1f} s")
    asked_again = random.Random(seed).sample(history.acknowledged(), 50)
    owner = {c.tag: c.key for c in load.clients}
    for deed in asked_again:
        with server.client(key=owner[deed.key.split("-")[0]]) as c:
            r = c.post(deed.path, json=deed.body, headers={"Idempotency-Key": deed.key})
            assert r.status_code == 201 and r.content == deed.answer and r.headers["idempotency-replayed"] == "true", r.text
    env = harness.environment(**cluster.env())
    past.check(harness.export(server.data, env), history)
    r = cli("verify", env=env)
    assert r.returncode == 0, r.stdout + r.stderr


@pytest.mark.parametrize("where", [BEFORE, WHILE, AFTER])
def test_a_record(proxied, server, where):
    """What no group writes: a user. A retry with the key makes no second one, and has the first one's answer."""
    proxy = proxied[1]
    name = harness.unique("cut")
    body = {"username": name, "email": f"{name}@example.com", "password": harness.PASSWORD}
    assert server.admin.api  # logs on before anything is cut
    left = [where]
    before = proxy.cuts[where]
    proxy.plan = lambda: left.pop() if left else None
    answers = []
    end = time.monotonic() + 20
    while not answers or answers[-1].status_code != 201:
        assert time.monotonic() < end, answers[-1].text
        answers.append(server.admin.api.post("/api/users", json=body, headers={"Idempotency-Key": name}))
        assert answers[-1].status_code in (201, 500, 503), answers[-1].text
    assert proxy.cuts[where] == before + 1
    r = server.admin.api.post("/api/users", json=body, headers={"Idempotency-Key": name})
    assert r.status_code == 201 and r.content == answers[-1].content, r.text
    users = ok(server.admin.api.get("/api/users?limit=100"))["data"]
    assert [u["id"] for u in users if u["username"] == name] == [r.json()["id"]]
