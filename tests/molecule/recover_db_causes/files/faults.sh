#!/bin/bash
# Break the stack's database for real: `faults.sh break NAME`, and put right what no runbook is to mend: `faults.sh mend NAME`.
# One function per fault, named break_NAME and mend_NAME. Each returns once the fault shows.
set -euo pipefail

exec >/dev/null # what goes wrong is said on the other stream
readonly stack=/opt/whats_agent work=/run/whats_agent_test
mkdir -p "$work"

setting() { sed -n "s/^$1=//p" "$stack/.env"; }
compose() { docker compose --progress=quiet --file "$stack/compose.yml" "$@"; }
labels=(--filter label=com.docker.compose.project=whats_agent --filter label=com.docker.compose.oneoff=False)
container() { docker ps --all --quiet "${labels[@]}" --filter "label=com.docker.compose.service=${1:-postgres}"; }
lies_at() { docker volume inspect --format '{{.Mountpoint}}' "$1"; } # VOLUME
data() { lies_at "$(setting DB_VOLUME)"; }
sql() { docker exec "$(container)" psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d "${2:-whats_agent}" -c "$1"; }
soon() { # SECONDS COMMAND…: wait until the command succeeds
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { echo "not in time: $*" >&2; exit 1; }
    sleep 0.2
  done
}
is() { [ "$(sql "$1" postgres)" = t ]; } # QUERY: it answers true
ready() { docker exec "$(container)" pg_isready --quiet; }
state() { [ "$(docker inspect --format "$1" "$(container)")" = "$2" ]; }
set_env() { sed -i "s|^$1=.*|$1=$2|" "$stack/.env"; }
# Restarted again and again: what a server does that cannot start.
starts_in_vain() { docker start "$(container)" >/dev/null && soon 20 state '{{gt .RestartCount 1}}' true; }
# Overwrite half of a page on disk with noise, in a server stopped in order, and start it again: RELATION [BLOCK [FORK…]]
damage() {
  sql checkpoint
  local file fork files=()
  file=$(data)/$(sql "select pg_relation_filepath('$1')")
  for fork in "${@:3}"; do files+=("${file}_$fork"); done
  [ $# -gt 2 ] || files=("$file")
  for file in "${files[@]}"; do
    [ "$(stat --format %s "$file")" -ge $((8192 * (${2:-0} + 1))) ] || { echo "$file has no page ${2:-0} yet" >&2; exit 1; }
  done
  docker stop "$(container)"
  for file in "${files[@]}"; do
    dd if=/dev/urandom of="$file" bs=2048 count=2 seek=$((${2:-0} * 4 + 1)) conv=notrunc,fsync status=none
  done
  docker start "$(container)"
  soon 60 ready
}
lose_volume() {
  local volume
  volume=$(mounted)
  docker rm --force "$(container)"
  docker volume rm "$volume"
}
# Leave so many megabytes where a path lies, by a file: PATH FILE MEGABYTES
fill() {
  local free
  free=$(df --output=avail --block-size=1M "$1" | tail -n 1)
  fallocate --length "$((free - $3))M" "$2"
}
# Hold sessions open from the host, as a program that never closes any: HOST USER DATABASE COUNT [STATEMENT]
hold() {
  systemd-run --quiet --collect --unit=whats_agent_test_holder --setenv=PGPASSWORD="$(setting DB_PASSWORD)" \
    python3 -c '
import pathlib, sys, time, psycopg
host, user, dbname, count, statement = sys.argv[1:]
held = []
try:
    while len(held) < int(count):
        held.append(psycopg.connect(host=host, user=user, dbname=dbname))
        held[-1].autocommit = not statement
        if statement:
            held[-1].execute(statement)
except psycopg.OperationalError as error:
    print(error)
pathlib.Path("/run/whats_agent_test/held").write_text(str(len(held)))
time.sleep(600)' "$1" "$2" "$3" "$4" "${5:-}"
  soon 30 test -e "$work/held"
}
release() { systemctl stop whats_agent_test_holder; rm -f "$work/held"; }

# The container ------------------------------------------------------------------------------------------------------------

break_container_missing() { docker rm --force "$(container)"; }

# Somebody started it on a copy, and it went on there.
break_container_outdated() {
  local copy=whats_agent_pgdata_copy
  docker volume create --label whats_agent.role=pgdata "$copy"
  docker stop "$(container)"
  cp --archive "$(data)/." "$(docker volume inspect --format '{{.Mountpoint}}' "$copy")/"
  DB_VOLUME=$copy compose up --detach --no-deps --wait postgres
}
mend_container_outdated() {
  docker volume rm whats_agent_pgdata_copy
  # What the server calls archived is in the repository with the content that it has here, and not with the copy's.
  local wal done name
  wal=$(data)/pg_wal
  for done in "$wal"/archive_status/????????????????????????.done; do
    name=$(basename "$done" .done)
    ls "$repository"/archive/main/17-*/"${name:0:16}/$name-$(sha1sum "$wal/$name" | cut -d ' ' -f 1)".*
  done
}

break_volume_misnamed() { set_env DB_VOLUME whats_agent_pgdata_of_another_server; }

# It died of a signal, and somebody had told the engine not to start it again.
break_container_exited() {
  docker update --restart=no "$(container)"
  pkill -SEGV --exact postgres --oldest
  soon 30 state '{{.State.Status}}' exited
}
mend_container_exited() { docker update --restart=unless-stopped "$(container)"; }

break_process_stopped() { pkill -STOP --exact postgres --oldest; }

# The way to it ------------------------------------------------------------------------------------------------------------

break_credentials_wrong() {
  sql "alter role whats_agent password 'changed-by-hand' valid until '2001-01-01'"
  sql "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'whats_agent'"
}

break_name_wrong() {
  set_env DB_NAME agent
  compose up --detach --no-deps worker
}

# A role that the server does not know. Made anew it would have no right to any of the agent's tables.
break_user_wrong() {
  set_env DB_USER agent
  compose up --detach --no-deps worker
}

# The other half of `credentials_wrong`: not the server's password is another, but that of .env, and whoever starts with it.
break_password_wrong() {
  cp --archive "$stack/.env" "$work/env"
  set_env DB_PASSWORD changed-in-the-file
  compose up --detach --no-deps worker
}
# The password of before again, which is what a later deployment knows.
mend_password_wrong() {
  cp --archive "$work/env" "$stack/.env"
  docker exec --interactive "$(container)" psql -XAtq -v ON_ERROR_STOP=1 -U postgres \
    <<<"alter role whats_agent password '$(setting DB_PASSWORD)'"
  compose up --detach --no-deps worker
}

break_host_wrong() {
  set_env DB_HOST db.example.invalid
  compose up --detach --no-deps worker
}

# The way that everything on the host takes to it; the agent's own is TCP. A young server would be taken for one that is starting.
break_socket_removed() {
  soon 90 is "select now() - pg_postmaster_start_time() > '62 s'"
  rm "$stack/run/postgres/.s.PGSQL.5432" "$stack/run/postgres/.s.PGSQL.5432.lock"
}

# Without it nothing can be asked of a database at all.
break_setting_lost() { cp --archive "$stack/.env" "$work/env" && sed -i '/^DB_HOST=/d' "$stack/.env"; }
mend_setting_lost() { cp --archive "$work/env" "$stack/.env"; }

break_engine_unreachable() { mv /run/docker.sock /run/docker.sock.away; }
mend_engine_unreachable() { mv /run/docker.sock.away /run/docker.sock; }

# Sessions and locks -------------------------------------------------------------------------------------------------------

break_blocked() {
  hold "$stack/run/postgres" postgres whats_agent 1 "lock table messages"
  soon 30 is "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and now() - query_start > '2 s')"
}
mend_blocked() { release; }

# A program that leaks its connections, as the agent's own role: what is left are the superuser's.
break_connections_leaked() {
  hold "$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(container)" | cut -d ' ' -f 1)" \
    whats_agent whats_agent 200
}
mend_connections_leaked() { release; }

