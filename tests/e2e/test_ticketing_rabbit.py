"""Ticketing with its messages over a real RabbitMQ, which dies and hangs, and within the processes; test_sale_faults.py has more."""
import json
import threading
from decimal import Decimal


import harness
from harness import eventually, new_user, ok, page
from sale import Rush
from test_sale import Embedded, finish, seeds, settle
from test_ticketing import available, book, make_event, settled, verified


def bus(server):
    return ok(server.anon.get("/health"))["services"]["bus"]


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
    def aside():  # for a person; the broker moves them there in its own time
        return channel.queue_declare("payflow.payment.dead", passive=True).method.message_count
    eventually(lambda: aside() >= 4)
    assert aside() == 4
    channel.queue_purge("payflow.payment.dead")
    connection.close()
    assert s.stop() == 0
    verified(s.data)


def test_the_broker_dies_and_hangs(tmp_path, rabbit):
    """Bookings go on without it, and are paid when it is back."""
    place = Embedded(tmp_path, AMQP_URL=rabbit.url)
    s, seed = place.servers[0], next(seeds())
    event = make_event(s.anon, 1_000_000)
    with Rush([s.port], [event["id"]], seed, 1 << 30, connections=8, most=7, think=0.05) as rush:
        rush.goes_on()
        rabbit.kill9()
        rush.goes_on()
        eventually(lambda: bus(s)["status"] == "DOWN", timeout=20)
        rabbit.start()
        eventually(lambda: bus(s)["status"] == "UP", timeout=30)
        rush.goes_on()
        rabbit.freeze()
        rush.goes_on()
        threading.Event().wait(6)  # the length of the stop is the point
        rabbit.thaw()
        rush.goes_on()
    settle(place)
    finish(place, rush.history)


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
