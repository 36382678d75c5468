#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Watch with the real command until it has said that the muted database is left alone, let it, and end it once it has
# recovered the database. Prints what the watcher said. Runs in the project's directory.
set -euo pipefail
inventory=tests/molecule/inventory/hosts.yml
log=$(mktemp)

scripts/oncall watch -i "$inventory" --every 2s --json >"$log" 2>&1 &
watcher=$!
trap 'kill -TERM "$watcher" 2>/dev/null || true; cat "$log"; rm -f "$log"' EXIT

# Wait until the watcher has said this kind of thing, three minutes at most.
said() {
    for _ in $(seq 900); do
        if grep -q "\"kind\": \"$1\"" "$log"; then return 0; fi
        if ! kill -0 "$watcher"; then return 1; fi
        sleep 0.2
    done
    return 1
}

said muted
scripts/oncall unmute database --why "the test is over" -i "$inventory"
said recovered
kill -TERM "$watcher"
wait "$watcher"