# The superuser's as well: nobody gets in any more.
break_slots_exhausted() { hold "$stack/run/postgres" postgres postgres 200; }
mend_slots_exhausted() { release; }

# Archive, slots, disk -------------------------------------------------------------------------------------------------

readonly repository=/var/backups/whats_agent/pgbackrest
archiving_fails() {
  sql "select pg_logical_emit_message(false, 'fault', 'so that there is something to archive')"
  sql "select pg_switch_wal()"
  soon 90 is "select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver"
}
archiving_works() {
  sql "select pg_switch_wal()"
  soon 90 is "select last_archived_time > coalesce(last_failed_time, '-infinity') from pg_stat_archiver"
}

# As after a copy by root.
break_repository_foreign() {
  chown -R root:root "$repository"
  archiving_fails
}

# What names the archive and holds the key to it, both copies: nothing in it can be read without, and nothing is added.
break_archive_info_lost() {
  rm "$repository"/archive/main/archive.info{,.copy}
  archiving_fails
}

# Without it WAL goes on being archived, and no backup can be restored.
break_backup_info_lost() { rm "$repository"/backup/main/backup.info{,.copy}; }

# Nor is there any on this host, as on one whose repository was lost before the first run that keeps them.
break_archive_info_unkept() {
  mkdir "$work/kept"
  mv /var/lib/whats_agent/repository "$work/kept"
  mv "$repository"/archive/main/archive.info{,.copy} "$work/kept"
  archiving_fails
}
mend_archive_info_unkept() {
  mv "$work/kept/repository" /var/lib/whats_agent/repository
  mv "$work"/kept/archive.info{,.copy} "$repository/archive/main"
  rmdir "$work/kept"
  archiving_works
}

