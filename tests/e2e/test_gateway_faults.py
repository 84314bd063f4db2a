"""The gateway before backends that die, hang, lie and come back: what the client is told, what is sent twice and what is
not, who takes the load, and what the other routes notice."""
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
from backends import Closed, Config, Gateway, Wire, answer, drain, echo, poll

CALM = """
  health_check:
    interval: 100ms
    timeout: 1s
    healthy_threshold: 1
    unhealthy_threshold: 2
  ejection:
    consecutive_failures: 0
"""
QUICK_RETRY = "retry:\n  maxAttempts: 3\n  backoffPeriod: 10\n  maxBackoffPeriod: 50\n"
NO_BREAKER = """resilience4j:
  circuitbreaker:
    instances:
      default:
        slidingWindowSize: 10000
        minimumNumberOfCalls: 10000
"""


def two(make_gateway, balancer=CALM, rest=QUICK_RETRY + NO_BREAKER, **more):
    a, b = make_gateway.backend(), make_gateway.backend()
    entries = [dict(name="a", url=a.url, **more), dict(name="b", url=b.url, **more)]
    return a, b, make_gateway(Config(entries, balancer, rest))


def one(make_gateway, act=echo, balancer=CALM, rest=QUICK_RETRY + NO_BREAKER, **more):
    b = make_gateway.backend(act)
    return b, make_gateway(Config([dict(name="a", url=b.url, **more)], balancer, rest))


def problem(r, status, slug):
    assert r.status_code == status, (r.status_code, r.text)
    assert r.headers["content-type"] == "application/problem+json"
    assert r.json()["type"] == "/problems/" + slug, r.text
    if status == 503:
        assert int(r.headers["retry-after"]) >= 1
    return r.json()


# ---- garbage, halves, silence

