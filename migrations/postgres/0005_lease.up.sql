-- Which process does a job that one of all instances does. holder '': nobody; token: raised with each change of holder, so that
-- what a former one still writes is told from what its successor does. Judged by this server's clock alone.
CREATE TABLE lease (
    name    text        PRIMARY KEY,
    holder  text        NOT NULL,
    token   bigint      NOT NULL CHECK (token >= 0),
    expires timestamptz NOT NULL
) WITH (fillfactor = 10);
