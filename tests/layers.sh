#!/usr/bin/env bash
# The layers: a file includes only its own folder or lower ones, only some folders may include or call each library, and no two files include each other.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A below=()
declare_layer() { below[$1]="$1 $2"; } # FOLDER "what it may include"
low="base numeric codec checkpoint"
declare_layer base ""
declare_layer numeric "base"
declare_layer codec "base numeric"
declare_layer checkpoint "base"
declare_layer parallel "base"
declare_layer config "base numeric checkpoint parallel"
declare_layer plan "base checkpoint config"
declare_layer archive "$low parallel config plan"
declare_layer decode "$low parallel config plan archive"
declare_layer compress "$low parallel config plan archive decode"
declare_layer restore "$low parallel config plan archive decode"
declare_layer scan "base checkpoint parallel config plan"
declare_layer synth "base checkpoint"
declare_layer lib "$low parallel config plan archive decode restore archive_ops" # parallel and on: lib/model only, in the build without MPI
declare_layer archive_ops "$low parallel config plan archive decode restore"
declare_layer tune "$low parallel config plan archive decode compress restore"
declare_layer cli "$low parallel config plan archive decode compress restore scan synth archive_ops tune"
declare -A may=( # folders that may include a header whose name begins so
    [xxhash.h]="base" [uthash.h]="base" [lapacke.h]="numeric" [mkl_lapacke.h]="numeric" [cblas.h]="numeric" [htscodecs]="codec" [zstd.h]="codec archive" [zlib.h]="archive"
    [jansson.h]="checkpoint config synth tune cli" [yaml.h]="config" [mpi.h]="parallel" [hdf5.h]="archive")
declare -A calls=( # folders that may call what begins so
    [MPI_[A-Z]]="parallel" [H5[A-Z][a-z]+[0-9]*\\\(]="archive" [LAPACKE_]="numeric" [cblas_]="numeric" [yaml_[a-z]]="config" [rans_]="codec" [ZSTD_]="codec archive" [json_]="checkpoint config synth tune cli")
bad=0
folder_of() { echo "$1" | cut -d/ -f2; }
while IFS=: read -r file line include; do
    folder=$(folder_of "$file")
    target=$(echo "$include" | sed -E 's/.*"([a-z_]+)\/.*/\1/')
    case " ${below[$folder]:-} " in *" $target "*) ;; *) echo "$file:$line: $folder must not include $target"; bad=1 ;; esac
done < <(grep -rnE '^#include "[a-z_]+/' src --include='*.[ch]')
for header in "${!may[@]}"; do
    while IFS=: read -r file line _; do
        folder=$(folder_of "$file")
        case " ${may[$header]} " in *" $folder "*) ;; *) echo "$file:$line: $folder must not include $header"; bad=1 ;; esac
    done < <(grep -rnE "^#include <$header" src --include='*.[ch]')
done
for call in "${!calls[@]}"; do
    while IFS=: read -r file line _; do
        folder=$(folder_of "$file")
        case " ${calls[$call]} " in *" $folder "*) ;; *) echo "$file:$line: $folder must not call ${call%%[*}..."; bad=1 ;; esac
    done < <(grep -rnE "\\b$call" src --include='*.[ch]' | grep -vE '^[^:]+:[0-9]+: *(/?\*|//)' || true)
done
# Headers that include each other, over any number of steps: tsort names the loop.
if ! grep -roE '^#include "[a-z_/]+\.h"' src --include='*.h' | sed -E 's/^src\/([^:]+):#include "([^"]+)"/\1 \2/' | tsort >/dev/null 2>/tmp/layers.$$; then
    sed 's/^tsort: /headers include each other: /' /tmp/layers.$$
    bad=1
fi
rm -f /tmp/layers.$$
exit $bad
