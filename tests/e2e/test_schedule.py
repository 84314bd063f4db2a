"""Scheduled transactions: validation, life cycle, and each due run exactly once, also across kill -9."""
import calendar
import time
from decimal import Decimal

import pytest

from harness import RFC3339, eventually, new_user, ok, page, problem, utc

PATH = "/api/v1/scheduled-transactions"
LATER = "2099-01-01T10:30:00Z"


def schedule(u, **change):
    body = {"type": "credit", "amount": "5.00", "scheduled_at": LATER, **change}
    return u.bank.post(PATH, json={k: v for k, v in body.items() if v is not None})


def state(u, sid):
    return ok(u.bank.get(f"{PATH}/{sid}"))


def instant(text):
    """RFC 3339 to seconds, for comparing spellings with and without microseconds."""
    assert RFC3339.match(text), text
    head, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(head, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))


def test_create_and_read(dev, user):
    d = ok(schedule(user, description="rent", recurrence="monthly", max_runs=3), 201)
    assert d["status"] == "pending" and d["runs"] == 0 and d["type"] == "credit"
    assert d["amount"] == 5 and d["currency"] == "USD" and d["description"] == "rent"
    assert instant(d["next_run_at"]) == instant(LATER) and not d.get("last_error")
    assert state(user, d["id"])["id"] == d["id"]
    assert page(user.bank.get(PATH))["data"][0]["id"] == d["id"]
    assert page(new_user(dev).bank.get(PATH))["data"] == []
    assert ok(dev.admin.bank.get(f"{PATH}/{d['id']}"))["id"] == d["id"]
    stranger = new_user(dev)
    problem(stranger.bank.get(f"{PATH}/{d['id']}"), 404)
    problem(stranger.bank.delete(f"{PATH}/{d['id']}"), 404)
    problem(user.bank.get(f"{PATH}/999999999"), 404)
    problem(dev.anon.get(PATH), 401)


def test_a_transfer_needs_a_receiver(dev, user, other):
    problem(schedule(user, type="transfer"), 422, loc="to_user_id")
    problem(schedule(user, type="transfer", to_user_id=user.uuid), 422)
    assert schedule(user, type="transfer", to_user_id=999999999).status_code in (404, 422)
    for form in (other.id, other.uuid):
        assert ok(schedule(user, type="transfer", to_user_id=form), 201)["to_user_id"] == other.uuid


@pytest.mark.parametrize("change, field", [
    ({"type": "gift"}, "type"), ({"type": None}, "type"), ({"type": 1}, "type"),
    ({"amount": None}, "amount"), ({"amount": 0}, "amount"), ({"amount": "0.001"}, "amount"),
    ({"currency": "XXQ"}, "currency"),
    ({"scheduled_at": None}, "scheduled_at"), ({"scheduled_at": "tomorrow"}, "scheduled_at"),
    ({"scheduled_at": "2099-02-30T00:00:00Z"}, "scheduled_at"), ({"scheduled_at": 4070908800}, "scheduled_at"),
    ({"scheduled_at": "2001-01-01T00:00:00Z"}, "scheduled_at"),
    ({"recurrence": "hourlyish"}, "recurrence"), ({"recurrence": "61 * * * *"}, "recurrence"),
    ({"recurrence": "* * * *"}, "recurrence"), ({"recurrence": "* * * * * *"}, "recurrence"),
    ({"recurrence": "0 24 * * *"}, "recurrence"), ({"recurrence": "0 0 30 2 *"}, "recurrence"),
    ({"recurrence": "*/0 * * * *"}, "recurrence"), ({"recurrence": "5-1 * * * *"}, "recurrence"),
    ({"recurrence": 5}, "recurrence"),
    ({"max_runs": 0, "recurrence": "daily"}, "max_runs"), ({"max_runs": -1, "recurrence": "daily"}, "max_runs"),
    ({"max_runs": 1.5, "recurrence": "daily"}, "max_runs"), ({"max_runs": "x", "recurrence": "daily"}, "max_runs"),
    ({"end_at": "2098-01-01T00:00:00Z", "recurrence": "daily"}, "end_at"),
    ({"end_at": "never", "recurrence": "daily"}, "end_at"),
    ({"description": "x" * 501}, "description"),
])
def test_refuses(user, change, field):
    problem(schedule(user, **change), 422, loc=field)


