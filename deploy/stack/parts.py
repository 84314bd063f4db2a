"""The parts of the stack: how each is prepared, started, asked whether it is ready, and stopped."""
import contextlib
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from machine import (AM_ROOT, HOST, Failure, alive, children_of, fill, get, port_taken, proc_stat, reap, say, send, session_members,
                     until, write_file)

DEPLOY = Path(__file__).resolve().parents[1]
PG_BIN = Path("/usr/lib/postgresql/15/bin")
DATABASES = ("db-master", "db-replica1", "db-replica2")


class Part:
    user = None  # whom it runs as when root starts it; None: root itself
    stop_signal = signal.SIGTERM
    stop_seconds = 20
    ready_seconds = 30

    def __init__(self, stack, name, *ports):
        self.stack = stack
        self.name = name
        self.ports = [p + stack.offset for p in ports]
        self.log = stack.dir / "logs" / f"{name}.log"
        self.pid_file = stack.dir / "run" / f"{name}.pid"
        self.data = stack.dir / "data" / name

    @property
    def port(self):
        return self.ports[0]

    def ids(self):
        """(uid, gid) that the part's files belong to."""
        if not AM_ROOT or self.user is None:
            return os.geteuid(), os.getegid()
        try:
            entry = pwd.getpwnam(self.user)
        except KeyError:
            raise Failure(f"there is no user {self.user}; is the package of {self.name} installed?") from None
        return entry.pw_uid, entry.pw_gid

    def as_user(self):
        """What subprocess needs to run something as the part's user."""
        if not AM_ROOT or self.user is None:
            return {}
        uid, gid = self.ids()
        return {"user": uid, "group": gid, "extra_groups": []}

    def recorded(self):
        """(pid, start time) of the process that was started last, or None."""
        try:
            pid, begun = self.pid_file.read_text("ascii").split()
            return int(pid), int(begun)
        except (OSError, ValueError):
            return None

    def pids(self):
        """What of it lives: the process that was started, then the rest of its session, even if the first is gone."""
        record = self.recorded()
        if not record:
            return []
        pid, begun = record
        stat = proc_stat(pid)
        if stat and stat[3] != begun:
            return []  # the number belongs to somebody else now
        members = session_members(pid)
        return sorted(members, key=lambda p: p != pid)

    def running(self):
        record = self.recorded()
        return bool(record) and alive(record[0]) and (proc_stat(record[0]) or (0,) * 4)[3] == record[1]

    def spawn(self, argv, env=None):
        # The sanitizers' options go to what may have been built with them.
        keep = {k: v for k, v in os.environ.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **keep, **(env or {})}, umask=0o077,
                **self.as_user())
        stat = proc_stat(process.pid)
        self.pid_file.write_text(f"{process.pid} {stat[3] if stat else 0}\n", "ascii")
        process.returncode = 0  # it outlives this program; reap() and not Popen looks after it

    def prepare(self):
        """Its files, before each start."""

    def launch(self):
        raise NotImplementedError

    def ready(self):
        raise NotImplementedError

    def role(self):
        return ""

    def check_ports(self):
        for port in self.ports:
            if not AM_ROOT and port < 1024:
                raise Failure(f"{self.name}: port {port} needs root; set STACK_OFFSET, to 10000 say")
            if port_taken(port):
                raise Failure(f"{self.name}: port {port} is taken; STACK_OFFSET moves all ports")

    def start(self):
        for pid in self.pids():  # what outlived a killed parent holds the port
            send([pid], signal.SIGKILL)
        until(lambda: not self.pids(), 5)
        self.check_ports()
        self.prepare()
        self.launch()

    def await_ready(self):
        def settled():
            reap()
            return self.ready() or not self.running()
        if not until(settled, self.ready_seconds) or not self.running():
            what = "is not ready after %d s" % self.ready_seconds if self.running() else "ended"
            raise Failure(f"{self.name} {what}", self)

    def ask_to_stop(self):
        if self.running():
            pid = self.recorded()[0]
            send([pid], self.stop_signal)
            send([pid, *children_of(pid)], signal.SIGCONT)  # a stopped one hears nothing

    def await_stop(self):
        """False: it had to be killed."""
        def gone():
            reap()
            return not self.running()
        by_itself = until(gone, self.stop_seconds, 0.02)
        if not by_itself:
            say(f"stack: {self.name} did not end within {self.stop_seconds} s; killed")
        record = self.recorded()
        # PostgreSQL's children lead sessions of their own.
        rest = self.pids() + (children_of(record[0]) if self.running() else [])
        send(rest, signal.SIGKILL)
        until(lambda: reap() or not any(map(alive, rest)), 5, 0.02)
        self.pid_file.unlink(missing_ok=True)
        return by_itself

    def stop(self):
        self.ask_to_stop()
        return self.await_stop()

    def folder(self, path, mode=0o700):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, *self.ids())

    def write(self, path, text):
        return write_file(path, text, self.ids())


