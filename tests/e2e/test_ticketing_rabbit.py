"""Ticketing with its messages over a real RabbitMQ, and over PostgreSQL with two instances: parts die, nothing is stuck."""
import json
import re
import signal
import threading
from decimal import Decimal

import httpx
import pytest

import harness
from harness import eventually, new_user, ok, page
from postgres import Cluster
from rabbit import Rabbit
from test_ticketing import available, book, make_event, settled, shown, verified


@pytest.fixture(scope="module")
def rabbit():
    r = Rabbit()
    yield r
    r.close()


@pytest.fixture(scope="module")
def cluster():
    c = Cluster()
    yield c
    c.close()


def bus(server):
    return ok(server.anon.get("/health"))["services"]["bus"]


def empty(server):
    return re.search(r"^payflow_outbox_lag_seconds 0$", server.anon.get("/metrics").text, re.M)


class Rush:
    """Callers that book until they are told to stop; what was acknowledged is in made. Refusals are let go."""

    def __init__(self, servers, event, callers=4):
        self.made, self.stop = [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(servers[i % len(servers)], event, i)) for i in range(callers)]
        for t in self.threads:
            t.start()

    def _run(self, server, event, n):
        i = 0
        with server.client() as c:
            while not self.stop.is_set():
                i += 1
                try:
                    r = c.post("/api/bookings", json={"user_id": f"caller {n}", "event_id": event["id"], "ticket_count": 1 + i % 7})
                except httpx.HTTPError:
                    self.stop.wait(0.05)
                    continue
                if r.status_code == 201:
                    self.made.append(r.json())
                else:
                    assert r.status_code in (409, 500, 503), r.text
                    self.stop.wait(0.02)

    def grown(self, by=100):
        n = len(self.made)
        eventually(lambda: len(self.made) > n + by, timeout=30)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()


def judge(server, event, rush, capacity, timeout=60):
    """All that was acknowledged is decided by the mock provider's rule, and the stock is what that makes."""
    for b in rush.made:
        d = settled(server.anon, b, timeout=timeout)
        assert d["status"] == ("CONFIRMED" if b["ticket_count"] <= 5 else "CANCELLED"), d
    rows = []
    for n in range(len(rush.threads)):  # also what was made and not acknowledged
        cursor = None
        while True:
            params = {"user_id": f"caller {n}", "limit": 100, **({"cursor": cursor} if cursor else {})}
            d = page(server.admin.api.get("/api/bookings", params=params))
            rows += d["data"]
            cursor = d["next_cursor"]
            if not cursor:
                break
    for r in rows:
        if r["status"] == "PENDING":
            settled(server.anon, r, timeout=timeout)
    sold = sum(r["ticket_count"] for r in rows if shown(server.anon, r)["status"] == "CONFIRMED")
    assert len(rows) >= len(rush.made)
    eventually(lambda: available(server.anon, event) == capacity - sold)
    eventually(lambda: empty(server), timeout=30)


def test_paid_over_the_broker(tmp_path, rabbit):
    s = harness.start_server(tmp_path / "data", env={"AMQP_URL": rabbit.url})
    eventually(lambda: bus(s)["status"] == "UP", timeout=20)
    connection, channel = rabbit.channel()
    channel.queue_declare("listener", exclusive=True)
    channel.queue_bind("listener", "payflow", "#")
    organiser, buyer = new_user(s), new_user(s, fund="100")
    event = make_event(organiser.api, 20, price="10.00")
    b = book(buyer.api, event, buyer.id, 3)
    assert settled(buyer.api, b)["status"] == "CONFIRMED"
    assert buyer.balance() == Decimal("70.00") and organiser.balance() == Decimal("30.00")
    heard = []

    def listen():
        method, properties, body = channel.basic_get("listener", auto_ack=True)
        if method:
            heard.append((method.routing_key, properties, json.loads(body, parse_float=Decimal)))
        return len(heard) >= 2
    eventually(listen)
    assert [h[0] for h in heard] == ["BookingCreated", "BookingConfirmed"]
    for kind, properties, body in heard:
        assert properties.delivery_mode == 2 and properties.message_id == body["message_id"] and properties.type == kind
        assert body["version"] == 1 and body["booking_id"] == b["booking_id"] and body["event_id"] == event["id"]
        assert body["amount"] == Decimal("30.00") and body["user_id"] == buyer.id
    # the same message any number of times, and ones that nobody can read
    created = heard[0]
    for _ in range(5):
        channel.basic_publish("payflow", "BookingCreated", json.dumps(created[2], default=str), created[1])
    for bad in (b"nonsense", b"{}", b'{"version":2}', b'{"version":1,"booking_id":"x"}'):
        channel.basic_publish("payflow", "BookingCreated", bad, created[1])
    eventually(lambda: bus(s)["dead"] >= 4 and bus(s)["done"] >= 6)
    assert buyer.balance() == Decimal("70.00") and available(s.anon, event) == 17
    waiting = channel.queue_declare("payflow.payment.dead", passive=True).method.message_count
    assert waiting == 4, "put aside for a person"
    channel.queue_purge("payflow.payment.dead")
    connection.close()
    assert s.stop() == 0
    verified(s.data)