# The repository lies on a disk of its own, which something else fills.
break_repository_full() {
  local size
  size=$(($(du --summarize --block-size=1M "$repository" | cut -f 1) + 64))
  docker stop "$(container)"
  mv "$repository" "$repository.whole"
  mkdir "$repository"
  mount -t tmpfs -o "size=${size}M" tmpfs "$repository"
  cp --archive "$repository.whole/." "$repository"
  docker start "$(container)"
  soon 60 ready
  cat /dev/zero >"$repository/filler" 2>"$work/full" || grep --quiet 'No space left' "$work/full"
  archiving_fails
}
mend_repository_full() {
  rm "$repository/filler"
  docker stop "$(container)"
  cp --archive "$repository" "$repository.new"
  umount "$repository"
  rmdir "$repository"
  mv "$repository.new" "$repository"
  rm -r "$repository.whole"
  docker start "$(container)"
  soon 60 ready
  archiving_works
}

# The logs lie on a disk of their own, which something else fills. Who writes them is started anew, to see that disk.
readonly logs=$stack/logs
break_logs_full() {
  cp --archive "$logs" "$work/logs"
  mount -t tmpfs -o size=64M tmpfs "$logs"
  cp --archive "$work/logs/." "$logs"
  chown --reference="$work/logs" "$logs" && chmod --reference="$work/logs" "$logs"
  each_writer_again
  cat /dev/zero >"$logs/filler" 2>"$work/full" || grep --quiet 'No space left' "$work/full"
}
mend_logs_full() {
  umount --lazy "$logs"
  rm -r "$work/logs"
  each_writer_again
}
# One after the other, so that there is always one that takes messages.
each_writer_again() {
  local id
  for id in $(container app) $(container worker); do
    docker restart "$id"
    soon 90 healthy "$id"
  done
}
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }

