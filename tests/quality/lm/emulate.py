#!/usr/bin/env python3
"""Ideas for the coding of rotated deltas, tried on held-out loss without the program: noise as the coding would leave it.

usage: emulate.py OUT FAMILY/TASK RESULTS.jsonl [--bits 0.16,0.04] [--seeds 3] [--tokens 2048] NAME...      names: see VARIANTS

The coding keeps the largest of each section of rotated coefficients (src/codec/signs.c). What it leaves is white noise within a block of 65536
elements, of nsr = 1 / (share * mean^2) - 1 times the block's energy; so noise is drawn instead (--real: the coding itself, to check that).
All variants have equal bytes: what they cost beside the signs is taken off the bits."""
import argparse
import functools
import json
import math
import os
import time
import zlib

import networks
import numpy as np
import settings
import torch
import torch.nn.functional as F
from zoo import is_lossy

BLOCK = 65536
EXPECTED = [x / 4096 for x in (3268, 4622, 6000, 7305, 8508, 9614, 10634, 11582, 12469, 13305, 14098, 14853, 15574, 16267, 16933, 17576, 18199,
                               18802, 19387, 19955, 20507, 21045, 21569, 22080, 22580, 23068, 23546, 24014)]  # E max |x| of 2^k normal numbers


def shape_of(share, tries=0):
    """(k, share of sections that are halves, mean size, bits an element); 2^tries further rotations of each section to choose from."""
    k = 0
    while k < 17 and share * 2 ** (k + 1) <= 1:
        k += 1
    pairs = 2.0 ** (-k - 1)
    split = (share - pairs) / share if share > pairs else 0  # of the kept ones, half come from splitting: 2 * split are short
    mean = 2 * split * EXPECTED[k + tries] + (1 - 2 * split) * EXPECTED[k + 1 + tries]
    bits = share * (1 + tries + 2 * split * k + (1 - 2 * split) * (k + 1))
    return k, split, mean, bits


@functools.cache
def share_of(bits, tries=0):
    low, high = 2.0 ** -18, 1.0
    for _ in range(60):
        mid = (low + high) / 2
        if shape_of(mid, tries)[3] < bits:
            low = mid
        else:
            high = mid
    return low


def nsr_of(bits, tries=0):
    share = share_of(round(bits, 6), tries)
    return 1 / (share * shape_of(share, tries)[2] ** 2) - 1


# ---- which bits go where

KINDS = {  # sensitivity by kind of matrix, of any model's names
    "q": 1, "k": 1, "o": 1, "gate": 1.4, "up": 1.7, "v": 2.2, "down": 2.8}
NAMES = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "attention.self.query": "q",
         "attention.self.key": "k", "attention.self.value": "v", "attention.output.dense": "o", "intermediate.dense": "up", "output.dense": "down"}


def kind_of(name):
    return next(kind for part, kind in NAMES.items() if part in name)


def layer_of(name):
    return int(next(p for p in name.split(".") if p.isdigit()))