class Database(Part):
    user = "postgres"
    stop_signal = signal.SIGINT  # fast: open transactions are rolled back
    ready_seconds = 60
    patience_seconds = 20  # with a primary that does not answer

    def sql(self, text, database="postgres", timeout=5):
        """The answer of psql, one line a row, fields parted by |; None if it could not ask."""
        env = {"PATH": "/usr/bin:/bin", "PGPASSFILE": str(self.stack.dir / "secrets" / "pgpass"), "PGCONNECT_TIMEOUT": "3",
               "PGOPTIONS": "-c synchronous_commit=local"}  # of bookkeeping here; what instances write waits for a replica
        try:
            r = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(self.port), "-U", "postgres",
                                "-d", database], input=text, env=env, text=True, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return None
        return r.stdout.strip() if r.returncode == 0 else None

    def tool(self, *argv, timeout=120):
        env = {"PATH": f"{PG_BIN}:/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSFILE": str(self.stack.dir / "secrets" / "postgres-pgpass")}
        r = subprocess.run([str(PG_BIN / argv[0]), *map(str, argv[1:])], env=env, text=True, capture_output=True, cwd="/",
                           timeout=timeout, check=False, **self.as_user())
        if r.returncode != 0:
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(r.stdout + r.stderr)
            raise Failure(f"{self.name}: {argv[0]} failed", self)
        return r.stdout

    @property
    def exists(self):
        return (self.data / "PG_VERSION").exists()

    @property
    def standby(self):
        return (self.data / "standby.signal").exists()

    def timeline(self):
        text = self.tool("pg_controldata", self.data)
        # The second is there at once when it is promoted, the first after its next checkpoint.
        return max(int(re.search(name + r": +(\d+)", text)[1])
                   for name in ("Latest checkpoint's TimeLineID", "Min recovery ending loc's timeline"))

    def find_primary(self):
        """The one there is; None: this one may be it. Never because another one is slow to answer, or down for a moment."""
        rivals = [d for d in self.stack.databases() if d is not self and d.exists and not d.standby]
        running = [d for d in rivals if d.running()]
        if running:
            primary = until(self.stack.primary, self.patience_seconds)
            if not primary:
                raise Failure(f"{self.name}: {running[0].name} runs, may be the primary, and does not answer")
            return primary
        later = [d for d in rivals if self.exists and not self.standby and d.timeline() > self.timeline()]
        if later:
            raise Failure(f"{self.name}: {later[0].name} was the primary after it; start that one first")
        return None

    def prepare(self):
        primary = self.find_primary()
        if self.exists and not self.standby and primary:
            say(f"stack: {self.name} was primary before {primary.name}; it is copied anew")
            shutil.rmtree(self.data)
        if not self.exists:
            self.folder(self.data)
            if primary:
                self.tool("pg_basebackup", "-D", self.data, "-h", HOST, "-p", primary.port, "-U", "replicator", "-X", "stream",
                          "-c", "fast", "--no-password", timeout=600)
                self.write(self.data / "standby.signal", "")
            elif not any(d.exists for d in self.stack.databases()):
                self.tool("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256",
                          f"--pwfile={self.stack.dir}/secrets/postgres-superuser")
            else:
                raise Failure(f"{self.name} has nothing to copy from: no primary runs")
        ports = ",".join(str(d.port) for d in self.stack.databases())
        hosts = ",".join([HOST] * len(DATABASES))
        conf = self.stack.dir / "conf"
        hba = self.write(conf / f"{self.name}.hba", "".join(
            f"host {database} {role} {HOST}/32 scram-sha-256\n"
            for database, role in (("payflow", "payflow"), ("all", "postgres"), ("replication", "replicator"))))
        # A replica follows whichever of the three is the primary.
        self.write(conf / f"{self.name}.conf", (DEPLOY / "postgres" / "payflow.conf").read_text("utf-8") + f"""
listen_addresses = '{HOST}'
port = {self.port}
unix_socket_directories = ''
data_directory = '{self.data}'
hba_file = '{hba}'
cluster_name = '{self.name}'
dynamic_shared_memory_type = mmap
primary_conninfo = 'host={hosts} port={ports} user=replicator passfile={self.stack.dir}/secrets/postgres-pgpass application_name={self.name} target_session_attrs=primary connect_timeout=3'
""")

    def free_memory(self):
        """A postmaster that was killed leaves the System V segment by which it kept others out; its next start would free it."""
        with contextlib.suppress(OSError, IndexError):
            segment = (self.data / "postmaster.pid").read_text("ascii").splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)

    def launch(self):
        self.spawn([PG_BIN / "postgres", "-c", f"config_file={self.stack.dir}/conf/{self.name}.conf", "-D", self.data])

    def ready(self):
        if self.sql("SELECT 1") != "1":
            return False
        return not self.standby or self.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1"

    def is_primary(self):
        return self.running() and self.sql("SELECT pg_is_in_recovery()") == "f"

    def role(self):
        mine = self.sql("SELECT pg_is_in_recovery()")
        if mine == "f":
            rows = self.sql("SELECT application_name, state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)"
                            " FROM pg_stat_replication ORDER BY 1") or ""
            names = [f"{n} {state} ({sync}, {lag or '?'} bytes behind)"
                     for n, state, sync, lag in (row.split("|") for row in rows.splitlines())]
            return "primary; " + (", ".join(names) or "no replica: commits wait for one")
        if mine == "t":
            row = self.sql("SELECT sender_port, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
                           " FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            if not row:
                return "replica, follows nobody"
            port, lag = row.split("|")
            return f"replica of {port}, {lag or '?'} bytes behind"
        return "does not answer"


class Redis(Part):
    user = "redis"

    def __init__(self, stack, name, port, master=None):
        super().__init__(stack, name, port)
        self.master = master

    def prepare(self):
        self.folder(self.data)
        password = self.stack.secret("redis_password")
        text = (DEPLOY / "redis" / "payflow.conf").read_text("utf-8") + f"""
bind {HOST}
port {self.port}
dir {self.data}
requirepass {password}
masterauth {password}
daemonize no
"""
        if self.master:
            text += f"replicaof {HOST} {self.master.port}\n"
        self.write(self.stack.dir / "conf" / f"{self.name}.conf", text)

    def launch(self):
        self.spawn(["/usr/bin/redis-server", self.stack.dir / "conf" / f"{self.name}.conf"])

    def info(self):
        """INFO replication as a dict; empty if it does not answer."""
        try:
            with socket.create_connection((HOST, self.port), timeout=3) as s, s.makefile("rwb") as f:
                f.write(f"AUTH {self.stack.secret('redis_password')}\r\nINFO replication\r\n".encode())
                f.flush()
                if f.readline() != b"+OK\r\n":
                    return {}
                size = int(f.readline()[1:])
                lines = f.read(size).decode().splitlines()
        except (OSError, ValueError):
            return {}
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def ready(self):
        info = self.info()
        return bool(info) and (not self.master or info.get("master_link_status") == "up")

    def role(self):
        info = self.info()
        if not info:
            return "does not answer"
        if info["role"] == "master":
            return f"master of {info['connected_slaves']}"
        behind = int(info["slave_read_repl_offset"]) - int(info["slave_repl_offset"])
        return f"replica of {info['master_port']}, link {info['master_link_status']}, {behind} bytes behind"


class Instance(Part):
    user = "nobody"

    def settings(self):
        """The settings of deploy/instance.env.template, filled in."""
        databases = self.stack.databases()
        values = {"LISTEN": f"{HOST}:{self.port}", "TRUSTED_PROXIES": HOST, "DATA_DIR": self.data, "SECRETS": self.stack.dir / "secrets" / "app",
                  "DB_HOST": ",".join([HOST] * len(databases)), "DB_PORT": ",".join(str(d.port) for d in databases)}
        for n, replica in enumerate(databases[1:], 1):
            values |= {f"DB_READ_HOST_{n}": HOST, f"DB_READ_PORT_{n}": replica.port}
        text = fill((DEPLOY / "instance.env.template").read_text("utf-8"), values)
        return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))

    @property
    def binary(self):
        return self.stack.dir / "bin" / "payflow"

    def prepare(self):
        self.folder(self.data)
        own = self.stack.dir / "secrets" / "app"
        self.folder(own)
        for name in ("jwt_secret", "db_password"):
            self.write(own / name, self.stack.secret(name) + "\n")
        redis = self.stack.parts["redis-master"]
        self.write(own / "redis_url", f"redis://:{self.stack.secret('redis_password')}@{HOST}:{redis.port}\n")
        # A copy, which builds do not pull from under a running instance, and which its user can reach.
        fresh = self.binary.with_name("payflow.new")
        try:
            shutil.copyfile(self.stack.binary, fresh)
        except OSError as e:
            raise Failure(f"no binary at {self.stack.binary} ({e.strerror}); ./dev build makes it") from None
        fresh.chmod(0o755)
        fresh.rename(self.binary)
        self.write(self.stack.dir / "conf" / f"{self.name}.env", "".join(f"{k}={v}\n" for k, v in self.settings().items()))
        if self.stack.wants_admin and not (self.stack.dir / "secrets" / "operator.key").exists():
            self.create_admin()

    def launch(self):
        self.spawn([self.binary, "serve"], env=self.settings())

    def create_admin(self):
        """The first administrator; its password and key go to files of whoever runs this."""
        password = secrets.token_urlsafe(18)
        env = {"PATH": "/usr/bin:/bin", **self.settings()}
        r = subprocess.run([str(self.binary), "user", "create-admin", "--username", "operator", "--email", "operator@example.com",
                            "--api-key", "-o", "json"], input=password + "\n", env=env, text=True, capture_output=True, cwd="/",
                           timeout=60, check=False, **self.as_user())
        if r.returncode != 0:
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(r.stderr)
            raise Failure("payflow user create-admin failed", self)
        self.stack.keep_secret("operator.password", password)
        self.stack.keep_secret("operator.key", json.loads(r.stdout)["api_key"])

    def ready(self):
        return get(self.port, "/health/ready")[0] == 200

    def role(self):
        status, body = get(self.port, "/health")
        if not status:
            return "does not answer"
        with contextlib.suppress(ValueError):
            return json.loads(body)["status"]
        return f"HTTP {status}"