break_slot_forgotten() {
  sql "select pg_create_physical_replication_slot('forgotten', true)"
  local round
  for round in 1 2 3; do
    sql "select pg_logical_emit_message(false, 'fault', 'round $round')"
    sql "select pg_switch_wal()"
  done
}

# A proof was killed, and its volumes are still there.
break_disk_full_scratch() {
  docker volume create --label whats_agent.scratch=proof whats_agent_scratch_of_a_killed_proof
  fill /var/lib/docker "$(lies_at whats_agent_scratch_of_a_killed_proof)/filler" 100
}

# What is not the database's own is for a person to remove.
break_disk_full_foreign() { fill /var/lib/docker /var/lib/docker/filler 100; }
mend_disk_full_foreign() { rm /var/lib/docker/filler; }

# The WAL receiver -----------------------------------------------------------------------------------------------------

break_receiver_dead() {
  docker stop "$(container wal_receiver)"
  soon 30 is "select exists (select from pg_stat_activity where wait_event = 'SyncRep' and now() - state_change > '5 s')"
}

# Its volume takes nothing any more, so it does not come back either.
break_receiver_gone() {
  chown -R root:root "$(docker volume inspect --format '{{.Mountpoint}}' whats_agent_wal_receiver)"
  chmod 0700 "$(docker volume inspect --format '{{.Mountpoint}}' whats_agent_wal_receiver)"
  docker restart "$(container wal_receiver)"
  soon 30 is "select exists (select from pg_stat_activity where wait_event = 'SyncRep' and now() - state_change > '5 s')"
}
break_receiver_back() {
  chown -R 64011:64000 "$(docker volume inspect --format '{{.Mountpoint}}' whats_agent_wal_receiver)"
}

# Nothing waits for it, so nothing shows but that it is not there.
break_receiver_stopped() {
  sed --in-place 's/\[receive, sync\]/[receive, async]/' "$stack/compose.yml"
  sed --in-place 's/^synchronous_standby_names/#&/' "$stack/config/postgres/postgresql.conf"
  sql "select pg_reload_conf()"
  soon 30 is "select current_setting('synchronous_standby_names') = ''"
  compose up --detach --no-deps --wait wal_receiver
  compose stop wal_receiver
}
mend_receiver_stopped() {
  soon 5 is "select active from pg_replication_slots where slot_name = 'whats_agent_receiver'"
  sed --in-place 's/\[receive, async\]/[receive, sync]/' "$stack/compose.yml"
  sed --in-place 's/^#synchronous_standby_names/synchronous_standby_names/' "$stack/config/postgres/postgresql.conf"
  sql "select pg_reload_conf()"
  compose up --detach --no-deps --wait wal_receiver
}

# The volume goes right after a commit: what no archived segment has, the receiver has written down.
break_volume_lost_receiving() {
  sql "create table if not exists fault_kept (moment timestamptz)"
  sql "insert into fault_kept values (clock_timestamp())"
  lose_volume
}
mend_volume_lost_receiving() {
  [ "$(sql "select count(*) from fault_kept")" = 1 ] || { echo "the last commit is lost" >&2; exit 1; }
  sql "drop table fault_kept"
}

# The data -----------------------------------------------------------------------------------------------------------------

break_index_corrupt() { damage messages_pkey; }

# Both maps of a table that is full to the last byte: its map of free space belongs empty, and PostgreSQL never writes it anew.
break_map_corrupt() {
  sql "create table fault_full (filler text)"
  sql "alter table fault_full alter filler set storage plain"
  sql "insert into fault_full select repeat('x', 2004) from generate_series(1, 4000)"
  sql "vacuum fault_full"
  damage fault_full 0 fsm vm
}
mend_map_corrupt() {
  [ "$(sql "select count(*) from fault_full")" = 4000 ]
  sql "drop table fault_full"
  [ "$(sql "select count(*) from pg_extension where extname = 'pg_visibility'")" = 0 ]
}

