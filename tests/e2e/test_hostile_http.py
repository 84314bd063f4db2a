"""What an attacker sends: framing in doubt, smuggling pairs, slow and half-gone clients, thousands of idle connections.

`test_http.py` has the plain cases; here are those that need raw sockets, time or numbers.
"""
import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import statistics
import time

import pytest

from conftest import module_server
from harness import eventually, export, new_user, ok, raw, raw_status

IDLE_S = 2
# The server's clock for slow clients ticks once a second, and the second that has begun counts.
CUT_WITHIN_S = 2 * IDLE_S + 8
PING = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
PING_LAST = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEAD = "POST /api/transactions/deposit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def srv(tmp_path_factory):
    for server in module_server(tmp_path_factory, "hostile", env={"IDLE_TIMEOUT": str(IDLE_S)}):
        # A kept connection may end just as it is used again, when the server's patience is that short.
        server._anon = server.client(headers={"Connection": "close"})
        server.admin._cache["api"] = server.client(key=server.admin.key, headers={"Connection": "close"})
        server.admin._cache["bank"] = server.client(jwt=server.admin.jwt, headers={"Connection": "close"})
        yield server


@pytest.fixture
def payee(srv):
    return new_user(srv)


def deposit(user, amount="1", extra="", text=None):
    """The bytes of a deposit; extra: more header lines."""
    body = text if text is not None else f'{{"user_id":{user.id},"amount":"{amount}"}}'
    return f"{HEAD}Content-Length: {len(body)}\r\n{extra}\r\n{body}".encode()


def deposits(user):
    """What has reached the books for this user: amounts as the journal has them, oldest first."""
    r = ok(user.server.admin.api.get(f"/api/transactions?user_id={user.id}&limit=100"))
    return [str(t["amount"]) for t in reversed(r["data"])]


def statuses(answer):
    """Of every answer in the bytes; bodies never hold a status line, but for this: libmicrohttpd 0.9.75 sends the head of
    its own refusal of a Content-Length twice, before it closes."""
    once = re.sub(rb"(HTTP/1\.1 4\d\d .*?\r\n\r\n)\1<html>", rb"\1<html>", answer, flags=re.S)
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", once)]


def connect(server):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_to_end(s):
    out = b""
    with contextlib.suppress(ConnectionError):
        while chunk := s.recv(65536):
            out += chunk
    return out


# ---- framing


@pytest.mark.parametrize("lengths", [
    "Content-Length: {n}\r\nContent-Length: {n}", "Content-Length: {n}, {n}", "Content-Length: {n},",
    "Content-Length: {n}\r\ncontent-length: 0", "Content-Length: 0\r\nContent-Length: {n}", "Content-Length: -{n}",
    "Content-Length: {n}.0", "Content-Length: {n} {n}", "Content-Length: ", "Content-Length: \x0b{n}",
    "Content-Length: 18446744073709551616", "Content-Length: 18446744073709551615", "Content-Length: 9" + "9" * 400,
    "Content-Length: 0x{x}", "Content-Length: {n}e0", "Content-Length : {n}", " Content-Length: {n}",
    "Content-Length: {n}\r\n\tContent-Length: 3", "Content-Length:\r\n {n}", "Content-Length: {n}\nX: y",
    "Content-Length: {n}\rX: y", "Content-Length: {n}\x00", "Content-Length\x00: {n}",
    "Content-Length: {n}\r\nTransfer-Encoding: identity", "Content-Length: {n}\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}", "Content-Length: {n}\r\nTransfer-Encoding : chunked",
    "Content-Length: {n}\r\nTransfer-Encoding: xchunked", "Content-Length: {n}\r\nTransfer-Encoding:\r\n chunked",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Content-Length: {n}\r\nTransfer-Encoding: \x0bchunked", "Content-Length: {n}\r\nTransfer-Encoding: \"chunked\"",
    "Content-Length: {n}\r\n Transfer-Encoding: chunked", "Content-Length: {n}\r\nX: y\r\n\tTransfer-Encoding: chunked",
])
def test_lengths_in_doubt_move_nothing_and_end_the_connection(srv, payee, lengths):
    """Neither the request nor what hides behind it is carried out: the second must not be read as a request at all."""
    body = f'{{"user_id":{payee.id},"amount":1}}'
    fill = lengths.format(n=len(body), x=f"{len(body):x}")
    sent = (f"{HEAD}{fill}\r\n\r\n{body}").encode("latin-1") + deposit(payee, "2") + PING_LAST
    answer = raw(srv.port, sent, 3 * IDLE_S)
    seen = statuses(answer)
    assert len(seen) <= 1 and all(400 <= s < 600 for s in seen), answer[:400]
    assert b"pong" not in answer
    assert deposits(payee) == []


