-- What no row may say whatever the program believes, as the CHECKs of a server's tables have it: an embedded database's
-- tables were made without, and SQLite adds none to a table that is there. Accounts below 1000 are the world outside.
-- The uniqueness of (principal, key) is not among them: an index on it would cost more than the commit (0001_ledger).
-- Nor are the accounts, which are a projection: `verify` proves them.

CREATE TRIGGER journal_guard BEFORE INSERT ON journal
    WHEN NEW.amount < 0 OR length(NEW.uuid) <> 16 OR (NEW.debit >= 1000 AND NEW.debit_balance < 0)
        OR (NEW.credit >= 1000 AND NEW.credit_balance < 0)
BEGIN SELECT RAISE(ABORT, 'an entry that cannot be'); END;

CREATE TRIGGER seal_guard BEFORE INSERT ON seal WHEN length(NEW.hash) <> 32
BEGIN SELECT RAISE(ABORT, 'a seal that cannot be'); END;

CREATE TRIGGER idempotency_guard BEFORE INSERT ON idempotency WHEN length(NEW.request) <> 32
BEGIN SELECT RAISE(ABORT, 'a key that cannot be'); END;
