"""Tickets of one hot event: booking decisions beside the seed's way and PostgreSQL's, and bookings confirmed end to end."""

import json
import os
import sys
import time

import load
import peers
import rpc
from common import COUNT, HERE, TWO, free_port, median, note, of, sh, spread
from gateway import payflow_proxy
from server import Payflow, command
from shared import Instance

CONNECTIONS, WARM_UP_S, DRAIN_S = 256, 2, 300
CAPACITY = 10_000_000  # of one event, as many as there may be
CONFIRMED, MADE = 'payflow_payments_total{outcome="confirmed"}', 'payflow_bookings_total{to="held"}'
PAUSES_US = 2_000, 10_000, 50_000  # at most, before the seed's refused callers try again; the best of them counts


class Shop:
    """An event at one or more servers over the same store: bookings are made at the first, and confirmed by any. office:
    the one that is asked about events, if it is another."""

    def __init__(self, *servers, office=None):
        self.servers, self.office, self.booked = servers, office or servers[0], 0
        self.event = self.office.call(self.office.connect(), "POST", "/api/events", {
            "title": "Bench", "location": "Here", "date": "2099-01-01T20:00:00Z", "total_tickets": CAPACITY})["id"]

    def total(self, name):
        return sum(s.metrics().get(name, 0) for s in self.servers)

    def settled(self, made):
        """Waits until as many are confirmed."""
        end = time.monotonic() + DRAIN_S
        while (done := self.total(CONFIRMED)) < made:
            if time.monotonic() > end:
                sys.exit(f"bench: of {made:.0f} bookings {done:.0f} are confirmed after {DRAIN_S} s")
            time.sleep(0.01)

    def sell(self, connections, seconds):
        """Bookings for so long: rate of the decisions, and `confirmed`, the rate until the last of them is confirmed."""
        begin, before = time.monotonic(), self.total(MADE)
        r = load.wrk(self.servers[0].url, "bookings.lua", self.servers[0].key, self.event, connections=connections,
                     seconds=seconds)
        made = self.total(MADE)
        early = self.total(CONFIRMED)
        self.settled(made)
        r["confirmed"] = (made - before) / (time.monotonic() - begin)
        r["late"] = made - early
        self.booked += r["requests"]
        return r

    def check(self, report, what, rounds):
        """What was acknowledged is sold: no more, and no less but for what wrk did not wait for."""
        left = self.office.call(self.office.connect(), "GET", f"/api/events/{self.event}")["available_tickets"]
        sold = CAPACITY - left
        if not self.booked <= sold <= self.booked + rounds * CONNECTIONS:
            report.faults.append(f"{what}: {self.booked} bookings were acknowledged, {sold} tickets are gone")
        for s in {*self.servers, self.office}:
            if s.stop() != 0:
                report.faults.append(f"{what}: SIGTERM ended it with {s.process.returncode}")
        command(self.servers[0].data, "verify", env=self.servers[0].env)
        note(f"{what}: payflow verify is content")


class Seed:
    """GoTicketra's way, without its HTTP, gRPC and Go: seed_booking.c on the cluster and a Redis."""

    def __init__(self, folder, pg, redis):
        self.pg, self.redis, self.booked = pg, redis, 0
        self.program, self.pause = folder / "seed_booking", PAUSES_US[0]
        sh("gcc", "-std=gnu17", "-O2", "-I", sh("pg_config", "--includedir").strip(), "-o", self.program,
           HERE / "seed_booking.c", "-lpq", "-lhiredis", "-lpthread")

    def sell(self, callers, seconds, pause=None):
        r = json.loads(sh(self.program, f"host={self.pg.folder} user=bench dbname=postgres", self.redis.port, callers, seconds,
                          pause or self.pause))
        self.booked += r["bookings"]
        return r

    def tune(self):
        rates = {pause: self.sell(CONNECTIONS, 1, pause)["rate"] for pause in PAUSES_US}
        self.pause = max(rates, key=rates.get)
        note("the seed's way, by its callers' pause: " + ", ".join(f"{p / 1000:.0f} ms {r:,.0f}/s" for p, r in rates.items()))