@pytest.mark.parametrize("data", ids=lambda d: repr(d[:40]), argvalues=[
    b"GET /health HTTP/1.1\nHost: x\n\n", b"GET /health HTTP/1.1\r\nHost: x\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\n",
    b"GET /health HTTP/1.1\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", b"GET /health HTTP/1.1\r\n Host: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n\tContent-Length: 3\r\n\r\nabc", b"GET /health\r\n\r\n",
    b" GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET\t/health\tHTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /health HTTP/11\r\nHost: x\r\n\r\n",
    b"GET /health http/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET ftp://x/health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health#top HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health\x7f HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get /health HTTP/1.1\r\nHost: x\r\n\r\n", b"G\x00T /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GE(T /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff\xfe /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"M" * 5000 + b" /health HTTP/1.1\r\nHost: x\r\n\r\n",
    *[b"GET /health HTTP/1.1\r\nHost: x\r\nX" + bytes([c]) + b"Y: 1\r\n\r\n" for c in b"\x00\x01\t\x0b\x1f \"(),/;<=>?@[\\]{}\x7f\x80\xff"],
    *[b"GET /health HTTP/1.1\r\nHost: x\r\nX-Y: a" + v + b"b\r\n\r\n" for v in (b"\x00", b"\x01", b"\x0b", b"\x7f", b"\xff", b"\xc0\x80")],
])
def test_malformed_heads_are_never_a_success(srv, data):
    """Bare CR or LF, folds, odd lines, targets, methods and names: refused in some way, and nothing behind them runs."""
    seen = statuses(raw(srv.port, data + PING_LAST, 3 * IDLE_S))
    # A refused head whose framing is sound leaves the connection usable: the ping behind it may be answered.
    assert seen[:1] != [200] and all(s in (200, 400, 404, 405, 413, 414, 431, 501, 505) for s in seen), seen
    assert len(seen) <= 2


def test_targets_in_absolute_form(srv, payee):
    get = "GET {} HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
    for target, status in (("http://x/api/v1/ping", 200), ("HTTP://x:80/api/v1/ping?", 200), ("http://x", 404),
                           ("http://x/nothing", 404), ("https://x/api/v1/ping", 200), ("http://x/api/users?id=%zz", 400)):
        assert raw_status(raw(srv.port, get.format(target).encode())) == status, target
    sent = deposit(payee, "3", "Connection: close\r\n").replace(b"POST /", b"POST http://bank.example/", 1)
    assert raw_status(raw(srv.port, sent)) == 201 and deposits(payee) == ["3.00"]


