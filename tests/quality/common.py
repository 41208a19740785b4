"""What the two model families share: tensor files, seeds, the training loop, accuracy.

A family is a module (vit.py, seq.py) with
    TASKS                            names of the fine-tuning tasks
    PRETRAIN, FINETUNE               settings for fit(), and the examples per step
    EVAL_COUNT                       examples of the validation and of the test split
    build(task)                      a model; its state_dict names are the names on disk
    batch(task, split, rng, count)   inputs x and labels y of shape (count, answers); task None is the pretraining data
    config(task)                     what config.json says
A model maps x to logits of shape (count, answers, classes), so one loss and one accuracy serve both families.
"""
import json
import math
import os
import struct
import zlib

# One thread per process, set before the libraries load: sums then have one order, so the trained files do not depend
# on the number of cores. Whoever only evaluates may ask for more (DZ_THREADS).
THREADS = int(os.environ.get("DZ_THREADS", "1"))
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(THREADS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

FAMILIES = ("vit", "seq")
SPLITS = ("train", "validation", "test")
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def family_module(family):
    if family not in FAMILIES:
        raise SystemExit(f"unknown family '{family}' (known: {', '.join(FAMILIES)})")
    return __import__(family)


def make_deterministic():
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)


def rng_for(seed, *names):
    """An independent generator for each purpose: adding a task or a step elsewhere changes nobody's numbers."""
    return np.random.default_rng([seed] + [zlib.crc32(str(n).encode()) for n in names])


def write_safetensors(path, tensors):
    """Rounds every tensor to bf16 and writes it."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    """{name: float32 tensor}; path is the file or the directory that holds model.safetensors."""
    if os.path.isdir(path):
        path = os.path.join(path, "model.safetensors")
    with open(path, "rb") as file:
        raw = bytearray(file.read())
    start = 8 + struct.unpack_from("<Q", raw)[0]
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        values = torch.frombuffer(raw, dtype=DTYPES[entry["dtype"]], offset=start + entry["data_offsets"][0],
                                  count=math.prod(entry["shape"]))
        tensors[name] = values.reshape(entry["shape"]).float()
    return tensors


def write_json(path, value):
    with open(path, "w", encoding="ascii") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def loss_of(model, x, y):
    logits = model(x)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


@torch.no_grad()
def percent_correct(model, x, y, chunk=250):
    """Share of answers, in percent, whose largest logit is the label."""
    hits = sum((model(x[i:i + chunk]).argmax(-1) == y[i:i + chunk]).sum().item() for i in range(0, len(x), chunk))
    return 100.0 * hits / y.numel()


def fit(model, next_batch, steps, lr, warmup, weight_decay=0.01):
    """AdamW on every parameter, linear warm-up, cosine decay to a tenth. Returns the mean loss of the last tenth."""
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.98))
    tail = []
    for step in range(steps):
        progress = step / steps
        rate = lr * min(1.0, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, *next_batch())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if progress >= 0.9:
            tail.append(loss.item())
    return sum(tail) / len(tail)
