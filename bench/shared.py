"""The sections on a shared store: PostgreSQL, Redis, and two instances behind NGINX, each beside its peer."""

import json

import load
import peers
from common import COUNT, ROOT, free_port, median, note, of, sh, spread
from server import Payflow, command

USERS, CONNECTIONS, BATCH, WARM_UP_S = 1000, 64, 1000, 2


class Instance(Payflow):
    """`payflow serve` on the cluster's PostgreSQL. Several share one populated database: one populates, the rest adopt()."""

    def __init__(self, folder, pg, **env):
        super().__init__(folder)
        self.data.mkdir()
        self.env |= {"DB_HOST": str(pg.folder), "DB_USER": "bench", "DB_NAME": "payflow", "DB_PASSWORD": "unused"} | env

    def adopt(self, other):
        self.key, self.first = other.key, other.first


class Front(peers.Nginx):
    """NGINX as shipped (deploy/nginx) before the instances, without its rate limit and its access log."""

    def __init__(self, folder, instances):
        super().__init__(folder, "")
        values = dict(line.split("=", 1) for line in (ROOT / "deploy/nginx/defaults.env").read_text("utf-8").splitlines()
                      if line and not line.startswith("#"))
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
           "/CN=bench", "-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem")
        values |= {"APP1": f"127.0.0.1:{instances[0].port}", "APP2": f"127.0.0.1:{instances[1].port}", "LISTEN": "127.0.0.1:",
                   "HTTP_PORT": str(self.port), "HTTPS_PORT": str(free_port()), "STATUS_PORT": str(free_port()),
                   "TLS_CERT": str(self.folder / "cert.pem"), "TLS_KEY": str(self.folder / "key.pem"), "RATE_PER_S": "1000000",
                   "RATE_BURST": "1000000", "PASSWORD_RATE_PER_S": "1000000", "PASSWORD_BURST": "1000000"}
        text = (ROOT / "deploy/nginx/payflow.conf.template").read_text("utf-8")
        for name, value in values.items():
            text = text.replace("${" + name + "}", value.strip('"'))
        head = self.CONF.format(dir=self.folder, port=0, body="").split("  server {")[0]
        (self.folder / "conf").write_text(f"{head}  {text}\n}}\n")


def groups(before, after):
    done = max(1, after["payflow_commit_entries_count"] - before["payflow_commit_entries_count"])
    return (after["payflow_commit_entries_sum"] - before["payflow_commit_entries_sum"]) / done


def postgres(o, report):
    """Transfers on PostgreSQL: alone, two behind NGINX, in batches, on one hot account; beside pgbench on the same server."""
    pg = peers.Postgres(o.folder / "shared-pg")
    one = two = front = None
    rows = {name: [] for name in ("one", "two", "batch", "hot", "pgbench")}
    try:
        pg.start()
        pg.psql("CREATE DATABASE payflow")
        one, two = Instance(o.folder / "instance1", pg), Instance(o.folder / "instance2", pg)
        one.start()
        note(f"creating {USERS} users with money")
        one.populate(USERS)
        two.start()
        two.adopt(one)
        front = Front(o.folder / "front", (one, two))
        front.start()
        requests = [load.batch_request(one, USERS, seed, size=BATCH) for seed in range(40)]
        head, done = one.journal_head(), 0
        for n in range(o.rounds + 1):
            seconds = o.seconds if n else WARM_UP_S
            count = (seconds * 40) // 2 * 2
            before = one.metrics()
            ours = {"one": load.transfers(one, USERS, CONNECTIONS, seconds)}
            ours["one"]["group"] = groups(before, one.metrics())
            ours["hot"] = load.wrk(one.url, "hot.lua", one.key, one.first, USERS, connections=CONNECTIONS, seconds=seconds)
            ours["two"] = load.wrk(front.url, "transfer.lua", one.key, one.first, USERS, connections=CONNECTIONS,
                                   seconds=seconds)
            ours["batch"] = load.batches(one, requests, count, 2, size=BATCH)
            ours["pgbench"] = pg.transfers(CONNECTIONS, seconds)
            report.check_load(f"PostgreSQL, round {n}", *ours.values())
            done += sum(ours[name]["requests"] for name in ("one", "hot", "two")) + count * BATCH
            if n:
                for name, row in ours.items():
                    rows[name].append(row)
                note(f"round {n} of {o.rounds}: " + ", ".join(f"{name} {row['rate']:,.0f}/s" for name, row in ours.items()))
        # wrk leaves at most one request a connection unanswered when it ends
        moved = one.journal_head() - head
        if not done <= moved <= done + 3 * (o.rounds + 1) * CONNECTIONS:
            report.faults.append(f"{done} transfers were acknowledged, PostgreSQL's journal holds {moved}")
        for p in one, two:
            if p.stop() != 0:
                report.faults.append(f"SIGTERM ended an instance with {p.process.returncode}")
        command(one.data, "verify", env=one.env)
        note("payflow verify is content with the database")
    finally:
        for p in front, one, two, pg:
            if p:
                p.stop()
    peer, theirs = median(rows["pgbench"], "rate"), "the seeds' transaction by pgbench on the same server: "
    theirs += spread(of(rows["pgbench"], "rate"), COUNT)
    for name, work, goal in (
            ("one", f"single durable transfers over HTTP on PostgreSQL, {CONNECTIONS} connections, {USERS:,} accounts, a second", 4),
            ("two", "two instances behind NGINX, the same", 3),
            ("batch", f"transfers in batches of {BATCH:,} on PostgreSQL, 2 connections, a second", 12)):
        ratio = median(rows[name], "rate") / peer
        report.row(work, spread(of(rows[name], "rate"), COUNT), theirs, f"{ratio:.1f} ×", f"≥ {goal} ×", ratio >= goal)
    report.row("single: p50; p99, ms", f"{median(rows['one'], 'p50'):.2f}; {median(rows['one'], 'p99'):.2f}",
               f"{median(rows['pgbench'], 'p50'):.2f}; {median(rows['pgbench'], 'p99'):.2f}")
    report.row("transfers a commit", f"{median(rows['one'], 'group'):.1f}")
    ratio = median(rows["hot"], "rate") / median(rows["one"], "rate")
    report.row("hot account: every transfer touches one account, a second", spread(of(rows["hot"], "rate"), COUNT),
               f"uniform: {spread(of(rows['one'], 'rate'), COUNT)}", f"{ratio:.2f} ×", "≥ 0.6 ×", ratio >= 0.6)