@pytest.mark.parametrize("length", [8_000, 16_000, 30_000, 48_000, 49_152, 60_000, 400_000])
def test_long_targets(srv, length):
    for target in (b"/" + b"a" * length, b"/health?a=" + b"b" * length, b"/%41" * (length // 4)):
        answer = raw(srv.port, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 3)
        # past what is read at all the connection may be reset before the answer is seen
        assert raw_status(answer) in (200, 400, 404, 414, 431, None), answer[:100]
        assert raw_status(answer) != 200 or length < 16_384
    ok(srv.anon.get("/health"))


# ---- chunked bodies


def chunked(payload, extra="Connection: close\r\n"):
    return (f"{HEAD}Transfer-Encoding: chunked\r\n{extra}\r\n").encode() + payload


def chunk_cases():
    good = [b"%(n)x\r\n%(b)s\r\n0\r\n\r\n", b"%(N)X\r\n%(b)s\r\n0\r\n\r\n", b"0000%(n)x\r\n%(b)s\r\n000\r\n\r\n",
            b"%(n)x;a=b;c=\"d\"\r\n%(b)s\r\n0;last\r\n\r\n", b"%(n)x\r\n%(b)s\r\n0\r\nX-Trailer: 1\r\nX-More: 2\r\n\r\n",
            b"%(n)x\r\n%(b)s\r\n0\r\nContent-Length: 3\r\nX-API-Key: pf_x\r\n\r\n"]
    bad = [b"-%(n)x\r\n%(b)s\r\n0\r\n\r\n", b"+%(n)x\r\n%(b)s\r\n0\r\n\r\n", b"0x%(n)x\r\n%(b)s\r\n0\r\n\r\n",
           b" %(n)x\r\n%(b)s\r\n0\r\n\r\n", b"%(n)x \r\n%(b)s\r\n0\r\n\r\n", b"%(n)xg\r\n%(b)s\r\n0\r\n\r\n",
           b"\r\n%(b)s\r\n0\r\n\r\n", b";a=b\r\n%(b)s\r\n0\r\n\r\n", b"%(n)x\r\n%(b)s0\r\n\r\n", b"3\r\n%(b)s\r\n0\r\n\r\n",
           b"fffffffffffffffff\r\n%(b)s\r\n0\r\n\r\n", b"ffffffffffffffff\r\n%(b)s\r\n0\r\n\r\n",
           b"1" + b"0" * 16 + b"%(n)x\r\n%(b)s\r\n0\r\n\r\n", b"7fffffffffffffff\r\n%(b)s\r\n0\r\n\r\n",
           b"%(n)x\r\n%(b)s", b"%(n)x\r\n%(b)s\r\n", b"%(n)x\r\n%(b)s\r\n0\r\n", b"%(n)x\r\n%(b)s\r\n-0\r\n\r\n",
           b"%(n)x\x00\r\n%(b)s\r\n0\r\n\r\n", b"%(n)x;" + b"e" * 200_000 + b"\r\n%(b)s\r\n0\r\n\r\n",
           b"%(n)x\r\n%(b)s\r\n0\r\n" + b"T: 1\r\n" * 30_000 + b"\r\n"]
    return [(c, True) for c in good] + [(c, False) for c in bad]


@pytest.mark.parametrize("form, valid", chunk_cases(), ids=lambda v: repr(v[:36]) if isinstance(v, bytes) else str(v))
def test_chunks(srv, payee, form, valid):
    body = b'{"user_id":%d,"amount":"1.25"}' % payee.id
    answer = raw(srv.port, chunked(form % {b"n": len(body), b"N": len(body), b"b": body}), 2 * IDLE_S)
    if valid:
        assert raw_status(answer) == 201 and deposits(payee) == ["1.25"]
    else:
        # 500 is libmicrohttpd's own word for a chunk line or trailers that outgrow the connection's memory
        assert raw_status(answer) in (None, 400, 413, 431, 500), answer[:200]
        assert deposits(payee) == []


@pytest.mark.parametrize("end", [b"\n", b"\r", b";a\nb\r\n", b"\r\n"])
def test_nothing_is_read_behind_a_chunked_body(srv, payee, end):
    """Where servers differ over the end of a chunk's line, a request hides behind the body. So none is taken there."""
    body = b'{"user_id":%d,"amount":"1"}' % payee.id
    sent = chunked(b"%x" % len(body) + end + body + b"\r\n0\r\n\r\n", extra="") + deposit(payee, "77") + PING
    answer = raw(srv.port, sent, 3 * IDLE_S)
    assert len(statuses(answer)) <= 1 and b"pong" not in answer
    assert deposits(payee) in ([], ["1.00"])
    if end == b"\r\n":
        assert statuses(answer) == [201] and b"Connection: close" in answer


def test_a_chunk_for_every_byte_in_any_pieces(srv, payee):
    """The same bytes cut by the network at random places say the same."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for i in range(12):
        body = f'{{"user_id":{payee.id},"amount":"{i + 1}.00"}}'.encode()
        sent = chunked(b"".join(b"1;x=%d\r\n%c\r\n" % (j, c) for j, c in enumerate(body)) + b"0\r\n\r\n")
        with connect(srv) as s:
            at = 0
            while at < len(sent):
                n = rng.randint(1, 90)
                s.sendall(sent[at:at + n])
                at += n
            assert raw_status(read_to_end(s)) == 201
    assert deposits(payee) == [f"{i + 1}.00" for i in range(12)]


# ---- smuggling


def test_a_request_inside_a_body_stays_a_body(srv, payee):
    """The classic pairs, each with a second deposit where a lenient reader would find a request."""
    hidden = deposit(payee, "99").decode()
    clte = f"{HEAD}Content-Length: {5 + len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    tecl = f"{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{len(hidden):x}\r\n{hidden}\r\n0\r\n\r\n"
    zero = f"{HEAD}Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}"
    fold = f"{HEAD}Content-Length: 0\r\n\tContent-Length: {len(hidden)}\r\n\r\n{hidden}"
    for sent in (clte, tecl, zero, fold):
        answer = raw(srv.port, sent.encode() + PING_LAST, 3 * IDLE_S)
        assert len(statuses(answer)) <= 1 and statuses(answer) in ([], [400]), answer[:300]
    # With an honest length it is just bad JSON, and what comes behind it is a request of its own.
    answer = raw(srv.port, deposit(payee, text=hidden) + deposit(payee, "5") + PING_LAST)
    assert statuses(answer) == [400, 201, 200]
    assert deposits(payee) == ["5.00"]


def test_bodies_that_nobody_asked_for(srv, payee):
    """A body on GET is read as a body, not as the next request."""
    hidden = deposit(payee, "99")
    head = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    answer = raw(srv.port, head + hidden + PING_LAST)
    assert statuses(answer) in ([200, 200], [400], [400, 200])
    assert deposits(payee) == []


# ---- pipelines


def test_pipelined_answers_come_in_order(srv, payee):
    """Deposits wait for the ledger's thread, pings do not; each answer still stands where its request stood."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sent, expected = [], []
    for i in range(120):
        kind = rng.choice(["deposit", "ping", "missing", "broken", "read"])
        mark = f"X-Request-Id: p{i}\r\n"
        if kind == "deposit":
            sent.append(deposit(payee, f"{i + 1}", mark))
        elif kind == "broken":
            sent.append(deposit(payee, extra=mark, text='{"user_id":'))
        else:
            path = {"ping": "/api/v1/ping", "missing": "/nothing", "read": f"/api/users/{payee.id}"}[kind]
            sent.append(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {srv.admin.key}\r\n{mark}\r\n".encode())
        expected.append((f"p{i}", {"deposit": 201, "ping": 200, "missing": 404, "broken": 400, "read": 200}[kind]))
    answer = raw(srv.port, b"".join(sent) + PING_LAST, 10)
    seen = re.findall(rb"HTTP/1\.1 (\d{3}) .*?X-Request-Id: (\S+)\r\n", answer, re.S)
    assert [(i.decode(), int(s)) for s, i in seen[:-1]] == expected
    moved = sum(1 for _, status in expected if status == 201)
    assert len(deposits(payee)) == moved


def test_pipelined_deposits_happen_in_order_and_once(srv, payee):
    with connect(srv) as s:
        s.sendall(b"".join(deposit(payee, str(i)) for i in range(1, 61)) + PING_LAST)
        answer = read_to_end(s)
    assert statuses(answer) == [201] * 60 + [200]
    assert deposits(payee) == [f"{i}.00" for i in range(1, 61)]


# ---- clients that go half or wholly


def test_half_closed_clients_get_their_answer(srv, payee):
    """A client may end its sending with its request (RFC 9112 9.6): the money moves, so it must be told."""
    for i in range(1, 21):
        assert raw_status(raw(srv.port, deposit(payee, str(i)), 5, shutdown=True)) == 201, i
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(srv)) for _ in range(20)]
        srv.process.send_signal(signal.SIGSTOP)  # so that the end is there before the ledger's word
        for s in clients:
            s.sendall(deposit(payee, "21"))
            s.shutdown(socket.SHUT_WR)
        srv.process.send_signal(signal.SIGCONT)
        assert [raw_status(read_to_end(s)) for s in clients] == [201] * 20
    assert deposits(payee) == [f"{i}.00" for i in range(1, 21)] + ["21.00"] * 20
    answer = raw(srv.port, deposit(payee, "0"), 5, shutdown=True)
    assert raw_status(answer) == 422 and b"application/problem+json" in answer


def test_a_half_closed_answer_is_a_whole_one(srv, payee):
    """It says the same as one that MHD has sent."""
    def shape(answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        assert length == len(body) > 0
        return sorted(set(names) - {b"connection"}), sorted(json.loads(body))
    whole = raw(srv.port, deposit(payee, "7", "Connection: close\r\n"))
    half = raw(srv.port, deposit(payee, "7"), 5, shutdown=True)
    assert shape(whole) == shape(half)


def test_half_closed_before_the_end_moves_nothing(srv, payee):
    whole = deposit(payee)
    for cut in (10, whole.index(b"\r\n\r\n"), whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
        assert raw_status(raw(srv.port, whole[:cut], 5, shutdown=True)) in (None, 400)
    assert deposits(payee) == []


def test_half_closed_behind_a_pipeline(srv, payee):
    """What was executed is a prefix, and every answer that comes is of that prefix."""
    answer = raw(srv.port, b"".join(deposit(payee, str(i)) for i in range(1, 21)), 5, shutdown=True)
    done = deposits(payee)
    assert statuses(answer) == [201] * len(done) and len(done) >= 1
    assert done == [f"{i}.00" for i in range(1, len(done) + 1)]


def test_clients_gone_while_the_ledger_works(srv):
    """Closed or reset right behind the request: each movement is whole or absent, and the books stay in balance."""
    users = [new_user(srv) for _ in range(5)]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for i in range(300):
        user = users[i % 5]
        s = connect(srv)
        if rng.random() < 0.5:  # a reset instead of an end
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sent = deposit(user, "1", f"Idempotency-Key: gone-{i}\r\n")
        s.sendall(sent if rng.random() < 0.8 else sent[:rng.randrange(1, len(sent))])
        if rng.random() < 0.3:
            time.sleep(rng.random() / 500)
        s.close()
    eventually(lambda: gauge(srv, "payflow_http_connections") <= 2 and gauge(srv, "payflow_http_in_flight") <= 1)
    # Some of them asked for a whole deposit, so something has been moved; each amount is whole and stands there once.
    for user in users:
        done = deposits(user)
        assert 0 < len(done) <= 60 and set(done) == {"1.00"}
        assert user.balance() == len(done)
    r = ok(srv.admin.bank.get("/api/v1/admin/reconciliation"))
    assert r["consistent"] is True


def gauge(server, name):
    return int(re.search(rf"^{name} (\d+)", server.anon.get("/metrics").text, re.M)[1])


# ---- slow clients


def drip(server, head, more):
    """Sends head, then more byte by byte; the seconds until the server ends it."""
    begin = time.monotonic()
    with connect(server) as s:
        s.sendall(head)
        for i in range(CUT_WITHIN_S * 10):
            try:
                s.sendall(more[i:i + 1])
            except OSError:
                break
            if select.select([s], [], [], 0.1)[0]:
                with contextlib.suppress(ConnectionError):
                    assert s.recv(4096) == b""
                break
        else:
            pytest.fail(f"still open after {CUT_WITHIN_S} s")
        return time.monotonic() - begin


def test_slow_senders_are_cut_off_and_disturb_nobody(srv, payee):
    """Byte by byte: the request line, the headers, the body, and the line of a second request; and silence."""
    from concurrent.futures import ThreadPoolExecutor
    body_head = (HEAD + "Content-Length: 900\r\n\r\n").encode()
    chunk_head = (HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode()
    slow = [(b"", b"GET /" + b"a" * 900), (b"GET /health HTTP/1.1\r\n", b"X-A: " + b"a" * 900), (body_head, b" " * 900),
            (chunk_head, b"1\r\n \r\n" * 150), (PING[:-2], b"X" * 900),
            (b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"")]
    with ThreadPoolExecutor(len(slow) * 3) as pool:
        drips = [pool.submit(drip, srv, head, more) for head, more in slow[:-1] for _ in range(3)]
        worst = 0.0
        for i in range(60):
            begin = time.monotonic()
            ok(srv.admin.api.post("/api/transactions/deposit", json={"user_id": payee.id, "amount": 1}), 201)
            worst = max(worst, time.monotonic() - begin)
            time.sleep(0.02)
        times = [d.result() for d in drips]
    assert worst < 8, "others wait for slow clients"
    assert min(times) > IDLE_S * 0.9, f"cut off before its time: {times}"
    assert max(times) < CUT_WITHIN_S
    assert deposits(payee) == ["1.00"] * 60


def test_a_slow_second_request_is_cut_off(srv):
    with connect(srv) as s:
        s.sendall(PING)
        assert raw_status(s.recv(4096)) == 200
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < CUT_WITHIN_S and not select.select([s], [], [], 0.2)[0]:
                s.sendall(b"G")
        assert time.monotonic() - begin < CUT_WITHIN_S


def test_a_body_that_is_slow_but_sure_is_taken(srv, payee):
    """Longer than IDLE_TIMEOUT in all, at a rate above the least: not cut off."""
    body = b'{"user_id":%d,"amount":"8"}' % payee.id
    pad = b" " * 16_384
    with connect(srv) as s:
        s.sendall(f"{HEAD}Connection: close\r\nContent-Length: {len(body) + 28 * len(pad)}\r\n\r\n".encode())
        for _ in range(28):
            s.sendall(pad)
            time.sleep(0.2)
        s.sendall(body)
        assert raw_status(read_to_end(s)) == 201
    assert deposits(payee) == ["8.00"]


# ---- many


def rss_mb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) / 1024


def p99_ms(client, user, n=300):
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        ok(client.post("/api/transactions/deposit", json={"user_id": user.id, "amount": "0.01"}), 201)
        times.append(time.perf_counter() - begin)
    return statistics.quantiles(times, n=100)[98] * 1000


@contextlib.contextmanager
def files_allowed(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
        except (ValueError, OSError):
            pytest.skip(f"the hard limit of open files is {hard}, less than {n}")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))
    try:
        yield
    finally:
        if hard != resource.RLIM_INFINITY and hard < n:
            hard = n
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))


