"""The gateway on the real binary, before scripted backends: what is passed on, and what is not."""
import gzip
import json
import os
import re
import socket
import threading

import httpx
import pytest

import backends
from backends import Backend, Config, Gateway, Wire, answer, echo, poll

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def backend():
    b = Backend()
    yield b
    b.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, backend):
    g = Gateway(tmp_path_factory.mktemp("gateway") / "data", Config([{"name": "one", "url": backend.url}]))
    g.start()
    yield g
    assert g.stop() == 0, g.log_tail()


@pytest.fixture(autouse=True)
def plain(backend):
    """Each test begins with a backend that echoes."""
    backend.act, backend.on_head = echo, None
    backend.requests.clear()


# ---- headers

def test_what_is_asked(gateway, backend):
    r = gateway.anon.post("/api/users?a=1&a=2&b=%2F", content=b'{"x":1}', headers=[
        ("Content-Type", "application/json"), ("X-Request-Id", "abc-1"), ("traceparent", TRACE),
        ("X-Forwarded-For", "10.1.2.3"), ("Via", "1.0 fred"), ("Keep-Alive", "timeout=5"), ("TE", "trailers"),
        ("Connection", "keep-alive, X-Secret-Hop"), ("X-Secret-Hop", "1"), ("X-Many", "a"), ("X-Many", "b"),
        ("Cookie", "a=1; b=2"), ("Proxy-Authorization", "Basic xyz"), ("Upgrade", "h2c"), ("Idempotency-Key", "k-1"),
        ("X-Empty", "")])
    assert r.status_code == 200, r.text
    q = backend.requests[-1]
    assert q.line == "POST /api/users?a=1&a=2&b=%2F HTTP/1.1"
    assert q.body == b'{"x":1}'
    assert q.one("x-request-id") == "abc-1" == r.headers["x-request-id"]
    parts = q.one("traceparent").split("-")
    assert parts[1] == TRACE.split("-")[1] and parts[2] != TRACE.split("-")[2] and parts[3] == "01"
    assert q.one("x-forwarded-for") == "10.1.2.3, 127.0.0.1"
    assert q.one("x-forwarded-proto") == "http"
    assert q.one("x-forwarded-host") == f"127.0.0.1:{gateway.port}" == q.one("host")
    assert q.one("via") == "1.0 fred, 1.1 payflow"
    assert q.get("x-many") == ["a", "b"]
    assert q.one("cookie") == "a=1; b=2" and q.one("idempotency-key") == "k-1" and q.one("x-empty") == ""
    for gone in ("keep-alive", "te", "connection", "x-secret-hop", "proxy-authorization", "upgrade", "expect",
                 "transfer-encoding"):
        assert not q.get(gone), gone
    assert q.one("content-length") == "7"


