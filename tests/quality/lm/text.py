"""Text of Debian packages, fetched once: lists of (name, text), split by file into what is trained on and what is held out."""
import glob
import gzip
import os
import re
import subprocess
import zipfile
import zlib

import settings


def unpacked(kind, out):
    """Folder with the first package of this kind that there is."""
    for package in settings.TEXT_PACKAGES[kind]:
        folder = os.path.join(out, "packages", package)
        if os.path.isdir(folder):
            return folder
        download = os.path.join(out, "packages", package + ".download")
        os.makedirs(download, exist_ok=True)
        if subprocess.run(["apt-get", "-q", "download", package], cwd=download, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            continue
        deb = glob.glob(os.path.join(download, "*.deb"))[0]
        subprocess.run(["dpkg-deb", "-x", deb, folder + ".new"], check=True)
        os.rename(folder + ".new", folder)
        return folder
    raise SystemExit(f"no Debian package of {', '.join(settings.TEXT_PACKAGES[kind])} can be fetched: run 'apt-get update' and try again")


def java_files(folder):
    source = glob.glob(os.path.join(folder, "usr/lib/jvm/*/lib/src.zip"))[0]
    with zipfile.ZipFile(source) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("java.base/java/") or name.startswith("java.desktop/javax/") or name.startswith("java.") and "/java/" in name:
                if name.endswith(".java"):
                    text = archive.read(name).decode("utf-8", "replace")
                    yield name, re.sub(r"^\s*/\*.*?\*/\s*", "", text, count=1, flags=re.S)


def manual_pages(folder):
    for path in sorted(glob.glob(os.path.join(folder, "usr/share/man/*/man*/*.gz"))):
        if os.path.islink(path):
            continue
        text = gzip.open(path).read().decode("utf-8", "replace")
        lines = [line for line in text.split("\n") if not line.startswith(('.\\"', "'\\\""))]
        yield os.path.relpath(path, folder), "\n".join(lines).strip()


def perl_pages(folder):
    for path in sorted(glob.glob(os.path.join(folder, "usr/share/perl/*/**/*.pod"), recursive=True)):
        yield os.path.relpath(path, folder), open(path, encoding="utf-8", errors="replace").read()


READERS = {"java": java_files, "french": manual_pages, "japanese": manual_pages, "perl": perl_pages}


def files(kind, out):
    """(training files, held-out files); in an order that does not go by name, so that both have a bit of everything."""
    found = [(name, text[:settings.TEXT_CHARACTERS]) for name, text in READERS[kind](unpacked(kind, out)) if len(text) > 1000]
    found.sort(key=lambda item: zlib.crc32(item[0].encode()))
    found = found[:settings.TEXT_FILES]
    return [f for i, f in enumerate(found) if i % settings.HELD_OUT], found[::settings.HELD_OUT]
