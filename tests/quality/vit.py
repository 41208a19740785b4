"""A small vision transformer on pairs of handwritten digits (scikit-learn's bundled 8 x 8 images, side by side)."""
import functools

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

WIDTH, BLOCKS, HEADS, PATCH, TOKENS = 256, 4, 8, 4, 8
PRETRAIN = dict(steps=600, count=128, lr=1e-3, warmup=50)
FINETUNE = dict(steps=160, count=96, lr=2e-4, warmup=20)
EVAL_COUNT = 1000
PROBE_IMAGES, PROBE_STEPS = 2000, 60



def change_both(function):
    """The same change of the left and of the right digit."""
    return lambda image: np.concatenate([function(image[:, :, :8]), function(image[:, :, 8:])], axis=2)


def unchanged(image):
    return image


# task: (number of classes, change of the images, label from the left digit a and the right digit b)
SPECS = {
    "transpose": (10, change_both(lambda d: d.transpose(0, 2, 1)), lambda a, b: a),
    "rotate": (10, change_both(lambda d: np.rot90(d, axes=(1, 2))), lambda a, b: b),
    "negative": (10, lambda image: 1 - image, lambda a, b: a),
    "sum": (19, unchanged, lambda a, b: a + b),
    "difference": (10, unchanged, lambda a, b: abs(a - b)),
    "parity": (2, unchanged, lambda a, b: (a + b) % 2),
    "product": (10, unchanged, lambda a, b: a * b % 10),
    "checksum": (10, unchanged, lambda a, b: (3 * a + b) % 10),
}
TASKS = list(SPECS)


@functools.lru_cache(None)
def digits(split):
    """Images (n, 8, 8) in 0..1 and labels. The three splits share no handwritten digit."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    part = {"train": order[:1200], "validation": order[1200:1450], "test": order[1450:]}[split]
    return data.images[part].astype(np.float32) / 16, data.target[part]


def shift(images, rng):
    """Moves each image by -1, 0 or 1 pixels sideways."""
    moved = np.pad(images, ((0, 0), (0, 0), (1, 1)))
    start = rng.integers(0, 3, len(images))
    return moved[np.arange(len(images))[:, None, None], np.arange(8)[:, None], start[:, None, None] + np.arange(8)]


def batch(task, split, rng, count):
    pool, labels = digits(split)
    pick = rng.integers(0, len(pool), (2, count))
    sides = [pool[p] for p in pick]
    if split == "train":
        sides = [shift(side, rng) for side in sides]
    image = np.concatenate(sides, axis=2) * rng.uniform(0.6, 1, (count, 1, 1))
    image = image + rng.normal(0, 0.05, image.shape)
    left, right = labels[pick]
    if task is None:
        answers = np.stack([left, right], axis=1)
    else:
        _, change, label = SPECS[task]
        image, answers = change(image), label(left, right)[:, None]
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)), torch.from_numpy(answers)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_proj = nn.Linear(WIDTH, 3 * WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.in_proj(x).reshape(n, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        share = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return self.out_proj((share @ v).transpose(1, 2).reshape(n, t, WIDTH))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), Attention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH), Mlp()

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Vit(nn.Module):
    def __init__(self, answers, classes):
        super().__init__()
        self.answers = answers
        self.pos_embed = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.05)
        self.patch_embed = nn.Linear(PATCH * PATCH, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.ln_post = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, answers * classes)

    def features(self, image):
        n, h, w = image.shape
        patches = image.reshape(n, h // PATCH, PATCH, w // PATCH, PATCH).transpose(2, 3).reshape(n, TOKENS, -1)
        return self.ln_post(self.blocks(self.patch_embed(patches) + self.pos_embed)).mean(1)

    def forward(self, image):
        return self.head(self.features(image)).unflatten(1, (self.answers, -1))


def build(task):
    return Vit(2, 10) if task is None else Vit(1, SPECS[task][0])


def prepare_finetune(model, next_batch):
    """Fits the new head on the frozen base first, as is usual, so that full fine-tuning does not start from a random head."""
    x, y = next_batch(PROBE_IMAGES)
    with torch.no_grad():
        features = torch.cat([model.features(x[i:i + 250]) for i in range(0, len(x), 250)])
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.01)
    for _ in range(PROBE_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model.head(features), y[:, 0]).backward()
        optimizer.step()


def config(task):
    return {"architectures": ["VisionTransformer"], "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH, "patch_size": PATCH, "image_size": [8, 16],
            "num_labels": 0 if task is None else SPECS[task][0], "task": task or "base", "torch_dtype": "bfloat16"}
