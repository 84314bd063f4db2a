-- What each process says about its cache (port/store.h): a row a process, gone or outdated when the process is.
CREATE TABLE cache_word (
  process text PRIMARY KEY,
  word text NOT NULL,
  said timestamptz NOT NULL
) WITH (fillfactor = 50);
