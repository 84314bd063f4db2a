#!/bin/bash
# One of the three PostgreSQL servers, as its image's user postgres. A new db-master makes the roles and the database; a new
# replica copies whichever of the three is the primary. Each follows the primary whenever it is not that itself.
set -euo pipefail
export PGPASSFILE=/secrets/postgres_pgpass
hosts=db-master,db-replica1,db-replica2
primary="host=$hosts port=5432 user=replicator target_session_attrs=primary connect_timeout=3"

if [ ! -s "$PGDATA/PG_VERSION" ] && [ "$NODE" != db-master ]; then
    until pg_basebackup -D "$PGDATA" -d "$primary" -X stream -c fast --no-password; do
        find "$PGDATA" -mindepth 1 -delete
        sleep 1
    done
    touch "$PGDATA/standby.signal"
fi
# Bookkeeping waits for no replica: there is none yet.
export PGOPTIONS='-c synchronous_commit=local'
exec docker-entrypoint.sh postgres -c config_file=/etc/payflow/postgresql.conf -c hba_file=/etc/payflow/pg_hba.conf \
    -c "data_directory=$PGDATA" -c "listen_addresses=*" -c "cluster_name=$NODE" \
    -c "primary_conninfo=$primary passfile=$PGPASSFILE application_name=$NODE"