def test_the_past_is_refused_to_the_second(user):
    problem(schedule(user, scheduled_at=utc(-5)), 422, loc="scheduled_at")
    ok(schedule(user, scheduled_at=utc(3600)), 201)


@pytest.mark.parametrize("recurrence", ["daily", "weekly", "monthly", "*/15 9-17 * * 1-5", "0 0 1 jan,jul *",
                                        "0 0 29 2 *", "0 12 * * sun", "30 4 1,15 * 5", "0 0 * * 7"])
def test_recurrences_taken(user, recurrence):
    d = ok(schedule(user, recurrence=recurrence), 201)
    assert d["recurrence"] == recurrence and d["status"] == "pending" and d["next_run_at"]


def test_cancel(user):
    d = ok(schedule(user, recurrence="daily"), 201)
    r = user.bank.delete(f"{PATH}/{d['id']}")
    assert r.status_code in (200, 204)
    after = state(user, d["id"])
    assert after["status"] == "cancelled" and not after.get("next_run_at")
    problem(user.bank.delete(f"{PATH}/{d['id']}"), 409, "wrong-state")


def test_cancelled_before_due_never_runs(dev):
    u = new_user(dev)
    assert u.key and u.jwt  # before the clock runs
    d = ok(schedule(u, scheduled_at=utc(4)), 201)
    assert u.bank.delete(f"{PATH}/{d['id']}").status_code in (200, 204)
    time.sleep(5)
    assert u.balance() == 0 if u.bank.get("/api/v1/balances/current").json()["balances"] else True
    assert state(u, d["id"])["runs"] == 0


def test_one_time_runs(dev):
    u, v = new_user(dev, fund="20"), new_user(dev)
    assert u.key and u.jwt and v.key
    due = utc(5.0)
    made = [ok(schedule(u, type=kind, amount=amount, scheduled_at=due, **more), 201)["id"]
            for kind, amount, more in (("credit", "1.25", {}), ("debit", "2.50", {}),
                                       ("transfer", "4.00", {"to_user_id": v.uuid, "description": "allowance"}))]
    assert u.balance() == 20, "ran before it was due"
    for sid in made:
        eventually(lambda sid=sid: state(u, sid)["status"] == "completed")
        d = state(u, sid)
        assert d["runs"] == 1 and not d.get("last_error") and not d.get("next_run_at")
    assert (u.balance(), v.balance()) == (Decimal("14.75"), 4)
    history = page(u.bank.get("/api/v1/transactions/history"))["data"]
    assert len(history) == 4 and "allowance" in [t["description"] for t in history]
    problem(u.bank.delete(f"{PATH}/{made[0]}"), 409, "wrong-state")
    time.sleep(1.2)
    assert u.balance() == Decimal("14.75"), "ran again"


def test_recurring_goes_on(dev):
    u = new_user(dev)
    assert u.key and u.jwt
    begin = utc(1.0)
    d = ok(schedule(u, scheduled_at=begin, recurrence="daily"), 201)
    eventually(lambda: state(u, d["id"])["runs"] == 1)
    after = state(u, d["id"])
    assert after["status"] == "active"
    assert abs(instant(after["next_run_at"]) - instant(begin) - 86_400) < 1
    assert u.balance() == 5


def test_max_runs_ends_it(dev):
    u = new_user(dev)
    assert u.key and u.jwt
    d = ok(schedule(u, scheduled_at=utc(1.0), recurrence="weekly", max_runs=1), 201)
    eventually(lambda: state(u, d["id"])["status"] == "completed")
    after = state(u, d["id"])
    assert after["runs"] == 1 and not after.get("next_run_at") and u.balance() == 5


