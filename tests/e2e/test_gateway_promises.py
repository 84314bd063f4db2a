"""What the gateway must not say or do: "nothing was done" about a write that may be done, a request twice that the service
does not know for the same, a place held without end by a client or a name server that does nothing."""
import os
import signal
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
from backends import Config, Gateway, answer, drain, echo, poll
from test_gateway_faults import CALM, NO_BREAKER, QUICK_RETRY, one, problem, two

UNCHECKED = "  health_check:\n    interval: 1h\n  ejection:\n    consecutive_failures: 0\n"
NOT_KNOWN = "Whether the request was carried out is not known."


def key(k):
    return {"Idempotency-Key": f"k-{k}"}


def lost(wire, q):
    """Read, perhaps done, and no answer."""
    return False


# ---- what is not known

def test_a_lost_write_and_then_no_connection(make_gateway):
    """The service commits and dies: the second try finds nobody."""
    b, g = one(make_gateway, balancer=UNCHECKED)
    for headers in (key(1), {}):
        assert g.anon.get("/api/warm").status_code == 200  # a kept connection: libcurl itself would try again
        b.act = lambda w, q: (b.close(), False)[1]
        assert NOT_KNOWN in problem(g.anon.post("/api/x", content=b"{}", headers=headers), 502, "bad-gateway")["detail"]
        b.act = echo
        b.open(b.port)
    assert [q.method for q in b.requests].count("POST") == 2


def test_a_write_lost_with_its_kept_connection_goes_nowhere_else(make_gateway):
    """Without a key it must not be done twice, whatever libcurl's own second try has come to."""
    a, b, g = two(make_gateway, balancer=UNCHECKED)
    for _ in range(4):
        assert g.anon.get("/api/warm").status_code == 200
    a.act = lambda w, q: (a.close(), False)[1]
    got = [g.anon.post("/api/x", content=b"{}").status_code for _ in range(2)]
    assert sorted(got) == [200, 502]
    assert [len([q for q in x.requests if q.method == "POST"]) for x in (a, b)] == [1, 1]


def test_a_lost_write_and_then_a_503(make_gateway):
    a, b, g = two(make_gateway)
    a.act = lost
    b.act = lambda w, q: w.sock.sendall(answer(503, b"{}", reason="No"))
    for i in range(4):
        assert NOT_KNOWN in problem(g.anon.post("/api/x", headers=key(i)), 502, "bad-gateway")["detail"]
        assert NOT_KNOWN in problem(g.anon.delete(f"/api/x/{i}"), 502, "bad-gateway")["detail"]
    refused, streamed = answer(503, b"{}", reason="No"), answer(503, b"z" * 300000, reason="No")
    b.act = lambda w, q: w.sock.sendall(streamed)
    got = [g.anon.post("/api/x", headers=key(i)) for i in range(4)]
    for r in got:
        assert r.status_code == 503 if r.text.startswith("z") else problem(r, 502, "bad-gateway")
    assert [r.status_code for r in got].count(502) == 2, "an answer that streams is the first, or it is not passed on"
    a.act = b.act = lambda w, q: w.sock.sendall(refused)
    assert g.anon.post("/api/x", headers=key("all")).status_code == 503, "nobody has done anything: that stays"


def test_a_lost_write_and_then_an_open_breaker(make_gateway):
    breaker = ("resilience4j:\n  circuitbreaker:\n    instances:\n      default:\n        slidingWindowSize: 1\n"
               "        minimumNumberOfCalls: 1\n        waitDurationInOpenState: 60s\n")
    b, g = one(make_gateway, lost, rest=QUICK_RETRY + breaker)
    assert NOT_KNOWN in problem(g.anon.post("/api/x", headers=key(1)), 502, "bad-gateway")["detail"]
    assert "nothing was done" in problem(g.anon.post("/api/x", headers=key(2)), 503, "breaker-open")["detail"]


@pytest.mark.parametrize("act", [lost, lambda w, q: w.sock.sendall(b"no http\r\n\r\n")])
def test_a_key_makes_nothing_known(make_gateway, act):
    b, g = one(make_gateway, act)
    assert NOT_KNOWN in problem(g.anon.post("/api/x", headers=key(1)), 502, "bad-gateway")["detail"]
    assert NOT_KNOWN not in problem(g.anon.get("/api/x"), 502, "bad-gateway")["detail"]


