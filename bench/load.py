"""Load on a server: wrk for many small requests, threads with ready-made bytes for large ones."""

import json
import random
import socket
import sys
import tempfile
import threading
import time

from common import HERE, sh

BATCH = 8190


def wrk(url, script, *args, connections=64, seconds=8):
    threads = min(2, connections)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as whole:
        whole.write((HERE / script).read_text("utf-8") + (HERE / "result.lua").read_text("utf-8"))
        whole.flush()
        out = sh("wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", whole.name, url, "--", *args)
    result = json.loads(out.split("RESULT ", 1)[1].splitlines()[0])
    return {"rate": result["requests"] / (result["us"] / 1e6), "p50": result["p50_us"] / 1000,
            "p99": result["p99_us"] / 1000, "max": result["max_us"] / 1000, **result}


def transfers(server, users, connections=64, seconds=8):
    return wrk(server.url, "transfer.lua", server.key, server.first, users, connections=connections, seconds=seconds)


def reads(url, path, *headers, connections=64, seconds=8):
    """headers: name, value, name, value …"""
    return wrk(url, "get.lua", path, *headers, connections=connections, seconds=seconds)


def batch_request(server, users, seed, hot=None, size=BATCH):
    """One POST of that many transfers between random pairs, as bytes. hot: a user who takes part in every eighth."""
    r = random.Random(seed)
    items = []
    for i in range(size):
        a, b = r.sample(range(server.first, server.first + users), 2)
        if hot and i % 8 == 0:
            a, b = (hot, b) if i % 16 else (b, hot)
        items.append(f'{{"sender_id":{a},"receiver_id":{b},"amount":0.01}}')
    body = f'{{"atomic":false,"transactions":[{",".join(items)}]}}'.encode()
    head = (f"POST /api/transactions/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"X-API-Key: {server.key}\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


def read_answer(sock, view):
    """The bytes of one answer, in view; returns its length."""
    have, end = 0, None
    while end is None or have < end:
        got = sock.recv_into(view[have:])
        if got == 0:
            sys.exit("bench: the server closed a connection")
        have += got
        if end is None:
            head = bytes(view[:min(have, 4096)])
            if (at := head.find(b"\r\n\r\n")) >= 0:
                length = head[:at].lower().split(b"content-length:")[1].split(b"\r\n")[0]
                end = at + 4 + int(length)
    return end


def batches(server, requests, count, connections, size=BATCH):
    """Sends `count` of the requests, in turns; returns the rate of movements and the latencies in ms."""
    times, bad, lock = [], [], threading.Lock()

    def one(k):
        view = memoryview(bytearray(8 << 20))
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(k, count, connections):
                begin = time.perf_counter()
                sock.sendall(requests[i % len(requests)])
                n = read_answer(sock, view)
                took = (time.perf_counter() - begin) * 1000
                start = bytes(view[:min(n, 4096)])
                with lock:
                    times.append(took)
                    if not start.startswith(b"HTTP/1.1 201") or b'"failed":0,' not in start:
                        bad.append(start[:400])

    threads = [threading.Thread(target=one, args=(k,)) for k in range(connections)]
    begin = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    seconds = time.perf_counter() - begin
    if len(times) != count or bad:
        sys.exit(f"bench: of {count} batches {len(times)} were answered and {len(bad)} not in full: {bad[:1]}")
    times.sort()
    return {"rate": count * size / seconds, "p50": times[len(times) // 2], "max": times[-1], "seconds": seconds}