class Task:
    def __init__(self, out, family, task, tokens):
        self.out, self.family, self.task = out, family, task
        self.base = networks.load(os.path.join(out, family, "base"))
        self.tuned = networks.load(os.path.join(out, family, task))
        self.names = [n for n in self.base if is_lossy(n, self.base[n])]
        self.delta = {n: self.tuned[n] - self.base[n] for n in self.names}
        self.count = sum(self.base[n].numel() for n in self.names)
        self.layers = 1 + max(layer_of(n) for n in self.names)
        self.energy = {n: float(self.delta[n].double().square().sum()) for n in self.names}
        self.weight = {n: float(self.base[n].double().square().sum()) for n in self.names}
        self.model = networks.build(family, out, settings.ENCODER_CLASSES if task == "package" else 0).eval()
        networks.put(self.model, self.tuned)
        if family == "lm" and networks.in_bf16(None):
            for module in self.model.modules():
                if isinstance(module, torch.nn.Linear) and module is not self.model.lm_head:
                    module.to(torch.bfloat16)
        self.batches = networks.held_out(family, out, task)
        if family == "encoder" and tokens:
            self.batches = self.batches[:max(1, tokens // 512)]
        if family == "lm" and tokens:
            rows = torch.cat(list(self.batches))
            step = max(1, len(rows) * settings.SEQUENCE // tokens)
            self.batches = rows[::step].split(settings.EVAL_BATCH)
        self.reference = None
        self.reference = self.evaluate()

    @torch.no_grad()
    def evaluate(self):
        """Loss of each batch, and the mean divergence from the fine-tuned model's answers; the first call is the fine-tuned model's."""
        values, divergence, keep = [], [], []
        with torch.autocast("cpu", torch.bfloat16, enabled=networks.in_bf16(None)):
            for i, batch in enumerate(self.batches):
                if self.family == "lm":
                    logits, labels = self.model(input_ids=batch[:, :-1]).logits.flatten(0, 1).float(), batch[:, 1:].flatten()
                else:
                    logits, labels = networks.encoder_logits(self.model, *batch[:2]).float(), batch[2]
                logp = F.log_softmax(logits, -1)
                values.append(F.nll_loss(logp, labels).item())
                if self.reference is None:
                    keep.append(logp.half())
                else:
                    want = self.reference[1][i].float()
                    divergence.append((want.exp() * (want - logp)).sum(-1).mean().item())
        return np.array(values), (keep if self.reference is None else np.mean(divergence))

    def put(self, restored):
        """Restored deltas onto the base; all else is the fine-tuned model's."""
        networks.put(self.model, {**self.tuned, **{n: (self.base[n] + d).bfloat16().float() for n, d in restored.items()}})


# ---- the variants: bits of each tensor, then its noise

def weights_of(t, options):
    """Density of each tensor, up to a factor."""
    out = {}
    ends = max(1, round(t.layers / 10))
    for n in t.names:
        size = t.base[n].numel()
        w = size ** -options.get("power", 0.5)
        if options.get("kinds"):
            w *= KINDS[kind_of(n)] ** options["kinds"]
        if options.get("ends") and not ends <= layer_of(n) < t.layers - ends:
            pass
        elif options.get("ends"):
            w *= options["ends"]
        if options.get("rel"):
            w *= math.sqrt(t.energy[n] / t.weight[n]) ** options["rel"]
        if options.get("columns"):
            w *= t.base[n].shape[1] ** options["columns"]
        out[n] = w
    return out


def bits_of(t, options, bits, side):
    """Bits an element of each tensor, side information off, that add up to `bits` over all; at most 1 each."""
    weights = weights_of(t, options)
    total = bits * t.count - sum(side[n] for n in t.names)
    low, high = 0.0, 1e9
    for _ in range(100):
        mid = math.sqrt(low * high) if low > 0 else high / 2 ** 20
        used = sum(min(1.0, mid * weights[n]) * t.base[n].numel() for n in t.names)
        low, high = (mid, high) if used < total else (low, mid)
    return {n: max(2e-4, min(1.0, high * weights[n])) for n in t.names}


def coarse(x, step):
    """Positive numbers to powers of 2^step around their median, at most 16 of them; and the entropy of the codes, in bits each."""
    code = torch.clamp(torch.round(torch.log2(x / x.median()) / step), -8, 7)
    _, count = code.unique(return_counts=True)
    p = count / count.sum()
    return torch.exp2(code * step), float(-(p * p.log2()).sum())


def norm_before(t, name):
    """The weight of the norm that a matrix's inputs come from, where it has one: how large its inputs are, column by column."""
    kind, layer = kind_of(name), layer_of(name)
    if kind in ("q", "k", "v"):
        names = [f"model.layers.{layer}.input_layernorm.weight",
                 f"encoder.layer.{layer - 1}.output.LayerNorm.weight" if layer else "embeddings.LayerNorm.weight"]
    elif kind in ("gate", "up"):
        names = [f"model.layers.{layer}.post_attention_layernorm.weight", f"encoder.layer.{layer}.attention.output.LayerNorm.weight"]
    else:
        return None
    return next(t.base[n] for n in names if n in t.base).abs()


def shaping_of(t, options):
    """Row and column factors of each tensor's noise, and the bits that telling them takes."""
    factors, side = {}, {n: 0.0 for n in t.names}
    a, b, step = options.get("rows", 0), options.get("cols", 0), options.get("step", 0.5)
    shared = {}
    for n in t.names:
        d = t.delta[n]
        one = torch.ones(1)
        r = c = one
        if a:
            r, h = coarse(d.square().mean(1).sqrt() + 1e-12, step)
            side[n] += h * len(r) + 32
            r = r ** a
        if b:
            key = (layer_of(n), {"q": "in", "k": "in", "v": "in", "gate": "mlp", "up": "mlp"}.get(kind_of(n), n)) if options.get("shared") else n
            if key not in shared:
                group = [m for m in t.names if (layer_of(m), {"q": "in", "k": "in", "v": "in", "gate": "mlp", "up": "mlp"}.get(kind_of(m), m)) == key] if options.get("shared") else [n]
                c, h = coarse(sum(t.delta[m].square().sum(0) / t.energy[m] for m in group).sqrt() + 1e-12, step)
                shared[key] = c
                side[n] += h * len(c) + 32
            c = shared[key] ** b
        if options.get("norm") and norm_before(t, n) is not None:  # costs nothing: the base has it
            g = norm_before(t, n)
            c = c * (g / g.mean()).clamp(0.05, 20) ** -options["norm"]
        factors[n] = r.unsqueeze(1) * c.unsqueeze(0) if (a or b or c.numel() > 1) else None
    return factors, side


def low_rank(t, rank, seed):
    """Top singular vectors of each delta at 4 bits an entry (uniform, of 2.5 standard deviations), and the bits."""
    part, side = {}, {}
    for n in t.names:
        d = t.delta[n]
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(d, q=rank + 6, niter=3)
        u, s, v = u[:, :rank], s[:rank], v[:, :rank]
        quantise = lambda x: torch.clamp(torch.round(x / (x.std(0) * 0.3352) - 0.5), -8, 7).add(0.5) * x.std(0) * 0.3352
        part[n] = (quantise(u) * s) @ quantise(v).T
        side[n] = 4.0 * rank * sum(d.shape) + 48 * rank
    return part, side


def blocks(flat):
    whole = max(1, flat.numel() // BLOCK) - 1
    return [flat[:whole * BLOCK].view(-1, BLOCK), flat[whole * BLOCK:].view(1, -1)]


@functools.cache
def normal(name, shape, seed):
    """The same numbers for every variant: differences between variants are then better known than each."""
    gen = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    return torch.randn(shape, generator=gen).half()


def noisy(d, bits, tries, factor, draw):
    """The delta as the coding restores it, unbiased; with the noise's shape."""
    nsr = nsr_of(bits, tries)
    x = d / factor if factor is not None else d
    out = torch.empty_like(x).flatten()
    start = 0
    for part in blocks(x.flatten()):
        std = part.square().mean(1, keepdim=True).sqrt() * math.sqrt(nsr)
        out[start:start + part.numel()] = torch.addcmul(part, draw[start:start + part.numel()].view(part.shape).float(), std).flatten()
        start += part.numel()
    out = out.view_as(d)
    return (out * factor if factor is not None else out), nsr


def hadamard(x):
    n = x.shape[-1]
    low = 2 ** ((n.bit_length() - 1) // 2)
    m = lambda k: torch.tensor(functools.reduce(np.kron, [np.array([[1.0, 1], [1, -1]])] * (k.bit_length() - 1), np.eye(1)), dtype=torch.float32) / math.sqrt(k)
    return (m(n // low) @ x.view(*x.shape[:-1], n // low, low) @ m(low)).reshape(x.shape)


def coded(d, bits, gen):
    """The coding itself."""
    flat, share = d.flatten(), share_of(round(bits, 6))
    signs = torch.randint(0, 2, flat.shape, generator=gen) * 2.0 - 1
    x, out, start = flat * signs, torch.empty_like(flat), 0
    k, _, mean, _ = shape_of(share)
    for part in blocks(x):
        n = part.shape[1]
        if not part.numel():
            continue
        p = 1 << (n.bit_length() - 1)
        part = part.clone()
        part[:, :p] = hadamard(part[:, :p])
        if p < n:
            more = torch.randint(0, 2, (p,), generator=gen) * 2.0 - 1
            part[:, n - p:] = hadamard(part[:, n - p:] * more)
        pairs = ((n - 1) >> (k + 1)) + 1
        padded = F.pad(part, (0, (pairs << (k + 1)) - n)).view(-1, pairs, 2, 1 << k)
        value, place = padded.abs().max(-1)
        wanted = max(1, round(share * n))
        split = torch.arange(pairs) * max(0, wanted - pairs) % pairs < max(0, wanted - pairs)
        keep = split.view(1, -1, 1) | torch.stack([value[..., 0] >= value[..., 1], value[..., 1] > value[..., 0]], -1)
        kept = torch.zeros_like(padded)
        kept.scatter_(-1, place.unsqueeze(-1), keep.float().unsqueeze(-1))
        std = part.square().mean(1).sqrt()
        y = torch.sign(padded) * kept
        y = y.view(len(part), -1)[:, :n] * (std * n / (y.abs().view(len(part), -1).sum(1) * mean)).unsqueeze(1)
        if p < n:
            y[:, n - p:] = hadamard(y[:, n - p:]) * more
        y[:, :p] = hadamard(y[:, :p])
        out[start:start + part.numel()] = y.flatten()
        start += part.numel()
    return (out * signs).view_as(d)


def restore(t, options, bits, seed):
    """All deltas as a variant would restore them, at `bits` an element in all; and the noise to signal over all."""
    gen = torch.Generator().manual_seed(1000 + seed)
    factors, side = shaping_of(t, options)
    part = None
    if options.get("rank"):
        part, more = low_rank(t, options["rank"], seed)
        side = {n: side[n] + more[n] for n in t.names}
    each = bits_of(t, options, bits, side)
    restored, noise, energy = {}, 0.0, 0.0
    for n in t.names:
        d = t.delta[n] - part[n] if part else t.delta[n]
        if options.get("real"):
            y, nsr = coded(d, each[n], gen), nsr_of(each[n])
        else:
            y, nsr = noisy(d, each[n], options.get("tries", 0), factors[n], normal(n, d.shape, seed).flatten())
        noise += float((y - d).square().sum())
        energy += t.energy[n]
        rho = nsr * float(d.square().sum()) / t.weight[n]
        gain = 1 / (1 + nsr / d.shape[1])
        if "gain" in options:
            gain *= options["gain"](nsr, rho)
        if options.get("shrink"):  # top singular values as for white noise, the rest by `rest`
            y = denoised(y, y - d, options["rest"])
        restored[n] = gain * y + (part[n] if part else 0)
    return restored, noise / energy


def denoised(y, noise, rest):
    """Singular values shrunk as is best for white noise of this size, the remainder scaled."""
    m, n = y.shape
    sigma = noise.square().mean().sqrt()
    u, s, v = torch.svd_lowrank(y, q=24, niter=2)
    z = s / (sigma * math.sqrt(n))
    beta = m / n
    good = torch.sqrt(torch.clamp((z ** 2 - beta - 1) ** 2 - 4 * beta, min=0)) / z
    good = torch.where(z > 1 + math.sqrt(beta), good, torch.zeros(()))
    new = good * sigma * math.sqrt(n)
    top = z > 1 + math.sqrt(beta)
    return rest * (y - (u * (s * top)) @ v.T) + (u * new) @ v.T


VARIANTS = {
    "auto": {},
    "real": {"real": True},
    "same": {"power": 0},
    "kinds": {"kinds": 1},
    "kinds-strong": {"kinds": 1.5},
    "kinds-half": {"kinds": 0.5},
    "ends": {"ends": 1.6},
    "kinds+ends": {"kinds": 1, "ends": 1.6},
    "rel": {"rel": 1},
    "rel+kinds": {"rel": 1, "kinds": 1},
    "rel-half": {"rel": 0.5},
    "rel-half+kinds": {"rel": 0.5, "kinds": 1},
    "rows+cols": {"rows": 0.5, "cols": 0.5},
    "cols": {"cols": 0.5},
    "cols-shared": {"cols": 0.5, "shared": True},
    "rows+cols-shared": {"rows": 0.5, "cols": 0.5, "shared": True},
    "cols-shared+kinds": {"cols": 0.5, "shared": True, "kinds": 1},
    "norm": {"norm": 0.5},
    "norm-1": {"norm": 1.0},
    "norm+kinds": {"norm": 0.5, "kinds": 1},
    "norm-1+kinds": {"norm": 1.0, "kinds": 1},
    "fine": {"rows": 0.5, "cols": 0.5, "step": 0.125},
    "norm+rows+cols": {"norm": 0.5, "rows": 0.5, "cols": 0.5},
    "kinds+rows+cols": {"kinds": 1, "rows": 0.5, "cols": 0.5},
    "kinds+ends+rows+cols": {"kinds": 1, "ends": 1.6, "rows": 0.5, "cols": 0.5},
    "rows": {"rows": 0.5},
    "best4": {"tries": 2},
    "best16": {"tries": 4},
    "best16+kinds": {"tries": 4, "kinds": 1},
    "best256": {"tries": 8},
    "best16+kinds+cols": {"tries": 4, "kinds": 1, "cols": 0.5, "shared": True},
    "gain0.95": {"gain": lambda nsr, rho: 0.95},
    "gain0.9": {"gain": lambda nsr, rho: 0.9},
    "gain0.85": {"gain": lambda nsr, rho: 0.85},
    "gain0.75": {"gain": lambda nsr, rho: 0.75},
    "rank1": {"rank": 1},
    "rank2": {"rank": 2},
    "rank4": {"rank": 4},
    "denoise": {"shrink": True, "rest": 1.0},
    "denoise0.75": {"shrink": True, "rest": 0.75},
    "exact0.85": {"exact": 0.85},
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("task")
    parser.add_argument("results")
    parser.add_argument("--bits", default="0.16,0.04")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("names", nargs="+")
    o = parser.parse_args()
    t = Task(os.path.abspath(o.out), *o.task.split("/"), o.tokens)
    networks.put(t.model, {**{n: x for n, x in t.tuned.items() if n not in t.base}, **t.base})
    gain = (t.evaluate()[0] - t.reference[0]).mean()
    print(f"{o.task}: tuned {t.reference[0].mean():.4f}, gain {gain:.4f}", flush=True)
    done = set()
    if os.path.exists(o.results):
        done = {(r["task"], r["name"], r["bits"], r["seed"]) for r in map(json.loads, open(o.results))}
    for seed in range(o.seeds):
        for bits in map(float, o.bits.split(",")):
            for name in o.names:
                if (o.task, name, bits, seed) in done:
                    continue
                start = time.time()
                options = VARIANTS[name]
                if "exact" in options:
                    restored, nsr = {n: options["exact"] * d for n, d in t.delta.items()}, 0
                else:
                    restored, nsr = restore(t, options, bits, seed)
                middle = time.time()
                t.put(restored)
                values, divergence = t.evaluate()
                over = values - t.reference[0]
                row = {"task": o.task, "name": name, "bits": bits, "seed": seed, "over": over.mean(), "over_error": over.std(ddof=1) / len(over) ** 0.5,
                       "kl": float(divergence), "nsr": nsr, "share": 1 - over.mean() / gain, "gain": gain}
                with open(o.results, "a") as f:
                    f.write(json.dumps(row) + "\n")
                print(f"{o.task} {name:<20} {bits} seed {seed}: over {row['over']:.4f}  kl {row['kl']:.4f}  nsr {nsr:.2f}  share {row['share']:.3f}   "
                      f"{middle - start:.0f}+{time.time() - middle:.0f} s", flush=True)


if __name__ == "__main__":
    main()