# ---- what may be repeated

def test_a_key_that_does_not_arrive_does_not_count(make_gateway):
    b, g = one(make_gateway)
    g.raw(b"POST /api/x HTTP/1.1\r\nHost: x\r\nConnection: close, Idempotency-Key, X-Drop\r\nIdempotency-Key: k-1\r\n"
          b"X-Drop: 1\r\nContent-Length: 2\r\n\r\n{}")
    assert b.requests[-1].one("idempotency-key") == "k-1" and b.requests[-1].one("x-drop") is None


@pytest.mark.parametrize("path", ["/api/v1/auth/refresh", "/api/users/api-key", "/api/auth/login", "/api/v1/auth/login",
                                  "/api/login", "/api/v1/auth/../auth/logout", "/api/events/7/cancel"])
def test_where_no_service_looks_at_a_key(make_gateway, path):
    b = make_gateway.backend(lost)
    g = make_gateway(Config([{"name": n, "url": b.url, "group": n} for n in ("api", "identity", "event")], CALM,
                            QUICK_RETRY + NO_BREAKER))
    assert g.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n"
                 "Content-Length: 2\r\n\r\n{}".encode()).startswith(b"HTTP/1.1 502")
    assert len(b.requests) == 1
    assert g.anon.post("/api/auth/register", headers=key(1)).status_code == 502
    assert len(b.requests) >= 4, "elsewhere a key lets it be repeated"


@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\n{}", b"Content-Length: 100000\r\n\r\n" + b"z" * 100000,
                                  b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], ids=["short", "long", "chunked"])