GARBAGE = {
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "bad status": b"HTTP/1.1 99 What\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc Hm\r\n\r\n",
    "bad name": b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n more\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "odd coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "huge headers": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 60000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"Content-Length: 0\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    "nothing": b"",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_a_502(make_gateway, what):
    def act(wire, q):
        wire.sock.sendall(GARBAGE[what])
        return False
    b, g = one(make_gateway, act)
    problem(g.anon.post("/api/x", content=b"{}"), 502, "bad-gateway")
    assert len(b.requests) == 1, "a POST without a key is sent once"
    problem(g.anon.get("/api/x"), 502, "bad-gateway")
    # maxAttempts times; and at once again where a kept connection had been closed
    assert 4 <= len(b.requests) <= 5
    b.act = echo
    assert g.anon.get("/api/x").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_that_breaks_is_cut_off(make_gateway, chunked):
    body = b"x" * 300000

    def act(wire, q):
        if chunked:
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n")
        else:
            wire.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + body)
        return False
    b, g = one(make_gateway, act)
    with socket.create_connection(("127.0.0.1", g.port), timeout=20) as s:
        s.sendall(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        w = Wire(s)
        assert w.head().line == "HTTP/1.1 200 OK"
        rest = w.buffer + drain(s)
        assert len(rest) < 900000 and not rest.endswith(b"0\r\n\r\n"), "the client must see that something is missing"
    assert len(b.requests) == 1


def test_a_backend_that_hangs_is_a_504_and_others_do_not_notice(make_gateway):
    release = threading.Event()
    slow, quick = make_gateway.backend(lambda w, q: (release.wait(60), False)[1]), make_gateway.backend()
    g = make_gateway(Config([{"name": "api", "url": quick.url}, {"name": "event", "url": slow.url, "group": "event"}], CALM,
                    NO_BREAKER))
    with ThreadPoolExecutor(40) as pool:
        hanging = [pool.submit(lambda: g.client().get("/api/events/1")) for _ in range(30)]
        poll(lambda: len(slow.requests) == 30)
        begin = time.monotonic()
        for _ in range(40):
            assert g.anon.get("/api/x").status_code == 200
        assert time.monotonic() - begin < 8  # their deadline is 10 s
        begin = time.monotonic()
        for h in hanging:
            problem(h.result(), 504, "timeout")
        assert time.monotonic() - begin < 14
    release.set()
    assert len(slow.requests) == 30, "what may have been done is not asked again behind a deadline that is over"


def test_a_route_takes_only_so_many(make_gateway):
    release = threading.Event()
    b, g = one(make_gateway, lambda w, q: (release.wait(60), w.sock.sendall(answer()))[1], max_connections=0)
    with ThreadPoolExecutor(80) as pool:
        batches = [pool.submit(lambda: g.client().post("/api/transactions/batch", content=b"{}")) for _ in range(70)]
        poll(lambda: g.metric("payflow_gateway_route_refused_total", route="/api/transactions/batch") == 6)
        others = pool.submit(lambda: g.client().get("/api/x"))
        poll(lambda: any(q.target == "/api/x" for q in b.requests))
        release.set()
        assert Counter(f.result().status_code for f in batches) == {200: 64, 503: 6}
        assert others.result().status_code == 200


# ---- what is sent twice

def test_no_connection(make_gateway):
    b, g = one(make_gateway)
    b.close()
    for method in ("GET", "POST"):
        assert "nothing was done" in problem(g.anon.request(method, "/api/x"), 503, "unavailable")["detail"]
    b.open(b.port)
    assert g.anon.get("/api/x").status_code == 200


def test_a_post_without_connection_goes_to_the_other(make_gateway):
    a, b, g = two(make_gateway, balancer="  health_check:\n    interval: 1h\n  ejection:\n    consecutive_failures: 0\n")
    a.close()
    assert [g.anon.post("/api/x", content=b"{}").status_code for _ in range(10)] == [200] * 10
    assert len(b.requests) == 10
    assert g.metric("payflow_gateway_retries_total", backend="a") == 10


@pytest.mark.parametrize("key", [None, "k-1"])
def test_idle_connections_that_close_at_the_worst_moment(make_gateway, key):
    """The backend closes a kept connection when the next request is on its way: libcurl itself would send it again."""
    def act(wire, q):
        if wire.served if hasattr(wire, "served") else False:
            return False  # the second request of a connection: read, and dropped
        wire.served = True
        echo(wire, q)
        return True
    b, g = one(make_gateway, act)
    headers = {"Idempotency-Key": key} if key else {}
    for _ in range(5):
        assert g.anon.get("/api/warm").status_code == 200
    before = len(b.requests)
    results = Counter(g.anon.post("/api/x", content=c, headers=headers).status_code
                      for c in [b"", b"{}"] * 10)
    posts = len(b.requests) - before
    if key:
        assert results == {200: 20} and posts > 20
    else:
        assert posts == 20, "each once"
        assert results[502] > 0 and results[200] + results[502] == 20


def test_5xx_of_a_safe_request_is_tried_again(make_gateway):
    a, b, g = two(make_gateway)
    for status in (502, 503, 504):
        a.act = lambda w, q, s=status: w.sock.sendall(answer(s, reason="No"))
        assert [g.anon.get("/api/x").status_code for _ in range(6)] == [200] * 6
        assert [g.anon.put("/api/x", content=b"{}").status_code for _ in range(6)] == [200] * 6
        got = Counter(g.anon.post("/api/x", content=b"{}").status_code for _ in range(6))
        assert got == {200: 3, status: 3}, "a POST without a key stays with its first answer"
        assert {g.anon.post("/api/x", headers={"Idempotency-Key": f"k{i}"}).status_code for i in range(6)} == {200}
    for status in (500, 404, 429):
        a.act = b.act = lambda w, q, s=status: w.sock.sendall(answer(s, b'{"mine":1}', reason="No"))
        n = len(a.requests) + len(b.requests)
        r = g.anon.get("/api/x")
        assert r.status_code == status and r.text == '{"mine":1}' and len(a.requests) + len(b.requests) == n + 1


def test_retry_after_is_kept_to(make_gateway):
    times = []

    def act(wire, q):
        times.append(time.monotonic())
        wire.sock.sendall(answer(503, b"{}", [("Retry-After", "1")]) if len(times) == 1 else answer())
    b, g = one(make_gateway, act)
    assert g.anon.get("/api/x").status_code == 200
    assert len(times) == 2 and times[1] - times[0] >= 1.0
    b.act = lambda w, q: w.sock.sendall(answer(503, b"{}", [("Retry-After", "3000")]))
    begin = time.monotonic()
    r = g.anon.get("/api/x")
    assert r.status_code == 503 and r.headers["retry-after"] == "3000" and time.monotonic() - begin < 5


def test_the_budget_bounds_retries(make_gateway):
    b, g = one(make_gateway, lambda w, q: w.sock.sendall(answer(503, reason="No")),
               rest="retry:\n  maxAttempts: 3\n  backoffPeriod: 200\n  budgetPercent: 20\n  budgetLeast: 3\n" + NO_BREAKER,
               max_connections=0)
    begin = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: g.client().get("/api/x").status_code, range(40)))
    assert len(b.requests) <= 40 + 8 + 3 * (time.monotonic() - begin + 4), "not 120"  # a fifth, and three a second


