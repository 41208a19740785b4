#!/usr/bin/python3
"""Trains one family: a base, then a full fine-tune of it for each task.

usage: train.py --family vit|seq --out DIR [--seed N] [--jobs N] [--scale X]

Writes DIR/FAMILY/{base,TASK...}/{model.safetensors,config.json} and DIR/FAMILY/zoo.yaml. The same seed gives the same
bytes on one kind of processor, whatever --jobs says. --scale 0.02 shortens everything, to check that."""
import argparse
import concurrent.futures
import multiprocessing
import os
import time

import common
import torch
from evaluate import accuracy


def train_model(family, out, seed, scale, task):
    """Trains the base (task None) or one fine-tune and writes it. Returns its progress line."""
    start = time.process_time()
    common.make_deterministic()
    module = common.family_module(family)
    name = task or "base"
    torch.manual_seed(seed)
    model = module.build(task)
    settings = dict(module.FINETUNE if task else module.PRETRAIN)
    settings["steps"] = max(10, round(settings["steps"] * scale))
    count = settings.pop("count")
    rng = common.rng_for(seed, family, name, "train")
    next_batch = lambda n=count: module.batch(task, "train", rng, n)  # noqa: E731
    if task:
        # From the rounded file, as a real fine-tune starts from the published base.
        model.load_state_dict(common.read_safetensors(os.path.join(out, family, "base")), strict=False)
        module.prepare_finetune(model, next_batch)
    loss = common.fit(model, next_batch, **settings)
    keep = {k: v for k, v in model.state_dict().items() if task or not k.startswith("head.")}
    common.write_safetensors(os.path.join(out, family, name, "model.safetensors"), keep)
    common.write_json(os.path.join(out, family, name, "config.json"), module.config(task))
    return f"{family} {name}: {settings['steps']} steps, loss {loss:.4f}, {time.process_time() - start:.0f} s of one core"


def write_manifest(out, family, tasks):
    with open(os.path.join(out, family, "zoo.yaml"), "w", encoding="ascii") as file:
        file.write("base: base\ntasks:\n")
        file.writelines(f"  - {{name: {task}, path: {task}}}\n" for task in tasks)


def print_table(out, family, tasks):
    rows = [(task, *(accuracy(family, os.path.join(out, family, who), task, "validation") for who in ("base", task)))
            for task in tasks]
    rows.append(("mean", *(sum(row[i] for row in rows) / len(tasks) for i in (1, 2))))
    print(f"{'validation, %':<16}{'base':>8}{'tuned':>8}")
    for name, base, tuned in rows:
        print(f"{name:<16}{base:8.1f}{tuned:8.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True, choices=common.FAMILIES)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="fine-tunes trained at once, one core each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all step counts")
    args = parser.parse_args()
    start = time.time()
    tasks = common.family_module(args.family).TASKS
    job = (args.family, args.out, args.seed, args.scale)
    print(train_model(*job, None), flush=True)
    with concurrent.futures.ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for done in concurrent.futures.as_completed([pool.submit(train_model, *job, task) for task in tasks]):
            print(done.result(), flush=True)
    write_manifest(args.out, args.family, tasks)
    print_table(args.out, args.family, tasks)
    print(f"{time.time() - start:.0f} s in all")


if __name__ == "__main__":
    main()
