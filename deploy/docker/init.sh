#!/bin/sh
# Makes the secrets of one installation in /secrets, each once, so that a later version adds what it needs: each readable only by
# who needs it, whatever reads the volume.
set -eu
cd /secrets
umask 077
random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

app=10001 postgres=999 redis=999 rabbitmq=999 mongo=999
if [ ! -e made ]; then
    db=$(random 24) cache=$(random 24) replicator=$(random 24)
    random 24 >postgres_superuser
    printf %s "$replicator" >postgres_replicator
    printf %s "$db" >postgres_payflow
    printf '*:*:*:replicator:%s\n' "$replicator" >postgres_pgpass
    printf %s "$cache" >redis_password
    printf %s "$db" >db_password
    random 48 >jwt_secret
    printf 'redis://:%s@redis-master:6379' "$cache" >redis_url
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 825 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout tls_key.pem -out tls_cert.pem 2>/dev/null
    chown $postgres postgres_*
    chown $redis redis_password
    chown $app db_password jwt_secret redis_url
    chmod 400 postgres_* redis_password db_password jwt_secret redis_url tls_key.pem
    chmod 444 tls_cert.pem
    touch made
fi
if [ ! -e made-ticketing ]; then
    broker=$(random 24) documents=$(random 24)
    rm -f rabbitmq.conf amqp_url mongo_password mongo_url # half made, perhaps
    printf 'default_user = payflow\ndefault_pass = %s\n' "$broker" >rabbitmq.conf
    printf 'amqp://payflow:%s@rabbitmq:5672/' "$broker" >amqp_url
    printf %s "$documents" >mongo_password
    printf 'mongodb://payflow:%s@mongo:27017/payflow?authSource=admin' "$documents" >mongo_url
    chown $rabbitmq rabbitmq.conf
    chown $mongo mongo_password
    chown $app amqp_url mongo_url
    chmod 400 rabbitmq.conf amqp_url mongo_password mongo_url
    touch made-ticketing
fi
chmod 755 .