def test_the_broker_dies_and_hangs(tmp_path, rabbit):
    s = harness.start_server(tmp_path / "data", env={"AMQP_URL": rabbit.url})
    event = make_event(s.anon, 1_000_000)
    rush = Rush([s], event)
    try:
        rush.grown()
        rabbit.kill9()
        rush.grown(50)  # bookings go on without it
        eventually(lambda: bus(s)["status"] == "DOWN", timeout=20)
        rabbit.start()
        eventually(lambda: bus(s)["status"] == "UP", timeout=30)
        rush.grown(50)
        rabbit.freeze()
        rush.grown(50)
        threading.Event().wait(6)  # the length of the stop is the point
        rabbit.thaw()
        rush.grown(50)
    finally:
        rush.end()
    judge(s, event, rush, 1_000_000)
    assert s.stop() == 0
    verified(s.data)


def test_two_instances_over_postgresql(tmp_path, rabbit, cluster):
    """One is killed, stopped for 6 s, and the database dies, while both sell the same event."""
    env = cluster.env(AMQP_URL=rabbit.url)
    a = harness.start_server(tmp_path / "a", env=env)
    b = harness.Server(tmp_path / "b", env=env).start()
    b.admin = harness.User(b, a.admin.id, a.admin.uuid, a.admin.username, a.admin.email, a.admin.password, "admin")
    event = make_event(a.anon, 1_000_000)
    rush = Rush([a, b], event)
    try:
        rush.grown()
        a.kill9()
        rush.grown(50)
        a.start()
        b.process.send_signal(signal.SIGSTOP)
        rush.grown(50)
        threading.Event().wait(6)
        b.process.send_signal(signal.SIGCONT)
        rush.grown(50)
        cluster.kill9()
        cluster.start()
        rush.grown(50)
    finally:
        b.process.send_signal(signal.SIGCONT)
        rush.end()
    judge(b, event, rush, 1_000_000)
    assert a.stop() == 0 and b.stop() == 0
    verified(tmp_path / "a", env=harness.environment(**env))


def test_within_the_processes_over_postgresql(tmp_path, cluster):
    """No broker: whoever has the relay's lease pays for what the other one sold."""
    cluster.sql("DROP SCHEMA public CASCADE")
    cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")
    env = cluster.env()
    a = harness.start_server(tmp_path / "a", env=env)
    b = harness.Server(tmp_path / "b", env=env).start()
    event = make_event(a.anon, 1000, price="1.00")
    buyer = new_user(a, fund="100")
    for s in (a, b):
        for _ in range(3):
            assert settled(s.client(key=buyer.key), book(s.client(key=buyer.key), event, buyer.id))["status"] == "CONFIRMED"
    assert ok(b.anon.get("/api/events/" + event["id"]))["available_tickets"] == 994
    assert [e["id"] for e in page(b.anon.get("/api/events?q=EVENING"))["data"]] == [event["id"]]
    holder = [s for s in (a, b) if ok(s.anon.get("/health"))["services"]["jobs"]["relay"]["held"]]
    assert len(holder) == 1
    other = b if holder[0] is a else a
    holder[0].kill9()
    late = book(other.client(key=buyer.key), event, buyer.id)
    assert settled(other.client(key=buyer.key), late, timeout=30)["status"] == "CONFIRMED"
    assert other.stop() == 0
    verified(tmp_path / "a", env=harness.environment(**env))
