"""`payflow serve` as the thing to be measured."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from common import BINARY, free_port

PASSWORD = "bench-password"
START_AMOUNT = "1000000.00"


class Payflow:
    """A server on its own data directory, with the shipped settings but for cheap password hashes."""

    def __init__(self, data):
        self.data, self.port = Path(data), free_port()
        self.env = {"PATH": os.environ["PATH"], "BCRYPT_COST": "4", "ENV": "dev", "GATEWAY_LISTEN": "off", "GRPC_LISTEN": "off"}
        self.log = self.data.with_suffix(".log")
        self.flags = []
        self.process = None
        self.key = None
        self.first = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Returns the seconds from exec to the first 200 of /health/ready."""
        request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with self.log.open("ab") as log:
            begin = time.monotonic()
            self.process = subprocess.Popen(
                [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.data, *self.flags],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while time.monotonic() - begin < 30:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                s.sendall(request)
                if s.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - begin
            if self.process.poll() is not None:
                break
            time.sleep(0.0005)
        sys.exit(f"bench: payflow did not get ready:\n{self.log.read_text('utf-8', 'replace')[-2000:]}")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode if self.process else None

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def call(self, connection, method, path, body=None, anonymous=False):
        send = {"Content-Type": "application/json"} | ({"X-API-Key": self.key} if self.key and not anonymous else {})
        connection.request(method, path, json.dumps(body) if body is not None else None, send)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            sys.exit(f"bench: {method} {path} answered {answer.status}: {text[:300]!r}")
        return json.loads(text)

    def populate(self, users):
        """An admin with a key, and that many funded users, whose ids run without a gap from self.first."""
        c = self.connect()
        self.call(c, "POST", "/api/users", {"username": "bench", "email": "bench@example.com", "password": PASSWORD,
                                            "role": "admin"})
        self.key = self.call(c, "POST", "/api/login", {"username": "bench", "password": PASSWORD})["api_key"]
        ids = [self.call(c, "POST", "/api/users", {"username": f"u{i}", "email": f"u{i}@example.com",
                                                   "password": PASSWORD})["id"] for i in range(users)]
        if ids != list(range(ids[0], ids[0] + users)):
            sys.exit("bench: user ids are not consecutive")
        for i in ids:
            self.call(c, "POST", "/api/transactions/deposit", {"user_id": i, "amount": START_AMOUNT})
        self.first = ids[0]

    def journal_head(self):
        """The newest journal entry's number, from the API."""
        return self.call(self.connect(), "GET", "/api/transactions?limit=1")["data"][0]["id"]

    def metrics(self):
        """Each sample of /metrics, by its name, labels and all."""
        c = self.connect()
        c.request("GET", "/metrics", headers={"X-API-Key": self.key})
        text = c.getresponse().read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def disk_bytes(self):
        return sum(f.stat().st_size for f in self.data.iterdir() if f.is_file())


def command(data, *words, env=None):
    """payflow WORDS on a data directory, or on what env says: its JSON, the seconds it took, the most memory it had in MiB."""
    begin = time.monotonic()
    p = subprocess.Popen([BINARY, *words, "--data", str(data), "-o", "json"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env=env or {"PATH": os.environ["PATH"], "ENV": "dev"})
    out, err = p.stdout.read(), p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        sys.exit(f"bench: payflow {' '.join(words)} ended with {p.returncode}:\n{out[-2000:]}{err[-2000:]}")
    return json.loads(out), time.monotonic() - begin, usage.ru_maxrss / 1024
