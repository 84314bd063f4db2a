DROP TRIGGER idempotency_guard;
DROP TRIGGER seal_guard;
DROP TRIGGER journal_guard;