def test_a_streamed_upload_is_never_sent_twice(make_gateway):
    def on_head(wire, q):
        wire.sock.recv(1000)
        raise Closed
    a, b, g = two(make_gateway)
    a.on_head = b.on_head = on_head
    r = g.anon.put("/api/x", content=b"z" * 3000000)
    problem(r, 502, "bad-gateway")
    assert len(a.requests) + len(b.requests) == 1


# ---- breaker and fallback

BREAKER = """resilience4j:
  circuitbreaker:
    instances:
      api:
        slidingWindowSize: 10
        minimumNumberOfCalls: 4
        failureRateThreshold: 50
        waitDurationInOpenState: 3000
        permittedNumberOfCallsInHalfOpenState: 2
"""


def test_breaker_opens_and_closes(make_gateway):
    other = make_gateway.backend()
    b = make_gateway.backend(lambda w, q: w.sock.sendall(answer(500, reason="No")))
    g = make_gateway(Config([{"name": "a", "url": b.url}, {"name": "e", "url": other.url, "group": "event"}], CALM, BREAKER))

    def state():
        return g.health()["services"]["circuit_breakers"]["breakers"]["api"]["state"]
    assert [g.anon.get("/api/x").status_code for _ in range(4)] == [500] * 4
    n = len(b.requests)
    problem(g.anon.get("/api/x"), 503, "breaker-open")
    assert len(b.requests) == n and state() == "open"
    assert g.anon.get("/api/events").status_code == 200
    assert "breaker=\"api\"} 1" in g.anon.get("/metrics").text
    b.act = echo
    poll(lambda: g.anon.get("/api/x").status_code == 200)
    g.anon.get("/api/x")
    assert state() == "closed"
    b.act = lambda w, q: w.sock.sendall(answer(404, reason="No"))
    assert [g.anon.get("/api/x").status_code for _ in range(20)] == [404] * 20, "a 4xx is no failure"


def test_a_route_that_fails_does_not_close_the_others(make_gateway):
    """Batches fail; logins and pages, of the same services, go on."""
    def act(wire, request):
        bad = request.target.startswith("/api/transactions/batch")
        wire.sock.sendall(answer(500, reason="No") if bad else answer())
    _, g = one(make_gateway, act, rest="retry:\n  maxAttempts: 1\nresilience4j:\n  circuitbreaker:\n    instances:\n      api:\n"
               "        slidingWindowSize: 4\n        minimumNumberOfCalls: 4\n        waitDurationInOpenState: 1h\n")
    for _ in range(4):
        assert g.anon.post("/api/transactions/batch", json=[]).status_code == 500
    problem(g.anon.post("/api/transactions/batch", json=[]), 503, "breaker-open")
    for path in "/api/login", "/docs":
        assert g.anon.get(path).status_code == 200
    breakers = g.health()["services"]["circuit_breakers"]["breakers"]
    assert {n: b["state"] for n, b in breakers.items() if b["state"] != "closed"} == {"batch": "open"}


def test_fallback_stands_in_for_gets_of_the_same_caller(make_gateway):
    b, g = one(make_gateway, rest="fallback:\n  shouldCache: true\n  cacheTimeout: 60000\nretry:\n  maxAttempts: 1\n" + NO_BREAKER)
    me, you = g.client(key="pf_me"), g.client(key="pf_you")
    b.act = lambda w, q: w.sock.sendall(answer(200, b'{"v":1}', [("X-Mine", "1")]))
    assert me.get("/api/balances?user_id=1").text == '{"v":1}'
    assert me.post("/api/transactions/deposit", json={}).status_code == 200
    b.act = lambda w, q: w.sock.sendall(answer(503, b'{"down":1}'))
    r = me.get("/api/balances?user_id=1")
    assert r.status_code == 200 and r.text == '{"v":1}' and r.headers["x-payflow-stale"] == "true"
    assert int(r.headers["age"]) >= 0 and r.headers["x-mine"] == "1"
    assert you.get("/api/balances?user_id=1").status_code == 503, "nobody sees another's"
    assert me.get("/api/balances?user_id=2").status_code == 503
    assert me.post("/api/transactions/deposit", json={}).status_code == 503, "never for a movement of money"
    b.close()
    assert me.get("/api/balances?user_id=1").headers["x-payflow-stale"] == "true"
    b.open(b.port)
    b.act = lambda w, q: w.sock.sendall(answer(403, reason="No"))
    assert me.get("/api/balances?user_id=1").status_code == 403
    b.act = lambda w, q: w.sock.sendall(answer(503))
    assert me.get("/api/balances?user_id=1").status_code == 503, "what was refused since is forgotten"


