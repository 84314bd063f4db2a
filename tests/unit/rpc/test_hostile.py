"""src/rpc against clients that mean no good: frames by hand, floods, stalls, window games. Whatever they do, the server
keeps little of it and goes on serving others."""
import contextlib
import os
import random
import socket
import struct
import time

import grpc
import pytest

import frames
from frames import (CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PREFACE,
                    PRIORITY, REFUSED_STREAM, RST, SETTINGS, WINDOW, connect, frame, message)
from kit import GROWTH_MIB, Ask, eventually, method, serving

SAY, LATER = "/echo.v1.Echo/Say", "/echo.v1.Echo/Later"


class Hand(frames.Hand):
    """Its calls are Say's unless they name another path."""

    def head(self, path=SAY, **kw):
        return super().head(path, **kw)

    def ask(self, m, path=SAY, **kw):
        return super().ask(m, path, **kw)


@pytest.fixture(scope="module")
def server():
    with serving(threads=2) as s:
        yield s


@contextlib.contextmanager
def unharmed(server):
    """Little memory more than before, other clients are served meanwhile and after, nothing stays in flight."""
    before = server.rss_mib()
    yield
    assert server.alive()
    assert server.rss_mib() - before < GROWTH_MIB, f"{before} MiB became {server.rss_mib()} MiB"
    eventually(lambda: server.counters()["payflow_grpc_in_flight"] == 1)  # counters() itself
    eventually(lambda: server.counters()["payflow_grpc_connections"] == 1)


def reason(server, name):
    return server.counters()[f'payflow_grpc_goaways_total{{reason="{name}"}}']


def flood(hand, data, times):
    """Sends it over and over until the server has had enough."""
    for _ in range(times):
        if not hand.send(data):
            break


# ---- floods


@pytest.mark.parametrize("path", [SAY, LATER])
def test_rapid_reset(server, path):
    with unharmed(server), Hand(server) as h:
        before = reason(server, "resets")
        for _ in range(60):
            if not h.send(b"".join(h.ask(Ask(delay_ms=3000), path) + frame(RST, 0, h.stream, struct.pack(">I", 8))
                                   for _ in range(50))):
                break
        assert h.goaway() in ((ENHANCE_YOUR_CALM, b"too many resets"), None)
        assert reason(server, "resets") == before + 1


def test_resets_that_the_server_is_made_to_send(server):
    """Two WINDOW_UPDATEs that overflow a stream's window: the server resets it, so the slot is free again."""
    with unharmed(server), Hand(server) as h:
        before = reason(server, "resets")
        over = struct.pack(">I", 0x7FFFFFFF)
        for _ in range(60):
            if not h.send(b"".join(h.ask(Ask(delay_ms=3000), LATER) + frame(WINDOW, 0, h.stream, over) * 2
                                   for _ in range(50))):
                break
        assert h.goaway() in ((ENHANCE_YOUR_CALM, b"too many resets"), None)
        assert reason(server, "resets") == before + 1


def test_cancelled_calls_take_their_place_until_handled():
    """Slowly enough not to be rapid: still never more handlers than streams are allowed."""
    with serving(threads=1, max_streams=10) as s, Hand(s) as h:
        refused = 0
        for _ in range(40):
            h.send(h.ask(Ask(delay_ms=4000, code=1), LATER, extra=[("grpc-timeout", "30S")]))
            time.sleep(0.01)
            h.send(frame(RST, 0, h.stream, struct.pack(">I", 8)))
            assert s.counters()["payflow_grpc_in_flight"] <= 11
        for kind, _, _, payload in h.frames(1):
            refused += kind == RST and int.from_bytes(payload, "big") == REFUSED_STREAM
        assert refused >= 10 or h.over
        assert s.alive()


@pytest.mark.parametrize("what", ["continuation", "empty continuation"])
def test_continuation_flood(server, what):
    with unharmed(server), Hand(server) as h:
        h.send(h.head(flags=0))
        piece = h.encoder.encode([("x-a", "b" * 1000)], huffman=False) if what == "continuation" else b""
        flood(h, frame(CONTINUATION, 0, 1, piece) * 50, 2000)
        h.goaway()


def test_a_dozen_continuations_are_enough(server):
    with unharmed(server), Hand(server) as h:
        h.send(h.head(flags=0) + frame(CONTINUATION, 0, 1) * 12)
        h.goaway(5)  # sooner than a header block may take


