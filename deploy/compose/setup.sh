#!/bin/sh
# Make a fleet's secret and the configurations of its three NATS servers in a folder. What exists is kept.
#   sh setup.sh FOLDER
set -eu
umask 077
cd "$1"
[ -s secret ] || python3 -c 'import secrets; print(secrets.token_hex(32))' >secret
for node in nats-1 nats-2 nats-3; do
	[ -s "$node.conf" ] || artcafe nats config --secret-file secret --name "$node" --bind 0.0.0.0 --store /data \
		--node nats-1=nats-1 --node nats-2=nats-2 --node nats-3=nats-3 --output "$node.conf"
done
