"""What PayFlow is measured beside: PostgreSQL, NGINX, the disk itself; and what it runs on: Redis, RabbitMQ."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, ROOT, free_port, sh


class Postgres:
    """A throw-away PostgreSQL 15 cluster on a Unix socket; durable, otherwise as Debian ships it."""

    BIN = Path("/usr/lib/postgresql/15/bin")

    def __init__(self, folder, connections=100):
        self.folder = Path(folder)
        self.data = self.folder / "cluster"
        self.connections = connections  # at most; PostgreSQL's default
        self.running = False

    def run(self, *command):
        """As postgres when we are root, whom initdb refuses."""
        who = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return sh(*who, *command, cwd=self.folder)

    def start(self):
        self.folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self.run(self.BIN / "initdb", "-D", self.data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--no-locale")
        settings = (f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=on -c synchronous_commit=on"
                    f" -c max_connections={self.connections}")
        self.run(self.BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", settings, "start")
        self.running = True
        for schema in ("peer_schema.sql", "stock_schema.sql"):
            self.psql((HERE / schema).read_text("utf-8"))

    def psql(self, sql):
        """What it prints, rows as A|B."""
        return self.run(self.BIN / "psql", "-h", self.folder, "-U", "bench", "-d", "postgres", "-X", "-q", "-A", "-t", "-v",
                        "ON_ERROR_STOP=1", "-c", sql)

    def stop(self):
        if self.running:
            self.run(self.BIN / "pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")
            self.running = False

    def transfers(self, connections, seconds):
        return self.pgbench("peer.sql", connections, seconds)

    def pgbench(self, name, connections, seconds):
        """A script of this folder."""
        script = self.folder / name  # a copy, since postgres may not look into the clone
        shutil.copyfile(HERE / name, script)
        script.chmod(0o644)
        prefix = self.folder / "tx"
        out = self.run(self.BIN / "pgbench", "-h", self.folder, "-U", "bench", "-n", "-M", "prepared", "-c", connections,
                       "-j", 2, "-T", seconds, "-f", script, "-l", "--log-prefix", prefix, "postgres")
        rate = next(float(l.split("=")[1].split()[0]) for l in out.splitlines() if l.startswith("tps ="))
        failed, done = (next(int(l.split(":")[1].split("/")[0].split()[0]) for l in out.splitlines() if what in l)
                        for what in ("failed transactions", "transactions actually processed"))
        logs = glob.glob(f"{prefix}.*")
        times = sorted(int(line.split()[2]) for name in logs for line in open(name, encoding="ascii"))
        for name in logs:
            os.unlink(name)
        self.psql("CHECKPOINT")
        return {"rate": rate, "done": done, "failed": failed, "p50": times[len(times) // 2] / 1000,
                "p99": times[len(times) * 99 // 100] / 1000}


class Redis:
    """A throw-away Redis that keeps nothing on disk."""

    def __init__(self, folder):
        self.folder, self.port, self.process = Path(folder), free_port(), None

    def start(self):
        self.folder.mkdir()
        self.process = subprocess.Popen(["/usr/bin/redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                                         "--appendonly", "no", "--dir", self.folder], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, "redis")

    def gets(self, clients, seconds):
        """GETs a second. redis-benchmark counts requests, not seconds, so it is told about as many as take that long."""
        out = sh("redis-benchmark", "-p", self.port, "-c", clients, "-n", 60000 * seconds, "-r", 100, "-d", 100, "-t", "set,get",
                 "--csv")
        return {"rate": next(float(line.split(",")[1].strip('"')) for line in out.splitlines() if line.startswith('"GET"'))}

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


class Rabbit:
    """A throw-away RabbitMQ, its queues on disk; run as the tests run theirs."""

    SCRIPT = ROOT / "tests" / "support" / "rabbit-server"

    def __init__(self, folder):
        self.folder, self.port, self.process = Path(folder), 0, None

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self):
        self.folder.mkdir()
        for _ in range(3):  # somebody else may take one of its three ports meanwhile: then it ends at once
            self.port = free_port(3)
            with open(self.folder / "out", "wb") as log:
                self.process = subprocess.Popen([self.SCRIPT, self.folder, str(self.port)], stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log, start_new_session=True)
            if answers(self.port, 60, self.process):
                return
            self.stop()
        sys.exit(f"bench: rabbitmq did not start:\n{(self.folder / 'out').read_text('utf-8', 'replace')[-2000:]}")

    def stop(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # it is thrown away
            self.process.wait()
            self.process = None
            sh(self.SCRIPT, self.folder, self.port, "stop")


class Nginx:
    """`return 200` with a fixed body, on two workers, without an access log."""

    CONF = """daemon off; worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{body}'; }} }}
}}
"""

    def __init__(self, folder, body):
        self.folder, self.port, self.process = Path(folder), free_port(), None
        self.folder.mkdir()
        (self.folder / "conf").write_text(self.CONF.format(dir=self.folder, port=self.port, body=body))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(["/usr/sbin/nginx", "-p", self.folder, "-c", self.folder / "conf"],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, "nginx")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def answers(port, seconds, process=None):
    """Whether somebody listens there within that time; the process: whose end ends the wait."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (process and process.poll() is not None):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.02)
    return False


def wait_for(port, what):
    if not answers(port, 10):
        sys.exit(f"bench: {what} did not start")


def disk_sync_ms(folder, count=4000):
    """4 KiB written over in a file that is all there, then fdatasync, again and again: the median of the pair, in ms."""
    path, pages = Path(folder) / "disk-probe", 1024
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for i in range(pages):
            os.pwrite(fd, os.urandom(4096), i * 4096)
        os.fsync(fd)
        page, times = os.urandom(4096), []
        for i in range(count):
            begin = time.perf_counter_ns()
            os.pwrite(fd, page, i % pages * 4096)
            os.fdatasync(fd)
            times.append(time.perf_counter_ns() - begin)
    finally:
        os.close(fd)
        path.unlink()
    times.sort()
    return times[count // 2] / 1e6
