"""A sale over PostgreSQL and RabbitMQ, by two instances or by the services behind their gateway, in which whoever is at work is
killed or stopped at every step of a booking.

A step is where the database stands still, for a trigger of the test's own waits there for a lock that the test has; the steps
outside the database are told by what is in it. Each fault at each step: PAYFLOW_SALE_FAULTS=all, some fifteen minutes; or so many,
that are drawn."""
import itertools
import os
import random
import signal
import subprocess
import time

import pytest

from backends import Config, Gateway
from harness import Server, cli, environment, eventually, free_port
from postgres import BIN
from sale import CONFIRMED, Rush, now_us
from test_gateway_faults import CALM, NO_BREAKER, QUICK_RETRY
from test_sale import Shared, finish, settle
from test_ticketing import make_event

LOCK = 4711
FAULTS = os.environ.get("PAYFLOW_SALE_FAULTS", "2")  # or "all"
STOPPED = 6  # seconds
RECOVERY = 60

# step: where the trigger stands; None: told otherwise
STEPS = {
    "a booking is written": "AFTER INSERT ON booking",
    "its message is written": "AFTER INSERT ON outbox",
    "it is committed, and its message not sent": None,
    "its message is sent, and not forgotten": "BEFORE DELETE ON outbox",
    "its message has come, and is not noted": "AFTER INSERT ON inbox",
    "it is confirmed, and not committed": f"AFTER UPDATE ON booking FOR EACH ROW WHEN (NEW.state = {CONFIRMED})",
    "it is confirmed, and its message not acknowledged": None,
}
WHO = {"instances": ("an instance", "both instances", "RabbitMQ", "PostgreSQL"),
       "services": ("the gateway", "booking", "payment", "RabbitMQ", "PostgreSQL")}
HOW = ("killed", "stopped")


