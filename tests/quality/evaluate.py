#!/usr/bin/python3
"""Accuracy of one model on one task.

usage: evaluate.py FAMILY MODEL TASK [SPLIT]      MODEL: a model.safetensors or its directory; prints "TASK percent"

For many models import accuracy(): data and modules stay in memory. Use one process per core; DZ_THREADS=2 speeds up a lone
process, but only on idle cores."""
import functools
import os
import sys

import common

DATA_SEED = 7


@functools.lru_cache(None)
def examples(family, task, split):
    rng = common.rng_for(DATA_SEED, family, task, split)
    module = common.family_module(family)
    return module.batch(task, split, rng, module.EVAL_COUNT)


@functools.lru_cache(None)
def empty_model(family, task):
    common.make_deterministic()
    return common.family_module(family).build(task).eval()


def head_of(path, task):
    """A vision base has no head of its own: it borrows the one of the fine-tuned model beside it."""
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    tuned = common.read_safetensors(os.path.join(directory, "..", task))
    return {name: tensor for name, tensor in tuned.items() if name.startswith("head.")}


def accuracy_of(family, tensors, task, split="validation"):
    """Percent of right answers of a model given as {name: float32 tensor}."""
    model = empty_model(family, task)
    model.load_state_dict(tensors)
    return common.percent_correct(model, *examples(family, task, split))


def accuracy(family, path, task, split="validation"):
    """Percent of right answers of the model file (or its directory) at path."""
    tensors = common.read_safetensors(path)
    if family == "vit" and "head.weight" not in tensors:
        tensors.update(head_of(path, task))
    return accuracy_of(family, tensors, task, split)


def main():
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    family, path, task = sys.argv[1:4]
    split = sys.argv[4] if len(sys.argv) == 5 else "validation"
    if split not in common.SPLITS or task not in common.family_module(family).TASKS:
        raise SystemExit(f"no task '{task}' with a split '{split}' in family '{family}'")
    print(f"{task} {accuracy(family, path, task, split):.2f}")


if __name__ == "__main__":
    main()
