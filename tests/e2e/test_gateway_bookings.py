"""The gateway's /api/bookings: JSON to gRPC and back, before a service by python3-grpcio."""
import json
import threading
import time
from concurrent import futures

import pytest

grpc = pytest.importorskip("grpc")

import harness  # noqa: E402
from harness import ok  # noqa: E402
from backends import Backend, Config, poll  # noqa: E402
from test_gateway_faults import CALM, NO_BREAKER, QUICK_RETRY, problem  # noqa: E402

SERVICE = "booking.v1.BookingService"


def messages():
    import subprocess
    import tempfile
    from pathlib import Path

    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["protoc", "-I", str(harness.ROOT / "proto"), "-o", f"{d}/set", "booking/v1/booking.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(d, "set").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for f in files.file:
        pool.Add(f)
    return {m.name: message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("booking.v1." + m.name))
            for m in files.file[0].message_type}


M = messages()
STATUS = {"PENDING": 1, "CONFIRMED": 2, "CANCELLED": 3, "EXPIRED": 4}


class Service:
    """`act(name, request, context)` answers; it may abort the call. With `healthy` it has grpc.health.v1, which answers so."""

    def __init__(self, port=0, healthy=None):
        self.healthy = healthy
        self.calls = []
        self.act = self.plain
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        kinds = {"CreateBooking": "CreateBookingRequest", "GetBooking": "GetBookingRequest",
                 "CancelBooking": "CancelBookingRequest"}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            name: grpc.unary_unary_rpc_method_handler(self.handler(name), M[kind].FromString,
                                                      lambda m: m.SerializeToString())
            for name, kind in kinds.items()}),))
        if healthy is not None:
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
                "Check": grpc.unary_unary_rpc_method_handler(self.check)}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    url = property(lambda self: f"http://127.0.0.1:{self.port}")

    def handler(self, name):
        def handle(request, context):
            self.calls.append((name, request, dict(context.invocation_metadata())))
            return self.act(name, request, context)
        return handle

    def check(self, request, context):
        assert request == b"\n" + bytes([len(SERVICE)]) + SERVICE.encode()  # field 1, the service
        if self.healthy == "hangs":
            time.sleep(1.5)
        if self.healthy == "unknown":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return b"\x08\x01" if self.healthy is True else b"\x08\x02"  # SERVING, NOT_SERVING

    @staticmethod
    def plain(name, q, context):
        if name == "CreateBooking":
            return M["Booking"](booking_id="b-1", event_id=q.event_id, user_id=q.user_id, ticket_count=q.ticket_count,
                                status=1, amount_minor=2550, currency="USD", created_at="2026-11-21T12:00:00Z",
                                expires_at="2026-11-21T12:10:00Z")
        return M["Booking"](booking_id=q.booking_id, status=3 if name == "CancelBooking" else 2)

    def close(self):
        self.server.stop(0).wait()


@pytest.fixture
def service():
    s = Service()
    yield s
    s.close()


@pytest.fixture
def gateway(make_gateway, service):
    return make_gateway(Config([{"name": "b1", "url": service.url, "group": "booking"}], CALM, QUICK_RETRY + NO_BREAKER))


def test_the_health_service_is_asked(make_gateway):
    a, b = Service(healthy=True), Service()  # the other one has none, and answers that
    g = make_gateway(Config([{"name": "a", "url": a.url, "group": "booking"}, {"name": "b", "url": b.url, "group": "booking"}],
                            CALM.replace("timeout: 1s", "timeout: 300ms"), QUICK_RETRY + NO_BREAKER))

    def state(name):
        return g.backends("booking")[name]["state"]
    try:
        for bad in (False, "unknown", "hangs"):
            a.healthy = bad
            poll(lambda: state("a") == "down")
            before = len(a.calls)
            assert [g.anon.get("/api/bookings/b-1").status_code for _ in range(6)] == [200] * 6
            assert len(a.calls) == before and state("b") == "up"
            a.healthy = True
            poll(lambda: state("a") == "up")
            assert [g.anon.get("/api/bookings/b-1").status_code for _ in range(6)] == [200] * 6
            assert len(a.calls) == before + 3
        a.close()
        poll(lambda: state("a") == "down")
        a = Service(a.port, healthy=True)
        poll(lambda: state("a") == "up")
    finally:
        a.close()
        b.close()


