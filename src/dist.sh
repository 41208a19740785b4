#!/usr/bin/env bash
# src/dist.sh VERSION: build/dist/deltazoo-VERSION.tar.gz of the last commit, and its SHA-256. Names, times and owners come from the commit, so that the
# same commit gives the same bytes anywhere (one gzip; the .tar inside does not depend on it). An unpacked release has no commit: it is its own release.
set -euo pipefail
version=$1 name=deltazoo-$1
cd "$(dirname "$0")/.."
git rev-parse --git-dir >/dev/null 2>&1 && [ "$(git rev-parse --show-toplevel)" = "$(pwd -P)" ] ||
    { echo "dist: this is no git checkout: a release is made from its commit" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || { echo "dist: there are changes that are not committed: commit them, so that the release can be made again" >&2; exit 1; }
head -n 20 src/doc/CHANGELOG.md | grep -q "^## $version\b" || { echo "dist: src/doc/CHANGELOG.md does not begin with version $version" >&2; exit 1; }
mkdir -p build/dist
git -c tar.umask=0022 archive --format=tar --prefix="$name/" HEAD | gzip -9n >"build/dist/$name.tar.gz.tmp"
mv "build/dist/$name.tar.gz.tmp" "build/dist/$name.tar.gz"
cd build/dist
sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256"