def tiers(o, report):
    """Cached reads of users and balances with Redis behind, beside redis-benchmark on the same Redis."""
    pg, redis = peers.Postgres(o.folder / "tiers-pg"), peers.Redis(o.folder / "tiers-redis")
    one, rows = None, {name: [] for name in ("balance", "user", "GET")}
    try:
        pg.start()
        pg.psql("CREATE DATABASE payflow")
        redis.start()
        one = Instance(o.folder / "tiers", pg, REDIS_HOST="127.0.0.1", REDIS_PORT=str(redis.port))
        one.start()
        one.populate(100)
        for n in range(o.rounds + 1):
            seconds = o.seconds if n else WARM_UP_S
            ours = {name: load.wrk(one.url, "get_many.lua", path, one.first, 100, "X-API-Key", one.key, connections=CONNECTIONS,
                                   seconds=seconds)
                    for name, path in (("balance", "/api/balances?user_id="), ("user", "/api/users/"))}
            report.check_load(f"two tiers, round {n}", *ours.values())
            ours["GET"] = redis.gets(CONNECTIONS, seconds)
            if n:
                for name, row in ours.items():
                    rows[name].append(row)
                note(f"round {n} of {o.rounds}: " + ", ".join(f"{name} {row['rate']:,.0f}/s" for name, row in ours.items()))
        c = one.connect()
        stats = one.call(c, "GET", "/api/cache/stats")
        report.notes.append("Cache, by tier, after the reads: `" + json.dumps(stats.get("tiers", stats))[:600] + "`")
    finally:
        for p in one, redis, pg:
            if p:
                p.stop()
    peer = median(rows["GET"], "rate")
    for name, path in (("balance", "GET /api/balances"), ("user", "GET /api/users/{id}")):
        ratio = median(rows[name], "rate") / peer
        report.row(f"cached `{path}` of 100 users through two tiers, {CONNECTIONS} connections, a second",
                   spread(of(rows[name], "rate"), COUNT),
                   f"`redis-benchmark` GET, {CONNECTIONS} clients: {spread(of(rows['GET'], 'rate'), COUNT)}",
                   f"{ratio:.2f} ×", "≥ 0.5 ×", ratio >= 0.5)


def resilience(o, report):
    """What breaker, retry and balancer add to a call: bench/resilience.c beside the bare call."""
    program = o.folder / "resilience"
    sh("gcc", "-std=gnu17", "-O2", "-DNDEBUG", "-I", ROOT / "src", "-o", program, ROOT / "bench/resilience.c",
       *sorted((ROOT / "src/resilience").glob("*.c")), *sorted((ROOT / "src/base").glob("*.c")), "-lpthread", "-lm")
    for line in sh(program).splitlines()[2:]:
        work, ours, bare, goal, verdict = (cell.strip() for cell in line.strip("|").split("|"))
        report.row(work, ours, f"the bare call: {bare}", goal=goal, reached=verdict == "reached")
