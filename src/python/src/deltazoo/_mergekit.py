"""Recipes of mergekit over an archive: the tasks that a recipe names become folders."""

from __future__ import annotations

import os
import re
from typing import List, Optional, Tuple

from ._archive import Path
from ._archive import open as open_archive
from ._types import Error


def prepare(archive: Path, recipe: Path, base: Optional[Path], out: Path) -> Tuple[str, List[str]]:
    """Restores each task that the recipe names as ARCHIVE:TASK (the archive's path as it is given here, or its file name) to out/TASK, and writes
    out/recipe.yaml, which names these folders; everything else in the recipe stays as it is. Returns (the new recipe's path, the tasks). Folders that
    are there already are an earlier run's: they are made anew."""
    archive, recipe, out = os.fspath(archive), os.fspath(recipe), os.path.abspath(out)
    try:
        with open(recipe, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"{recipe}: {getattr(error, 'strerror', None) or error}") from None
    with open_archive(archive) as z:
        names = "|".join(re.escape(name) for name in sorted({archive, os.path.basename(archive)}, key=len, reverse=True))
        tasks = "|".join(re.escape(task) for task in sorted(z.tasks, key=len, reverse=True))
        named = re.compile(rf"(?<![\w./-])(?:{names}):({tasks})(?![\w./-])")
        used = sorted(set(named.findall(text)))
        strange = re.findall(rf"(?<![\w./-])(?:{names}):[^\s'\",\]}}]*", named.sub("", text))
        if strange:
            raise Error(f"{recipe}: {strange[0]}: the archive has no such task; it has {', '.join(z.tasks)}")
        if not used:
            raise Error(f"{recipe}: names no task as {os.path.basename(archive)}:TASK")
        for task in used:
            folder = os.path.join(out, task)
            z.restore_model(task, base, folder, force=os.path.isdir(folder))
    made = os.path.join(out, "recipe.yaml")
    with open(made, "w", encoding="utf-8") as file:
        file.write(named.sub(lambda found: quoted(os.path.join(out, found[1])), text))
    return made, used


def quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./-]+", path) else "'" + path.replace("'", "''") + "'"
