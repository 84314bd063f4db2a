"""The primary dies under load and a synchronous replica takes its place, again and again: the instances follow within 10 s, nothing
acknowledged is lost, and the old primary, started as it was, gets no write of theirs. `PAYFLOW_FAULT_ROUNDS` rounds (20)."""
import os
import signal
import time

import pytest

import history as past
from cluster import Whole
from harness import eventually
from history import History, Load

BACK_S = 10
ROUNDS = int(os.environ.get("PAYFLOW_FAULT_ROUNDS", "20"))
CLIENTS = 12
APPENDED = "SELECT head_seq FROM ledger_head"


@pytest.fixture(scope="module")
def stack():
    s = Whole()
    yield s
    s.close()


def rejoined(stack):
    """A replica that the instances read from streams from the new primary; they find out at its next restart point."""
    primary = stack.primary()
    others = [d for d in ("db-replica1", "db-replica2") if d != primary]
    for d in (primary, *others):
        assert stack.psql(d, "CHECKPOINT") == ""
    for d in others:
        before = stack.reads_of(d)
        eventually(lambda d=d, before=before: stack.reads_of(d) > before, timeout=60, every=0.2)


def nothing(stack, new):
    pass


def an_instance_begins_anew(stack, new):
    """It knows nothing of the past, and asks the hosts in their order."""
    del new
    stack.kill9("app1")
    stack.start("app1")


def the_new_primary_is_away(stack, new):
    stack.kill9(new)
    time.sleep(1)
    stack.start(new)


def the_new_primary_hangs(stack, new):
    stack.freeze(new)
    time.sleep(7)
    stack.thaw(new)


def an_instance_wakes_up(stack, new):
    """It has slept through the promotion: what it was connected to last is the old primary."""
    del new
    stack.thaw("app2")
    time.sleep(2)


# While two servers believe that they are the primary; in every other round, when the old one is the first that is asked.
DISTURBANCES = [an_instance_begins_anew, nothing, an_instance_wakes_up, nothing, the_new_primary_is_away, nothing,
                the_new_primary_hangs, nothing]


def test_promotions(stack):
    history = History()
    callers = stack.users(2 * CLIENTS)
    worst = 0.0
    with Load(history, callers, [stack.port("nginx")]) as load:
        for n in range(ROUNDS):
            begin, old = time.monotonic(), stack.primary()
            disturb = DISTURBANCES[n % len(DISTURBANCES)]
            asleep = disturb is an_instance_wakes_up
            if asleep:
                stack.freeze("app2")
            stack.kill9(old)
            new = stack.promote()
            # NGINX gives up on an instance that sleeps after 8 s, twice until it asks it no more.
            took = load.came_back(3 * BACK_S if asleep else BACK_S)
            worst = worst if asleep else max(worst, took)
            ghost = stack.start_as_it_was(old)
            try:
                before = stack.psql(old, APPENDED)
                disturb(stack, new)
                time.sleep(1)
                assert stack.psql(old, APPENDED) == before, f"round {n}: {old} was written to after {new} had taken its place"
                busy = stack.psql(old, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'payflow' AND backend_xid IS NOT NULL")
                assert busy == "0", busy
            finally:
                os.killpg(ghost.pid, signal.SIGQUIT)
                ghost.wait(20)
            stack.start(old)
            if n % 5 == 0:
                rejoined(stack)
            load.came_back(BACK_S)
            print(f"round {n}: {old} -> {new}, back after {took:.2f} s; the round took {time.monotonic() - begin:.1f} s, {disturb.__name__}")
            if n % 5 == 4:
                past.check_reads(history.reads)
    print(f"{ROUNDS} promotions, {len(history.acknowledged())} acknowledged, back after {worst:.2f} s at worst")
    past.check(stack.export(), history)
    eventually(lambda: len(set(stack.psql(d, APPENDED) for d in stack.DATABASES)) == 1)
    stack.verify(standbys=True)
