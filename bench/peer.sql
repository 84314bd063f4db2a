-- pgbench: the seeds' transfer. Both accounts are locked in id order, so that no two clients deadlock.
\set n 1000
\set a random(1, :n)
\set b random(1, :n - 1)
\set b case when :b >= :a then :b + 1 else :b end
\set lo least(:a, :b)
\set hi greatest(:a, :b)
BEGIN;
SELECT amount FROM balances WHERE user_id = :lo FOR UPDATE;
SELECT amount FROM balances WHERE user_id = :hi FOR UPDATE;
UPDATE balances SET amount = amount - 1, updated_at = now() WHERE user_id = :a RETURNING amount AS a_amount \gset
UPDATE balances SET amount = amount + 1, updated_at = now() WHERE user_id = :b RETURNING amount AS b_amount \gset
INSERT INTO transactions (from_user_id, to_user_id, amount, type, status) VALUES (:a, :b, 1, 'transfer', 'completed') RETURNING id AS tx \gset
INSERT INTO balance_history (user_id, transaction_id, amount, balance) VALUES (:a, :tx, -1, :a_amount);
INSERT INTO balance_history (user_id, transaction_id, amount, balance) VALUES (:b, :tx, 1, :b_amount);
INSERT INTO events (aggregate_id, event_type, payload) VALUES (:tx, 'TransferCompleted', '{"amount":1,"currency":"USD"}');
COMMIT;
