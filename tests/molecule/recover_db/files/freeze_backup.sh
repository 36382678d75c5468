#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Freeze a full backup that is at work, and say so. Not before it holds its lock: one that was frozen while it started is not
# "running" to anybody, and whoever comes next rightly takes a backup of their own.
for pid in $(pgrep --full 'pgbackrest .*--type=full'); do
    if grep --quiet execId "/proc/$pid/root/tmp/pgbackrest/"main-backup-*.lock 2>/dev/null; then
        kill -s STOP "$pid" && echo "frozen: $pid"
    fi
done