class Pause:
    """The database stands still at a step, until let_go."""

    def __init__(self, cluster, where):
        self.cluster = cluster
        cluster.sql("CREATE OR REPLACE FUNCTION pause_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                    f" PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END $$")
        self.holder = subprocess.Popen([BIN / "psql", "-X", "-q", "-A", "-t", "-h", cluster.dir, "-p", str(cluster.port), "-d", "payflow"],
                                       cwd=cluster.dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                       **cluster._user())
        self.holder.stdin.write(f"SELECT 'held', pg_advisory_lock({LOCK});\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.readline().startswith("held")
        cluster.sql(f"CREATE TRIGGER pause {where} EXECUTE FUNCTION pause_here()")
        self.table = where.partition(" ON ")[2].split()[0]

    def reached(self):
        eventually(lambda: int(self.cluster.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")), timeout=30)

    def let_go(self):
        """Also when the server is not there any more."""
        if self.holder.poll() is None:
            self.holder.stdin.close()
            self.holder.wait(10)

    def remove(self):
        self.let_go()
        self.cluster.sql(f"DROP TRIGGER IF EXISTS pause ON {self.table}")


class Services(Shared):
    """One process for each role, and a gateway, which the callers ask."""

    def start(self, path):
        assert cli("migrate", "up", env=environment(**self.env)).returncode == 0
        grpc = free_port()
        self.of = {role: Server(path / role, env=self.env, args=["--role", role, "--grpc-listen", f"127.0.0.1:{grpc}" if role == "booking" else "off"])
                   for role in ("event", "booking", "payment")}
        for s in self.of.values():
            s.start()
        groups = {"event": self.of["event"].base, "api": self.of["booking"].base, "booking": f"http://127.0.0.1:{grpc}"}
        config = Config([{"name": group, "url": url, "group": group} for group, url in groups.items()], CALM, QUICK_RETRY + NO_BREAKER)
        self.of["the gateway"] = Gateway(path / "gateway", config).start()
        return [self.of[name] for name in ("the gateway", "event", "booking", "payment")]


class Sale:
    def __init__(self, kind, path, cluster, rabbit, seed):
        self.cluster, self.rabbit, self.rng = cluster, rabbit, random.Random(seed)
        self.place = (Services if kind == "services" else Shared)(path, cluster, AMQP_URL=rabbit.url)
        front = self.place.servers[:1] if kind == "services" else self.place.servers
        event = make_event(front[0].anon, 10_000_000)
        self.rush = Rush([s.port for s in front], [event["id"]], seed, 1 << 30, connections=24, most=6, think=0.1, keyed=0.7)

    # ---- a fault, and what ends it ----

    def strike(self, who, how):
        if who not in ("RabbitMQ", "PostgreSQL"):
            some = [self.place.of[who]] if who in WHO["services"] else self.rng.sample(self.place.servers, 2 if "both" in who else 1)
            for s in some:
                s.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
                if how == "killed":
                    s.process.wait()
            return lambda: [s.start() if how == "killed" else s.process.send_signal(signal.SIGCONT) for s in some]
        server = self.rabbit if who == "RabbitMQ" else self.cluster
        if how == "killed":
            server.kill9()
            return server.start
        server.freeze()
        return server.thaw

    # ---- one of them ----

    def pending_since(self, before_us):
        return self.place.count(f"SELECT count(*) FROM booking WHERE state <= 2 AND created_us < {before_us}")

    def unsent(self):
        """The broker does not answer, so what is committed waits."""
        self.rabbit.freeze()
        eventually(lambda: self.place.count("SELECT count(*) FROM outbox WHERE type = 'BookingCreated'"), timeout=30)
        return self.rabbit.thaw

    def unacknowledged(self):
        """The effect is committed while the broker hears nothing."""
        pause = Pause(self.cluster, STEPS["its message has come, and is not noted"])
        try:
            pause.reached()
            self.rabbit.freeze()
            done = self.place.count("SELECT count(*) FROM inbox")
        finally:
            pause.remove()
        eventually(lambda: self.place.count("SELECT count(*) FROM inbox") > done, timeout=30)
        return self.rabbit.thaw

    def fault(self, step, who, how):
        self.rush.goes_on()
        where = STEPS[step]
        pause = None
        if where:
            pause = Pause(self.cluster, where)
            pause.reached()
            undo = pause.let_go
        else:
            undo = self.unsent() if "not sent" in step else self.unacknowledged()
        end = self.strike(who, how)
        if how == "stopped":
            time.sleep(STOPPED)  # the length of the stop is the point
        if not (who == "RabbitMQ" and not where and how == "killed"):  # there is nobody left to wake
            undo()
        end()
        if pause:
            pause.remove()
        begin = time.monotonic()
        recovered_us = now_us()
        self.rush.goes_on(timeout=RECOVERY)
        eventually(lambda: not self.pending_since(recovered_us), timeout=RECOVERY - (time.monotonic() - begin))
        print(f"{step}; {who} {how}: {time.monotonic() - begin:.1f} s")


def chosen(kind, seed):
    """All of them in some order, or so many of which one is a stop, which takes its time."""
    rng = random.Random(seed)
    kills, stops = (rng.sample(some, len(some)) for some in ([f for f in itertools.product(STEPS, WHO[kind], HOW) if f[2] == how] for how in HOW))
    return kills + stops if FAULTS == "all" else kills[:int(FAULTS) - 1] + stops[:1]


def drained(channel, queue):
    """What waits there, as the judge wants it."""
    empty = False
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.2):
        if method:
            at = body.index(b'"booking_id":"') + 14
            empty = False
            yield properties.message_id, properties.type, body[at:at + 36].decode()
        elif empty:
            return
        else:  # what was on its way has arrived before the answer to this, and comes in the next turns
            empty = channel.queue_declare(queue, passive=True).method.message_count == 0


@pytest.mark.parametrize("kind", WHO)
def test_at_every_step(tmp_path, cluster, rabbit, kind):
    seed = int(os.environ.get("PAYFLOW_SALE_SEED", random.randrange(1 << 32)))
    print(f"PAYFLOW_SALE_SEED={seed}")
    sale = Sale(kind, tmp_path, cluster, rabbit, seed)
    connection, channel = rabbit.channel()
    channel.queue_declare("listener", durable=True)
    channel.queue_purge("listener")
    channel.queue_bind("listener", "payflow", "#")
    connection.close()
    try:
        with sale.rush:
            for fault in chosen(kind, seed):
                sale.fault(*fault)
    finally:
        for s in sale.place.servers:
            s.process.send_signal(signal.SIGCONT)
    settle(sale.place, RECOVERY)
    connection, channel = rabbit.channel()
    heard = list(drained(channel, "listener"))
    assert channel.queue_declare("payflow.payment.dead", passive=True).method.message_count == 0
    connection.close()
    history = sale.rush.history
    print(f"{len(history.asks)} asks, {history.lost} answers lost, {len(heard)} messages")
    finish(sale.place, history, heard=heard)

