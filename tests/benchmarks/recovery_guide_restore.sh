#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ./scripts/restore_backup.sh latest, which the guide calls and does not show, as such scripts are written: a new volume in the
# place of the old one, and last night's dump into psql. In the guide's favour it waits no longer than it must.
set -eu
cd /opt/whats_agent
value() { sed -n "s/^$1=//p" .env; }
volume=$(value DB_VOLUME)
docker volume rm "$volume" >/dev/null 2>&1 || true
docker volume create "$volume" >/dev/null
DB_PASSWORD=$(value DB_PASSWORD) docker run --rm --network none --env DB_PASSWORD --env "DB_NAME=$(value DB_NAME)" \
  --env "DB_USER=$(value DB_USER)" --volume "$volume:/var/lib/postgresql/data" \
  "whats_agent/postgres:$(value RELEASE)" initialise >/dev/null 2>&1
docker compose up -d postgres
until docker compose exec -T postgres pg_isready --quiet; do sleep 0.2; done
gunzip --stdout "$(dirname "$0")/$1.sql.gz" |
  docker compose exec -T postgres psql --quiet --no-psqlrc -U postgres whats_agent >/dev/null
