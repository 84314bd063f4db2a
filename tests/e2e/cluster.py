"""The stack of deploy/, started by a test on ports of its own, and what can be done to its parts."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

import harness
from harness import BIN, ROOT
from postgres import BIN as PG_BIN

PORTS = {"db-master": [5432], "db-replica1": [5433], "db-replica2": [5434], "redis-master": [6379], "redis-replica": [6380],
         "app1": [8081], "app2": [8082], "prometheus": [9090], "nginx": [80, 443, 8080]}
# Those that leave every port below the ones that the system hands out by itself.
OFFSETS = range(10000, 23000, 20)


def taken(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_offset(ports_of, offsets):
    """One that leaves every port free."""
    for offset in random.sample(offsets, 200):
        ports = [p + offset for some in ports_of.values() for p in some]
        if not any(taken(p) for p in ports) and all(harness.claim(p) for p in ports):
            return offset
    raise AssertionError("no room for a stack")


def mentions(text):
    """The processes whose command line names it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append((int(entry.name), line))
    return found


def alive(pid):
    """A zombie is not: whose it became looks after it in its own time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Stack:
    PORTS, OFFSETS, FRONT = PORTS, OFFSETS, "nginx"

    def __init__(self, parent=None):
        self.home = Path(tempfile.mkdtemp(prefix="payflow-stack-", dir=parent))
        self.home.chmod(0o755)  # PostgreSQL runs as another user when root starts it
        self.dir = self.home / "stack"
        self.offset = free_offset(self.PORTS, self.OFFSETS)
        self.env = {}
        self.pids = {}

    def __call__(self, *words, code=0, **env):
        r = subprocess.run([str(ROOT / "deploy" / "stack" / "stack"), *words], capture_output=True, text=True, timeout=240, check=False,
                           env={**os.environ, "STACK_DIR": str(self.dir), "STACK_OFFSET": str(self.offset), "STACK_BIN": BIN, **env})
        assert r.returncode == code, f"stack {' '.join(words)}: {r.returncode}\n{r.stdout}{r.stderr}\n{self.logs() if code == 0 else ''}"
        return r

    def logs(self):
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text("utf-8", "replace").splitlines()[-12:])
                         for p in sorted(self.dir.glob("logs/*.log")))

    def port(self, part, n=0):
        return self.PORTS[part][n] + self.offset

    def parts(self):
        r = subprocess.run([str(ROOT / "deploy" / "stack" / "stack"), "status", "--json"], capture_output=True, text=True, timeout=60,
                           check=False, env={**os.environ, "STACK_DIR": str(self.dir)})
        return {p["part"]: p for p in json.loads(r.stdout)["parts"]}

    def client(self, part=None, n=0, key=None, scheme="http"):
        headers = {"X-API-Key": key} if key else {}
        verify = str(self.dir / "conf" / "nginx" / "cert.pem") if scheme == "https" else harness.TRUST
        return httpx.Client(base_url=f"{scheme}://localhost:{self.port(part or self.FRONT, n)}", headers=headers, timeout=30,
                            trust_env=False, verify=verify)

    @property
    def key(self):
        return (self.dir / "secrets" / "operator.key").read_text().strip()

    def psql(self, part, sql, database="payflow"):
        r = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port(part)), "-U", "postgres",
                            "-d", database, "-c", sql], capture_output=True, text=True, timeout=30, check=False,
                           env={"PATH": os.environ["PATH"], "PGPASSFILE": str(self.dir / "secrets" / "pgpass")})
        return r.stdout.strip() if r.returncode == 0 else r.stderr

    def redis(self, part, *commands):
        """The raw answers, one line or bulk each."""
        out = []
        with socket.create_connection(("127.0.0.1", self.port(part)), timeout=5) as s, s.makefile("rwb") as f:
            for command in commands:
                f.write(command.encode() + b"\r\n")
                f.flush()
                line = f.readline().decode().strip()
                out.append(f.read(int(line[1:]) + 2).decode().strip() if line.startswith("$") and line != "$-1" else line)
        return out

    def nothing_left(self):
        assert not self.dir.exists()
        assert not mentions(str(self.dir))
        assert not [p for p in self.pids if alive(p)]
        assert not [p + self.offset for ports in self.PORTS.values() for p in ports if taken(p + self.offset)]


def descendants(pid):
    """Its children and theirs: those of PostgreSQL lead sessions of their own."""
    try:
        below = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return below + [p for b in below for p in descendants(b)]


def quick_room():
    """A folder in memory if there is plenty: what is killed here keeps what it wrote, and servers are copied again and again."""
    room = Path("/dev/shm")
    if room.is_dir() and os.access(room, os.W_OK):
        s = os.statvfs(room)
        if s.f_bavail * s.f_frsize >= 8 << 30 and not s.f_flag & os.ST_NOEXEC:
            return room
    return None


class Whole(Stack):
    """A stack whose parts are killed, frozen and promoted, and whose books are read afterwards. Without limits of rate."""
    DATABASES = ("db-master", "db-replica1", "db-replica2")
    APPS = ("app1", "app2")

    def __init__(self):
        super().__init__(quick_room())
        try:
            self("up", STACK_RATE="0")
        except BaseException:
            self.close()
            raise

    def close(self):
        self("down")
        shutil.rmtree(self.home)

    # ---- faults ----

    def pid(self, part):
        return int((self.dir / "run" / f"{part}.pid").read_text().split()[0])

    def _signal(self, part, sig):
        pid = self.pid(part)
        os.kill(pid, sig)  # first, so that it makes no new ones
        for p in descendants(pid):
            try:
                os.kill(p, sig)
            except ProcessLookupError:
                pass

    def kill9(self, *parts):
        for part in parts:
            pid = self.pid(part)
            below = descendants(pid)
            self._signal(part, signal.SIGKILL)
            for p in below:  # of a parent that is gone the children cannot be asked for any more
                try:
                    os.kill(p, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            harness.eventually(lambda pids=(pid, *below): not any(alive(p) for p in pids))

    def freeze(self, *parts):
        for part in parts:
            self._signal(part, signal.SIGSTOP)

    def thaw(self, *parts):
        for part in parts:
            self._signal(part, signal.SIGCONT)

    def buried(self, database):
        """A server that was killed waits at its next start for who has yet to bury it."""
        assert not alive(self.pid(database))
        (self.dir / "data" / database / "postmaster.pid").unlink(missing_ok=True)

    def start(self, *parts):
        for part in parts:
            if part in self.DATABASES:
                self.buried(part)
            self("start", part)

    def primary(self):
        """Of those that run."""
        found = [d for d in self.DATABASES if alive(self.pid(d)) and self.psql(d, "SELECT pg_is_in_recovery()") == "f"]
        assert len(found) == 1, found
        return found[0]

    def promote(self):
        """The most advanced standby; its name."""
        where = "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')"
        reached = {d: int(self.psql(d, where)) for d in self.DATABASES
                   if alive(self.pid(d)) and self.psql(d, "SELECT pg_is_in_recovery()") == "t"}
        chosen = max(reached, key=reached.get)
        assert self.psql(chosen, "SELECT pg_promote(true, 30)") == "t"
        return chosen

    def start_as_it_was(self, part, *options):
        """A server that was killed, was the primary and believes that it is; it waits for no standby. The caller ends it."""
        self.buried(part)
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        with open(self.dir / "logs" / f"{part}.log", "ab") as log:
            process = subprocess.Popen([PG_BIN / "postgres", "-c", f"config_file={self.dir}/conf/{part}.conf", "-D",
                                        self.dir / "data" / part, "-c", "synchronous_standby_names=", *options], cwd="/",
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **user)
        harness.eventually(lambda: self.psql(part, "SELECT pg_is_in_recovery()") == "f", timeout=20)
        return process

    def served_by(self, request_id):
        """The instance that NGINX chose for the request of this id: its access log has it."""
        def named():
            return [a for a in self.APPS if request_id in (self.dir / "logs" / f"{a}.log").read_text("utf-8", "replace")]
        return harness.eventually(named)[0]

    def reads_of(self, replica):
        """How many reads the instances have had answered by it; they name it by its number."""
        name, total = f'payflow_db_replica_reads_total{{replica="{replica[-1]}"}}', 0.0
        for app in self.APPS:
            with self.client(app) as c:
                total += sum(float(line.split()[-1]) for line in c.get("/metrics").text.splitlines() if line.startswith(name))
        return total

    # ---- callers ----

    def users(self, n):
        """New ones, each with (id, API key)."""
        def make(_):
            name = harness.unique("caller")
            with self.client() as c:
                r = c.post("/api/users", json={"username": name, "email": f"{name}@example.com", "password": harness.PASSWORD})
                assert r.status_code == 201, r.text
                key = c.post("/api/login", json={"username": name, "password": harness.PASSWORD})
                assert key.status_code == 200, key.text
                return r.json()["id"], key.json()["api_key"]
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(make, range(n)))

    # ---- the books ----

    def settings(self, database):
        """The settings of an instance, of that database server alone, for a command."""
        text = (self.dir / "conf" / "app1.env").read_text()
        env = dict(line.split("=", 1) for line in text.splitlines() if line)
        for name in [n for n in env if n.startswith("DB_READ_")]:
            del env[name]
        env |= {"DB_HOST": "127.0.0.1", "DB_PORT": str(self.port(database)), "JWT_SECRET": None}
        return harness.environment(**env)

    def export(self):
        return harness.export(self.home / "unused", self.settings(self.primary()))

    def verify(self, standbys=False):
        """The books prove themselves on the primary, and on each standby as far as it has come."""
        primary = self.primary()
        assert self.psql(primary, "SELECT count(*) FROM (SELECT currency FROM account GROUP BY 1 HAVING sum(balance) <> 0) x") == "0"
        for database in self.DATABASES:
            if database == primary or (standbys and alive(self.pid(database))):
                r = harness.cli("verify", "--data", self.home / "unused", env=self.settings(database))
                assert r.returncode == 0, f"{database}: {r.stdout}{r.stderr}"