def test_nothing_is_added_that_was_not_sent(gateway, backend):
    assert b"200 OK" in gateway.raw(b"GET /api/users HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
    names = {n.lower() for n, _ in backend.requests[-1].headers}
    assert names == {"host", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}
    assert backend.requests[-1].one("host") == "shop.example"


def test_what_is_answered(gateway, backend):
    zipped = gzip.compress(b'{"a":1}')
    backend.act = lambda w, q: w.sock.sendall(answer(201, zipped, [
        ("Content-Encoding", "gzip"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X-Thing", "v"),
        ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=9"), ("X-Frame-Options", "SAMEORIGIN"),
        ("X-Request-Id", "theirs"), ("Cache-Control", "max-age=5")]))
    with gateway.client() as c:
        with c.stream("GET", "/api/users", headers={"Accept-Encoding": "gzip", "X-Request-Id": "mine"}) as r:
            raw = b"".join(r.iter_raw())
    assert r.status_code == 201 and raw == zipped
    h = r.headers
    assert h.get_list("set-cookie") == ["a=1; Path=/", "b=2"]
    assert h["x-thing"] == "v" and h["via"] == "1.1 payflow" and h["x-request-id"] == "mine"
    assert "x-hop" not in h and "keep-alive" not in h
    assert h.get_list("x-frame-options") == ["SAMEORIGIN"] and h["x-content-type-options"] == "nosniff"
    assert h.get_list("cache-control") == ["max-age=5"]


def test_methods_and_bodies_without(gateway, backend):
    for method, length in (("GET", None), ("DELETE", None), ("POST", "0"), ("PUT", "0"), ("PATCH", "0")):
        head = f"{method} /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += "Content-Length: 0\r\n" if length else ""
        assert b" 200 " in gateway.raw(head.encode() + b"\r\n")
        assert backend.requests[-1].method == method and backend.requests[-1].one("content-length") == length
    r = gateway.anon.request("DELETE", "/api/x", content=b"with body")
    assert r.status_code == 200 and backend.requests[-1].body == b"with body"


def test_head_204_304(gateway, backend):
    def act(wire, q):
        if q.method == "HEAD":
            length = b"Transfer-Encoding: chunked" if q.target == "/api/unknown" else b"Content-Length: 12345"
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nETag: \"x\"\r\n\r\n")
        elif q.target == "/api/204":
            wire.sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            wire.sock.sendall(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")
    backend.act = act
    with gateway.client() as c:
        r = c.head("/api/x")
        assert r.status_code == 200 and r.headers["content-length"] == "12345" and r.content == b""
        assert c.get("/api/204").status_code == 204
        r = c.get("/api/304")
        assert r.status_code == 304 and r.headers["etag"] == '"x"'
        assert c.head("/api/unknown").headers["etag"] == '"x"'
        assert c.get("/api/204").status_code == 204
    assert [q.method for q in backend.requests] == ["HEAD", "GET", "GET", "HEAD", "GET"]
    got = gateway.raw(b"HEAD /api/unknown HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200") and got.count(b"\r\n\r\n") == 1 and got.endswith(b"\r\n\r\n"), got


def test_informational_answers_are_swallowed(gateway, backend):
    backend.act = lambda w, q: w.sock.sendall(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer(body=b'"real"'))
    r = gateway.anon.get("/api/x")
    assert r.status_code == 200 and r.text == '"real"' and "link" not in r.headers


def test_paths(gateway, backend):
    asked = [("/api/a/./b", "/api/a/b"), ("/api/a/../b", "/api/b"), ("/api/%2e%2E/api/c", "/api/c"),
             ("/api/a%2Fb%2f..", "/api/a%2Fb%2f.."), ("/api/%41%7e", "/api/A~"), ("/api/x%20y?q=..%2F", "/api/x%20y?q=..%2F"),
             ("/api//x", "/api//x")]
    for sent, seen in asked:
        out = gateway.raw(f"GET {sent} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b" 200 " in out.split(b"\r\n")[0], (sent, out[:300])
        assert backend.requests[-1].target == seen
    n = len(backend.requests)
    for sent in ("/api/../../etc", "/%2e%2e/x", "/..", "/api/events/../../../x"):
        out = gateway.raw(f"GET {sent} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b" 400 " in out.split(b"\r\n")[0], (sent, out[:300])
    for sent in ("/", "/x", "/apix", "/metricsx"):
        assert b" 404 " in gateway.raw(f"GET {sent} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert len(backend.requests) == n


def test_a_path_cannot_leave_its_route(make_gateway):
    api, event = make_gateway.backend(), make_gateway.backend()
    g = make_gateway(Config([{"name": "a", "url": api.url}, {"name": "e", "url": event.url, "group": "event"}]))
    g.raw(b"GET /api/events/%2e%2e/users HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    g.raw(b"GET /api/x/../events/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [q.target for q in api.requests] == ["/api/users"] and [q.target for q in event.requests] == ["/api/events/7"]
    assert g.anon.get("/metrics/basic").status_code == 200 and api.requests[-1].target == "/metrics/basic"


SMUGGLED = {
    "length and coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/evil HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "odd coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "blank before colon": b"Content-Length : 5\r\n\r\nhello",
    "folded": b"X-A: b\r\n Content-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_smuggling_is_refused(gateway, backend, what):
    out = gateway.raw(b"POST /api/x HTTP/1.1\r\nHost: x\r\n" + SMUGGLED[what])
    assert out.startswith(b"HTTP/1.1 400 "), out[:200]
    assert not backend.requests


def test_line_ends_in_an_answers_header_are_no_headers(gateway, backend):
    backend.act = lambda w, q: w.sock.sendall(b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\n{}")
    r = gateway.anon.get("/api/x")
    assert r.status_code == 502 and "set-cookie" not in r.headers


# ---- bodies

def test_chunked_and_large_uploads_arrive_whole(gateway, backend):
    body = bytes(range(256)) * 4000

    def pieces():
        for i in range(0, len(body), 50000):
            yield body[i:i + 50000]
    for kw in ({"content": body}, {"content": pieces()}, {"content": iter([b"small"])}, {"content": iter([])}):
        r = gateway.anon.post("/api/x", headers={"Content-Type": "application/octet-stream"}, **kw)
        assert r.status_code == 200, r.text
    a, b, c, d = backend.requests
    assert a.body == body and a.one("content-length") == str(len(body))
    assert b.body == body and b.one("transfer-encoding") == "chunked"
    assert c.body == b"small" and d.body == b""


def test_expect_continue(gateway, backend):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
        s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n")
        w = Wire(s)
        assert w.head().line.startswith("HTTP/1.1 100")
        s.sendall(b"x" * 200000)
        assert w.head().line.startswith("HTTP/1.1 200")
    assert len(backend.requests[-1].body) == 200000 and not backend.requests[-1].get("expect")


@pytest.mark.parametrize("chunked", [False, True])
def test_large_answers_stream(gateway, backend, chunked):
    pieces = [os.urandom(65536) for _ in range(64)]

    def act(wire, q):
        if chunked:
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                wire.sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
            wire.sock.sendall(b"0\r\nX-Trailer: 1\r\n\r\n")
        else:
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(pieces) * 65536))
            for piece in pieces:
                wire.sock.sendall(piece)
    backend.act = act
    for _ in range(2):  # the second on the kept connections
        r = gateway.anon.get("/api/x")
        assert r.status_code == 200 and r.content == b"".join(pieces)
        assert ("content-length" in r.headers) is not chunked


def test_an_answer_that_trickles_is_passed_on_as_it_comes(gateway, backend):
    go = threading.Event()

    def act(wire, q):
        wire.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go.wait(20)
        wire.sock.sendall(b"4\r\nlast\r\n0\r\n\r\n")
    backend.act = act
    with gateway.client() as c, c.stream("GET", "/api/x") as r:
        parts = r.iter_raw()
        assert next(parts) == b"first"
        go.set()
        assert b"".join(parts) == b"last"


def test_a_gigabyte_each_way_in_bounded_memory(gateway, backend):
    size = 1 << 30
    block = b"z" * (1 << 20)
    seen = []

    def on_head(wire, q):
        if q.method != "PUT":
            return False
        left = int(q.one("content-length")) - len(wire.buffer)
        wire.buffer = b""
        view = bytearray(1 << 20)
        while left > 0:
            left -= wire.sock.recv_into(view)
        seen.append(left)
        wire.sock.sendall(answer())
        return True

    def act(wire, q):
        wire.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            wire.sock.sendall(block)
    backend.on_head, backend.act = on_head, act
    before = backends.rss_kib(gateway.process.pid)
    most = [before]
    done = threading.Event()

    def watch():
        while not done.wait(0.02):
            most[0] = max(most[0], backends.rss_kib(gateway.process.pid))
    threading.Thread(target=watch, daemon=True).start()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=120) as s:
        s.sendall(b"PUT /api/big HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            s.sendall(block)
        assert Wire(s).head().line == "HTTP/1.1 200 OK"
    assert seen == [0]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=120) as s:
        s.sendall(b"GET /api/big HTTP/1.1\r\nHost: x\r\n\r\n")
        w = Wire(s)
        assert w.head().line == "HTTP/1.1 200 OK"
        got, view = len(w.buffer), bytearray(1 << 20)
        while got < size:
            n = s.recv_into(view)
            assert n > 0, got
            got += n
    done.set()
    # AddressSanitizer keeps what was freed
    assert most[0] - before < (400 if backends.sanitized() else 16) * 1024, (before, most[0])


def test_a_slow_client_holds_the_backend_back_not_its_bytes(gateway, backend):
    size, sent = 256 << 20, [0]

    def act(wire, q):
        wire.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent[0] < size:
            wire.sock.sendall(b"z" * (1 << 16))
            sent[0] += 1 << 16
    backend.act = act
    before = backends.rss_kib(gateway.process.pid)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
        s.sendall(b"GET /api/big HTTP/1.1\r\nHost: x\r\n\r\n")
        Wire(s).head()
        last = [-1]

        def still():
            same, last[0] = sent[0] == last[0], sent[0]
            threading.Event().wait(0.2)
            return same
        poll(still, 20, "the backend has to wait")
        assert sent[0] < size // 2  # the kernel's buffers, and the gateway's
        assert backends.rss_kib(gateway.process.pid) - before < (100 if backends.sanitized() else 16) * 1024
    poll(lambda: gateway.backends()["one"]["active"] == 0, what="the backend is free again")


def test_an_answer_before_the_body_is_there(gateway, backend):
    def on_head(wire, q):
        wire.sock.sendall(answer(413, b'{"no":1}', [("Connection", "close")], "Too Large"))
        wire.sock.shutdown(socket.SHUT_WR)
        return False
    backend.on_head, backend.act = on_head, lambda w, q: False
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
        s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        stop = threading.Event()

        def feed():
            try:
                while not stop.is_set():
                    s.sendall(b"z" * 65536)
            except OSError:
                pass
        t = threading.Thread(target=feed, daemon=True)
        t.start()
        w = Wire(s)
        assert w.head().line.startswith("HTTP/1.1 413")
        stop.set()


def test_a_client_that_leaves_in_the_middle_of_a_body(gateway, backend):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
        s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"z" * 300000)
        poll(lambda: gateway.backends()["one"]["active"] == 1)
    poll(lambda: gateway.backends()["one"]["active"] == 0)
    assert gateway.anon.get("/api/x").status_code == 200
    assert gateway.backends()["one"]["failures_in_a_row"] == 0


# ---- the gateway's own pages

def test_health_metrics_and_log(gateway, backend):
    gateway.anon.get("/api/users/7?secret=1")
    h = gateway.health()
    assert h["status"] in ("UP", "DEGRADED") and h["role"] == "gateway"  # nobody is behind the other groups
    one = gateway.backends()["one"]
    assert one["state"] == "up" and one["url"] == backend.url and one["successes"] >= 1
    assert h["services"]["circuit_breakers"]["breakers"]["api"]["state"] == "closed"
    assert {r["prefix"] for r in h["services"]["routes"]["routes"]} >= {"/api", "/api/events", "/api/auth", "/api/bookings"}
    assert gateway.anon.get("/health/live").json()["status"] == "UP"
    assert gateway.anon.get("/health/ready").status_code == 200
    before = gateway.metric("payflow_gateway_requests_total", backend="one", code="2xx")
    gateway.anon.get("/api/users/7")
    assert gateway.metric("payflow_gateway_requests_total", backend="one", code="2xx") == before + 1
    assert gateway.metric("payflow_gateway_request_duration_seconds_count", backend="one") >= 2
    text = gateway.anon.get("/metrics").text
    for name in ("backend_in_flight", "ejections_total", "retries_total", "breaker_state", "route_in_flight", "backend_in"):
        assert "payflow_gateway_" + name in text, name
    gateway.anon.get("/api/users/7?secret=1", headers={"X-Request-Id": "log-me"})

    def logged():
        lines = [json.loads(line) for line in gateway.log_text().splitlines() if "log-me" in line]
        return lines and lines[0]
    seen = poll(logged)
    assert (seen["route"], seen["status"], seen["method"]) == ("/api", 200, "GET") and "secret" not in gateway.log_text()


def test_cors_preflight_is_answered_here(gateway, backend):
    r = gateway.anon.options("/api/users", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
    assert r.status_code == 204 and "POST" in r.headers["access-control-allow-methods"]
    assert gateway.anon.get("/api/users", headers={"Origin": "https://a.example"}).headers["access-control-allow-origin"] == "*"
    assert len(backend.requests) == 1


def test_keep_alive_and_pipelined_requests(gateway, backend):
    one = b"GET /api/%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
        s.sendall(b"".join(one % i for i in range(20)))
        w = Wire(s)
        for i in range(20):
            q = w.head()
            assert f"GET /api/{i} " in json.loads(w.body_of(q))["line"]
    assert backend.connections < 20 + len(backend.requests)


def test_before_the_real_thing(make_gateway, fresh):
    """PayFlow itself behind it: users, keys, money, with the client's address in its rate limits' place."""
    real = fresh()
    g = make_gateway(Config([{"name": "real", "url": real.base}]))
    with g.client() as c:
        r = c.post("/api/users", json={"username": "gwuser", "email": "gw@example.com", "password": "password123"})
        assert r.status_code == 201, r.text
        user = r.json()["id"]
        r = c.post("/api/transactions/deposit", json={"user_id": user, "amount": 100.5}, headers={"Idempotency-Key": "gw-1"})
        assert r.status_code == 201
        again = c.post("/api/transactions/deposit", json={"user_id": user, "amount": 100.5}, headers={"Idempotency-Key": "gw-1"})
        assert again.status_code == 201 and again.headers["idempotency-replayed"] == "true" and again.content == r.content
        assert re.search(r'"balance":100\.50', c.get("/api/balances", params={"user_id": user}).text)
        assert c.post("/api/v1/auth/login", json={"email": "gw@example.com", "password": "password123"}).status_code == 200
        assert c.get("/docs").status_code == 200 and c.get("/openapi.json").status_code == 200
        r = c.get("/api/users/999999")
        assert r.status_code == 401 and r.headers["content-type"] == "application/problem+json"
        assert "Bearer" in r.headers["www-authenticate"]
    assert httpx.get(g.base + "/api/users/1").status_code == real.anon.get("/api/users/1").status_code