@pytest.mark.parametrize("kind", ["ping", "settings", "priority", "window", "empty data", "ping, unread"])
def test_frames_that_carry_nothing(server, kind):
    with unharmed(server), Hand(server) as h:
        h.send(h.ask(Ask()))
        h.answer(1)
        h.send(h.head())
        data = {"ping": frame(PING, payload=b"12345678"), "ping, unread": frame(PING, payload=b"12345678"),
                "settings": frame(SETTINGS), "priority": frame(PRIORITY, 0, 3, b"\0\0\0\0\x10"),
                "window": frame(WINDOW, 0, 0, struct.pack(">I", 1)), "empty data": frame(DATA, 0, 3)}[kind]
        flood(h, data * 100, 10 if kind == "ping" else 3000)
        if kind == "ping, unread":
            eventually(lambda: not h.send(data) or h.over)
            return
        last = h.goaway()
        expect = b"too_many_pings" if kind == "ping" else b"too many empty frames"
        assert last in ((ENHANCE_YOUR_CALM, expect), None) or (kind, last) == ("settings", (ENHANCE_YOUR_CALM, b""))


def test_frames_of_unknown_types_are_passed_over(server):
    with unharmed(server), Hand(server) as h:
        flood(h, frame(0xAB, 0, 0, b"x") * 1000, 50)
        h.send(h.ask(Ask(text="x")))
        assert h.answer(1)["grpc-status"] == "0"


def test_pings_between_calls_are_welcome(server):
    with Hand(server) as h:
        for i in range(100):
            h.send(frame(PING, payload=struct.pack(">Q", i)) + h.ask(Ask(text="x")))
            assert h.answer(h.stream)["grpc-status"] == "0"


def test_header_bomb(server):
    """One large entry in the compression table, named again and again by one byte each."""
    with unharmed(server), Hand(server) as h:
        before = reason(server, "headers")
        block = h.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", SAY), ("x-bomb", "y" * 3900)])
        h.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        h.answer(1)
        for stream in range(3, 203, 2):
            if not h.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block[:0] + b"\x83\x86" + b"\xbe" * 16000)):
                break
        assert h.goaway() in ((ENHANCE_YOUR_CALM, b"headers too large"), None)
        assert reason(server, "headers") == before + 1


# ---- what is no HTTP/2


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(200), PREFACE[:-1] + b"x",
                                  PREFACE + frame(HEADERS, END_HEADERS, 1, b"\x82"),
                                  PREFACE + frame(SETTINGS) + frame(DATA, 0, 0, b"x"),
                                  PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 2, b"\x82"),
                                  PREFACE + frame(SETTINGS) + frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
                                  PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
                                  PREFACE + frame(SETTINGS) + frame(PING, payload=b"1"),
                                  PREFACE + frame(SETTINGS) + frame(DATA, 0, 1, b"x" * 16385),
                                  PREFACE + frame(SETTINGS, payload=struct.pack(">HI", 4, 0x80000000)),
                                  PREFACE + frame(SETTINGS, payload=b"\0\5\0\0\x40\0" * 100)],
                         ids=lambda d: repr(d[-12:]))
def test_what_is_no_http2(server, data):
    with unharmed(server), Hand(server, begin=False) as h:
        h.send(data)
        h.goaway()


def test_random_frames(server):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    r = random.Random(seed)
    with unharmed(server):
        for _ in range(150):
            with Hand(server) as h:
                for _ in range(r.randrange(1, 30)):
                    data = r.choice([
                        lambda: h.ask(Ask(text="x", delay_ms=r.randrange(20)), r.choice([SAY, LATER])),
                        lambda: frame(r.randrange(12), r.randrange(256), r.randrange(8), r.randbytes(r.randrange(40))),
                        lambda: frame(DATA, r.randrange(2), h.stream if h.stream > 0 else 1,
                                      r.randbytes(r.randrange(200))),
                        lambda: frame(RST, 0, max(h.stream, 1), struct.pack(">I", r.randrange(14))),
                        lambda: r.randbytes(r.randrange(20)) if r.random() < 0.1 else b"",
                    ])()
                    if not h.send(data):
                        break


# ---- what is no gRPC


