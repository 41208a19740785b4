#!/usr/bin/python3
"""A base and its fine-tunes in one exact archive, beside lmzip: families.py BASE TASK... [--lmz PROGRAM] [--program PROGRAM]. Folders with a model each.

For each fine-tune alone, and for the first n of them together: bytes of the archive with the base in it, processor seconds to make it and to restore all of
it without any other file. What is restored is compared with the originals, byte for byte. Prints a table in Markdown for results/families.md. lmzip gets
folders in the order base, task, ..., so that it codes each task against the base; its defaults."""
import argparse
import filecmp
import os
import resource
import shutil
import subprocess
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def cpu(command, **more):
    """Processor seconds of a command and its threads."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def same(made, original):
    for name in os.listdir(original):
        assert filecmp.cmp(f"{made}/{name}", f"{original}/{name}", shallow=False), f"{made}/{name} is not {original}/{name}"


def ours(program, folder, base, tasks):
    with open(f"{folder}/zoo.yaml", "w") as f:
        f.write(f"base: {base}\nstore_base: true\ntasks:\n" + "".join(f"  - {{name: {os.path.basename(t)}, path: {t}}}\n" for t in tasks))
    archive = f"{folder}/a.h5"
    made = cpu([program, "compress", f"{folder}/zoo.yaml", "-o", archive, "-q", "--force", "--quality", "lossless"])
    back = cpu([program, "restore", archive, "--all", "-o", f"{folder}/back", "-q", "--no-sync"])
    same(f"{folder}/back/base", base)
    for task in tasks:
        same(f"{folder}/back/{os.path.basename(task)}", task)
    shutil.rmtree(f"{folder}/back")
    return os.path.getsize(archive), made, back


def theirs(program, folder, base, tasks):
    shutil.rmtree(f"{folder}/in", ignore_errors=True)
    for i, model in enumerate((base, *tasks)):
        shutil.copytree(model, f"{folder}/in/{i}-{os.path.basename(model)}", copy_function=os.link if os.stat(folder).st_dev == os.stat(model).st_dev else shutil.copy)
    archive = f"{folder}/in.lmz"
    made = cpu([program, "compress", f"{folder}/in", archive, "-q", "-f"])
    back = cpu([program, "decompress", archive, f"{folder}/back", "-q"])
    shutil.rmtree(f"{folder}/back", ignore_errors=True)
    return os.path.getsize(archive), made, back


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("base")
    args.add_argument("tasks", nargs="+")
    args.add_argument("--program", default=os.path.join(ROOT, "build", "deltazoo"))
    args.add_argument("--lmz")
    options = args.parse_args()
    base, tasks = os.path.abspath(options.base), [os.path.abspath(t) for t in options.tasks]
    families = [[]] + [[t] for t in tasks] + [tasks[:n] for n in range(2, len(tasks) + 1)]
    print("| models | bytes of the files | deltazoo | make, s | restore, s |" + (" lmzip | make, s | restore, s | deltazoo / lmzip |" if options.lmz else ""))
    print("|---|---|---|---|---|" + ("---|---|---|---|" if options.lmz else ""))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        for family in families:
            raw = sum(os.path.getsize(os.path.join(m, f)) for m in (base, *family) for f in os.listdir(m))
            if family:
                size, made, back = ours(options.program, folder, base, family)
            else:  # the base alone: as a model without a base
                with open(f"{folder}/alone.yaml", "w") as f:
                    f.write(f"tasks:\n  - {{name: base, path: {base}}}\n")
                made = cpu([options.program, "compress", f"{folder}/alone.yaml", "-o", f"{folder}/a.h5", "-q", "--force"])
                back = cpu([options.program, "restore", f"{folder}/a.h5", "--all", "-o", f"{folder}/back", "-q", "--no-sync"])
                same(f"{folder}/back/base", base)
                shutil.rmtree(f"{folder}/back")
                size = os.path.getsize(f"{folder}/a.h5")
            row = f"| {' + '.join(['base'] + [os.path.basename(t) for t in family])} | {raw:,} | {size:,} | {made:.1f} | {back:.1f} |"
            if options.lmz:
                other, their_made, their_back = theirs(options.lmz, folder, base, family)
                row += f" {other:,} | {their_made:.1f} | {their_back:.1f} | {size / other:.3f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