def test_end_at_ends_it(dev):
    u = new_user(dev)
    assert u.key and u.jwt
    d = ok(schedule(u, scheduled_at=utc(1.0), recurrence="daily", end_at=utc(3600)), 201)
    eventually(lambda: state(u, d["id"])["status"] == "completed")
    assert state(u, d["id"])["runs"] == 1 and u.balance() == 5


def test_refused_for_lack_of_money(dev):
    u = new_user(dev, fund="1")
    assert u.key and u.jwt
    once = ok(schedule(u, type="debit", amount=5, scheduled_at=utc(1.0)), 201)["id"]
    daily = ok(schedule(u, type="debit", amount=5, scheduled_at=utc(1.0), recurrence="daily"), 201)["id"]
    for sid in (once, daily):
        d = eventually(lambda sid=sid: (x := state(u, sid))["last_error"] and x)
        assert "fund" in str(d["last_error"]).lower()
        assert d["runs"] in (0, 1)
    assert state(u, once)["status"] == "failed"
    d = state(u, daily)
    assert d["status"] in ("pending", "active") and instant(d["next_run_at"]) > instant(utc(3600))
    assert u.balance() == 1


def test_many_due_at_once(dev):
    u = new_user(dev)
    assert u.key and u.jwt
    due = utc(15)
    ids = [ok(schedule(u, amount="0.01", scheduled_at=due), 201)["id"] for _ in range(60)]
    eventually(lambda: all(state(u, i)["status"] == "completed" for i in ids), 60)
    assert u.balance() == Decimal("0.60")


@pytest.mark.parametrize("kill_after", [0.0, 0.7, 0.95, 1.0, 1.02, 1.05, 1.1])
def test_exactly_once_across_kill_9(fresh, kill_after):
    """Due at 1 s; the process dies before, around and after that, and again while it catches up."""
    s = fresh()
    u, v = new_user(s, fund="100"), new_user(s)
    assert u.key and u.jwt and v.key
    due = time.monotonic() + 1.0
    ids = [ok(schedule(u, type="transfer", to_user_id=v.id, amount=1, scheduled_at=utc(1.0)), 201)["id"]
           for _ in range(10)]
    time.sleep(max(0.0, due - 1.0 + kill_after - time.monotonic()))
    s.restart(kill=True)
    time.sleep(0.05)
    s.restart(kill=True)
    eventually(lambda: all(state(u, i)["status"] == "completed" for i in ids))
    time.sleep(0.3)
    assert all(state(u, i)["runs"] == 1 for i in ids)
    assert (u.balance(), v.balance()) == (90, 10)
    assert len(page(v.bank.get("/api/v1/transactions/history"))["data"]) == 10


def test_missed_while_down_is_made_up_once(fresh):
    s = fresh()
    u = new_user(s)
    assert u.key and u.jwt
    once = ok(schedule(u, scheduled_at=utc(2)), 201)["id"]
    daily = ok(schedule(u, scheduled_at=utc(2), recurrence="daily", amount=3), 201)["id"]
    assert s.stop() == 0
    time.sleep(2.2)
    s.start()
    eventually(lambda: state(u, once)["status"] == "completed" and state(u, daily)["runs"] == 1)
    assert u.balance() == 8
    s.restart()
    time.sleep(0.5)
    assert u.balance() == 8 and state(u, daily)["runs"] == 1


def test_a_deleted_users_schedule_does_not_run(dev):
    u, v = new_user(dev), new_user(dev)
    assert u.key and u.jwt
    ok(schedule(u, scheduled_at=utc(4)), 201)
    ok(u.api.delete(f"/api/users/{u.id}"))
    time.sleep(5)
    rows = ok(dev.admin.bank.get("/api/v1/transactions/history", params={"user_id": u.uuid}))["data"] \
        if dev.admin.bank.get("/api/v1/transactions/history", params={"user_id": u.uuid}).status_code == 200 else []
    assert rows == []
    assert v.bank.get(PATH).status_code == 200