def test_fallback_default(make_gateway):
    b, g = one(make_gateway, lambda w, q: w.sock.sendall(answer(500)),
               rest="fallback:\n  defaultResponse: '{\"data\":[]}'\n" + NO_BREAKER)
    r = g.anon.get("/api/x")
    assert r.status_code == 200 and r.json() == {"data": []} and r.headers["x-payflow-fallback"] == "default"
    assert g.anon.post("/api/x").status_code == 500


# ---- the balancer

def names(g, n=40, **kw):
    return [g.anon.get("/api/x", **kw).status_code for _ in range(n)]


def test_weights_are_exact_in_a_cycle(make_gateway):
    a, b = make_gateway.backend(), make_gateway.backend()
    g = make_gateway(Config([{"name": "a", "url": a.url, "weight": 3}, {"name": "b", "url": b.url, "weight": 1}], CALM, NO_BREAKER))
    assert names(g, 40) == [200] * 40
    assert (len(a.requests), len(b.requests)) == (30, 10)


@pytest.mark.parametrize("algorithm", ["least_connections", "random"])
def test_other_algorithms_avoid_the_busy(make_gateway, algorithm):
    release = threading.Event()
    a, b, g = two(make_gateway, balancer=f"  algorithm: {algorithm}\n" + CALM.lstrip("\n"))
    a.act = lambda w, q: (release.wait(60), w.sock.sendall(answer()))[1]
    b.act = a.act
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(lambda: g.client().get("/api/x").status_code) for _ in range(20)]
        poll(lambda: len(a.requests) + len(b.requests) == 20)
        if algorithm == "least_connections":
            assert len(a.requests) == 10
        else:
            assert 4 <= len(a.requests) <= 16
        release.set()
        assert {c.result() for c in calls} == {200}


def test_max_connections_and_a_bounded_queue(make_gateway):
    release, most, now = threading.Event(), [0], [0]
    lock = threading.Lock()

    def act(wire, q):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        release.wait(60)
        with lock:
            now[0] -= 1
        wire.sock.sendall(answer())
    b, g = one(make_gateway, act, balancer="  max_queue: 5\n  queue_timeout: 30s\n" + CALM.lstrip("\n"), max_connections=3)
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(lambda: g.client().get("/api/x")) for _ in range(12)]
        poll(lambda: sum(c.done() for c in calls) == 4)
        for c in calls:
            if c.done():
                problem(c.result(), 503, "busy")
        assert g.backends()["a"]["active"] == 3
        release.set()
        assert Counter(c.result().status_code for c in calls) == {200: 8, 503: 4}
    assert most[0] == 3


def test_queue_timeout(make_gateway):
    release = threading.Event()
    b, g = one(make_gateway, lambda w, q: (release.wait(60), w.sock.sendall(answer()))[1],
               balancer="  queue_timeout: 200ms\n" + CALM.lstrip("\n"), max_connections=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: g.client().get("/api/x").status_code)
        poll(lambda: b.requests)
        problem(g.anon.get("/api/x"), 503, "busy")
        release.set()
        assert first.result() == 200


def test_active_checks_with_two_thresholds(make_gateway):
    a, b, g = two(make_gateway)
    a.healthy = False
    poll(lambda: g.backends()["a"]["state"] == "down")
    n = len(a.requests)
    assert names(g, 10) == [200] * 10 and len(a.requests) == n
    assert g.health()["status"] == "DEGRADED"
    a.healthy = True
    poll(lambda: g.backends()["a"]["state"] == "up")
    names(g, 10)
    assert len(a.requests) == n + 5


