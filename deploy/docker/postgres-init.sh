#!/bin/bash
# Run once by the image's entry point on a new db-master. The passwords go through standard input, not the command line.
set -euo pipefail
psql -v ON_ERROR_STOP=1 --username postgres <<SQL
SET log_min_error_statement = panic;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD '$(cat /secrets/postgres_replicator)';
CREATE ROLE payflow LOGIN PASSWORD '$(cat /secrets/postgres_payflow)';
CREATE DATABASE payflow OWNER payflow;
SQL
