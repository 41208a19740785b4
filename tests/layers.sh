#!/usr/bin/env bash
# The house: a file includes only its own folder or lower ones, and only some folders may include each library.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A below=(
    [base]="base" [numeric]="base numeric" [codec]="base numeric codec" [model]="base model" [parallel]="base parallel"
    [plan]="base model plan" [archive]="base numeric codec model parallel plan archive"
    [pipeline]="base numeric codec model parallel plan archive pipeline"
    [cli]="base numeric codec model parallel plan archive pipeline cli")
declare -A may=(
    [xxhash.h]="base" [lapacke.h]="numeric" [mkl_lapacke.h]="numeric" [cblas.h]="numeric" [htscodecs]="codec" [zstd.h]="codec archive" [zlib.h]="archive" [jansson.h]="model cli" [cyaml]="model" [yaml.h]="model"
    [mpi.h]="parallel archive" [hdf5.h]="archive")
bad=0
while IFS=: read -r file line include; do
    folder=$(echo "$file" | cut -d/ -f2)
    target=$(echo "$include" | sed -E 's/.*"([a-z]+)\/.*/\1/')
    case " ${below[$folder]} " in *" $target "*) ;; *) echo "$file:$line: $folder must not include $target"; bad=1 ;; esac
done < <(grep -rnE '^#include "[a-z]+/' src --include='*.[ch]')
for header in "${!may[@]}"; do
    while IFS=: read -r file line _; do
        folder=$(echo "$file" | cut -d/ -f2)
        case " ${may[$header]} " in *" $folder "*) ;; *) echo "$file:$line: $folder must not include $header"; bad=1 ;; esac
    done < <(grep -rnE "^#include <$header" src --include='*.[ch]')
done
exit $bad
