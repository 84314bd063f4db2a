"""Parts of the whole stack die and hang under load, in turn: the callers' reads and writes are back within 10 s of the part's
return, and the books hold exactly what was acknowledged, once. `PAYFLOW_FAULT_TURNS` (1) goes through all of them so often."""
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import history as past
from cluster import Whole
from harness import eventually, ok
from history import Connection, History, Load

BACK_S = 10
RACES = int(os.environ.get("PAYFLOW_RACE_ROUNDS", "1000"))
TURNS = int(os.environ.get("PAYFLOW_FAULT_TURNS", "1"))
CLIENTS = 16


@pytest.fixture(scope="module")
def stack():
    s = Whole()
    yield s
    s.close()


@pytest.fixture(scope="module")
def callers(stack):
    return stack.users(2 * CLIENTS)


@pytest.fixture(scope="module")
def history():
    return History()


def chosen(stack):
    """The instance that NGINX sends the next caller's request to, as far as one can tell: where it sent the last."""
    name = f"which-one-{time.monotonic_ns()}"
    with stack.client() as c:
        c.get("/api/v1/ping", headers={"X-Request-Id": name})
    return stack.served_by(name)


# What fails, and for how long: longer than it takes to be noticed.
PARTS = {
    "one instance": (lambda s: ["app1"], 2),
    "the instance that NGINX chose": (lambda s: [chosen(s)], 7),
    "the primary": (lambda s: [s.primary()], 6),
    "one replica": (lambda s: ["db-replica1"], 3),
    "both replicas": (lambda s: ["db-replica1", "db-replica2"], 6),
    "Redis": (lambda s: ["redis-master"], 2),
    "NGINX": (lambda s: ["nginx"], 2),
}


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP"])
@pytest.mark.parametrize("what", PARTS)
def test_a_part_fails_and_returns(stack, callers, history, what, how, turn):
    which, seconds = PARTS[what]
    with Load(history, callers, [stack.port("nginx")]) as load:
        parts = which(stack)
        if how == "kill -9":
            stack.kill9(*parts)
            time.sleep(min(seconds, 3))
            stack.start(*parts)
        else:
            stack.freeze(*parts)
            time.sleep(seconds)
            stack.thaw(*parts)
        took = load.came_back(BACK_S)
        time.sleep(0.5)
    print(f"{what}, {how}: {', '.join(parts)}: back after {took:.2f} s, slowest answer {max(c.slowest for c in load.clients):.1f} s")
    past.check(stack.export(), history)
    stack.verify()


def test_what_no_replica_has_is_not_acknowledged(stack, callers, history):
    """Commits wait for a replica. Those that waited when the primary was killed are there when it is back, for all to read; but a
    promotion would lose them, so nobody may be told that they are done, whichever way they are found."""
    replicas = "db-replica1", "db-replica2"
    primary = stack.primary()
    with Load(history, callers, [stack.port("nginx")]) as load:
        stack.kill9(*replicas)
        time.sleep(1)
        before = len(history.acknowledged())
        stack.kill9(primary)
        stack.start(primary)
        time.sleep(6)
        after = len(history.acknowledged())
        stack.start(*replicas)
        took = load.came_back(BACK_S)
    assert after == before, f"{after - before} movements were acknowledged that a promotion would have lost"
    print(f"back after {took:.2f} s")
    past.check(stack.export(), history)
    stack.verify()


def test_a_replica_that_is_30_s_behind(stack, callers, history):
    """Whichever instance they ask, callers read what they wrote: with one replica, and then with both, far behind."""
    replicas = "db-replica1", "db-replica2"
    instances = [stack.port(a) for a in stack.APPS]
    try:
        for replica in replicas:
            assert stack.psql(replica, "ALTER SYSTEM SET recovery_min_apply_delay = '30s'") == ""
            stack.psql(replica, "SELECT pg_reload_conf()")
            with Load(history, callers, instances):
                time.sleep(4)
                assert stack.psql(replica, "SELECT pg_last_wal_replay_lsn() < pg_last_wal_receive_lsn()") == "t"
            assert len(history.reads) > 100
            assert not [r for r in history.reads if r.stale], "the primary was there"
            past.check(stack.export(), history)
    finally:
        for replica in replicas:
            stack.psql(replica, "ALTER SYSTEM RESET recovery_min_apply_delay")
            stack.psql(replica, "SELECT pg_reload_conf()")


def test_one_key_at_both_instances_at_the_same_instant(stack, callers):
    """Each has one effect and one answer; with two bodies, one of them wins and the other is refused."""
    me, key = callers[-1]  # whose purse nobody reads
    before = len(stack.export())
    start, done = Barrier(4), Barrier(4)
    answers = [[None] * RACES for _ in range(4)]

    def one(i):
        connection = Connection(stack.port(stack.APPS[i % 2]), key, timeout=20)
        for n in range(RACES):
            cent = 1 + (i // 2 if n % 4 == 3 else 0)
            body = {"user_id": me, "amount": f"0.{cent:02d}", "description": f"race-{n}"}
            start.wait(60)
            end = time.monotonic() + 30
            while True:
                status, answer = connection.post("/api/transactions/deposit", f"race-{n}", body)
                if status not in (409, 503) or time.monotonic() > end:
                    break
            answers[i][n] = status, answer
            done.wait(60)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    for n, four in enumerate(zip(*answers)):
        good = {a for a in four if a[0] == 201}
        assert len(good) == 1, (n, four)
        bad = [s for s, _ in four if s != 201]
        assert bad == [422, 422] if n % 4 == 3 else not bad, (n, four)
    entries = stack.export()
    assert len(entries) == before + RACES
    assert len({e["description"] for e in entries[before:]}) == RACES
    stack.verify()


def test_all_is_well_in_the_end(stack, callers, history):
    """And every part is in use again."""
    for app in stack.APPS:
        with stack.client(app) as c:
            eventually(lambda c=c: ok(c.get("/health"))["status"] == "UP", timeout=60)
    replicas = "db-replica1", "db-replica2"
    before = [stack.reads_of(r) for r in replicas]
    with Load(history, callers, [stack.port("nginx")]):
        eventually(lambda: all(stack.reads_of(r) > b for r, b in zip(replicas, before)), timeout=60)
    past.check(stack.export(), history, others={f"race-{n}" for n in range(RACES)})
    eventually(lambda: len({stack.psql(d, "SELECT head_seq FROM ledger_head") for d in stack.DATABASES}) == 1)
    stack.verify(standbys=True)
