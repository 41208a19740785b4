#!/usr/bin/python3
"""Chains of checkpoints of a training run, for results/chains.md.

    chains.py train DIR                     a small language model (bytes of this repository's pages), tuned on its C sources; ten checkpoints of that
    chains.py measure DIR OUT.md [OLD]      chains against each checkpoint by itself against the base; OLD: an earlier program, for exact archives

`measure` restores every checkpoint and takes the held-out loss: the share of the gain of tuning that is kept.
"""
import glob
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))
sys.path.insert(0, os.path.join(ROOT, "tests"))
DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT, BATCH = 256, 688, 4, 4, 64, 16
PRETRAIN, EVERY, CHECKPOINTS = 400, 25, 10


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = torch.nn.LayerNorm(WIDTH, bias=False), torch.nn.LayerNorm(WIDTH, bias=False)
        self.self_attn, self.mlp = torch.nn.Module(), torch.nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self.self_attn, name, torch.nn.Linear(WIDTH, WIDTH, bias=False))
        self.mlp.gate_proj, self.mlp.up_proj = (torch.nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.mlp.down_proj = torch.nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        h, a, m = self.input_layernorm(x), self.self_attn, self.mlp
        q, k, v = (p(h).view(*h.shape[:2], HEADS, -1).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        x = x + a.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(h.shape))
        h = self.post_attention_layernorm(x)
        return x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.embed_tokens, self.model.positions = torch.nn.Embedding(256, WIDTH), torch.nn.Embedding(CONTEXT, WIDTH)
        self.model.layers = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.model.norm, self.lm_head = torch.nn.LayerNorm(WIDTH, bias=False), torch.nn.Linear(WIDTH, 256, bias=False)

    def forward(self, x):
        h = self.model.embed_tokens(x) + self.model.positions.weight[:x.shape[1]]
        for block in self.model.layers:
            h = block(h)
        return self.lm_head(self.model.norm(h))


def corpus(*patterns):
    text = b"".join(open(p, "rb").read() for pattern in patterns for p in sorted(glob.glob(os.path.join(ROOT, pattern), recursive=True)))
    return torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))


def texts():
    pages, sources = corpus("src/**/*.md", "results/*.md", "README.md"), corpus("src/**/*.c")
    cut = len(sources) * 9 // 10
    return pages, sources[:cut], sources[cut:]


def loss_of(model, data, starts):
    x = torch.stack([data[s:s + CONTEXT + 1] for s in starts])
    return F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def fit(model, data, steps, rate, rng, optimiser=None):
    optimiser = optimiser or torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        loss = loss_of(model, data, torch.randint(len(data) - CONTEXT - 1, (BATCH,), generator=rng).tolist())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return optimiser


def held_out(model, data):
    with torch.no_grad():
        return float(np.mean([loss_of(model, data, range(s, s + 32 * CONTEXT, CONTEXT)).item() for s in range(0, 8 * 32 * CONTEXT, 32 * CONTEXT)]))


def save(model, folder):
    from common import st_bytes, write
    entries = [(n, "BF16", tuple(t.shape), t.detach().to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes()) for n, t in model.state_dict().items()]
    write(f"{folder}/model.safetensors", st_bytes(entries))
    write(f"{folder}/config.json", json.dumps({"model_type": "llama", "num_hidden_layers": LAYERS}))


def load(folder):
    from common import st_parse
    model = Model()
    model.load_state_dict({n: torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).float().reshape(shape) for n, (_, shape, raw) in st_parse(folder).items()})
    return model


def train(folder):
    torch.manual_seed(1)
    rng = torch.Generator().manual_seed(2)
    pages, sources, _ = texts()
    model = Model()
    fit(model, pages, PRETRAIN, 1e-3, rng)
    save(model, f"{folder}/base")
    optimiser = None
    for k in range(1, CHECKPOINTS + 1):
        optimiser = fit(model, sources, EVERY, 1e-4, rng, optimiser)
        save(model, f"{folder}/step-{k * EVERY}")
        print("step", k * EVERY, flush=True)


def run(*args, program=DELTAZOO):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"deltazoo {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def manifests(folder, names):
    for kind in ("chain", "each"):
        with open(f"{folder}/{kind}.yaml", "w") as f:
            f.write("base: base\ntasks:\n" + "".join(
                f"  - {{name: {n}, path: {n}" + (f", parent: {names[i - 1]}" if kind == "chain" and i else "") + "}\n" for i, n in enumerate(names)))


def layers(folder):
    from common import st_parse, to_float
    return {n: to_float(t[2], "BF16").astype(np.float64) for n, t in st_parse(folder).items() if "proj" in n}


def energy(a, b):
    return sum(float(np.sum((a[n] - b[n]) ** 2)) for n in a)


LOSSES = {}


def loss_once(folder, test):
    if folder not in LOSSES:
        LOSSES[folder] = held_out(load(folder), test)
    return LOSSES[folder]


