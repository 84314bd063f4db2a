-- What the seeds' transfer touches, with the keys and indexes that its reads need.
CREATE TABLE balances (
  user_id bigint PRIMARY KEY,
  amount bigint NOT NULL CHECK (amount >= 0),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE transactions (
  id bigserial PRIMARY KEY,
  from_user_id bigint NOT NULL,
  to_user_id bigint NOT NULL,
  amount bigint NOT NULL,
  type text NOT NULL,
  status text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE balance_history (
  id bigserial PRIMARY KEY,
  user_id bigint NOT NULL,
  transaction_id bigint NOT NULL,
  amount bigint NOT NULL,
  balance bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON balance_history (user_id, id);
CREATE TABLE events (
  id bigserial PRIMARY KEY,
  aggregate_id bigint NOT NULL,
  event_type text NOT NULL,
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO balances (user_id, amount) SELECT i, 1000000000 FROM generate_series(1, 1000) i;
