"""SIGTERM: readiness first, then the requests that have begun, within SHUTDOWN_TIMEOUT."""
import json
import signal
import socket
import time

from harness import eventually, new_user, ok

HEAD = "POST /api/transactions/deposit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


def begin(server, body, sent):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    s.sendall(HEAD.format(len(body)).encode() + body[:sent])
    return s


def test_a_body_on_its_way_is_waited_for(fresh):
    server = fresh()
    u = new_user(server)
    body = json.dumps({"user_id": u.id, "amount": 5}).encode()
    s = begin(server, body, 10)
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    s.sendall(body[10:])
    assert s.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert server.process.wait(10) == 0
    server.start()
    assert ok(server.client().get(f"/api/balances?user_id={u.id}"))["balance"] == 5


def test_a_body_that_never_comes_is_not(fresh):
    server = fresh(env={"SHUTDOWN_TIMEOUT": "2"})
    s = begin(server, b"x" * 100, 1)
    time.sleep(0.1)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert 1.5 < time.monotonic() - start < 10
    s.close()


def test_idle_connections_keep_nobody_waiting(fresh):
    server = fresh()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - start < 10
    for s in idle:
        s.close()


def test_readiness_fails_first(fresh):
    server = fresh()
    c = server.client()
    ok(c.get("/health/ready"))
    server.process.send_signal(signal.SIGTERM)
    answer = eventually(lambda: (r := c.get("/health/ready")).status_code == 503 and r, every=0.005)
    assert answer.json()["draining"] is True
    assert c.get("/health/live").status_code == 200
    c.close()
    assert server.process.wait(20) == 0


def test_clients_that_hang_up_in_mid_body_keep_nobody_waiting(fresh):
    """Their end often comes together with the piece of body, so that it is not seen by reading."""
    server = fresh()
    gone = [begin(server, b"x" * 100, 10) for _ in range(50)]
    for s in gone:
        s.shutdown(socket.SHUT_WR)
    for s in gone:
        s.settimeout(5)
        assert s.recv(100) == b""
        s.close()
    for _ in range(20):
        s = begin(server, b"x" * 100, 10)
        s.shutdown(socket.SHUT_WR)
        s.close()
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - start < 5
