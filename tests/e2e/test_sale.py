"""Sales of hot events from hundreds of connections, judged by sale.py: to the last ticket and no further, whatever is done to
the servers meanwhile.

PAYFLOW_SALE_SEEDS and PAYFLOW_SALE_REQUESTS make it longer: 20 and 100000 for a thousand tickets."""
import contextlib
import os
import random
import sqlite3
import time

import pytest

import harness
from harness import eventually, new_user, ok
from sale import Rush, judge, read_postgres, read_sqlite
from test_redis import Redis
from test_ticketing import available, make_event, verified

SEEDS = int(os.environ.get("PAYFLOW_SALE_SEEDS", "1"))
REQUESTS = int(os.environ.get("PAYFLOW_SALE_REQUESTS", "4000"))
CAPACITY = 1000


def seeds():
    for _ in range(SEEDS):
        seed = int(os.environ.get("PAYFLOW_SALE_SEED", random.randrange(1 << 32)))
        print(f"PAYFLOW_SALE_SEED={seed}")
        yield seed


class Embedded:
    """One process on SQLite."""

    def __init__(self, path, **env):
        self.servers = [harness.start_server(path / "data", env=env)]
        self.env = env

    def count(self, sql):
        with contextlib.closing(sqlite3.connect(self.servers[0].data / "payflow.db")) as db:
            return int(db.execute(sql).fetchone()[0])

    def books(self):
        return read_sqlite(self.servers[0].data)


class Shared(Embedded):
    """Over one PostgreSQL, emptied before: two instances; start() may start others."""

    def __init__(self, path, cluster, **env):
        cluster.sql("DROP SCHEMA public CASCADE")
        cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")
        self.cluster, self.env = cluster, cluster.env(**env)
        self.servers = self.start(path)

    def start(self, path):
        first = harness.start_server(path / "a", env=self.env)
        return [first, harness.Server(path / "b", env=self.env).start()]

    def count(self, sql):
        return int(self.cluster.sql(sql))

    def books(self):
        return read_postgres(self.cluster)


WAITS = """SELECT (SELECT count(*) FROM booking WHERE state <= 2) + (SELECT count(*) FROM outbox)
                + abs((SELECT count(*) FROM booking) - (SELECT count(*) FROM inbox))"""


def settle(place, seconds=60):
    """Until nothing waits any more; what then still does, the judge tells."""
    end = time.monotonic() + seconds
    while place.count(WAITS) and time.monotonic() < end:
        time.sleep(0.05)


def ports(place):
    return [s.port for s in place.servers]


def sell(place, event, seed, requests=REQUESTS, **kw):
    """All of it; afterwards whoever wants one ticket has got it, as far as there are any."""
    anon = place.servers[0].anon
    history = Rush(ports(place), [event["id"]], seed, requests, **kw).run()
    settle(place)
    kw.update(most=1, connections=4, history=history)
    Rush(ports(place), [event["id"]], seed, available(anon, event) + 8, **kw).run()
    settle(place)
    print(f"{len(history.asks)} asks, {len(history.refusals)} refusals, {len(history.cancelled)} cancelled, {history.replays} replays")
    return history


def finish(place, history, **kw):
    for s in place.servers:
        assert s.stop() == 0
    books = place.books()
    judge(books, history, **kw)
    verified(place.servers[0].data, env=harness.environment(**place.env))
    return books


def test_one_hot_event(tmp_path):
    for n, seed in enumerate(seeds()):
        (tmp_path / str(n)).mkdir()
        place = Embedded(tmp_path / str(n))
        event = make_event(place.servers[0].anon, CAPACITY)
        history = sell(place, event, seed)
        finish(place, history, sold_out=[event["id"]])
        assert history.lost == 0 and history.refusals and history.replays


def test_what_is_not_approved_comes_back(tmp_path):
    """Also asked for: more tickets than the provider approves. Several events, so that groups hold many."""
    place = Embedded(tmp_path)
    events = [make_event(place.servers[0].anon, CAPACITY // 4)["id"] for _ in range(3)]
    history = Rush(ports(place), events, next(seeds()), REQUESTS, most=8, calm=1).run()
    settle(place)
    finish(place, history)


def test_a_priced_event(tmp_path):
    """Paid from accounts that do not hold enough for all that their owners want."""
    place = Embedded(tmp_path)
    seed, s = next(seeds()), place.servers[0]
    rng = random.Random(seed)
    organiser = new_user(s)
    buyers = {str(new_user(s, fund=(fund := rng.randint(10, 90))).id): fund * 100 for _ in range(12)}
    buyers[str(new_user(s, fund=100_000).id)] = 10_000_000  # who takes the rest
    event = make_event(organiser.api, CAPACITY // 2, price="1.50")
    history = sell(place, event, seed, requests=REQUESTS // 2, users=list(buyers), key=s.admin.key)
    paid = organiser.balance()
    for s in place.servers:
        assert s.stop() == 0
    books = place.books()
    books.funds = buyers
    judge(books, history)
    verified(s.data)
    assert {b.state for b in books.bookings} == {3, 4} and paid * 100 == sum(b.amount for b in books.bookings if b.state == 3)


# ---- two instances ----

@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    r = Redis(tmp_path_factory.mktemp("redis") / "r")
    yield r
    r.kill9()


def turns(place):
    """Groups that had an event's lock, waited for it in vain, and were without one."""
    found = [0, 0, 0]
    for s in place.servers:
        for line in s.anon.get("/metrics").text.splitlines():
            for i, how in enumerate(("taken", "waited_for", "none")):
                if line.startswith(f'payflow_booking_turns_total{{lock="{how}"}}'):
                    found[i] += int(line.split()[-1])
    return found


@pytest.mark.parametrize("lock", ["no Redis", "Redis", "a lock of 5 s", "a lock that runs out in the midst of it"])
def test_two_instances(tmp_path, cluster, redis, lock):
    env = {} if lock == "no Redis" else {"REDIS_HOST": redis.socket}
    if "lock" in lock:
        env["BOOKING_LOCK"] = "5000" if "5 s" in lock else "1"
    for n, seed in enumerate(seeds()):
        (tmp_path / str(n)).mkdir()
        place = Shared(tmp_path / str(n), cluster, **env)
        if env:
            eventually(lambda place=place: all(ok(s.anon.get("/metrics/basic"))["redis"]["connected"] for s in place.servers))
        event = make_event(place.servers[0].anon, CAPACITY)
        history = sell(place, event, seed)
        mine, late, none = turns(place)
        print(f"turns: {mine} taken, {late} waited for, {none} without")
        finish(place, history, sold_out=[event["id"]])
        assert history.lost == 0 and history.refusals
        assert (mine > 0) == ("lock" in lock)
        eventually(lambda: redis.run("KEYS", "lock:*") == "", timeout=4.5)  # sooner than the longer one would run out by itself