def test_the_same_answers_as_without_it(make_gateway, fresh):
    """One process, asked directly over HTTP, and over gRPC by a gateway in front of it."""
    port = harness.free_port()
    real = fresh(env={"GRPC_LISTEN": f"127.0.0.1:{port}"})
    g = make_gateway(Config([{"name": "b", "url": f"http://127.0.0.1:{port}", "group": "booking"}, {"name": "a", "url": real.base}]))
    user = harness.new_user(real, fund="5")
    made = [ok(real.admin.api.post("/api/events", json={"title": "t", "location": "l", "date": harness.utc(86400), "total_tickets": 100,
                                                       **price}), 201)["id"] for price in ({}, {"price": "3.00"})]
    good = {"user_id": "guest", "event_id": made[0], "ticket_count": 1}
    one = ok(real.anon.post("/api/bookings", json=good), 201)["booking_id"]
    asked = [("POST", "", {"json": good | change}) for change in (
        {}, {"ticket_count": 0}, {"ticket_count": None}, {"ticket_count": "1"}, {"ticket_count": 1.5}, {"ticket_count": 101},
        {"event_id": ""}, {"event_id": None}, {"event_id": "x" * 65}, {"event_id": 5}, {"event_id": "nobody"}, {"event_id": [1]},
        {"user_id": ""}, {"user_id": "x" * 65}, {"user_id": []}, {"event_id": made[1]}, {"user_id": user.id, "event_id": made[1]},
        {"user_id": 987654})]
    asked += [("POST", "", {"json": good, "headers": h}) for h in (
        {"X-API-Key": ""}, {"Authorization": ""}, {"Authorization": "Bearer x"}, {"X-API-Key": "pf_x"}, {"Idempotency-Key": ""},
        {"X-API-Key": user.key})]
    asked += [("POST", q, {"json": good}) for q in ("?%zz", "?a=1&a=2", "?=1")]
    asked += [(m, f"/{i}{q}", {}) for m in ("GET", "HEAD", "DELETE") for i in (one, "0" * 36) for q in ("", "?%zz", "?a=1")]
    for method, path, rest in asked:
        a, b = (c.request(method, "/api/bookings" + path, **rest) for c in (real.anon, g.anon))
        if "booking_id" in a.text and method == "POST":
            assert a.status_code == b.status_code == 201 and set(a.json()) == set(b.json())
        else:
            seen = [(r.status_code, {k: v for k, v in r.json().items() if k not in ("request_id", "errors", "updated_at")} if r.content
                     else None, [(e["loc"], e["type"]) for e in r.json().get("errors", ())] if r.content else None) for r in (a, b)]
            assert seen[0] == seen[1], (method, path, rest, seen)
        assert a.headers["cache-control"] == b.headers["cache-control"] == "no-store"
    key = {"Idempotency-Key": harness.unique("key")}
    first = real.anon.post("/api/bookings?x=1", json=good | {"zz": 1}, headers=key)
    for c, path in (g.anon, "/api/bookings"), (real.anon, "/api/bookings"), (g.anon, "/api/bookings?y=2"):
        again = c.post(path, json=good, headers=key)
        assert again.content == first.content and again.headers["idempotency-replayed"] == "true"


BODY = {"user_id": "kerem_user", "event_id": "e-7", "ticket_count": 2}


def test_create_get_cancel(gateway, service):
    with gateway.client(jwt="tok", headers={"X-Request-Id": "r-1", "Idempotency-Key": '"k-1"'}) as c:
        r = c.post("/api/bookings", json=BODY)
    assert r.status_code == 201, r.text
    assert r.json() == {"booking_id": "b-1", "status": "PENDING", "user_id": "kerem_user", "event_id": "e-7",
                        "ticket_count": 2, "amount": 25.5, "currency": "USD", "created_at": "2026-11-21T12:00:00Z",
                        "expires_at": "2026-11-21T12:10:00Z"}
    assert '"amount":25.50' in r.text and r.headers["x-request-id"] == "r-1"
    name, q, meta = service.calls[-1]
    assert (name, q.user_id, q.event_id, q.ticket_count, q.idempotency_key) == ("CreateBooking", "kerem_user", "e-7", 2, "k-1")
    assert meta["authorization"] == "Bearer tok" and meta["x-request-id"] == "r-1" and meta["x-forwarded-for"] == "127.0.0.1"
    r = gateway.anon.get("/api/bookings/b-9")
    assert r.status_code == 200 and r.json()["status"] == "CONFIRMED" and r.json()["booking_id"] == "b-9"
    r = gateway.anon.delete("/api/bookings/b-9")
    assert r.status_code == 200 and r.json()["status"] == "CANCELLED"
    assert [c[0] for c in service.calls] == ["CreateBooking", "GetBooking", "CancelBooking"]
    assert gateway.anon.post("/api/bookings", json=BODY | {"user_id": 7}).status_code == 201
    assert service.calls[-1][1].user_id == "7" and service.calls[-1][1].user_number
    assert gateway.anon.post("/api/bookings", json=BODY | {"user_id": "7"}).status_code == 201
    assert not service.calls[-1][1].user_number
    more = {"Content-Type": "application/vnd.x+json"}
    r = gateway.anon.post("/api/bookings", content=json.dumps(BODY | {"ticket_count": 10000}), headers=more)
    assert r.status_code == 201 and "set-cookie" not in r.headers
    for guest, user_id in (False, 7), (True, "7"):  # a user's number is a number, whatever a guest's name looks like
        service.act = lambda name, q, context, guest=guest: M["Booking"](booking_id="b", user_id="7", guest=guest)
        assert gateway.anon.get("/api/bookings/b").json()["user_id"] == user_id


