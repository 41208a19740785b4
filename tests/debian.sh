#!/usr/bin/env bash
# tests/debian.sh SUITE [COMMAND ...]: builds and tests this source in a Debian of that suite, made by debootstrap in build/debian-SUITE. Needs root. By
# default `make check` without PyTorch's tests (DZ_WITHOUT= for these too: several GB); else the command, in the source's folder, and it installs what it needs.
# ROOT: another root of the suite, build/debian-ROOT. What it mounts is in a mount namespace of
# its own and ends with it. The suite's root is kept: the second run only builds what changed. MIRROR: where packages come from.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:?the suite: trixie, sid ...}
shift
name=debian-${ROOT:-$suite}
root=$PWD/build/$name
[ "$(id -u)" -eq 0 ] || { echo "check-debian: needs root, for chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "check-debian: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }
mkdir -p build
if [ ! -e "$root/made" ]; then
    echo "check-debian: making $suite in build/$name"
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "${MIRROR:-http://deb.debian.org/debian}" >"build/$name.log" 2>&1 ||
        { tail -n 3 "build/$name.log"; exit 1; } >&2
    touch "$root/made"
fi
# Name servers and certificates are the host's.
cp -L /etc/resolv.conf "$root/etc/"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir -p "$root/source"
# Files that are gone here go there too; what was built there stays.
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then git ls-files -co --exclude-standard; else find . -path ./build -prune -o -type f -print; fi |
    while read -r file; do [ ! -e "$file" ] || echo "$file"; done | sort >"build/$name.files"
(cd "$root/source" && find . -path ./build -prune -o -type f -print | sed 's|^\./||' | sort) | comm -13 "build/$name.files" - | (cd "$root/source" && xargs -r -d '\n' rm -f)
tar -c -T "build/$name.files" | tar -x -C "$root/source"
[ $# -gt 0 ] || set -- bash -c 'tests/deps.sh tests && exec "$@"' bash make --no-print-directory check WERROR=1 ${JOBS:+JOBS=$JOBS}
export DZ_WITHOUT=${DZ_WITHOUT-torch}
unshare --mount --propagation private bash -c '
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs shm "$root/dev/shm"
    mount -t tmpfs run "$root/run"
    exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt DZ_WITHOUT="$DZ_WITHOUT" \
        bash -c "cd /source && exec \"\$@\"" bash "$@"' bash "$root" "$@"
