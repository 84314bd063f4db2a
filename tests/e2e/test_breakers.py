"""The circuit breakers and the services to try them out, as the Banking seed goes through them."""
import time

import pytest

from harness import ok

TRIAL = "/api/v1/test/circuit-breaker/"


def breaker(c, name):
    return ok(c.get("/api/v1/metrics/circuit-breakers"))["circuit_breakers"][f"test-{name}-service"]


def test_before_anything_was_asked(fresh):
    c = fresh().client()
    for name in "success", "failure", "timeout":
        b = breaker(c, name)
        assert b["state"] == "closed"
        assert b["total_requests"] == b["total_failures"] == b["total_successes"] == b["current_failures"] == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_success(fresh, method):
    c = fresh().client()
    for n in range(1, 6):
        r = c.request(method, TRIAL + "success")
        assert r.status_code == 200 and r.json() == {"message": "Circuit breaker test - success", "status": "ok"}
        assert breaker(c, "success")["total_successes"] == n
    assert breaker(c, "success")["state"] == "closed"


@pytest.mark.parametrize("name,status,error", [
    ("failure", 500, "Circuit breaker test - simulated failure"),
    ("timeout", 504, "Circuit breaker test - simulated timeout"),
])
def test_two_failures_open_it_and_ten_seconds_half_open_it(fresh, name, status, error):
    c = fresh().client()
    r = c.get(TRIAL + name)
    assert r.status_code == status
    assert r.json()["error"] == error and r.json()["code"] == status
    assert breaker(c, name)["state"] == "closed" and breaker(c, name)["current_failures"] == 1
    for rejected in 0, 1, 2:
        r = c.post(TRIAL + name)
        assert r.status_code == 503 and r.headers["content-type"].startswith("application/problem+json")
        assert {"error": "Service temporarily unavailable", "code": 503, "service": f"test-{name}-service"}.items() <= r.json().items()
        assert 1 <= int(r.headers["retry-after"]) <= 10
        b = breaker(c, name)
        assert (b["state"], b["total_requests"], b["total_failures"], b["total_rejected"]) == ("open", 2 + rejected, 2, rejected)
    time.sleep(10.2)
    assert breaker(c, name)["state"] == "half-open"
    assert c.get(TRIAL + name).status_code == 503  # let through, and failed
    assert breaker(c, name)["state"] == "open" and breaker(c, name)["total_failures"] == 3
    assert ok(c.get("/health"))["services"]["circuit_breakers"][f"test-{name}-service"]["state"] == "open"
    assert c.get(TRIAL + "success").status_code == 200


def test_not_in_production(fresh):
    c = fresh(env={"ENV": "prod", "JWT_SECRET": "x" * 32, "BCRYPT_COST": "10"}).client()
    for name in "success", "failure", "timeout":
        assert c.get(TRIAL + name).status_code == 404
    assert ok(c.get("/api/v1/metrics/circuit-breakers")) == {"circuit_breakers": {}}
