#!/usr/bin/env bash
# deps.sh [tests] [clang] [fuzz] [slurm] [mpich] [serial] [wheel] [plots] [quality]: installs through apt-get what is missing to build and test on Debian or Ubuntu, and for the extra tests named. Elsewhere
# it only says what would be needed.
set -euo pipefail
packages=(gcc make pkg-config openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libopenblas-dev liblapacke-dev libjansson-dev libyaml-dev uthash-dev
    libxxhash-dev libzstd-dev zlib1g-dev libhtscodecs-dev hdf5-tools)
reader=(python3 python3-numpy python3-h5py python3-zstandard python3-xxhash)
for extra in "$@"; do
    case $extra in
        tests) packages+=(libcmocka-dev clang-format abigail-tools git groff-base man-db python3 python3-venv) ;;
        clang) packages+=(clang) ;;
        fuzz) packages+=(clang libclang-rt-dev) ;;
        slurm) packages+=(slurm-wlm munge iproute2) ;;
        mpich) packages+=(mpich libmpich-dev libhdf5-mpich-dev) ;;
        serial) packages+=(libhdf5-dev) ;;
        wheel) packages+=(libhdf5-dev cmake ninja-build python3 python3-venv) ;;
        plots) packages+=("${reader[@]}" python3-matplotlib) ;;
        quality) packages+=("${reader[@]}" python3-torch python3-sklearn) ;;
    esac
done
if ! command -v dpkg-query >/dev/null; then
    echo "deps: not a Debian system; needed: ${packages[*]} (see src/doc/building.md)" >&2
    exit 0
fi
missing=()
for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "deps: installing ${missing[*]}"
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