@pytest.mark.parametrize("change, field", [
    ({"ticket_count": 0}, "ticket_count"), ({"ticket_count": -1}, "ticket_count"), ({"ticket_count": 2**31}, "ticket_count"),
    ({"ticket_count": 10001}, "ticket_count"), ({"event_id": 5}, "event_id"),
    ({"ticket_count": "2"}, "ticket_count"), ({"ticket_count": 1.5}, "ticket_count"), ({"user_id": "x" * 65}, "user_id"),
    ({"user_id": None}, "user_id"), ({"event_id": ""}, "event_id"), ({"event_id": []}, "event_id")])
def test_bad_fields(gateway, service, change, field):
    p = problem(gateway.anon.post("/api/bookings", json=BODY | change), 422, "validation-failed")
    assert [e["loc"] for e in p["errors"]] == [["body", field]]
    assert not service.calls


def test_bad_requests(gateway, service):
    post = gateway.anon.post
    problem(post("/api/bookings", content=b"{", headers={"Content-Type": "application/json"}), 400, "malformed-json")
    for body in b"[]", b"5", b"":
        problem(post("/api/bookings", content=body, headers={"Content-Type": "application/json"}), 422, "validation-failed")
    gzipped = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(post("/api/bookings", content=b"{}", headers=gzipped), 415, "unsupported-media-type")
    problem(post("/api/bookings", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    problem(post("/api/bookings", content=b"x" * 100000, headers={"Content-Type": "application/json"}), 413, "body-too-large")
    assert post("/api/bookings/b-1", json=BODY).headers["allow"] == "GET, HEAD, DELETE, OPTIONS"
    assert gateway.anon.delete("/api/bookings").status_code == 405
    assert gateway.anon.get("/api/bookings/a/b").status_code == 404
    assert not service.calls


@pytest.mark.parametrize("code, trailers, status, slug", [
    ("FAILED_PRECONDITION", (), 409, "wrong-state"), ("NOT_FOUND", (), 404, "not-found"),
    ("INVALID_ARGUMENT", (), 422, "validation-failed"), ("PERMISSION_DENIED", (), 403, "forbidden"),
    ("UNAUTHENTICATED", (), 401, "authentication-required"), ("INTERNAL", (), 502, "bad-gateway"),
    ("RESOURCE_EXHAUSTED", (("retry-after", "7"),), 429, "rate-limited"),
    ("FAILED_PRECONDITION", (("problem-type", "/problems/insufficient-funds"),), 422, "insufficient-funds"),
    ("UNAVAILABLE", (("problem-type", "/problems/storage-full"),), 503, "storage-full")])
def test_status_becomes_status(gateway, service, code, trailers, status, slug):
    def act(name, q, context):
        context.set_trailing_metadata(trailers)
        context.abort(getattr(grpc.StatusCode, code), "all gone")
    service.act = act
    r = gateway.anon.post("/api/bookings", json=BODY)
    assert problem(r, status, slug)["detail"] == "all gone"
    assert len(service.calls) == 1, "without a key it is asked once"
    if trailers and trailers[0][0] == "retry-after":
        assert r.headers["retry-after"] == "7"


def test_retries(gateway, service):
    def act(name, q, context):
        if len(service.calls) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return Service.plain(name, q, context)
    service.act = act
    assert gateway.anon.get("/api/bookings/b-1").status_code == 200 and len(service.calls) == 3
    service.calls.clear()
    assert gateway.anon.post("/api/bookings", json=BODY, headers={"Idempotency-Key": "k"}).status_code == 201
    assert len(service.calls) == 3


def test_nobody_there_and_back(make_gateway):
    port = harness.free_port()
    g = make_gateway(Config([{"name": "b1", "url": f"http://127.0.0.1:{port}", "group": "booking"}], CALM, QUICK_RETRY + NO_BREAKER))
    problem(g.anon.post("/api/bookings", json=BODY), 503, "unavailable")
    service = Service(port)
    try:
        poll(lambda: g.anon.post("/api/bookings", json=BODY).status_code == 201, 20)
    finally:
        service.close()


def test_a_service_that_hangs(gateway, service):
    release = threading.Event()
    service.act = lambda name, q, context: (release.wait(30), Service.plain(name, q, context))[1]
    begin = time.monotonic()
    problem(gateway.anon.post("/api/bookings", json=BODY), 504, "timeout")
    assert 9 < time.monotonic() - begin < 15
    release.set()


def test_a_users_bookings_come_from_the_api_role(make_gateway, service):
    api = Backend()
    g = make_gateway(Config([{"name": "b1", "url": service.url, "group": "booking"}, {"name": "a", "url": api.url}], CALM, NO_BREAKER))
    assert g.anon.get("/api/bookings?user_id=7").status_code == 200
    assert api.requests[-1].target == "/api/bookings?user_id=7" and not service.calls
    api.close()


def test_several_at_once_and_sigterm(gateway, service):
    service.act = lambda name, q, context: (time.sleep(0.2), Service.plain(name, q, context))[1]
    with futures.ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda _: gateway.client().post("/api/bookings", json=BODY).status_code, range(24)))
    assert set(got) == {201}
    assert gateway.stop() == 0
