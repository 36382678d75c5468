#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The troubleshooting guide's commands for a broken database, one after another, with its sleeps: what a person does who
# already knows which case it is. Measured by recovery.py, used nowhere else.
#   recovery_guide.sh container_stopped | restore
# What differs from the guide's text: the compose command's new spelling; the worker, which the guide's agent has inside its
# app; and `postgres` for $DB_USER, since this stack lets nobody else in over the socket. As in the guide, nothing is checked
# on the way, so a command that fails does not stop the rest.
set -u
cd /opt/whats_agent || exit 1
DB_USER=postgres DB_NAME=whats_agent
docker-compose() { docker compose "$@"; }

# "Banco de Dados Inacessível", Diagnóstico
docker-compose ps postgres
docker-compose logs postgres --tail=100 >/dev/null
docker-compose exec -T postgres pg_isready -U "$DB_USER"
df -h >/dev/null
docker system df

case "$1" in
  container_stopped) # CASO 1
    docker-compose up -d postgres
    sleep 30
    docker-compose exec -T postgres pg_isready -U "$DB_USER"
    ;;
  restore) # CASO 3, and "Recovery de Banco de Dados"
    docker-compose stop app worker
    docker-compose exec -T postgres pg_dump -U "$DB_USER" "$DB_NAME" >"/tmp/emergency_backup_$(date +%Y%m%d_%H%M%S).sql"
    docker-compose down postgres
    docker volume ls | grep postgres
    "$(dirname "$0")/recovery_guide_restore.sh" latest
    docker-compose exec -T postgres psql -U "$DB_USER" "$DB_NAME" -c "SELECT count(*) FROM conversations;"
    docker-compose up -d app worker
    ;;
esac

# Verificação. The guide's `curl -f`, with what a Debian server has.
docker-compose exec -T postgres psql -U "$DB_USER" -c "SELECT version();" || exit 1
deadline=$((SECONDS + 120))
until python3 -c "import urllib.request as r; r.urlopen('http://localhost:8000/health', timeout=5)"; do
  [ "$SECONDS" -lt "$deadline" ] || exit 1
  sleep 1
done
