#!/usr/bin/env bash
# Builds the container image, after the tests: webmon:VERSION and webmon:latest.
set -euo pipefail
ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

case ${1:-} in
'') tests=1 ;;
--no-tests) tests=0 ;;
-h | --help) echo 'usage: ./build.sh [--no-tests]'; exit 0 ;;
*) echo 'usage: ./build.sh [--no-tests]' >&2; exit 2 ;;
esac
timeout 10 docker info >/dev/null 2>&1 || die "no Docker engine answers"

[ "$tests" = 0 ] || SECONDS_BEFORE=$SECONDS ./test.sh
version=$(package_version) revision=$(revision)
say "building webmon:$version from $revision"
docker build --build-arg "VERSION=$version" --build-arg "REVISION=$revision" -t "webmon:$version" -t webmon:latest .
docker run --rm "webmon:$version" webmon --version
say "webmon:$version and webmon:latest, $(docker image inspect -f '{{.Size}}' "webmon:$version" | awk '{printf "%.0f MB", $1 / 1e6}')"
