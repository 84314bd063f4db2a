"""HTTP itself: methods, headers, ids, CORS, compression, and bytes that no client library would send."""
import gzip
import re
import socket
import time

import pytest

from harness import UUID7, eventually, new_user, ok, problem, raw, raw_status, unique

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/api/v1/nothing", "/api/users/1/2/3", "/API/USERS",
                                  "/api/users/../../etc/passwd", "/docs/../../../etc/passwd", "/docs/%2e%2e/%2e%2e/x",
                                  "/api//users", "/api/transactions/deposit/"])
def test_404(dev, path):
    problem(dev.admin.api.request("GET", path), 404, "not-found")


@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/api/login", {"POST"}), ("DELETE", "/api/transactions/deposit", {"POST"}),
    ("PATCH", "/api/users", {"GET", "POST", "PUT", "DELETE"}), ("POST", "/health", {"GET"}),
    ("PUT", "/api/v1/ping", {"GET"}), ("POST", "/api/v1/users/1", {"GET", "PUT", "DELETE"}),
    ("GET", "/api/v1/auth/login", {"POST"}), ("POST", "/metrics", {"GET"}),
])
def test_405_with_allow(dev, method, path, allow):
    r = dev.admin.api.request(method, path)
    problem(r, 405, "method-not-allowed")
    assert allow <= {m.strip() for m in r.headers["allow"].split(",")}
    assert method not in r.headers["allow"].split(", ")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_odd_methods(dev, method):
    answer = raw(dev.port, f"{method} /api/users HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), 3)
    assert raw_status(answer) in (400, 405, 501)


def test_head(dev):
    r = dev.anon.head("/health")
    assert r.status_code == 200 and r.content == b""
    assert int(r.headers.get("content-length", "1")) > 0
    answer = raw(dev.port, b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.split(b"\r\n\r\n", 1)[1] == b""
    assert dev.anon.head("/nothing").status_code == 404


@pytest.mark.parametrize("value", ["abc", "A-b_c.9", "x" * 64, "00-11-22"])
def test_request_id_is_echoed(dev, value):
    assert dev.anon.get("/health", headers={"X-Request-Id": value}).headers["x-request-id"] == value
    p = problem(dev.anon.get("/nothing", headers={"X-Request-Id": value}), 404)
    assert p["request_id"] == value and p["instance"] == "/nothing"


@pytest.mark.parametrize("value", ["x" * 65, "a b", "a\"b", "<script>", "a\\b", ""])
def test_request_id_is_made_when_unsafe(dev, value):
    made = dev.anon.get("/health", headers={"X-Request-Id": value}).headers["x-request-id"]
    assert made != value and re.fullmatch(r"[A-Za-z0-9._-]{8,64}", made)


def test_request_ids_differ_and_are_logged(dev):
    ids = {dev.anon.get("/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
    mark = unique("rid")
    dev.anon.get("/api/users/1", headers={"X-Request-Id": mark})
    eventually(lambda: mark in dev.log_text())


@pytest.mark.parametrize("path, status", [("/health", 200), ("/nothing", 404), ("/api/users", 401), ("/docs", 200),
                                          ("/openapi.json", 200), ("/metrics", 200)])
def test_security_headers(dev, path, status):
    r = dev.anon.get(path, follow_redirects=True)
    assert r.status_code == status
    assert r.headers["x-content-type-options"] == "nosniff"
    assert r.headers["x-frame-options"] in ("DENY", "SAMEORIGIN")
    assert r.headers["referrer-policy"]
    assert "default-src" in r.headers["content-security-policy"]
    assert "unsafe-eval" not in r.headers["content-security-policy"]
    assert "strict-transport-security" not in r.headers, "HSTS without TLS"
    assert r.headers["x-request-id"]
    assert "libmicrohttpd" not in str(r.headers).lower()


@pytest.fixture(scope="module")
def cors(tmp_path_factory):
    from conftest import module_server
    yield from module_server(tmp_path_factory, "cors",
                             env={"ALLOWED_ORIGINS": "https://app.example.com,https://b.example.com"})


def preflight(server, origin, method="POST", headers="content-type,x-api-key,idempotency-key"):
    return server.anon.options("/api/transactions/deposit", headers={
        "Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers})


def test_cors(cors):
    for origin in ("https://app.example.com", "https://b.example.com"):
        r = preflight(cors, origin)
        assert r.status_code in (200, 204)
        assert r.headers["access-control-allow-origin"] == origin
        assert "POST" in r.headers["access-control-allow-methods"]
        allowed = r.headers["access-control-allow-headers"].lower()
        assert allowed == "*" or all(h in allowed for h in ("content-type", "x-api-key", "idempotency-key",
                                                           "authorization"))
        r = cors.anon.get("/health", headers={"Origin": origin})
        assert r.headers["access-control-allow-origin"] == origin and "origin" in r.headers["vary"].lower()
        r = cors.anon.get("/nothing", headers={"Origin": origin})
        assert r.headers["access-control-allow-origin"] == origin, "errors need CORS headers too"


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil.example", "null",
                                    "http://app.example.com", "https://xapp.example.com", "https://app.example.com:444"])
def test_cors_refuses_others(cors, origin):
    for r in (preflight(cors, origin), cors.anon.get("/health", headers={"Origin": origin})):
        assert r.headers.get("access-control-allow-origin") not in (origin, "*")


def test_options_says_what_is_allowed(dev):
    r = dev.anon.options("/api/login")
    assert r.status_code in (200, 204) and "POST" in r.headers["allow"]


def test_traceparent_is_passed_on(dev):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    r = dev.anon.get("/health", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert r.status_code == 200
    eventually(lambda: trace in r.headers.get("traceparent", "") or trace in dev.log_text())


@pytest.mark.parametrize("value", ["", "00-0-0-0", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-" + "a" * 32 +
                                   "-00f067aa0ba902b7-01", "x" * 500, "00-" + "G" * 32 + "-00f067aa0ba902b7-01"])
def test_bad_traceparent_is_ignored(dev, value):
    r = dev.anon.get("/health", headers={"traceparent": value})
    assert r.status_code == 200
    if value:
        assert value not in r.headers.get("traceparent", "")


def test_gzip(dev):
    plain = dev.anon.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and len(plain.content) > 1024
    packed = dev.anon.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and packed.content == plain.content
    assert "accept-encoding" in packed.headers["vary"].lower()
    refused = dev.anon.get("/openapi.json", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "content-encoding" not in refused.headers
    small = dev.anon.get("/api/v1/ping", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_gzip_of_an_answer_made_on_the_spot(dev):
    u = new_user(dev, fund="9")
    for _ in range(20):
        ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
    r = u.api.get(f"/api/transactions?user_id={u.id}&limit=20", headers={"Accept-Encoding": "gzip"})
    assert r.headers["content-encoding"] == "gzip" and len(r.json()["data"]) == 20
    head = (f"GET /api/transactions?user_id={u.id} HTTP/1.1\r\nHost: x\r\nX-API-Key: {u.key}\r\n"
            "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n")
    body = raw(dev.port, head.encode()).split(b"\r\n\r\n", 1)[1]
    assert gzip.decompress(body).startswith(b"{")


@pytest.mark.parametrize("headers", [{"X-Pad": "x" * 40_000}, {"X-Pad": "x" * 20_000},
                                     {f"X-{i}": "x" * 200 for i in range(150)}])
def test_431(dev, headers):
    problem(dev.anon.get("/health", headers=headers), 431, "headers-too-large")
    ok(dev.anon.get("/health"))


def test_431_past_what_is_read_at_all(dev):
    """Beyond the connection's buffer (some 47 KiB) the framing layer refuses by itself: the status, and no problem body."""
    assert dev.anon.get("/health", headers={"X-Pad": "x" * 65_000}).status_code == 431
    ok(dev.anon.get("/health"))


def test_long_target(dev):
    answer = raw(dev.port, b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw_status(answer) in (414, 431)


@pytest.mark.parametrize("query", ["id=%zz", "id=%", "id=%4", "id=%ff%fe", "id=1&id=2", "id=1%00", "%00=1", "id=%c3%28"])
def test_bad_query(dev, query):
    answer = raw(dev.port, f"GET /api/users?{query} HTTP/1.1\r\nHost: x\r\nX-API-Key: {dev.admin.key}\r\n"
                           "Connection: close\r\n\r\n".encode())
    assert raw_status(answer) == 400, answer[:300]
    assert b"application/problem+json" in answer


def test_escapes_in_query_and_path(dev):
    c = dev.admin.api
    assert ok(c.get("/api/users?id=%31"))["id"] == 1
    assert ok(c.get("/api/users/%31"))["id"] == 1
    assert c.get("/api/users/%00").status_code in (400, 404)
    assert c.get("/api/users/%ff").status_code in (400, 404)
    assert c.get("/api/users/1%2f2").status_code in (400, 404, 422)


@pytest.mark.parametrize("data", ids=lambda d: repr(d[:24]), argvalues=[
    b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
    b"GET /health HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n", b"\x00" * 200, b"A" * 70_000, b"GET /health\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, x\r\n\r\n",
])
def test_garbage_is_refused_and_survived(dev, data):
    answer = raw(dev.port, data, 2, shutdown=True)
    assert raw_status(answer) in (None, 400, 411, 413, 414, 431, 501, 505), answer[:200]
    ok(dev.anon.get("/health"))


DEPOSIT = "POST /api/transactions/deposit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("lengths", [
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n", "Content-Length: {n}\r\nContent-Length: 5\r\n",
    "Content-Length: +{n}\r\n", "Content-Length: 0x1\r\n", "Transfer-Encoding: chunked, identity\r\n",
])
def test_ambiguous_lengths_move_nothing(dev, lengths):
    """The makings of request smuggling: never answered as a success."""
    u = new_user(dev)
    body = f'{{"user_id":{u.id},"amount":1}}'
    chunked = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n" if "chunked" in lengths else body
    request = DEPOSIT + lengths.format(n=len(body)) + "Connection: close\r\n\r\n" + chunked
    answer = raw(dev.port, request.encode(), 2, shutdown=True)
    assert raw_status(answer) in (None, 400, 413, 501), answer[:200]
    assert dev.admin.api.get(f"/api/transactions?user_id={u.id}").json()["data"] == []


def test_chunked_body(dev):
    u = new_user(dev)
    body = f'{{"user_id":{u.id},"amount":"1.25"}}'
    pieces = "".join(f"1\r\n{c}\r\n" for c in body) + "0\r\n\r\n"
    answer = raw(dev.port, (DEPOSIT + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + pieces).encode())
    assert raw_status(answer) == 201
    big = f"{2 << 20:x}\r\n" + " " * (2 << 20) + "\r\n0\r\n\r\n"
    answer = raw(dev.port, (DEPOSIT + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + big).encode())
    assert raw_status(answer) in (413, None)
    assert float(u.balance()) == 1.25


def test_pipelining_and_keep_alive(dev):
    one = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(dev.port, one * 9 + last)
    assert answer.count(b"HTTP/1.1 200") == 10 and answer.count(b'pong') == 10


def test_http_1_0(dev):
    answer = raw(dev.port, b"GET /api/v1/ping HTTP/1.0\r\n\r\n")
    assert raw_status(answer) == 200 and b"pong" in answer


def test_expect_continue(dev):
    u = new_user(dev)
    body = f'{{"user_id":{u.id},"amount":1}}'.encode()
    with socket.create_connection(("127.0.0.1", dev.port), timeout=5) as s:
        s.sendall((DEPOSIT + f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n").encode())
        assert b"100" in s.recv(64)
        s.sendall(body)
        answer = b""
        while chunk := s.recv(4096):
            answer += chunk
    assert raw_status(answer) == 201


def test_a_body_that_never_comes(dev):
    u = new_user(dev)
    answer = raw(dev.port, (DEPOSIT + 'Content-Length: 500\r\n\r\n{"user_id":').encode(), 1, shutdown=True)
    assert raw_status(answer) in (None, 400, 408)
    assert dev.admin.api.get(f"/api/transactions?user_id={u.id}").json()["data"] == []


def test_slow_senders_do_not_hold_others(dev):
    idle = [socket.create_connection(("127.0.0.1", dev.port)) for _ in range(60)]
    try:
        for s in idle:
            s.sendall(b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        begin = time.monotonic()
        for _ in range(10):
            ok(dev.anon.get("/health"))
        assert time.monotonic() - begin < 8
    finally:
        for s in idle:
            s.close()


def test_header_injection(dev):
    """A CR LF smuggled in by escapes never becomes a header."""
    r = dev.anon.get("/x%0d%0aSet-Cookie:%20a=b", headers={"Origin": "https://x"})
    assert r.status_code in (400, 404) and "set-cookie" not in r.headers
    r = dev.anon.get("/api/users?id=1%0d%0aX-Evil:1")
    assert "x-evil" not in r.headers


def test_ids_in_answers_are_uuid7(dev):
    u = new_user(dev)
    assert UUID7.match(u.uuid)


def test_json_content_type(dev):
    r = dev.anon.get("/api/v1/ping")
    assert r.headers["content-type"].split(";")[0] == "application/json"