def test_head_with_a_body(make_gateway, body):
    """libcurl would make a PUT of it."""
    b, g = one(make_gateway)
    got = g.raw(b"HEAD /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + body)
    assert got.startswith(b"HTTP/1.1 400") and not b.requests


# ---- what holds no place for ever

SILENT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* The resolver behind a name server that is silent for as long as a file exists. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    if (node && strcmp(node, "silent.test") == 0) {
        while (access(getenv("SILENT_WHILE"), F_OK) == 0)
            usleep(10000);
        return EAI_AGAIN;
    }
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    return next(node, service, hints, ret);
}
"""


def test_a_silent_name_server(make_gateway, tmp_path):
    """The only loop goes on, for checks and for requests."""
    source, library, silence = tmp_path / "silent.c", tmp_path / "silent.so", tmp_path / "silence"
    source.write_text(SILENT)
    silence.touch()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    asan = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    b = make_gateway.backend()
    g = make_gateway(Config([{"name": "a", "url": b.url}, {"name": "e", "url": "http://silent.test:9", "group": "event"}],
                            CALM, QUICK_RETRY + NO_BREAKER),
                     env={"LD_PRELOAD": str(library), "SILENT_WHILE": str(silence), "ASAN_OPTIONS": asan,
                          "HTTP_THREADS": "1"})
    try:
        with ThreadPoolExecutor(1) as pool:
            event = pool.submit(lambda: g.client().get("/api/events/1"))
            while not event.done():
                assert g.anon.get("/api/x").status_code == 200
            problem(event.result(), 503, "unavailable")
        poll(lambda: g.backends("event")["e"]["state"] == "down", what="the check that has timed out")
        assert g.anon.get("/api/x").status_code == 200
    finally:
        silence.unlink()


def test_one_thread_for_both_sides_waits_for_nobody(make_gateway):
    """A silent backend, an answer that nobody reads, an upload that stops, half a request: all others are served."""
    release = threading.Event()

    def slow(wire, q):
        if q.target.endswith("/large"):
            wire.sock.sendall(answer(200, b"x" * 8000000))
        else:
            release.wait(60)
            wire.sock.sendall(answer())
    waits, quick = make_gateway.backend(slow), make_gateway.backend()
    g = make_gateway(Config([{"name": "a", "url": quick.url}, {"name": "e", "url": waits.url, "group": "event"}], CALM,
                            QUICK_RETRY + NO_BREAKER), env={"HTTP_THREADS": "1"})
    begun = [b"GET /api/events/1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /api/events/large HTTP/1.1\r\nHost: x\r\n\r\n",
             b"PUT /api/events/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100000,
             b"GET /api/ev"]
    ends = [b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"x" * 100000]
    socks = [socket.create_connection(("127.0.0.1", g.port), timeout=20) for _ in begun]
    try:
        for s, data in zip(socks, begun):
            s.sendall(data)
        poll(lambda: len(waits.requests) >= 2 and g.metric("payflow_gateway_backend_in_flight", backend="e") == 3)
        with ThreadPoolExecutor(8) as pool:  # streams and whole answers between them; the waiting ones have 10 s
            assert set(pool.map(lambda n: g.client().post("/api/x", content=b"y" * n).status_code,
                                [2, 2, 2, 2, 300000] * 10)) == {200}
        release.set()
        socks[2].sendall(ends[1])
        socks[3].sendall(b"ents/1" + ends[0])
        assert all(socks[i].recv(12) == b"HTTP/1.1 200" for i in range(4))
    finally:
        for s in socks:
            s.close()


def test_a_client_that_does_not_read_is_cut(make_gateway):
    """A minute for 64 KiB, whoever it is that waits."""
    body = b"x" * 30000000
    b, g = one(make_gateway, lambda w, q: w.sock.sendall(answer(200, body)))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(20)
        s.connect(("127.0.0.1", g.port))
        s.sendall(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        poll(lambda: b.requests)
        poll(lambda: g.metric("payflow_gateway_backend_in_flight", backend="a") == 0, seconds=100, what="the end of it")
        assert len(drain(s)) < len(body)


def test_booking_services_that_are_gone_keep_no_thread(make_gateway):
    """And one that comes back is connected anew."""
    ports = [harness.free_port() for _ in range(6)]

    def entry(port):
        return {"name": "b", "url": f"http://127.0.0.1:{port}", "group": "booking"}
    g = make_gateway(Config([entry(ports[0])], CALM, NO_BREAKER))

    def threads():
        return len(os.listdir(f"/proc/{g.process.pid}/task"))
    before = threads()
    for n, port in enumerate(ports[1:] + ports[:1], 1):
        g.config.backends = [entry(port)]
        g.write()
        g.process.send_signal(signal.SIGHUP)
        poll(lambda n=n: g.log_text().count("settings reloaded") == n)
    poll(lambda: threads() <= before, seconds=20, what="as few threads as before")
    r = g.anon.get("/api/bookings/b-1")
    assert r.status_code == 503 and len(g.backends("booking")) == 1


def tls_pair(tmp_path):
    cert, k = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", k, "-out", cert],
                   check=True, capture_output=True)
    return cert, k


@pytest.fixture
def behind_tls(make_gateway, tmp_path, request):
    """A gateway whose backend answers as soon as it has the headers, and a function that begins an upload there without
    end: it returns an Event that is set when the upload has been cut."""
    cert, k = tls_pair(tmp_path)

    def on_head(wire, q):
        wire.sock.sendall(answer(401, b"{}", [("Connection", "close")], reason="No"))
        return True
    b = make_gateway.backend(on_head=on_head)
    g = Gateway(tmp_path / "tls", Config([{"name": "a", "url": b.url}], CALM, NO_BREAKER),
                env={"SHUTDOWN_TIMEOUT": "1s", "IDLE_TIMEOUT": request.param}, args=["--tls-cert", cert, "--tls-key", k])
    g.scheme, g.verify = "https", str(cert)
    g.start()
    over = threading.Event()
    enough = threading.Event()

    def upload():
        context = ssl.create_default_context(cafile=str(cert))
        with socket.create_connection(("127.0.0.1", g.port), timeout=20) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1") as s:
            s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while not enough.wait(0.02):
                    s.sendall(b"1000\r\n" + b"u" * 4096 + b"\r\n")
            except OSError:
                over.set()

    with ThreadPoolExecutor(1) as pool:
        def begin():
            pool.submit(upload)
            poll(lambda: b.requests)
            return over
        yield g, begin
        enough.set()
    if g.process.poll() is None:
        g.kill9()
    if g in harness.LIVE:
        harness.LIVE.remove(g)


@pytest.mark.parametrize("behind_tls", ["3s"], indirect=True)
def test_an_upload_behind_its_answer_ends(behind_tls):
    g, begin = behind_tls
    assert begin().wait(20), "3 s for what comes behind an answer, whatever comes"
    assert g.stop() == 0


@pytest.mark.parametrize("behind_tls", ["600s"], indirect=True)
def test_sigterm_does_not_wait_for_an_upload(behind_tls):
    g, begin = behind_tls
    begin()
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(15) == 0
