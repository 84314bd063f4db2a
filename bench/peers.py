"""What PayFlow is measured beside: PostgreSQL, NGINX, and the disk itself."""

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, free_port, sh


class Postgres:
    """A throw-away PostgreSQL 15 cluster on a Unix socket; durable, otherwise as Debian ships it."""

    BIN = Path("/usr/lib/postgresql/15/bin")

    def __init__(self, folder):
        self.folder = Path(folder)
        self.data = self.folder / "cluster"
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
        settings = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=on -c synchronous_commit=on"
        self.run(self.BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", settings, "start")
        self.running = True
        self.psql((HERE / "peer_schema.sql").read_text("utf-8"))

    def psql(self, sql):
        return self.run(self.BIN / "psql", "-h", self.folder, "-U", "bench", "-d", "postgres", "-X", "-q", "-v",
                        "ON_ERROR_STOP=1", "-c", sql)

    def stop(self):
        if self.running:
            self.run(self.BIN / "pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")
            self.running = False

    def transfers(self, connections, seconds):
        script = self.folder / "peer.sql"  # a copy, since postgres may not look into the clone
        shutil.copyfile(HERE / "peer.sql", script)
        script.chmod(0o644)
        prefix = self.folder / "tx"
        out = self.run(self.BIN / "pgbench", "-h", self.folder, "-U", "bench", "-n", "-M", "prepared", "-c", connections,
                       "-j", 2, "-T", seconds, "-f", script, "-l", "--log-prefix", prefix, "postgres")
        rate = next(float(l.split("=")[1].split()[0]) for l in out.splitlines() if l.startswith("tps ="))
        failed = next(int(l.split(":")[1].split()[0]) for l in out.splitlines() if "failed transactions" in l)
        logs = glob.glob(f"{prefix}.*")
        times = sorted(int(line.split()[2]) for name in logs for line in open(name, encoding="ascii"))
        for name in logs:
            os.unlink(name)
        self.psql("CHECKPOINT")
        return {"rate": rate, "failed": failed, "p50": times[len(times) // 2] / 1000,
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


def wait_for(port, what):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
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