class Prometheus(Part):
    user = "prometheus"

    def prepare(self):
        folder = self.stack.dir / "conf" / "prometheus"
        self.folder(self.data)
        self.folder(folder)
        for name in ("prometheus.yml", "rules.yml"):
            self.write(folder / name, (DEPLOY / "prometheus" / name).read_text("utf-8"))
        self.write(folder / "targets.json", json.dumps([
            {"targets": [f"{HOST}:{i.port}"], "labels": {"instance": i.name}} for i in self.stack.instances()]))

    def launch(self):
        self.spawn(["/usr/bin/prometheus", f"--config.file={self.stack.dir}/conf/prometheus/prometheus.yml",
                    f"--storage.tsdb.path={self.data}", "--storage.tsdb.retention.time=7d",
                    f"--web.listen-address={HOST}:{self.port}"])

    def ready(self):
        return get(self.port, "/-/ready")[0] == 200

    def role(self):
        with contextlib.suppress(ValueError, KeyError):
            targets = json.loads(get(self.port, "/api/v1/targets?state=active")[1])["data"]["activeTargets"]
            return f"{sum(t['health'] == 'up' for t in targets)} of {len(targets)} instances scraped"
        return "does not answer"


class Nginx(Part):
    def prepare(self):
        folder, work = self.stack.dir / "conf" / "nginx", self.stack.dir / "data" / "nginx"
        self.folder(folder, 0o755)
        self.folder(work, 0o755)
        cert, key = folder / "cert.pem", folder / "key.pem"
        if not key.exists():
            self.folder(folder)
            r = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                                "-days", "825", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                                "-keyout", str(key), "-out", str(cert)], capture_output=True, text=True, umask=0o077, check=False)
            if r.returncode != 0:
                raise Failure(f"no certificate: {r.stderr.strip()}")
        values = {}
        for line in (DEPLOY / "nginx" / "defaults.env").read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.partition("=")
                values[name] = value.strip('"')
        listen = "" if self.stack.listen == "*" else self.stack.listen + ":"
        values |= {"LISTEN": listen, "STATUS_LISTEN": HOST + ":", "HTTP_PORT": self.ports[0], "HTTPS_PORT": self.ports[1],
                   "STATUS_PORT": self.ports[2], "TLS_CERT": cert, "TLS_KEY": key}
        values |= {f"APP{n}": f"{HOST}:{i.port}" for n, i in enumerate(self.stack.instances(), 1)}
        if self.stack.rate:
            values |= {"RATE_PER_S": self.stack.rate, "RATE_BURST": 2 * self.stack.rate}
        else:
            values |= dict.fromkeys(("RATE_PER_S", "RATE_BURST", "PASSWORD_RATE_PER_S", "PASSWORD_BURST"), 1000000)
        self.write(folder / "payflow.conf", fill((DEPLOY / "nginx" / "payflow.conf.template").read_text("utf-8"), values))
        temporary = "".join(f"    {kind}_temp_path {work}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.write(folder / "nginx.conf", ("user www-data;\n" if AM_ROOT else "") + f"""\
worker_processes auto;
worker_rlimit_nofile 16384;
daemon off;
pid {self.stack.dir}/run/nginx-master.pid;
error_log stderr warn;
events {{ worker_connections 8000; }}
http {{
    access_log {self.stack.dir}/logs/nginx-access.log combined buffer=32k flush=1s;
    tcp_nodelay on;
{temporary}    include {folder}/payflow.conf;
}}
""")

    def launch(self):
        self.spawn(["/usr/sbin/nginx", "-e", "stderr", "-c", self.stack.dir / "conf" / "nginx" / "nginx.conf"])

    def ready(self):
        return get(self.ports[2], "/nginx_status")[0] == 200

    def role(self):
        status, body = get(self.ports[2], "/nginx_status")
        return body.splitlines()[0].strip() if status == 200 else "does not answer"
