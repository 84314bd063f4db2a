"""A PostgreSQL server of a test's own: a cluster in a directory, TCP on a free port, gone when the test is."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import harness

BIN = Path(os.environ.get("PG_BINDIR", "/usr/lib/postgresql/15/bin"))
PASSWORD = "sesame-open-7"


class Cluster:
    """Role payflow with PASSWORD owns the database payflow; the superuser comes in by the socket in self.dir."""

    def __init__(self, address="127.0.0.1"):
        """address: that it listens on, too."""
        self.addresses = {"127.0.0.1", address}
        self.dir = Path(tempfile.mkdtemp(prefix="payflow-pg-", dir="/tmp"))
        self.port = harness.free_port()
        self.process = None
        if os.getuid() == 0:
            shutil.chown(self.dir, "postgres")
        self._run("initdb", "-D", self.dir / "data", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust",
                  "-N")
        (self.dir / "data/pg_hba.conf").write_text("local all all trust\nhost all all samenet scram-sha-256\n")
        self.start()
        self.sql(f"CREATE ROLE payflow LOGIN PASSWORD '{PASSWORD}'", db="postgres")
        self.sql("CREATE DATABASE payflow OWNER payflow", db="postgres")

    @staticmethod
    def _user():
        return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}

    def _run(self, program, *args):
        return subprocess.run([BIN / program, *map(str, args)], cwd=self.dir, check=True, capture_output=True, text=True,
                              **self._user()).stdout

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [BIN / "postgres", "-D", self.dir / "data", "-k", self.dir, "-p", str(self.port), "-c", "fsync=off",
                 "-c", f"listen_addresses={','.join(self.addresses)}", "-c", "max_connections=120",
                 "-c", "dynamic_shared_memory_type=mmap"],
                cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._user())
        end = time.monotonic() + 20
        while subprocess.run([BIN / "pg_isready", "-q", "-h", self.dir, "-p", str(self.port)], check=False).returncode:
            assert time.monotonic() < end and self.process.poll() is None, (self.dir / "log").read_text()
            time.sleep(0.05)

    def sql(self, text, db="payflow"):
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p", self.port, "-d",
                         db, "-c", text).strip()

    def dump(self, db="payflow"):
        return self._run("pg_dump", "-h", self.dir, "-p", self.port, "-U", "postgres", db)

    def use_tls(self, cert, key):
        """From now on connections by TCP need it."""
        for source, name in ((cert, "server.crt"), (key, "server.key")):
            target = self.dir / "data" / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(target, "postgres")
        (self.dir / "data/pg_hba.conf").write_text("local all all trust\nhostssl all all samenet scram-sha-256\n")
        self.sql("ALTER SYSTEM SET ssl = on", db="postgres")
        self.sql("SELECT pg_reload_conf()", db="postgres")

    def _signal(self, sig):
        """To the server, which then makes no new ones, and to its processes."""
        self.process.send_signal(sig)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            try:
                os.kill(int(pid), sig)
            except ProcessLookupError:
                pass

    def kill9(self):
        self._signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self):
        self._signal(signal.SIGSTOP)

    def thaw(self):
        self._signal(signal.SIGCONT)

    def close(self):
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill9()
        try:  # one that was killed leaves the System V segment by which it kept others out
            segment = (self.dir / "data/postmaster.pid").read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)
        except (OSError, IndexError):
            pass
        shutil.rmtree(self.dir, ignore_errors=True)

    def env(self, **extra):
        """The settings of a payflow that uses it."""
        return {"DB_HOST": "127.0.0.1", "DB_PORT": str(self.port), "DB_USER": "payflow", "DB_PASSWORD": PASSWORD,
                "DB_NAME": "payflow", **extra}


class Replica(Cluster):
    """A hot standby that streams from another one."""

    def __init__(self, of):  # pylint: disable=super-init-not-called
        self.dir = Path(tempfile.mkdtemp(prefix="payflow-pg-", dir="/tmp"))
        self.addresses = {"127.0.0.1"}
        self.port = harness.free_port()
        self.process = None
        if os.getuid() == 0:
            shutil.chown(self.dir, "postgres")
        with open(of.dir / "data/pg_hba.conf", "a", encoding="ascii") as hba:
            hba.write("local replication all trust\n")
        of.sql("SELECT pg_reload_conf()")
        self._run("pg_basebackup", "-h", of.dir, "-p", of.port, "-U", "postgres", "-D", self.dir / "data", "-X", "stream",
                  "-c", "fast", "-R", "-N")
        self.start()
