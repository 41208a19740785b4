#!/usr/bin/env bash
# debian.sh TARBALL FOLDER: Debian packages of a release (the tarball of `make dist`), built in the folder by dpkg-buildpackage; nothing is installed.
# Needs build-essential, debhelper, dh-python and what debian/control names (`apt-get build-dep ./SOURCE`).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tarball=$(realpath "$1")
name=$(basename "$tarball" .tar.gz) # deltazoo-VERSION
mkdir -p "$2"
cd "$2"
rm -rf "$name"
cp "$tarball" "${name/-/_}.orig.tar.gz"
tar -xzf "$tarball"
cp -r "$here/debian" "$name/debian"
cd "$name"
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -STimestamp) dpkg-buildpackage -us -uc "${@:3}"