def test_passive_ejection(make_gateway):
    a, b, g = two(make_gateway, balancer="  health_check:\n    interval: 1h\n  ejection:\n    consecutive_failures: 3\n"
                                 "    base_time: 500ms\n  panic_threshold: 0\n")
    a.act = lambda w, q: w.sock.sendall(answer(500))
    names(g, 20)
    assert g.backends()["a"]["state"] == "ejected" and len(a.requests) == 3
    assert g.metric("payflow_gateway_ejections_total", backend="a") == 1
    a.act = echo
    poll(lambda: g.backends()["a"]["state"] == "up")
    assert names(g, 4) == [200] * 4 and len(a.requests) == 5


def test_panic_when_most_are_down(make_gateway):
    a, b, g = two(make_gateway, balancer=CALM + "  panic_threshold: 60\n")
    a.healthy = False
    poll(lambda: g.backends()["a"]["state"] == "down")
    n = len(a.requests)
    names(g, 10)
    assert len(a.requests) > n and g.health()["services"]["load_balancer"]["api"]["panic"]


def test_none_left(make_gateway):
    a, b, g = two(make_gateway, balancer=CALM + "  panic_threshold: 0\n")
    a.healthy = b.healthy = False
    poll(lambda: {x["state"] for x in g.backends().values()} == {"down"})
    problem(g.anon.get("/api/x"), 503, "unavailable")


def test_sticky_cookie_and_failover(make_gateway):
    a, b, g = two(make_gateway, balancer=CALM + "  sticky_sessions:\n    enabled: true\n    cookie_name: SERVERID\n")
    with g.client() as c:
        r = c.get("/api/x")
        cookie = r.cookies["SERVERID"]
        assert "HttpOnly" in r.headers["set-cookie"] and a.url not in r.headers["set-cookie"]
        mine, other = (a, b) if a.requests else (b, a)
        for _ in range(9):
            assert "set-cookie" not in c.get("/api/x").headers
        assert len(mine.requests) == 10 and not other.requests
        mine.healthy = False
        poll(lambda: "down" in {x["state"] for x in g.backends().values()})
        r = c.get("/api/x")
        assert r.status_code == 200 and r.cookies["SERVERID"] != cookie and len(other.requests) == 1
        c.cookies.clear()
        r = c.get("/api/x", headers={"Cookie": "a=1; SERVERID=%s; b=2" % r.cookies["SERVERID"]})
        assert "set-cookie" not in r.headers and len(other.requests) == 2


def test_who_has_failed_is_not_stuck_to(make_gateway):
    """Before any check has seen that it is gone: with the cookie of the one that is gone, and without one."""
    sticky = "  sticky_sessions:\n    enabled: true\n"
    a, b, g = two(make_gateway, balancer=CALM.replace("interval: 100ms", "interval: 1h") + sticky)
    with g.client() as c:
        c.get("/api/x")
        gone, other = (a, b) if a.requests else (b, a)
        gone.close()
        r = c.get("/api/x")
        assert r.status_code == 200 and len(other.requests) == 1
        assert r.headers["set-cookie"].startswith("SERVERID=")  # and there it stays
        assert "set-cookie" not in c.get("/api/x").headers and len(other.requests) == 2
    for _ in range(4):
        assert g.anon.get("/api/x").status_code == 200


def test_who_sticks_to_one_that_is_taken_out_goes_on_elsewhere(make_gateway):
    release = threading.Event()
    a, b, g = two(make_gateway, balancer=CALM + "  sticky_sessions:\n    enabled: true\n")
    with g.client() as c, ThreadPoolExecutor(1) as pool:
        while not a.requests:
            c.cookies.clear()
            c.get("/api/x")
        a.act = lambda w, q: (release.wait(60), w.sock.sendall(answer(200, b'"late"')))[1]
        before = len(a.requests)
        late = pool.submit(lambda: c.get("/api/x").text)
        poll(lambda: len(a.requests) == before + 1)
        g.config.backends = [{"name": "b", "url": b.url}]
        g.write()
        g.process.send_signal(signal.SIGHUP)
        poll(lambda: g.backends()["a"]["state"] == "draining")
        with g.client() as other:
            other.cookies.update(c.cookies)
            r = other.get("/api/x")
            assert r.status_code == 200 and "set-cookie" in r.headers
        assert len(a.requests) == before + 1
        release.set()
        assert "late" in late.result()
    poll(lambda: set(g.backends()) == {"b"})


