#!/usr/bin/env bash
# recipes.sh TARBALL FOLDER [URL]: the recipes for EasyBuild, Spack and conda of a release, with its checksum and where it is published, in FOLDER. Without a
# URL it is the tarball's own place, as a file: URL, which all three can take. (The recipes of the source cannot name the checksum of the tarball that they are in.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
tarball=$(realpath "$1") to=$2
name=$(basename "$tarball" .tar.gz)
version=${name#deltazoo-} sha=$(sha256sum "$tarball" | cut -d' ' -f1) url=${3:-file://$tarball}
tar -xzOf "$tarball" "$name/src/base/version.h" 2>/dev/null | grep -qF "\"$version\"" || { echo "recipes: $1 is no tarball of version $version" >&2; exit 1; }
case $url in */"$name".tar.gz) ;; *) echo "recipes: $url does not end in $name.tar.gz" >&2; exit 1 ;; esac
mkdir -p "$to"
cp -r "$here/easybuild" "$here/spack" "$here/conda" "$to/"
# Each expression must find its line, in every file named.
put() {
    local file
    for file in "${@:2}"; do
        cp "$file" "$file.before"
        sed -i -E "$1" "$file"
        ! cmp -s "$file" "$file.before" || { echo "recipes: $file has no line for '$1'" >&2; exit 1; }
        rm "$file.before"
    done
}
put "s|^(  url: ).*|\1$url|" "$to/conda/deltazoo/recipe.yaml"
put "s|^(  sha256: ).*|\1$sha|; /# .make dist. prints it/d" "$to/conda/deltazoo/recipe.yaml"
put "s|^(    url = ).*|\1\"$url\"|" "$to/spack/spack_repo/deltazoo/packages/deltazoo/package.py"
put "s|^    version\(\"$version\"\)|    version(\"$version\", sha256=\"$sha\")|; /# .make dist. prints/d" "$to/spack/spack_repo/deltazoo/packages/deltazoo/package.py"
put "s|^sources = .*|source_urls = ['${url%/*}']\n&\nchecksums = ['$sha']|; /^# .make dist. makes it/d" "$to"/easybuild/deltazoo-"$version"*.eb
echo "recipes of deltazoo $version are in $to: $url, $sha"
