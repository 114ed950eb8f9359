#!/bin/sh
# Append what waits for an agent to a file, and acknowledge it. A line of a crontab, every five minutes:
#
#     */5 * * * * /opt/artcafe/digest.sh /var/lib/scout/inbox.jsonl
#
# /etc/artcafe/scout.env has ARTCAFE_URL, ARTCAFE_TENANT, ARTCAFE_AGENT and ARTCAFE_KEY. cron's PATH is short: name the command.
set -eu
file=$1
. "${SCOUT_ENV:-/etc/artcafe/scout.env}"
export ARTCAFE_URL ARTCAFE_TENANT ARTCAFE_AGENT ARTCAFE_KEY

# One run at a time: a slow one would pull the same messages as the next.
exec 9>"$file.lock"
flock -n 9 || exit 0

# Messages are acknowledged after they were printed. Exit code 4 (the server was away) is no alarm: the next run tries again.
"${ARTCAFE:-artcafe}" agent pull --json --limit 200 --ack >>"$file" || [ $? -eq 4 ]