# An index that lacks a row, on pages whose checksums fit: only a look at heap and index side by side tells.
break_index_wrong() {
  sql "create table fault_indexed (number int)"
  sql "create index fault_index on fault_indexed (number)"
  sql "insert into fault_indexed values (1)"
  sql "update pg_index set indisready = false where indexrelid = 'fault_index'::regclass"
  sql "insert into fault_indexed values (2)"
  sql "update pg_index set indisready = true where indexrelid = 'fault_index'::regclass"
}
mend_index_wrong() {
  [ "$(sql "set enable_seqscan = off; select count(*) from fault_indexed where number = 2")" = 1 ]
  sql "drop table fault_indexed"
}

# Rows older than their table can hold: no checksum tells, and the archive has them like that, so each restore brings them back. Of a
# proven backup tables are compared only once the service is back.
break_table_unsound() {
  local segment
  systemctl start whats_agent_backup_prove.service
  sql "create table fault_unsound as select generate_series(1, 100) as number"
  sql "update pg_class set relfrozenxid = pg_current_xact_id()::xid where oid = 'fault_unsound'::regclass"
  segment=$(sql "select pg_walfile_name(pg_switch_wal())")
  soon 90 is "select last_archived_wal >= '$segment' from pg_stat_archiver"
  lose_volume
}

# Nobody has done anything about it. Then the table goes, and a backup of what is left is taken and proven.
break_left_unsound() { :; }
mend_left_unsound() {
  sql "drop table fault_unsound"
  systemctl start whats_agent_backup_full.service
  systemctl start whats_agent_backup_prove.service
}

# The catalog of all relations of the agent's database.
break_catalog_corrupt() { damage pg_class; }

# Killed, so that nothing writes it anew.
break_control_file_lost() {
  docker kill "$(container)"
  rm "$(data)/global/pg_control"
  starts_in_vain
}

break_control_file_damaged() {
  docker kill "$(container)"
  dd if=/dev/urandom of="$(data)/global/pg_control" bs=8192 count=1 conv=notrunc,fsync status=none
  starts_in_vain
}

# The repository has the segment, so that nothing need be lost.
break_checkpoint_lost() {
  sql checkpoint
  local segment
  segment=$(sql "select pg_walfile_name(checkpoint_lsn) from pg_control_checkpoint()")
  sql "select pg_switch_wal()"
  soon 90 is "select last_archived_wal >= '$segment' from pg_stat_archiver"
  docker kill "$(container)"
  rm "$(data)/pg_wal/$segment"
  starts_in_vain
}

# Found again once a restore has begun. The state of an earlier one, which has ended, is not to be taken for that one's.
break_control_file_aside() {
  rm --force /var/lib/whats_agent/restore.json
  docker kill "$(container)"
  mv "$(data)/global/pg_control" "$work/pg_control"
  starts_in_vain
}
meanwhile_control_file_aside() {
  docker stop "$(container)"
  mv "$work/pg_control" "$(data)/global/pg_control"
  docker start "$(container)"
  soon 60 ready
}

# Somebody dropped it. What was in it a moment before is noted.
break_database_dropped() {
  date --utc +%FT%T.%6NZ >"$work/before"
  sleep 0.1 # so that nothing else is of that moment
  sql "drop database whats_agent with (force)" postgres
}