def test_http_that_is_no_grpc(server):
    with Hand(server) as h:
        for status, changes in ("405", {":method": "GET"}), ("415", {"content-type": "application/json"}), \
                ("415", {"content-type": None}), ("415", {"content-type": "application/grpc+json"}), \
                ("415", {"content-type": "application/grpcx"}):
            h.send(h.ask(Ask(), **changes))
            got = h.answer(h.stream)
            assert got[":status"] == status and "grpc-status" not in got
        for good in "application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8":
            h.send(h.ask(Ask(), **{"content-type": good}))
            assert h.answer(h.stream)["grpc-status"] == "0"


def test_messages_in_odd_frames(server):
    whole = message(Ask(text="hello"))
    with Hand(server) as h:
        def status(*pieces, **kw):
            h.send(h.head(**kw) + b"".join(frame(DATA, 0, h.stream, p) for p in pieces[:-1])
                   + frame(DATA, END_STREAM, h.stream, pieces[-1]))
            return int(h.answer(h.stream)["grpc-status"])
        assert status(*(whole[i:i + 1] for i in range(len(whole)))) == 0
        assert status(whole, b"") == 0
        assert status(b"") == 12
        assert status(whole[:-1]) == 13           # the prefix promises more
        assert status(whole[:3]) == 13
        assert status(b"\0\xff\xff\xff\xff" + whole) == 8
        assert status(b"\1" + whole[1:]) == 13    # compressed, without grpc-encoding
        assert status(b"\1" + whole[1:], extra=[("grpc-encoding", "identity")]) == 13
        assert status(b"\7" + whole[1:]) == 13
        assert status(whole + whole) == 12
        assert status(whole + b"x") == 12
        assert status(message(b"\xff" * 30)) == 13
        assert status(whole, extra=[("grpc-encoding", "gzip")]) == 12
        for bad in "1", "1s", "-1S", "123456789S", "", "S":
            assert status(whole, extra=[("grpc-timeout", bad)]) == 13
        assert status(whole, extra=[("grpc-timeout", "0n")]) == 4
        h.send(h.head(end=True))
        assert h.answer(h.stream)["grpc-status"] == "12"
        assert status(whole) == 0


def test_one_stream_too_many():
    with serving(max_streams=5) as s, Hand(s) as h:
        h.send(b"".join(h.ask(Ask(delay_ms=1500), LATER) for _ in range(8)))
        refused = [stream for kind, _, stream, payload in h.frames(1.0)
                   if kind == RST and int.from_bytes(payload, "big") == REFUSED_STREAM]
        assert refused == [11, 13, 15]
        assert h.answer(1)["grpc-status"] == "0"


def test_connections_beyond_the_limit():
    with serving(max_connections=20) as s:
        with s.channel() as c:
            assert method(c, SAY)(Ask(text="in"), timeout=20).text == "in"
            more = [connect(s) for _ in range(40)]
            try:
                assert method(c, SAY)(Ask(text="in"), timeout=20).text == "in"
                closed = 0
                for m in more:
                    m.settimeout(0.3)
                    with contextlib.suppress(TimeoutError):
                        closed += m.recv(1000) == b""
                assert closed >= 20
            finally:
                for m in more:
                    m.close()
        eventually(s.alive)
        assert s.counters()["payflow_grpc_refused_connections_total"] >= 20


# ---- stalls


def test_stalls_at_every_step():
    """Half of anything, and then nothing: gone when its time is over; others are served meanwhile."""
    with serving(handshake_ms=500, header_ms=500, deadline_max_ms=700, write_ms=700, idle_s=1,
                 grace_s=1) as s:
        hands = []
        for half in b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS)[:5]:
            hands.append(Hand(s, begin=False))
            hands[-1].send(half)
        for make in (lambda h: h.head(flags=0), lambda h: h.head()[:-3], lambda h: h.head(),
                     lambda h: h.head() + frame(DATA, 0, 1, b"\0\0\0\1\0half"),
                     lambda h: h.head() + frame(DATA, END_STREAM, 1, message(Ask(text="x" * 50)))[:30],
                     lambda h: frame(SETTINGS)[:4]):
            hands.append(Hand(s))
            hands[-1].send(make(hands[-1]))
        assert s.alive()
        for h in hands:
            h.goaway(15)
        assert s.alive()


