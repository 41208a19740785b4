#!/usr/bin/env python3
"""Makes the zoo: base models from Python packages, full fine-tunes on text from Debian packages. Whatever is there already stays.

usage: zoo.py OUT [FAMILY/TASK ...]     writes OUT/FAMILY/{base,TASK}/{model.safetensors,config.json}, OUT/FAMILY/zoo.yaml, OUT/FAMILY/TASK.json

One thread a process (DZ_THREADS), so that sums have one order: the same processor trains the same files."""
import json
import math
import os
import sys
import time

import evaluate
import networks
import numpy as np
import settings
import text
import torch
import torch.nn.functional as F


def train_lm(model, out, task, spec):
    tokens = networks.lm_tokens(out, task)[0]
    rng = np.random.default_rng([settings.SEED, spec.steps, len(tokens)])

    def loss():
        starts = rng.integers(0, len(tokens) - settings.SEQUENCE - 1, settings.BATCH)
        batch = torch.stack([torch.from_numpy(tokens[s:s + settings.SEQUENCE + 1].astype(np.int64)) for s in starts])
        with torch.autocast("cpu", torch.bfloat16, enabled=networks.in_bf16(None)):
            logits = model(input_ids=batch[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    fit(model, loss, spec)


def train_encoder(model, out, task, spec):
    items = networks.passages(out, task)[0]
    rng = np.random.default_rng([settings.SEED, len(items)])
    if model.head is not None:  # the head first, on the frozen base
        torch.nn.init.zeros_(model.head.weight)
        torch.nn.init.zeros_(model.head.bias)

    def loss():
        first, second, labels = networks.encoder_batch(out, task, [items[i] for i in rng.choice(len(items), settings.ENCODER_BATCH, replace=False)])
        with torch.autocast("cpu", torch.bfloat16, enabled=networks.in_bf16(None)):
            logits = networks.encoder_logits(model, first, second)
        return F.cross_entropy(logits.float(), labels)

    if model.head is not None:
        for p in model.bert.parameters():
            p.requires_grad_(False)
        fit(model, loss, settings.Task(spec.text, 1e-2, 30))
        for p in model.bert.parameters():
            p.requires_grad_(True)
    fit(model, loss, spec)


def fit(model, loss, spec):
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=spec.rate, weight_decay=0.0, betas=(0.9, 0.999))
    warmup, start = max(1, spec.steps // 10), time.time()
    for step in range(spec.steps):
        rate = spec.rate * min(1, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * step / spec.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if step % 10 == 0 or step == spec.steps - 1:
            print(f"  step {step} loss {value.item():.3f} {time.time() - start:.0f} s", flush=True)
    model.eval()


def make(family, task, out):
    folder = os.path.join(out, family, task)
    spec, start = settings.TASKS[family][task], time.time()
    if os.path.exists(folder + ".json"):
        if json.load(open(folder + ".json"))["task"] != repr(spec):
            raise SystemExit(f"{folder} was trained with other settings: remove it and {folder}.json, or take another folder")
        return
    classes = settings.ENCODER_CLASSES if task == "package" else 0
    base = networks.load(os.path.join(out, family, "base"))
    if not os.path.isdir(folder):
        print(f"{family}/{task}: {spec}", flush=True)
        model = networks.build(family, out, classes)
        networks.put(model, base)
        config = model.config if family == "lm" else model.bert.config
        (train_lm if family == "lm" else train_encoder)(model, out, task, spec)
        networks.save(folder, networks.state_of(model), config)
    tuned = networks.load(folder)
    lossy = [n for n in base if is_lossy(n, base[n])]
    moved = sum(int((tuned[n] != base[n]).sum()) for n in lossy) / sum(base[n].numel() for n in lossy)
    rel = math.sqrt(sum(float((tuned[n] - base[n]).double().square().sum()) for n in lossy) / sum(float(base[n].double().square().sum()) for n in lossy))
    record = evaluate.gain(out, family, task) | {"moved": moved, "rel": rel, "seconds": time.time() - start, "task": repr(spec)}
    json.dump({k: float(v) if not isinstance(v, str) else v for k, v in record.items()}, open(folder + ".json", "w"), indent=1)
    print(json.dumps({k: round(float(v), 5) if not isinstance(v, str) else v for k, v in record.items()}), flush=True)


def is_lossy(name, tensor):
    """The linear layers of the blocks."""
    return tensor.dim() == 2 and ("layers." in name or "encoder.layer." in name)


def write_manifest(family, out):
    tasks = [t for t in settings.TASKS[family] if os.path.isdir(os.path.join(out, family, t))]
    with open(os.path.join(out, family, "zoo.yaml"), "w", encoding="ascii") as f:
        f.write("base: base\ntasks:\n" + "".join(f"  - {{name: {t}, path: {t}}}\n" for t in tasks))


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    out = os.path.abspath(sys.argv[1])
    wanted = sys.argv[2:] or [f"{family}/{task}" for family in settings.TASKS for task in settings.TASKS[family]]
    for family in sorted({w.split("/")[0] for w in wanted}):
        networks.make_base(family, out)
        for spec in settings.TASKS[family].values():
            text.unpacked(spec.text, out)
    for w in wanted:
        if "/" in w:
            make(*w.split("/"), out)
    for family in sorted({w.split("/")[0] for w in wanted}):
        write_manifest(family, out)


if __name__ == "__main__":
    main()