def test_each_group_has_a_cookie_of_its_own(make_gateway):
    a, e = make_gateway.backend(), make_gateway.backend()
    g = make_gateway(Config([dict(name="a", url=a.url), dict(name="e", url=e.url, group="event")],
                            CALM + "  sticky_sessions:\n    enabled: true\n", QUICK_RETRY + NO_BREAKER))
    with g.client() as c:
        assert "; Path=/api/events;" in c.get("/api/events").headers["set-cookie"]
        assert "; Path=/api;" in c.get("/api/x").headers["set-cookie"]
        for path in "/api/events", "/api/x", "/api/events/1", "/api/y":
            assert "set-cookie" not in c.get(path).headers, path


def test_slow_start(make_gateway):
    a, b, g = two(make_gateway, balancer=CALM + "  slow_start: 1h\n")
    b.healthy = False
    poll(lambda: g.backends()["b"]["state"] == "down")
    b.healthy = True
    poll(lambda: g.backends()["b"]["state"] == "slow-start")


def test_reload_drains_adds_and_keeps_what_is_under_way(make_gateway):
    release = threading.Event()
    a, b, g = two(make_gateway)
    c = make_gateway.backend()
    a.act = lambda w, q: (release.wait(60), w.sock.sendall(answer(200, b'"late"')))[1]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lambda: g.client().get("/api/x")) for _ in range(2)]
        poll(lambda: len(a.requests) == len(b.requests) == 1)
        g.config.backends = [{"name": "b", "url": b.url, "weight": 1}, {"name": "c", "url": c.url, "weight": 3}]
        g.write()
        g.process.send_signal(signal.SIGHUP)
        poll(lambda: "c" in g.backends() and g.backends()["a"]["state"] == "draining")
        names(g, 8)
        assert len(a.requests) == 1 and len(c.requests) == 6
        release.set()
        assert '"late"' in {x.result().text for x in calls}
    poll(lambda: set(g.backends()) == {"b", "c"})
    g.yaml.write_text("load_balancer:\n  nonsense: 1\n")
    g.process.send_signal(signal.SIGHUP)
    poll(lambda: "settings not reloaded" in g.log_text())
    assert g.anon.get("/api/x").status_code == 200


# ---- dying

def test_kill_9_of_real_backends_under_load(make_gateway, fresh):
    """Two PayFlows behind it; one is killed and comes back. Reads are answered all the time."""
    one_, two_ = fresh("r1"), fresh("r2")
    g = make_gateway(Config([{"name": "a", "url": one_.base}, {"name": "b", "url": two_.base}], CALM,
                    QUICK_RETRY + "  budgetLeast: 20\n" + NO_BREAKER))
    stop, codes = threading.Event(), Counter()

    def load():
        with g.client() as c:
            while not stop.is_set():
                codes[c.get("/api/v1/ping").status_code] += 1
    threads = [threading.Thread(target=load) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(3):
        seen = sum(codes.values())
        one_.kill9()
        poll(lambda: g.backends()["a"]["state"] != "up", 20)
        poll(lambda n=seen: sum(codes.values()) > n + 50, 20)
        one_.start()
        poll(lambda: g.backends()["a"]["state"] == "up", 20)
    stop.set()
    for t in threads:
        t.join()
    assert set(codes) == {200}, codes


def test_a_stopped_backend_is_left_out(make_gateway, fresh):
    one_, two_ = fresh("r1"), fresh("r2")
    g = make_gateway(Config([{"name": "a", "url": one_.base}, {"name": "b", "url": two_.base}], CALM, QUICK_RETRY + NO_BREAKER))
    os.kill(one_.process.pid, signal.SIGSTOP)
    try:
        poll(lambda: g.backends()["a"]["state"] == "down", 20)
        assert [g.anon.get("/api/v1/ping").status_code for _ in range(10)] == [200] * 10
    finally:
        os.kill(one_.process.pid, signal.SIGCONT)
    poll(lambda: g.backends()["a"]["state"] == "up", 20)


def test_nginx_as_backends(make_gateway, tmp_path):
    ports = [harness.free_port(), harness.free_port()]
    conf = tmp_path / "nginx.conf"
    temp = "".join(f"{k}_temp_path {tmp_path}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "big").write_bytes(os.urandom(5 << 20))
    user = "user root; " if os.geteuid() == 0 else ""  # its workers have to read what is here
    conf.write_text(user + f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; worker_processes 1;"
                    "events {} http { access_log off; keepalive_requests 7; " + temp +
                    "".join(f"server {{ listen 127.0.0.1:{p}; location / {{ return 200 'ok {p}'; }} "
                            f"location /api/big {{ alias {tmp_path}/big; }} }}" for p in ports) + "}")
    nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        g = make_gateway(Config([{"name": str(p), "url": f"http://127.0.0.1:{p}"} for p in ports], CALM, NO_BREAKER))
        poll(lambda: g.anon.get("/api/x").status_code == 200)
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda _: g.client().get("/api/x").text, range(200)))
        assert set(got) == {f"ok {p}" for p in ports}
        big = (tmp_path / "big").read_bytes()
        for _ in range(4):
            assert g.anon.get("/api/big").content == big
        r = g.anon.get("/api/big", headers={"Range": "bytes=10-19"})
        assert r.status_code == 206 and r.content == big[10:20]
        etag = g.anon.head("/api/big").headers["etag"]
        assert g.anon.get("/api/big", headers={"If-None-Match": etag}).status_code == 304
    finally:
        nginx.terminate()
        nginx.wait(10)