def test_leaving_in_two_steps():
    """First a GOAWAY that refuses nothing, so that calls on their way arrive; then one that says which did."""
    with serving(idle_s=1, grace_s=20) as s, Hand(s) as h:
        h.send(h.ask(Ask()))
        h.answer(1)
        last = []
        for kind, _, _, payload in h.frames(10):
            if kind == GOAWAY:
                last.append(int.from_bytes(payload[:4], "big"))
                if len(last) == 1:
                    h.send(h.ask(Ask(text="late")))
        assert h.over and last == [0x7FFFFFFF, 3]


def test_a_client_that_answers_no_ping():
    with serving(keepalive_s=1, keepalive_ms=500) as s, Hand(s) as h:
        h.send(h.head("/grpc.health.v1.Health/Watch") + frame(DATA, 0, 1, message(b"")))  # a call that lives
        h.goaway(15)
        assert s.alive()


# ---- windows and unread answers


def test_windows_that_never_open(server):
    """100 calls with answers of 1 MB each and no window for them: answers beyond the connection's memory are not kept."""
    with unharmed(server), Hand(server, settings=[(4, 0)]) as h:
        for _ in range(100):
            h.send(h.ask(Ask(answer_bytes=1_000_000), extra=[("grpc-timeout", "2S")]))
        statuses, resets, ended = [], 0, set()
        for kind, flags, stream, payload in h.frames(10):
            if kind == HEADERS:
                statuses += [v for k, v in h.decoder.decode(payload) if k == "grpc-status"]
            resets += kind == RST
            if stream and (kind == RST or flags & END_STREAM):
                ended.add(stream)
            if len(ended) == 100:
                break
        refused = statuses.count("8") + statuses.count("13")  # before it was taken, or RPC_INTERNAL: the answer has no room
        assert refused >= 80
        assert resets == 100 - refused > 0  # the others, when their deadline was over
        assert len(ended) == 100


def test_one_byte_at_a_time(server):
    with unharmed(server), Hand(server, settings=[(4, 1)]) as h:
        h.send(h.ask(Ask(answer_bytes=3_000_000), extra=[("grpc-timeout", "2S")]))
        for _ in range(500):
            h.send(frame(WINDOW, 0, 1, struct.pack(">I", 1)))
            time.sleep(0.002)
        got = h.answer(1)
        assert got.get("rst") == 8 and "grpc-status" not in got


def test_answers_that_nobody_reads():
    """The window is wide open and the socket full."""
    with serving(write_ms=1000, deadline_max_ms=5000) as s, unharmed(s), \
            Hand(s, settings=[(4, 0x7FFFFFFF)]) as h:
        h.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        h.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7FFF0000 - 65535)))
        for _ in range(60):
            h.send(h.ask(Ask(answer_bytes=1_000_000)))
        eventually(lambda: s.counters()["payflow_grpc_connections"] == 1)


def test_requests_that_only_grow(server):
    """100 streams, each of which has sent 1 MB of a message of 4 MB."""
    with unharmed(server), Hand(server) as h:
        piece = b"x" * 16000
        heads = b"".join(h.head() for _ in range(100))
        h.send(heads)
        first = b"\0" + struct.pack(">I", 4_000_000)
        for stream in range(1, 200, 2):
            if not h.send(frame(DATA, 0, stream, first)):
                break
        h.s.setblocking(False)
        end, sent = time.monotonic() + 6, 0
        data = b""
        while time.monotonic() < end and sent < 100_000_000:
            if not data:
                data = b"".join(frame(DATA, 0, stream, piece) for stream in range(1, 200, 2))
            try:
                n = h.s.send(data)
                data, sent = data[n:], sent + n
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        assert server.alive()


def test_two_hundred_hostile_clients_at_once(server):
    with unharmed(server):
        hands = [Hand(server) for _ in range(200)]
        for h in hands:
            h.send(h.ask(Ask(delay_ms=1000), LATER) + h.head() + frame(DATA, 0, 3, message(Ask(text="x" * 500))[:100]))
        with server.channel() as c:
            for _ in range(20):
                began = time.monotonic()
                assert method(c, SAY)(Ask(text="me"), timeout=20).text == "me"
                assert time.monotonic() - began < 5
        for h in hands:
            h.s.close()


def test_the_server_does_not_spin(server):
    """After all this."""
    before = server.cpu_s()
    time.sleep(1.0)
    assert server.cpu_s() - before < 0.3
    with server.channel() as c, pytest.raises(grpc.RpcError):
        method(c, "/x/y")(Ask(), timeout=20)
