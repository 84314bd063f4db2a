#!/bin/sh
# Makes the secrets of one installation in /secrets, once: each readable only by who needs it, whatever reads the volume.
set -eu
cd /secrets
[ ! -e made ] || exit 0
umask 077
random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

app=10001 postgres=999 redis=999 rabbitmq=999 mongo=999
db=$(random 24) cache=$(random 24) replicator=$(random 24) broker=$(random 24) documents=$(random 24)
random 24 >postgres_superuser
printf %s "$replicator" >postgres_replicator
printf %s "$db" >postgres_payflow
printf '*:*:*:replicator:%s\n' "$replicator" >postgres_pgpass
printf %s "$cache" >redis_password
printf %s "$db" >db_password
random 48 >jwt_secret
printf 'redis://:%s@redis-master:6379' "$cache" >redis_url
printf 'default_user = payflow\ndefault_pass = %s\n' "$broker" >rabbitmq.conf
printf 'amqp://payflow:%s@rabbitmq:5672/' "$broker" >amqp_url
printf %s "$documents" >mongo_password
printf 'mongodb://payflow:%s@mongo:27017/payflow?authSource=admin' "$documents" >mongo_url
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 825 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout tls_key.pem -out tls_cert.pem 2>/dev/null
chown $postgres postgres_*
chown $redis redis_password
chown $rabbitmq rabbitmq.conf
chown $mongo mongo_password
chown $app db_password jwt_secret redis_url amqp_url mongo_url
chmod 400 ./*
chmod 444 tls_cert.pem
chmod 755 .
touch made
