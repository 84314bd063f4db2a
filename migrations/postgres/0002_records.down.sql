DROP TABLE audit;
DROP TABLE schedule_run;
DROP TABLE schedule;
DROP TABLE refresh;
DROP TABLE session;
DROP TABLE api_key;
DROP TABLE users;
DROP TABLE record_ids;
