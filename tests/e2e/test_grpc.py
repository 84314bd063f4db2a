"""gRPC's bookings in the real program: the same bookings, rights, keys and words as over HTTP."""
import random
import re
import signal
import sqlite3
import struct
import threading
import time
from decimal import Decimal

import pytest

grpc = pytest.importorskip("grpc")

import harness  # noqa: E402
from grpcs import PATH, STATUS, Calls, Refused, Server  # noqa: E402
from test_gateway_bookings import M, SERVICE  # noqa: E402
from test_ticketing import NOBODY, available, make_event, shown, verified  # noqa: E402
import test_tls  # noqa: E402
from harness import cli, eventually, free_port, new_user, ok, problem, unique, utc  # noqa: E402


pair = test_tls.pair  # the fixture


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its messages find no broker, so that what is booked stays PENDING."""
    s = Server(tmp_path_factory.mktemp("grpc") / "data", env={"AMQP_URL": f"amqp://127.0.0.1:{free_port()}"}).start()
    s.admin = new_user(s, role="admin", name="root")
    yield s
    assert s.stop() == 0, s.log_tail()
    verified(s.data)


@pytest.fixture(scope="module")
def calls(server):
    with server.calls() as c:
        yield c


@pytest.fixture(scope="module")
def event(server):
    return make_event(server.anon, tickets=100000)


def refused(code, slug, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert (e.value.code, e.value.problem) == (code, slug), e.value
    return e.value.text


def as_http(b):
    """A message as HTTP would show it."""
    out = {"booking_id": b.booking_id, "status": STATUS[b.status], "event_id": b.event_id,
           "user_id": b.user_id if b.guest else int(b.user_id), "ticket_count": b.ticket_count}
    if b.currency:
        out |= {"amount": Decimal(b.amount_minor).scaleb(-2), "currency": b.currency}
    for name in "reason", "expires_at", "created_at", "updated_at":
        if getattr(b, name):
            out[name] = getattr(b, name)
    return out


# ---- what it does

def test_create_get_cancel(server, calls, event):
    mine = calls.create(event, "a guest", 2)
    assert STATUS[mine.status] == "PENDING" and mine.guest and mine.user_id == "a guest" and mine.ticket_count == 2
    assert shown(server.anon, {"booking_id": mine.booking_id}) == as_http(mine) == as_http(calls.get(mine.booking_id))
    free = available(server.anon, event)
    gone = calls.cancel(mine.booking_id, reason="changed my mind")
    assert STATUS[gone.status] == "CANCELLED" and gone.reason and not gone.expires_at
    assert calls.cancel(mine.booking_id) == gone == calls.get(mine.booking_id)
    assert available(server.anon, event) == free + 2
    assert shown(server.anon, {"booking_id": mine.booking_id}) == as_http(gone)
    eventually(lambda: "changed my mind" in server.log_text())


def test_of_a_user_with_a_price(server):
    priced = make_event(server.admin.api, price="12.50", tickets=9)
    u = new_user(server, fund="100")
    with server.calls(x_api_key=u.key) as by_key, server.calls(authorization="Bearer " + u.jwt) as by_token:
        mine = by_key.create(priced, count=2)  # nobody named: the caller
        assert (mine.user_id, mine.guest, mine.amount_minor, mine.currency) == (str(u.id), False, 2500, "USD")
        assert as_http(by_token.get(mine.booking_id)) == ok(u.api.get("/api/bookings/" + mine.booking_id))
        for who in str(u.id), u.uuid, u.username:
            assert by_token.create(priced, who).user_id == str(u.id)
        assert STATUS[by_token.cancel(mine.booking_id).status] == "CANCELLED"
    with server.calls() as c:  # in dev whoever names a user books for that user
        assert c.create(priced, str(u.id), user_number=True).user_id == str(u.id)
        refused("NOT_FOUND", "not-found", c.create, priced, "999999", user_number=True)
        refused("INVALID_ARGUMENT", "validation-failed", c.create, priced, "bob", user_number=True)
        refused("FAILED_PRECONDITION", "guest-cannot-pay", c.create, priced, "999999")


@pytest.mark.parametrize("change, code, slug, word", [
    ({"ticket_count": 0}, "INVALID_ARGUMENT", "validation-failed", "ticket_count"),
    ({"ticket_count": -1}, "INVALID_ARGUMENT", "validation-failed", "ticket_count"),
    ({"ticket_count": -2**31}, "INVALID_ARGUMENT", "validation-failed", "ticket_count"),
    ({"ticket_count": 2**31 - 1}, "INVALID_ARGUMENT", "validation-failed", "ticket_count"),
    ({"user_id": "x" * 65}, "INVALID_ARGUMENT", "validation-failed", "user_id"),
    ({"user_id": ""}, "INVALID_ARGUMENT", "validation-failed", "user_id"),
    ({"event_id": ""}, "INVALID_ARGUMENT", "validation-failed", "event_id"),
    ({"event_id": "x" * 65}, "INVALID_ARGUMENT", "validation-failed", "event_id"),
    ({"event_id": NOBODY}, "NOT_FOUND", "not-found", "event"),
    ({"event_id": "no-such"}, "NOT_FOUND", "not-found", "event"),
    ({"idempotency_key": "k" * 256}, "INVALID_ARGUMENT", "malformed-header", "255"),
    ({"idempotency_key": "\n"}, "INVALID_ARGUMENT", "malformed-header", "printable")])
def test_bad_requests(server, calls, event, change, code, slug, word):
    free = available(server.anon, event)
    text = refused(code, slug, calls, "CreateBooking", **{"user_id": "g", "event_id": event["id"], "ticket_count": 1, **change})
    assert word in text, text
    assert available(server.anon, event) == free


def test_of_what_is_over_or_sold(server, calls):
    late = make_event(server.anon, date=utc(1 - 366 * 86400))
    eventually(lambda: server.anon.post("/api/bookings", json={"user_id": "g", "event_id": late["id"],
                                                               "ticket_count": 1}).status_code == 409)
    refused("FAILED_PRECONDITION", "event-over", calls.create, late, "g")
    small = make_event(server.anon, tickets=3)
    calls.create(small, "g", 2)
    assert "1 ticket is left" in refused("RESOURCE_EXHAUSTED", "sold-out", calls.create, small, "g", 2)
    ok(server.admin.api.post(f"/api/events/{small['id']}/cancel"))
    refused("FAILED_PRECONDITION", "event-cancelled", calls.create, small, "g", 1)


def test_ids_of_bookings(server, calls, event):
    for bad in "", "1", "../x", NOBODY, "%00", "x" * 70, "\u00e9":
        for name in "GetBooking", "CancelBooking":
            refused("NOT_FOUND", "not-found", calls, name, booking_id=bad)
    b = calls.create(event, "g")
    refused("INVALID_ARGUMENT", "validation-failed", calls.cancel, b.booking_id, reason="r" * 256)
    assert STATUS[calls.get(b.booking_id).status] == "PENDING"


def test_rights(server, calls, event):
    u, v = new_user(server), new_user(server)
    with server.calls(x_api_key=u.key) as mine, server.calls(x_api_key=v.key) as other, \
            server.calls(x_api_key=server.admin.key) as admin:
        b = mine.create(event)
        for c in other, calls:
            refused("NOT_FOUND", "not-found", c.get, b.booking_id)
            refused("NOT_FOUND", "not-found", c.cancel, b.booking_id)
        refused("PERMISSION_DENIED", "forbidden", other.create, event, str(u.id))
        assert admin.get(b.booking_id) == b and admin.create(event, str(u.id)).user_id == str(u.id)
    for bad in {"x_api_key": "pf_" + "x" * 43}, {"authorization": "Bearer x.y.z"}, {"authorization": "Basic eDp5"}:
        with server.calls(**bad) as c:
            refused("UNAUTHENTICATED", "invalid-credentials", c.create, event, "g")
    twice = [("x-api-key", u.key)] * 2
    refused("INVALID_ARGUMENT", "malformed-header", calls, "GetBooking", metadata=twice, booking_id=b.booking_id)
    # who tried what they may not is written down, with the address that a trusted proxy names; this one is none
    rows = ok(server.admin.bank.get("/api/v1/admin/audit", params={"actor": v.id}))["data"]
    assert any("127.0.0.1" in str(r) for r in rows), rows


def test_prod_needs_a_credential(tmp_path):
    """And X-Forwarded-For counts from a proxy that is trusted."""
    s = Server(tmp_path / "data", env={"ENV": "prod", "TRUSTED_PROXIES": "127.0.0.1"}).start()
    try:
        s.admin = new_user(s, role="admin", name="root")
        event, u, v = make_event(s.admin.api), new_user(s), new_user(s)
        with s.calls() as anon, s.calls(x_api_key=u.key) as c:
            refused("UNAUTHENTICATED", "authentication-required", anon.create, event, "g")
            refused("UNAUTHENTICATED", "authentication-required", anon.create, event, str(u.id))
            assert c.create(event).user_id == str(u.id)
            far = [("x-forwarded-for", "203.0.113.9")]
            refused("PERMISSION_DENIED", "forbidden", c, "CreateBooking", metadata=far, user_id=str(v.id),
                    event_id=event["id"], ticket_count=1)
        rows = ok(s.admin.bank.get("/api/v1/admin/audit", params={"actor": u.id}))["data"]
        assert any("203.0.113.9" in str(r) for r in rows), rows
    finally:
        assert s.stop() == 0


# ---- keys

def test_one_key_over_both(server, calls, event):
    free = available(server.anon, event)
    body = {"user_id": "k", "event_id": event["id"], "ticket_count": 3}
    for first_by_http in True, False:
        k = unique("key")
        over_http = [lambda: server.anon.post("/api/bookings", json=body, headers={"Idempotency-Key": k})]
        if first_by_http:
            r = over_http[0]()
            assert r.status_code == 201 and "idempotency-replayed" not in r.headers
        else:
            b, trailers = calls("CreateBooking", **body, idempotency_key=k)
            assert "idempotency-replayed" not in trailers
        b, trailers = calls("CreateBooking", **body, metadata=[("idempotency-key", f'"{k}"')])
        assert trailers["idempotency-replayed"] == "true"
        again = over_http[0]()
        assert again.status_code == 201 and again.headers["idempotency-replayed"] == "true"
        assert harness.money(again) == as_http(b)
        if first_by_http:
            assert again.content == r.content
        refused("INVALID_ARGUMENT", "idempotency-key-reused", calls, "CreateBooking", **{**body, "ticket_count": 1},
                idempotency_key=k)
        # the first answer, whatever has become of it
        calls.cancel(b.booking_id)
        assert calls("CreateBooking", **body, idempotency_key=k)[0] == b
    assert available(server.anon, event) == free
    # over HTTP, how it is written does not matter; what it says does
    k = {"Idempotency-Key": unique("key"), "Content-Type": "application/json"}
    first = server.anon.post("/api/bookings", json=body, headers=k)
    same = f' {{"ticket_count": 3,\n"event_id":"{event["id"]}", "user_id":"\\u006b"}}'
    assert server.anon.post("/api/bookings", content=same, headers=k).content == first.content
    for ignored in {"more": 1}, {"zz": None}:  # as it has no place in a call
        assert server.anon.post("/api/bookings", json={**body, **ignored}, headers=k).content == first.content
    assert server.anon.post("/api/bookings?a=1", json=body, headers=k).content == first.content
    for change in {"user_id": "K"}, {"ticket_count": 2}:
        problem(server.anon.post("/api/bookings", json={**body, **change}, headers=k), 422, "idempotency-key-reused")


def test_the_same_key_at_once(server, calls, event):
    free, k = available(server.anon, event), unique("key")
    request = M["CreateBookingRequest"](user_id="g", event_id=event["id"], ticket_count=5, idempotency_key=k)
    running = [calls.stub("CreateBooking").future(request, timeout=20) for _ in range(40)]
    ids = {f.result().booking_id for f in running if f.code() == grpc.StatusCode.OK}
    assert len(ids) == 1 and {f.code() for f in running} <= {grpc.StatusCode.OK, grpc.StatusCode.ABORTED}
    assert available(server.anon, event) == free - 5


# ---- deadlines and cancellation

def test_a_deadline_that_is_over_does_nothing(server, calls, event):
    from frames import Hand, END_STREAM, DATA, frame, message
    free = available(server.anon, event)

    class At:
        port = server.grpc_port
    b = calls.create(event, "g")
    with Hand(At) as h:
        for path, m in ([(PATH + "CreateBooking", M["CreateBookingRequest"](user_id="g", event_id=event["id"], ticket_count=1))] * 40
                        + [(PATH + "CancelBooking", M["CancelBookingRequest"](booking_id=b.booking_id))] * 10):
            head = h.head(path, extra=[("grpc-timeout", "1n")])
            h.send(head + frame(DATA, END_STREAM, h.stream, message(m)))
            assert h.answer(h.stream).get("grpc-status", "4") == "4"  # or the stream is reset behind its status
    assert available(server.anon, event) == free - 1 and STATUS[calls.get(b.booking_id).status] == "PENDING"


def test_what_waits_for_the_writer_is_given_up(server, calls, event):
    """While somebody else has the store's lock: the first call is being decided, the others wait, and have gone when it
    is their turn."""
    free = available(server.anon, event)
    b = calls.create(event, "g")
    lock = sqlite3.connect(server.data / "payflow.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")

    def create(timeout):
        return calls.stub("CreateBooking").future(
            M["CreateBookingRequest"](user_id="w", event_id=event["id"], ticket_count=1), timeout=timeout)
    try:
        first = create(20)
        queued = lambda: ok(server.anon.get("/health"))["services"]["ledger_writer"]["queued"]  # noqa: E731
        eventually(lambda: server.metric("payflow_grpc_in_flight") == 1 and queued() == 0)
        late = [create(0.3) for _ in range(20)]
        late.append(calls.stub("CancelBooking").future(M["CancelBookingRequest"](booking_id=b.booking_id), timeout=0.3))
        assert {f.code() for f in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert first.result().ticket_count == 1
    eventually(lambda: server.metric("payflow_grpc_in_flight") == 0)
    assert available(server.anon, event) == free - 2 and STATUS[calls.get(b.booking_id).status] == "PENDING"


def test_one_millisecond_and_cancelled_calls(server, calls, event):
    """It may have been done or not; the key says which, and it is done once."""
    free = available(server.anon, event)
    wanted = [M["CreateBookingRequest"](user_id="g", event_id=event["id"], ticket_count=1, idempotency_key=unique("ms"))
              for _ in range(150)]
    stub = calls.stub("CreateBooking")
    seed = random.randrange(1 << 30)
    print("seed", seed)
    r = random.Random(seed)
    running = []
    for i, m in enumerate(wanted):
        f = stub.future(m, timeout=0.001 if i % 3 == 0 else 20)
        running.append(f)
        if i % 3 == 1:
            threading.Timer(r.random() * 0.01, f.cancel).start()
    told = {m.idempotency_key: f.result().booking_id for m, f in zip(wanted, running)
            if not f.cancelled() and f.code() == grpc.StatusCode.OK}
    assert len(told) >= 50
    eventually(lambda: server.metric("payflow_grpc_in_flight") == 0)
    for m in wanted:
        b, _ = calls("CreateBooking", m)
        assert told.get(m.idempotency_key, b.booking_id) == b.booking_id
    assert available(server.anon, event) == free - len(wanted)


# ---- many at once

def test_the_last_tickets(server):
    few = make_event(server.anon, tickets=100)
    groups = ok(server.anon.get("/health"))["services"]["ledger_writer"]["groups"]
    channels = [server.calls() for _ in range(4)]
    try:
        for c in channels:
            grpc.channel_ready_future(c.channel).result(20)
        server.process.send_signal(signal.SIGSTOP)  # what comes meanwhile is there at once
        running = [channels[i % 4].stub("CreateBooking").future(
            M["CreateBookingRequest"](user_id=f"g{i}", event_id=few["id"], ticket_count=1), timeout=30) for i in range(256)]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGCONT)
        codes = [f.code().name for f in running]
        sold = [f.result().booking_id for f in running if f.code() == grpc.StatusCode.OK]
    finally:
        server.process.send_signal(signal.SIGCONT)
        for c in channels:
            c.channel.close()
    assert len(sold) == len(set(sold)) == 100 and codes.count("RESOURCE_EXHAUSTED") == 156
    assert available(server.anon, few) == 0
    assert ok(server.anon.get("/health"))["services"]["ledger_writer"]["groups"] - groups < 200, "decided one by one"


# ---- bytes

def test_messages_that_are_odd(server, calls, event):
    m = M["CreateBookingRequest"](user_id="g", event_id=event["id"], ticket_count=1).SerializeToString()
    unknown = b"\xf8\x3f\x07" + b"\xfa\x7f\x03abc" + b"\xf9\x7d12345678"
    assert calls("CreateBooking", m + unknown)[0].ticket_count == 1
    for bad in b"\xff" * 20, m + b"\x0a\xff", b"\x0a\x02\xc3\x28" + m[3:]:
        with pytest.raises(Refused) as e:
            calls("CreateBooking", bad)
        assert e.value.code in ("INTERNAL", "INVALID_ARGUMENT")
    with pytest.raises(Refused) as e:
        calls("CreateBooking", m + b"\xfa\x7f" + b"\x80\x80\x80\x01" + bytes(1 << 21))
    assert e.value.code == "RESOURCE_EXHAUSTED"
    with pytest.raises(Refused) as e:
        calls("ListBookings", m)
    assert e.value.code == "UNIMPLEMENTED"
    assert calls("CreateBooking", m)[0].ticket_count == 1


@pytest.mark.parametrize("what", ["rapid reset", "continuation"])
def test_floods(server, calls, event, what):
    from frames import CONTINUATION, DATA, END_STREAM, ENHANCE_YOUR_CALM, INTERNAL_ERROR, RST, Hand, frame, message
    free = available(server.anon, event)

    class At:
        port = server.grpc_port
    m = message(M["GetBookingRequest"](booking_id=NOBODY))
    with Hand(At) as h:
        if what == "continuation":
            h.send(h.head(PATH + "GetBooking", flags=0))
            piece = frame(CONTINUATION, 0, 1, h.encoder.encode([("x-a", "b" * 1000)], huffman=False))
        for _ in range(200):
            data = piece * 50 if what == "continuation" else b"".join(
                h.head(PATH + "GetBooking") + frame(DATA, END_STREAM, h.stream, m)
                + frame(RST, 0, h.stream, struct.pack(">I", 8)) for _ in range(50))
            if not h.send(data):
                break
        last = h.goaway()
        assert what == "continuation" or last in ((ENHANCE_YOUR_CALM, b"too many resets"), (INTERNAL_ERROR, b""), None)  # nghttp2 has a limit too
    calls.create(event, "g")
    assert available(server.anon, event) == free - 1
    eventually(lambda: server.metric("payflow_grpc_in_flight") == 0)


# ---- health, reflection, addresses

def health(port, service=SERVICE):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as c:
        check = c.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
        name = service.encode()
        return check(b"\x0a" + bytes([len(name)]) + name, timeout=10)


def test_health_and_reflection(tmp_path):
    s = Server(tmp_path / "data").start()
    assert health(s.grpc_port) == health(s.grpc_port, "") == b"\x08\x01"
    with grpc.insecure_channel(f"127.0.0.1:{s.grpc_port}") as c:
        ask = c.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", request_serializer=bytes,
                              response_deserializer=bytes)
        listed = next(ask(iter([b"\x3a\x00"]), timeout=10))
        assert SERVICE.encode() in listed
        described = next(ask(iter([b"\x22" + bytes([len(SERVICE)]) + SERVICE.encode()]), timeout=10))
        assert b"CreateBookingRequest" in described
    stopped = threading.Thread(target=s.stop)
    stopped.start()
    eventually(lambda: health_or_gone(s.grpc_port) != b"\x08\x01", every=0.01)
    stopped.join()
    assert s.process.returncode == 0


def health_or_gone(port):
    try:
        return health(port)
    except grpc.RpcError:
        return None


def test_addresses(tmp_path):
    env = {"GRPC_LISTEN": None}
    first, second = harness.Server(tmp_path / "a", env=env).start(), harness.Server(tmp_path / "b", env=env).start()
    try:  # whoever else may have the default one: serve goes on
        eventually(lambda: "serving without the address for gRPC" in second.log_text())
        api = harness.Server(tmp_path / "c", env=env, args=["--role", "api"]).start()
        assert "grpc" not in api.log_text().lower() and api.stop() == 0
        taken = Server(tmp_path / "d").start()
        r = cli("serve", "--listen", "127.0.0.1:0", "--data", tmp_path / "e", "--grpc-listen",
                f"127.0.0.1:{taken.grpc_port}", timeout=20)
        assert r.returncode == 78 and "cannot listen" in r.stderr, r.stderr
        assert taken.stop() == 0
    finally:
        assert first.stop() == 0 and second.stop() == 0
    for bad in "nonsense", "0.0.0.0:50051", "127.0.0.1:70000":
        r = cli("serve", "--data", tmp_path / "f", "--grpc-listen", bad)
        assert r.returncode == 78 and "GRPC_LISTEN" in r.stderr, r.stderr


def test_it_is_announced(tmp_path):
    """To a registry that is away: it is said that it will be."""
    s = Server(tmp_path / "data", env={"CONSUL_HTTP_ADDR": f"127.0.0.1:{free_port()}"})
    conf = tmp_path / "c.yaml"
    conf.write_text(f"consul_config: {{services: {{booking: {{name: booking-service, port: {s.grpc_port}}}}}}}\n")
    s.args += ["--config", str(conf)]
    s.start()
    eventually(lambda: re.search(r'not registered yet.*"booking-service"', s.log_text()))
    assert s.stop() == 0


def test_tls(tmp_path, pair):
    cert, key = pair
    s = Server(tmp_path / "data", args=["--tls-cert", cert, "--tls-key", key], scheme="https", verify=str(cert)).start()
    try:
        event = make_event(s.anon)
        with Calls(f"localhost:{s.grpc_port}", grpc.ssl_channel_credentials(cert.read_bytes())) as c:
            assert c.create(event, "g").guest
        with s.calls() as plain, pytest.raises(Refused) as e:
            plain("GetBooking", booking_id=NOBODY, timeout=3)
        assert e.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    finally:
        assert s.stop() == 0
