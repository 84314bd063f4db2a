-- What events are about: the text as it was given, and what of it queries look into. Their stock is in event, under the same uuid.
CREATE TABLE event_document (
    id         bytea  PRIMARY KEY CHECK (length(id) = 16),
    created_us bigint NOT NULL,
    date_us    bigint NOT NULL,
    search     text   NOT NULL,
    body       text   NOT NULL,
    doc        jsonb  NOT NULL GENERATED ALWAYS AS (body::jsonb) STORED
);