@pytest.mark.parametrize("n", [127, 128, 129, 256])
def test_a_full_round_of_events_is_served_at_once(fresh, n):
    """libmicrohttpd takes 128 events a time, and after exactly so many waits for one more before it serves any."""
    server = fresh(env={"HTTP_THREADS": "1"})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(n)]
        for s in clients:
            s.sendall(PING)
            assert raw_status(s.recv(4096)) == 200
        server.process.send_signal(signal.SIGSTOP)  # so that all are there when it looks
        for s in clients:
            s.sendall(PING)
        server.process.send_signal(signal.SIGCONT)
        for s in clients:
            s.settimeout(4)
            assert raw_status(s.recv(4096)) == 200


IDLE_CONNECTIONS = 10_000


def test_ten_thousand_idle_connections(fresh):
    """All of MAX_CONNECTIONS, each kept alive behind a request; the rest is refused, and those inside do not notice."""
    room = IDLE_CONNECTIONS + 20
    with files_allowed(room + 500), contextlib.ExitStack() as stack:
        server = fresh(env={"MAX_CONNECTIONS": str(room), "IDLE_TIMEOUT": "300"})
        user = new_user(server)
        ok(server.anon.get("/health"))
        before_mb, before_ms = rss_mb(server), p99_ms(server.admin.api, user)
        idle = []
        for _ in range(IDLE_CONNECTIONS // 250):
            wave = [stack.enter_context(connect(server)) for _ in range(250)]
            for s in wave:
                s.sendall(PING)
            for s in wave:
                assert raw_status(s.recv(4096)) == 200
            idle += wave
        # A connection holds its 48 KiB of libmicrohttpd's while it is open; ASan's shadow and red zones come on top.
        per_kb = (rss_mb(server) - before_mb) * 1024 / len(idle)
        print(f"{per_kb:.1f} KiB a connection; p99 before {before_ms:.2f} ms")
        assert per_kb < 160
        begin = time.monotonic()
        assert b"pong" in raw(server.port, PING_LAST, 10)
        assert time.monotonic() - begin < 8, "a new client waits"
        with_ms = p99_ms(server.admin.api, user)
        print(f"p99 with them {with_ms:.2f} ms")
        assert with_ms < 10 * before_ms + 50
        extra = [stack.enter_context(connect(server)) for _ in range(60)]
        answered = 0
        for s in extra:
            s.settimeout(5)
            with contextlib.suppress(ConnectionError):
                s.sendall(PING)
                answered += s.recv(4096).startswith(b"HTTP/1.1 200")
        assert 1 <= answered <= 20, "MAX_CONNECTIONS is not kept"
        for s in idle[::500]:
            s.sendall(PING)
            assert raw_status(s.recv(4096)) == 200
        for s in idle + extra:
            s.close()
        eventually(lambda: b"pong" in raw(server.port, PING_LAST))
        assert server.stop() == 0
    assert len(export(server.data)) == 600


def test_the_limit_of_open_files_is_raised(fresh):
    """The soft limit goes up to the hard one by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = fresh(env={"MAX_CONNECTIONS": "600"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with open(f"/proc/{server.process.pid}/limits", encoding="ascii") as f:
        limit = re.search(r"Max open files\s+(\d+)\s+(\d+)", f.read())
    assert limit[1] == limit[2]
    assert server.stop() == 0  # and has written its log
    assert "listening" in server.log_text() and "MAX_CONNECTIONS is more" not in server.log_text()


def test_too_few_files_for_max_connections_are_named_and_kept_for_the_store(fresh, monkeypatch):
    """The start says what can be reached, and when all of that is taken the ledger still commits."""
    import harness
    plain = harness.subprocess.Popen

    def limited(*args, **kw):
        return plain(*args, **kw, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)))
    monkeypatch.setattr(harness.subprocess, "Popen", limited)
    server = fresh(env={"MAX_CONNECTIONS": "10000"})
    monkeypatch.undo()
    eventually(lambda: "MAX_CONNECTIONS is more than the limit of open files allows" in server.log_text())
    user = new_user(server)
    ok(server.admin.api.get("/health"))
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(server))
        for _ in range(5):
            ok(server.admin.api.post("/api/transactions/deposit", json={"user_id": user.id, "amount": 1}), 201)
    assert os.path.exists(f"/proc/{server.process.pid}")
    assert server.stop() == 0
