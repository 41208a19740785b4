"""The models of the paper, and where their numbers come from: config/paper/MODEL has the recipes.

`first` and `last` are the headlines of the paper's first and last version (arXiv 2505.13563, abstracts of v1 and v3), each "up to" for the model's family."""
import os
from dataclasses import dataclass

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


@dataclass(frozen=True)
class Model:
    name: str      # folder of config/paper
    shape: str     # of deltazoo synth
    dtype: str
    first: float
    last: float
    cut: int       # blocks at the small scale, 0: all
    cut_full: int  # blocks at the full scale, 0: all
    blocks: int

    @property
    def config(self):
        return os.path.join(ROOT, "config", "paper", self.name)

    def recipe(self, name):
        return os.path.join(self.config, f"{name}.yaml")


MODELS = {m.name: m for m in (
    Model("llama-2-7b", "llama2-7b", "bf16", 133, 50, 2, 0, 32),
    Model("llama-2-13b", "llama2-13b", "bf16", 133, 50, 1, 4, 40),
    Model("roberta-base", "roberta-base", "f16", 800, 224, 0, 0, 12),
    Model("t5-base", "t5-base", "f16", 800, 224, 0, 0, 12),
    Model("vit-b-32", "vit-b-32", "f16", 400, 132, 0, 0, 12),
    Model("vit-l-14", "vit-l-14", "f16", 400, 132, 0, 0, 24),
    Model("beit3-base", "beit3-base", "f16", 40, 18, 0, 0, 12),
)}
RECIPES = ("paper", "default", "auto")