def test_sigterm_lets_requests_finish(make_gateway):
    release = threading.Event()
    b, g = one(make_gateway, lambda w, q: (release.wait(60), w.sock.sendall(answer(200, b'"done"')))[1])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: g.client().get("/api/x"))
        poll(lambda: b.requests)
        g.process.send_signal(signal.SIGTERM)
        poll(lambda: "draining" in g.log_text())
        release.set()
        assert call.result().text == '"done"'
    assert g.process.wait(10) == 0


def test_sigterm_ends_what_does_not(make_gateway):
    release = threading.Event()
    b = make_gateway.backend(lambda w, q: (release.wait(60), False)[1])
    big = make_gateway.backend(lambda w, q: [w.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
                                     w.sock.sendall(b"x" * 1000000), release.wait(60), False][3])
    g = make_gateway(Config([{"name": "a", "url": b.url}, {"name": "e", "url": big.url, "group": "event"}], CALM, NO_BREAKER),
             env={"SHUTDOWN_TIMEOUT": "1s"})
    with ThreadPoolExecutor(2) as pool, socket.create_connection(("127.0.0.1", g.port), timeout=20) as s:
        call = pool.submit(lambda: g.client().post("/api/x"))
        s.sendall(b"GET /api/events/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Wire(s).head().line == "HTTP/1.1 200 OK"
        poll(lambda: b.requests)
        g.process.send_signal(signal.SIGTERM)
        assert "not known" in problem(call.result(), 502, "bad-gateway")["detail"]
        assert len(drain(s)) < 1000000000
    assert g.process.wait(10) == 0
    release.set()


# ---- settings

SAMPLE = """
consul_config:
  datacenter: "dc1"
  server: true
  bootstrap_expect: 3
  retry_join: ["consul-server-1", "consul-server-2", "consul-server-3"]

  services:
    process_service:
      name: "process-service"
      port: 8080
      tags: ["v1", "production"]
      checks:
        - name: "HTTP Health Check"
          http: "http://localhost:8080/health"
          interval: "10s"
          timeout: "5s"

    form_service:
      name: "form-service"
      port: 8081
      tags: ["v1", "production"]
      checks:
        - name: "HTTP Health Check"
          http: "http://localhost:8081/health"
          interval: "10s"
          timeout: "5s"
resilience4j:
  circuitbreaker:
    instances:
      processService:
        slidingWindowSize: 100
        minimumNumberOfCalls: 10
        failureRateThreshold: 50
        waitDurationInOpenState: 60000
        permittedNumberOfCallsInHalfOpenState: 10

      formService:
        slidingWindowSize: 50
        minimumNumberOfCalls: 5
        failureRateThreshold: 40
        waitDurationInOpenState: 30000
        permittedNumberOfCallsInHalfOpenState: 5
load_balancer:
  algorithm: "round_robin"  # round_robin, least_connections, random
  health_check:
    interval: "10s"
    timeout: "5s"
    healthy_threshold: 2
    unhealthy_threshold: 3

  sticky_sessions:
    enabled: true
    cookie_name: "SERVERID"

  backends:
    - name: "process-service-1"
      weight: 100
      max_connections: 1000

    - name: "process-service-2"
      weight: 100
      max_connections: 1000
"""


def test_the_documents_sample_loads(make_gateway, tmp_path):
    g = Gateway(tmp_path / "sample", Config())
    g.yaml.write_text(SAMPLE)
    g.start()
    try:
        got = g.backends()
        assert {n: b["url"] for n, b in got.items()} == {f"process-service-{i}": "http://127.0.0.1:8080" for i in (1, 2)}
        assert {b["weight"] for b in got.values()} == {100} and {b["max_connections"] for b in got.values()} == {1000}
        assert g.health()["services"]["discovery"]["engine"] == "static"
    finally:
        assert g.stop() == 0


def test_backends_from_the_registry(make_gateway):
    b, c = make_gateway.backend(), make_gateway.backend()
    services = "consul_config:\n  services:\n" + "".join(
        f"    {n}:\n      name: shop\n      id: {n}\n      port: {x.port}\n" for n, x in (("s1", b), ("s2", c)))
    g = make_gateway(Config([], "  services:\n    api: shop\n" + CALM.lstrip("\n"), services + NO_BREAKER))
    assert set(g.backends()) == {"s1", "s2"}
    names(g, 10)
    assert len(b.requests) == len(c.requests) == 5
    assert {x["max_connections"] for x in g.backends().values()} == {1000}
    g.config.rest = services.split("    s2:")[0] + NO_BREAKER
    g.write()
    g.process.send_signal(signal.SIGHUP)
    poll(lambda: set(g.backends()) == {"s1"})
    names(g, 4)
    assert len(c.requests) == 5


BAD = {
    "load_balancer:\n  algorithm: best\n": "must be one of round_robin|least_connections|random",
    "load_balancer:\n  backends:\n    - name: a\n": "has no url",
    "load_balancer:\n  backends:\n    - url: http://x:1\n": "has no name",
    "load_balancer:\n  backends:\n    - name: a\n      url: ftp://x\n": "must be http://HOST:PORT",
    "load_balancer:\n  backends:\n    - name: a\n      url: http://x:1/path\n": "must be http://HOST:PORT",
    **{f"load_balancer:\n  backends:\n    - name: a\n      url: 'http://{at}'\n": "must be http://HOST:PORT"
       for at in ("x", "x:", "x:0", "x:65536", "x:113037", "x:y", "x:1:2", "[::1", "[::1]", "[x]:1", ":1", "")},
    "load_balancer:\n  backends:\n    - name: a\n      url: http://x:1\n      weight: 5000\n": "from 0 to 1000",
    "load_balancer:\n  backends:\n    - {name: a, url: 'http://x:1'}\n    - {name: a, url: 'http://x:2'}\n": "occurs twice",
    "load_balancer:\n  backends:\n    - {name: a, url: 'http://shop:50051', group: booking}\n": "must have a numeric address",
    "load_balancer:\n  surprise: 1\n": "unknown key",
    "load_balancer: 5\n": "must be a map",
    "load_balancer:\n  services:\n    shop: x\n": "there is no group shop",
    "retry:\n  maxAttempts: 0\n": "from 1 to 100",
    "retry:\n  maxAttempts: 1\n  maxAttempts: 2\n": "set twice",
    "retry:\n  backoffPeriod: soon\n": "must be a time",
    "retry:\n  backoffPeriod: 5s\n  maxBackoffPeriod: 1s\n": "retry: ",
    "fallback:\n  shouldCache: maybe\n": "true or false",
    "resilience4j:\n  circuitbreaker:\n    instances:\n      api:\n        failureRateThreshold: 101\n": "from 1 to 100",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_settings_stop_the_start(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    r = harness.cli("serve", "--role", "gateway", "--port", "0", "--config", tmp_path / "c.yaml")
    assert r.returncode == 78 and BAD[text] in r.stderr, (r.returncode, r.stderr)
    assert len(r.stderr.strip().splitlines()) == 1


def test_defaults(tmp_path):
    """Port 3000 unless another is named, and the other roles on this machine behind it."""
    r = harness.cli("serve", "--role", "nobody")
    assert r.returncode == 2
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 3000))
            taken.listen(1)
        except OSError:
            pass  # somebody has it already, which will do
        r = harness.cli("serve", "--role", "gateway")
        assert r.returncode == 1 and "3000" in r.stderr
    g = Gateway(tmp_path / "d", Config())
    g.yaml.write_text("")
    g.start()
    try:
        urls = {grp: list(g.backends(grp).values())[0]["url"] for grp in ("api", "identity", "event", "booking")}
        assert urls == {"api": "http://127.0.0.1:8080", "identity": "http://127.0.0.1:8081",
                        "event": "http://127.0.0.1:8082", "booking": "http://127.0.0.1:50051"}
    finally:
        assert g.stop() == 0
