#!/usr/bin/env bash
# Build the image where no container engine and no registry is, and run it: buildah with chroot isolation, on a Debian that
# debootstrap makes (Debian's packages buildah and debootstrap; needs root). Run by `make deploy-check`.
#   bash deploy/docker/check.sh [MIRROR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export BUILDAH_ISOLATION=chroot
folder=$(mktemp -d)
trap 'buildah rm ${base-} ${container-} >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT

echo "== Debian bookworm, by debootstrap"
debootstrap --variant=minbase --include=ca-certificates bookworm "$folder/root" "${1:-http://deb.debian.org/debian}" >"$folder/log" 2>&1 ||
	{ tail -5 "$folder/log"; exit 1; }
# What this machine trusts, and how its pip reaches the index, for the build alone.
rm -f "$folder/root/etc/ssl/certs/ca-certificates.crt"
cp -L /etc/ssl/certs/ca-certificates.crt "$folder/root/etc/ssl/certs/"
settings=()
for each in /etc/pip.conf /opt/wheels; do [ ! -e "$each" ] || settings+=(--volume "$each:$each:ro"); done
base=$(buildah from scratch)
buildah add --quiet "$base" "$folder/root" / >/dev/null
buildah commit --quiet "$base" localhost/artcafe-base >/dev/null

echo "== Every step of deploy/docker/Dockerfile"
buildah bud --format docker --pull-never --network host --build-arg BASE=localhost/artcafe-base "${settings[@]}" \
	-f deploy/docker/Dockerfile -t localhost/artcafe . >"$folder/log" 2>&1 || { tail -20 "$folder/log"; exit 1; }
grep -E '^\[[12]/2\] STEP' "$folder/log"
buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Healthcheck.Test}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}}' localhost/artcafe

container=$(buildah from --pull-never localhost/artcafe)
inside() { buildah run "$container" -- "$@"; }
echo "== The container's user, versions, and what it may write"
inside sh -c 'id; artcafe --version; nats-server --version; ! touch /opt/artcafe/x 2>/dev/null && touch /data/x && rm /data/x && echo "writes /data only"'
echo "== The check without a server"
! inside healthcheck || exit 1
echo "== artcafe up with the demo, the check beside it, and SIGTERM after 90 s"
inside timeout --preserve-status --signal TERM 90 artcafe up --demo --listen 127.0.0.1:0 --gateway-listen 127.0.0.1:0 \
	--metrics-listen off >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 80); do ! inside healthcheck 2>/dev/null || break; sleep 1; done
inside healthcheck && echo "healthy"
wait "$server" && echo "ended with 0 after SIGTERM"
head -40 "$folder/log"
