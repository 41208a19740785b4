"""python3 -m deltazoo list|show|restore|verify: the program's commands of these names, as far as reading goes; mergekit: folders for a recipe;
gguf-lora: an adapter for llama.cpp."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Optional, Sequence

from . import Error, __version__, open
from ._archive import RIGHT, quality_cells, table


def command_list(options: argparse.Namespace) -> None:
    with open(options.archive) as z:
        print(table(z._rows(), RIGHT))


def command_show(options: argparse.Namespace) -> None:
    with open(options.archive) as z:
        rows = [["tensor", "dtype", "shape", "policy", "sparsity", "bytes", "stored", "noise/delta", "quality"]]
        for t in z.tensors(options.task, options.tensor):
            rows.append([t.name, t.dtype, "x".join(map(str, t.shape)) or "scalar", t.policy, f"{t.sparsity:g}" if t.policy == "ultradelta" else "",
                         str(t.nbytes), str(t.stored_bytes), quality_cells(t.quality)[0], t.quality.verdict])
        print(table(rows, (4, 5, 6, 7)))


def command_restore(options: argparse.Namespace) -> None:
    with open(options.archive) as z:
        files = z.restore_model(options.task, options.base, options.output, options.force)
        print(f"{options.output}: task {options.task}, {len(z.tensors(options.task))} tensors in {len(files)} files")


def command_verify(options: argparse.Namespace) -> None:
    with open(options.archive) as z:
        ntasks, ntensors, nblocks = z.verify(options.base)
        print(f"{z.path}: {ntasks} tasks, {ntensors} tensors, {nblocks} blocks: sound")


def command_mergekit(options: argparse.Namespace) -> None:
    from ._mergekit import prepare
    made, tasks = prepare(options.archive, options.recipe, options.base, options.output)
    print(f"{made}: {', '.join(tasks)} restored; now: mergekit-yaml {made} OUT")


def command_gguf_lora(options: argparse.Namespace) -> None:
    from ._gguf import gguf_lora
    made = gguf_lora(options.adapter, options.base, options.output, options.force)
    print(f"{made.path}: adapter of rank {made.rank} for llama.cpp's {made.architecture}, {made.modules} linear layers")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="deltazoo", description="Reads deltazoo archives.")
    parser.add_argument("--version", action="version", version=f"deltazoo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str, task: bool = False, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, **more)
        sub.set_defaults(run=run)
        sub.add_argument("archive", metavar="ARCHIVE")
        if task:
            sub.add_argument("--task", "-t", required=True, metavar="NAME")
        return sub

    command("list", command_list, "the tasks of an archive")
    command("show", command_show, "the tensors of a task", True).add_argument("--tensor", default="*", metavar="GLOB")
    restore = command("restore", command_restore, "a task's model, all its files", True)
    restore.add_argument("--base", "-b", metavar="PATH", help="the base model; not needed if the archive holds it")
    restore.add_argument("--output", "-o", required=True, metavar="DIR")
    restore.add_argument("--force", action="store_true", help="replace the files of an earlier restore")
    verify = command("verify", command_verify, "structure and checksums", aliases=["check"])
    verify.add_argument("--base", "-b", metavar="PATH", help="also check the base")
    mergekit = command("mergekit", command_mergekit, "folders for the tasks that a recipe of mergekit names as ARCHIVE:TASK, and a recipe that names them")
    mergekit.add_argument("recipe", metavar="RECIPE.yaml")
    mergekit.add_argument("--base", "-b", metavar="PATH", help="the base model; not needed if the archive holds it")
    mergekit.add_argument("--output", "-o", required=True, metavar="DIR", help="gets a folder for each task, and recipe.yaml")
    text = "an adapter of deltazoo export --format lora as one GGUF file for llama.cpp"
    gguf = commands.add_parser("gguf-lora", help=text, description=text)
    gguf.set_defaults(run=command_gguf_lora)
    gguf.add_argument("adapter", metavar="DIR")
    gguf.add_argument("--base", "-b", required=True, metavar="PATH", help="the base model's folder: its config.json is read")
    gguf.add_argument("--output", "-o", required=True, metavar="FILE.gguf")
    gguf.add_argument("--force", action="store_true", help="replace the file if it is an adapter")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (Error, OSError) as error:
        print(f"deltazoo: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