def lossy_rows(folder, names, quality):
    _, _, test = texts()
    base, base_loss = layers(f"{folder}/base"), loss_once(f"{folder}/base", test)
    stored, rows = {}, []
    for kind in ("chain", "each"):
        run("compress", f"{folder}/{kind}.yaml", "-o", f"{folder}/{kind}.h5", "--quality", quality, "--force", "-q")
        tasks = json.loads(run("info", f"{folder}/{kind}.h5", "--json"))["tasks"]
        stored[kind] = {t["name"]: t for t in tasks}
    for name in names:
        true, true_loss = layers(f"{folder}/{name}"), loss_once(f"{folder}/{name}", test)
        row = [name]
        for kind in ("chain", "each"):
            shutil.rmtree(f"{folder}/out", ignore_errors=True)
            run("restore", f"{folder}/{kind}.h5", "--task", name, "--base", f"{folder}/base", "-o", f"{folder}/out", "-q")
            noise = energy(layers(f"{folder}/out"), true) / energy(true, base)
            kept = (base_loss - held_out(load(f"{folder}/out"), test)) / (base_loss - true_loss)
            row += [stored[kind][name]["lossy"]["stored_bytes"], stored[kind][name]["stored_bytes"], noise, kept]
        rows.append(row)
    return rows


def exact_rows(folder, names, old):
    sizes = {"files": sum(os.path.getsize(f"{folder}/{n}/model.safetensors") for n in names)}
    run("compress", f"{folder}/chain.yaml", "-o", f"{folder}/chain.h5", "--quality", "lossless", "--force", "-q")
    run("compress", f"{folder}/each.yaml", "-o", f"{folder}/each.h5", *(["--recipe", "lossless"] if old else ["--quality", "lossless"]), "--force", "-q", program=old or DELTAZOO)
    sizes["each against the base" + (" (e3b624f)" if old else "")] = os.path.getsize(f"{folder}/each.h5")
    sizes["chain"] = os.path.getsize(f"{folder}/chain.h5")
    for level in (3, 19):
        total, before = 0, "base"
        for n in names:
            total += len(subprocess.run(["zstd", f"-{level}", "-c", "-q", "--long=27", f"--patch-from={folder}/{before}/model.safetensors", f"{folder}/{n}/model.safetensors"],
                                        capture_output=True, check=True).stdout)
            before = n
        sizes[f"zstd -{level} --patch-from the one before"] = total
    return sizes


def sparse_run(folder, steps=10):
    """bf16 steps that change 1 to 20 % of the elements, by one or a few steps of the type: reinforcement learning at small rates."""
    from common import st_bytes, st_parse, write
    rng = np.random.default_rng(3)
    now = st_parse(f"{folder}/base")
    os.makedirs(f"{folder}/sparse", exist_ok=True)
    shutil.copytree(f"{folder}/base", f"{folder}/sparse/base", dirs_exist_ok=True)
    for k in range(1, steps + 1):
        share, new = (1, 2, 5, 10, 20)[(k - 1) % 5] / 100, {}
        for n, (dtype, shape, raw) in now.items():
            words = np.frombuffer(raw, np.uint16).astype(np.int32)
            moved = rng.random(words.size) < share
            words[moved] += rng.choice([-2, -1, -1, -1, 1, 1, 1, 2], int(moved.sum()))
            new[n] = (dtype, shape, words.astype(np.uint16).tobytes())
        now = new
        write(f"{folder}/sparse/step-{k}/model.safetensors", st_bytes([(n, *t) for n, t in now.items()]))
    return f"{folder}/sparse", [f"step-{k}" for k in range(1, steps + 1)]


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(map(str, r)) + " |" for r in rows)]) + "\n"


def measure(folder, out, old):
    names = [f"step-{k * EVERY}" for k in range(1, CHECKPOINTS + 1)]
    manifests(folder, names)
    text = ["# Chains of checkpoints\n", "Command: `tests/quality/chains.py` (its head says what is done). A language model of 3.2 M parameters, bf16, tuned from a base; ten checkpoints,",
            f"{EVERY} steps apart. *Chain*: each has the one before as its parent, anchors as by default; *each*: against the base. Noise: energy of what the",
            "restored matrices are off over that of their delta from the base. Kept: share of the gain in held-out loss that the restored checkpoint has.\n"]
    for quality in ("balanced", "high"):
        rows = lossy_rows(folder, names, quality)
        sums = [sum(r[i] for r in rows) for i in (1, 5, 2, 6)]
        text.append(f"## quality: {quality}\n")
        text.append(table(["checkpoint", "chain, lossy bytes", "noise", "kept", "each, lossy bytes", "noise", "kept"],
                          [(r[0], r[1], f"{r[3]:.3f}", f"{r[4]:.3f}", r[5], f"{r[7]:.3f}", f"{r[8]:.3f}") for r in rows]))
        text.append(f"Lossy tensors: {sums[0]} bytes in the chain, {sums[1]} each: {sums[0] / sums[1]:.3f}. With the exact ones: {sums[2]} and {sums[3]}: {sums[2] / sums[3]:.3f}.\n")
    text.append("## Exact\n")
    sparse, steps = sparse_run(folder)
    manifests(sparse, steps)
    results = [("the run above", exact_rows(folder, names, old)), ("ten steps that change 1 to 20 % of the elements", exact_rows(sparse, steps, old))]
    text.append(table(["bytes"] + [r[0] for r in results], [(k, *(r[1][k] for r in results)) for k in results[0][1]]))
    with open(out, "w") as f:
        f.write("\n".join(text))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("DZ_THREADS", "1")))
    if sys.argv[1] == "train":
        train(sys.argv[2])
    else:
        measure(sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
