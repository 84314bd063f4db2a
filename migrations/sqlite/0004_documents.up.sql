-- What events are about, as it was given. Their stock is in event, under the same uuid.
CREATE TABLE event_document (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    created_us INTEGER NOT NULL,
    date_us    INTEGER NOT NULL,
    search     TEXT    NOT NULL,
    body       TEXT    NOT NULL CHECK (json_valid(body))
) STRICT;
