"""A small decoder on lists of symbols: a list, "=", and a function of the list.

The pretraining text never says which function a line uses, so the base has to guess it from the answer's first symbols;
a fine-tuned model knows its one function, which never occurred in pretraining."""
import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTH, LAYERS, HEADS, MLP = 256, 4, 8, 512
SYMBOLS, LENGTH = 16, 6
EVAL_COUNT = 600  # lists, of LENGTH answers each
END, EQUALS, VOCAB = SYMBOLS, SYMBOLS + 1, SYMBOLS + 2
PRETRAIN = dict(steps=700, count=128, lr=1e-3, warmup=50)
FINETUNE = dict(steps=160, count=96, lr=2.5e-4, warmup=20)


def equal(x):
    return x[:, :, None] == x[:, None, :]


def dedupe(x):
    """First occurrences in order, then END."""
    first = ~(equal(x) & np.tri(LENGTH, k=-1, dtype=bool)).any(2)
    order = np.argsort(~first, axis=1, kind="stable")
    return np.where(np.take_along_axis(first, order, 1), np.take_along_axis(x, order, 1), END)


def depth(x):
    """Bracket depth after each symbol: the lower half opens, the upper half closes; a closing one at depth 0 is ignored."""
    level, out = np.zeros(len(x), x.dtype), np.empty_like(x)
    for i in range(LENGTH):
        level = np.maximum(level + np.where(x[:, i] < SYMBOLS // 2, 1, -1), 0)
        out[:, i] = level
    return out


# Each pretraining function has relatives among the tasks, but no task occurs in the pretraining text itself: the base
# alone gets only part of each answer right.
CORPUS = {
    "sort": lambda x: np.sort(x, axis=1),
    "next": lambda x: np.roll(x, -1, axis=1),
    "swap": lambda x: x.reshape(-1, LENGTH // 2, 2)[:, :, ::-1].reshape(-1, LENGTH),
    "add next": lambda x: (x + np.roll(x, -1, axis=1)) % SYMBOLS,
    "complement": lambda x: SYMBOLS - 1 - x,
    "highest so far": lambda x: np.maximum.accumulate(x, axis=1),
    "how many are lower": lambda x: (x[:, :, None] > x[:, None, :]).sum(2),
    "how often before": lambda x: (equal(x) & np.tri(LENGTH, k=-1, dtype=bool)).sum(2),
}
SPECS = {
    "reverse": lambda x: x[:, ::-1],
    "descend": lambda x: np.sort(x, axis=1)[:, ::-1],
    "offset": lambda x: np.roll(x, -2, axis=1),
    "add": lambda x: (x + np.roll(x, -2, axis=1)) % SYMBOLS,
    "dedupe": dedupe,
    "count": lambda x: equal(x).sum(2),
    "depth": depth,
    "rank": lambda x: (x[:, :, None] < x[:, None, :]).sum(2),
}
TASKS = list(SPECS)


def lists(split, rng, count):
    """Random lists; a hash of the list decides its split, so the splits share no list."""
    x = rng.integers(0, SYMBOLS, (2 * count if split == "train" else 20 * count, LENGTH))
    bucket = (x @ np.array([7919, 104729, 1299709, 15485863, 32452843, 49979687])) % 997 % 10
    wanted = {"train": bucket >= 2, "validation": bucket == 0, "test": bucket == 1}[split]
    return x[wanted][:count]


def batch(task, split, rng, count):
    x = lists(split, rng, count)
    if task is None:
        kinds = rng.integers(0, len(CORPUS), len(x))
        y = np.empty_like(x)
        for kind, function in enumerate(CORPUS.values()):
            y[kinds == kind] = function(x[kinds == kind])
    else:
        y = np.ascontiguousarray(SPECS[task](x))
    tokens = np.concatenate([x, np.full((len(x), 1), EQUALS), y[:, :-1]], axis=1)
    return torch.from_numpy(tokens), torch.from_numpy(y)


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


@functools.lru_cache(None)
def rotary(length):
    half = WIDTH // HEADS // 2
    angle = torch.arange(length)[:, None] * 100.0 ** (-torch.arange(half) / half)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(WIDTH, WIDTH, bias=False))

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = [proj(x).reshape(n, t, HEADS, -1).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)]
        cos, sin = rotary(t)
        scores = rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        scores = scores + torch.full((t, t), -1e9).triu(1)
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, WIDTH))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, MLP, bias=False)
        self.up_proj = nn.Linear(WIDTH, MLP, bias=False)
        self.down_proj = nn.Linear(MLP, WIDTH, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.self_attn = RmsNorm(), Attention()
        self.post_attention_layernorm, self.mlp = RmsNorm(), Mlp()

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.Sequential(*[Layer() for _ in range(LAYERS)])
        self.norm = RmsNorm()


class CausalLm(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Decoder()
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, tokens):
        """Logits of the answer alone: the symbols after "=" each given everything before it."""
        hidden = self.model.layers(self.model.embed_tokens(tokens))
        return self.lm_head(self.model.norm(hidden[:, -LENGTH:]))


def build(task):
    del task  # one shape for all
    model = CausalLm()
    for p in model.parameters():
        if p.dim() == 2:
            nn.init.normal_(p, 0, 0.04)
    return model


def prepare_finetune(model, next_batch):
    """Nothing: the language model head is part of the base."""


def config(task):
    return {"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "intermediate_size": MLP, "vocab_size": VOCAB, "rope_theta": 100.0,
            "rms_norm_eps": 1e-6, "task": task or "base", "torch_dtype": "bfloat16"}