def tickets(o, report):
    """Decisions on one hot event: embedded and on PostgreSQL, beside the seed's way and a bare UPDATE."""
    pg, redis = peers.Postgres(o.folder / "tickets-pg", 2 * CONNECTIONS), peers.Redis(o.folder / "tickets-redis")
    single = shared = None
    rows = {name: [] for name in ("embedded", "postgres", "seed", "alone", "update")}
    try:
        pg.start()
        pg.psql("CREATE DATABASE payflow")
        redis.start()
        single, shared = Payflow(o.folder / "tickets"), Instance(o.folder / "tickets-shared", pg)
        for s in single, shared:
            s.start()
            s.populate(1)
        shops = {"embedded": Shop(single), "postgres": Shop(shared)}
        seed = Seed(o.folder, pg, redis)
        seed.tune()
        updates = 0
        for n in range(o.rounds + 1):
            seconds = o.seconds if n else WARM_UP_S
            r = {}
            for name, shop in shops.items():
                r[name] = shop.sell(CONNECTIONS, seconds)
                os.sync()
            r["seed"] = seed.sell(CONNECTIONS, seconds)
            r["alone"] = seed.sell(1, max(1, seconds // 2))
            os.sync()
            r["update"] = pg.pgbench("stock.sql", CONNECTIONS, seconds)
            updates += r["update"]["done"]
            os.sync()
            report.check_load(f"tickets, round {n}", *r.values())
            if n:
                for name, row in r.items():
                    rows[name].append(row)
                note(f"round {n} of {o.rounds}: " + ", ".join(f"{k} {v['rate']:,.0f}/s" for k, v in r.items())
                     + f"; confirmed {r['embedded']['confirmed']:,.0f}/s embedded, {r['postgres']['confirmed']:,.0f}/s on "
                     "PostgreSQL")
        for name, shop in shops.items():
            shop.check(report, f"tickets {name}", o.rounds + 1)
        booked, gone = pg.psql("SELECT (SELECT count(*) FROM hot_booking), 1000000000 - available FROM hot_event").split("|")
        if int(booked) != seed.booked or int(gone) != seed.booked + updates:
            report.faults.append(f"the seed's way made {seed.booked} bookings and pgbench {updates} updates; there are {booked}"
                                 f" rows, and {int(gone)} tickets are gone")
    finally:
        for p in single, shared, redis, pg:
            if p:
                p.stop()
    decisions(report, rows, seed.pause)
    for name, where, goal in ("embedded", "embedded", 5000), ("postgres", "on PostgreSQL, one instance", None):
        rate = median(rows[name], "confirmed")
        report.row(f"bookings confirmed end to end through outbox and payment, {where}, a second",
                   spread(of(rows[name], "confirmed"), COUNT), goal=f"≥ {goal:,}" if goal else "",
                   reached=rate >= goal if goal else None)


def decisions(report, rows, pause_us):
    theirs = {"seed": ("Redis lock, INSERT in PostgreSQL", 20), "update": ("`UPDATE … WHERE available >= n` by pgbench", 5)}
    for name, where in ("embedded", "embedded"), ("postgres", "on PostgreSQL"):
        for peer, (what, goal) in theirs.items():
            ratio = median(rows[name], "rate") / median(rows[peer], "rate")
            report.row(f"booking decisions on one hot event over HTTP, {where}, {CONNECTIONS} connections, a second",
                       spread(of(rows[name], "rate"), COUNT), f"{what}: {spread(of(rows[peer], 'rate'), COUNT)}",
                       f"{ratio:.1f} ×", f"≥ {goal} ×", ratio >= goal)
    report.row("their latency p50; p99, ms: embedded", "; ".join(TWO(median(rows["embedded"], p)) for p in ("p50", "p99")),
               "; ".join(TWO(median(rows["seed"], p)) for p in ("p50", "p99")) + " (the lock); "
               + "; ".join(TWO(median(rows["update"], p)) for p in ("p50", "p99")) + " (the UPDATE)")
    bound = median(rows["embedded"], "rate") / median(rows["alone"], "rate")
    report.row("the same, embedded, beside what the lock lets through at best: one caller, never refused",
               spread(of(rows["embedded"], "rate"), COUNT), spread(of(rows["alone"], "rate"), COUNT), f"{bound:.1f} ×")
    refused = sum(of(rows["seed"], "refused")) / max(1, sum(of(rows["seed"], "bookings")))
    report.notes.append(f"The seed's refused callers tried again after up to {pause_us / 1000:.0f} ms, the best of "
                        + ", ".join(f"{p / 1000:.0f}" for p in PAUSES_US) + f"; they were refused {refused:.1f} times a booking.")


def saga(o, report):
    """Bookings confirmed through RabbitMQ by a process of its own, over PostgreSQL: roles event, booking and payment."""
    pg, rabbit = peers.Postgres(o.folder / "saga-pg"), peers.Rabbit(o.folder / "saga-rabbit")
    event = booking = payment = None
    rows = []
    try:
        pg.start()
        pg.psql("CREATE DATABASE payflow")
        rabbit.start()
        event, booking, payment = (Instance(o.folder / f"saga-{role}", pg, AMQP_URL=rabbit.url)
                                   for role in ("event", "booking", "payment"))
        event.start()
        event.populate(1)
        event.stop()  # which was everything so far
        booking.env["GRPC_LISTEN"] = f"127.0.0.1:{free_port()}"
        for s, role in (event, "event"), (booking, "booking"), (payment, "payment"):
            s.flags = ["--role", role]
            s.adopt(event)
            s.start()
        shop = Shop(booking, payment, office=event)
        for n in range(o.rounds + 1):
            r = shop.sell(CONNECTIONS, max(1, o.seconds // 4))
            report.check_load(f"saga, round {n}", r)
            os.sync()
            if n:
                rows.append(r)
                note(f"round {n} of {o.rounds}: booked {r['rate']:,.0f}/s, confirmed {r['confirmed']:,.0f}/s, of them "
                     f"{r['late']:,.0f} after the load")
        shop.check(report, "saga", o.rounds + 1)
    finally:
        for p in booking, payment, event, rabbit, pg:
            if p:
                p.stop()
    rate = median(rows, "confirmed")
    report.row("bookings confirmed end to end through RabbitMQ, separate processes over PostgreSQL, a second",
               spread(of(rows, "confirmed"), COUNT), goal="≥ 1,000", reached=rate >= 1000)


def translation(o, report):
    """The gateway's JSON to gRPC and back, beside the same calls by a gRPC client; one at a time, in ms."""
    server, port = Payflow(o.folder / "translation"), free_port()
    server.env["GRPC_LISTEN"] = f"127.0.0.1:{port}"
    (out := o.folder / "translation-rpc").mkdir()
    calls = rpc.program(out, "calls", "grpc_calls.c")
    gateway = payflow_proxy(o.folder / "translation-gateway",
                            f"    - {{name: booking, group: booking, url: 'http://127.0.0.1:{port}'}}\n")
    rows = {"GetBooking": [], "CreateBooking": []}
    try:
        server.start()
        server.populate(1)
        gateway.start()
        shop = Shop(server)
        booking = server.call(server.connect(), "POST", "/api/bookings", {"user_id": "guest", "event_id": shop.event,
                                                                        "ticket_count": 1})["booking_id"]
        work = {"GetBooking": ("get", booking, ("get.lua", f"/api/bookings/{booking}")),
                "CreateBooking": ("create", shop.event, ("bookings.lua", server.key, shop.event))}
        for n in range(o.rounds + 1):
            seconds = max(1, o.seconds // 2) if n else 1
            for method, (word, subject, script) in work.items():
                r = load.wrk(gateway.url, *script, connections=1, seconds=seconds)
                direct = json.loads(sh(calls, port, seconds, word, subject))
                report.check_load(f"translation, {method}, round {n}", r, direct)
                if n:
                    rows[method].append({"through": r["p50"], "direct": direct["p50"], "added": r["p50"] - direct["p50"]})
                    note(f"round {n} of {o.rounds}: {method} {r['p50']:.3f} ms through the gateway, {direct['p50']:.3f} direct")
    finally:
        for p in gateway, server:
            if p.process:
                p.stop()
    three = "{:.3f}".format
    for method, r in rows.items():
        added = median(r, "added")
        report.row(f"gateway, JSON to gRPC ({method}), one at a time: p50, ms", spread(of(r, "through"), three),
                   f"the gRPC call itself: {spread(of(r, 'direct'), three)}", f"{added:+.3f} ms", "≤ +0.5 ms", added <= 0.5)