# Killed with much WAL after its last checkpoint, on a machine that is busy until all of that is replayed.
break_slow_replay() {
  local id cpus
  id=$(container)
  cpus=$(docker inspect --format '{{.HostConfig.NanoCpus}}' "$id")
  sql "alter system set max_wal_size = '8GB'"
  sql "select pg_reload_conf()"
  sql "create table replayed (key bigint, number int)" postgres
  sql "create index on replayed (key)" postgres
  sql checkpoint
  sql "insert into replayed select hashint8extended(n, 0), n from generate_series(1, 1000000) n" postgres
  docker kill "$id"
  docker update --cpus=0.1 "$id"
  docker start "$id"
  docker inspect --format '{{.State.StartedAt}}' "$id" >"$work/started"
  soon 60 said 'redo starts'
  systemd-run --quiet --collect --unit=whats_agent_test_busy bash -c "
    until docker logs --since '$(cat "$work/started")' '$id' 2>&1 | grep --quiet 'redo done'; do sleep 0.5; done
    docker update --cpus='$((cpus / 1000000000))' '$id'"
}
said() { docker logs --since "$(cat "$work/started")" "$(container)" 2>&1 | grep "$1"; } # since its last start
# Nobody started it once more.
mend_slow_replay() {
  state '{{.State.StartedAt}}' "$(cat "$work/started")"
  said 'redo done'
  sql "drop table replayed" postgres
  sql "alter system reset max_wal_size"
  sql "select pg_reload_conf()"
}

break_collation_changed() { sql "update pg_database set datcollversion = '0.9' where datname = 'whats_agent'"; }

break_standby() {
  docker stop "$(container)"
  touch "$(data)/standby.signal"
  docker start "$(container)"
  soon 60 is "select pg_is_in_recovery()"
}

break_volume_empty() {
  docker stop "$(container)"
  find "$(data)" -mindepth 1 -delete
  starts_in_vain
}

break_wrong_major() {
  docker stop "$(container)"
  echo 16 >"$(data)/PG_VERSION"
  starts_in_vain
}
mend_wrong_major() {
  echo 17 >"$(data)/PG_VERSION"
  docker restart "$(container)"
  soon 30 ready
}

break_config_refused() {
  cp --archive "$stack/config/postgres/postgresql.conf" "$work/postgresql.conf"
  echo "max_connections = many" >>"$stack/config/postgres/postgresql.conf"
  docker stop "$(container)"
  starts_in_vain
}
mend_config_refused() {
  cp --archive "$work/postgresql.conf" "$stack/config/postgres/postgresql.conf"
  docker restart "$(container)"
  soon 30 ready
}

mounted() { docker inspect --format '{{range .Mounts}}{{if eq .Destination "/var/lib/postgresql/data"}}{{.Name}}{{end}}{{end}}' "$(container)"; }
volume_kept() { [ "$(mounted)" = "$(cat "$work/volume")" ] && [ "$(mounted)" = "$(setting DB_VOLUME)" ]; }

# Another one is in use, and in that of before not a file has changed or come; where a server still ran on it, none has gone.
volume_replaced() {
  [ "$(mounted)" != "$(cat "$work/volume")" ]
  [ "$(mounted)" = "$(setting DB_VOLUME)" ]
  if [ -e "$work/sums" ]; then
    sums | diff "$work/sums" - >&2
  else
    names | comm -23 "$work/names" - | diff /dev/null - >&2
  fi
}
# That of before is gone for good.
volume_remade() { [ "$(mounted)" != "$(cat "$work/volume")" ] && [ "$(mounted)" = "$(setting DB_VOLUME)" ]; }
names() {
  local place
  place=$(lies_at "$(cat "$work/volume")")
  cd "$place" && find . -type f -path './base/[0-9]*' | sort
}
# Without what each start of the container writes, in vain as it is.
sums() {
  local place
  place=$(lies_at "$(cat "$work/volume")")
  cd "$place" && find . -type f ! -name 'postmaster.*' ! -path './pg_stat*' -print0 | sort -z |
    xargs -0 --no-run-if-empty sha256sum
}
# What lies in the volume once it is broken.
note_volume() {
  rm -f "$work/sums" "$work/names"
  if ready 2>/dev/null; then names >"$work/names"; else sums >"$work/sums"; fi
}

case "$1" in
  break)
    mounted >"$work/volume"
    "break_$2"
    if [ "${3:-kept}" = replaced ]; then note_volume; fi
    ;;
  *) "$1_$2" ;;
esac
