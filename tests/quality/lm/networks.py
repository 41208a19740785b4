"""The two base models, from the Python packages that carry them, and how well a model does on held-out text."""
import functools
import importlib.util
import os

THREADS = int(os.environ.get("DZ_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import settings  # noqa: E402
import text  # noqa: E402

torch.set_num_threads(THREADS)
transformers.logging.set_verbosity_error()


def package_folder(family):
    spec = importlib.util.find_spec(settings.MODEL_PACKAGES[family])
    if spec is None:
        raise SystemExit(f"the Python package {settings.MODEL_PACKAGES[family]} is not installed (requirements-models.txt)")
    return os.path.dirname(spec.origin)


def save(folder, state, config):
    """model.safetensors in bf16 (integers as they are) and config.json; the name of a complete folder appears last."""
    state = {name: (t.to(torch.bfloat16) if t.is_floating_point() else t).contiguous().clone() for name, t in state.items()}
    os.makedirs(folder + ".new", exist_ok=True)
    save_file(state, os.path.join(folder + ".new", "model.safetensors"), metadata={"format": "pt"})
    config.save_pretrained(folder + ".new")
    os.rename(folder + ".new", folder)


def load(folder):
    """{name: tensor} in float32."""
    return {name: t.float() if t.is_floating_point() else t for name, t in load_file(os.path.join(folder, "model.safetensors")).items()}


def make_base(family, out):
    folder = os.path.join(out, family, "base")
    if os.path.isdir(folder):
        return
    package = package_folder(family)
    if family == "lm":
        gguf = [name for name in os.listdir(package) if name.endswith(".gguf")][0]
        loaded = transformers.AutoModelForCausalLM.from_pretrained(package, gguf_file=gguf, dtype=torch.float32)
        config = transformers.LlamaConfig(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
        state = {n: t for n, t in loaded.state_dict().items() if n != "lm_head.weight"}
        transformers.AutoTokenizer.from_pretrained(package, gguf_file=gguf).save_pretrained(os.path.join(out, family, "tokenizer"))
    else:
        package = os.path.join(package, "model")
        config = transformers.AutoConfig.from_pretrained(package)
        state = transformers.AutoModel.from_pretrained(package, dtype=torch.float32).state_dict()
        transformers.AutoTokenizer.from_pretrained(package).save_pretrained(os.path.join(out, family, "tokenizer"))
    save(folder, state, config)


class Encoder(torch.nn.Module):
    """Mean of the last layer over the tokens, of length 1; with a head where the task has classes."""

    def __init__(self, config, classes):
        super().__init__()
        self.bert = transformers.AutoModel.from_config(config)
        self.head = torch.nn.Linear(config.hidden_size, classes) if classes else None

    def forward(self, ids, mask):
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        mean = hidden.sum(1) / mask.sum(1, keepdim=True)
        return self.head(mean) if self.head is not None else F.normalize(mean, dim=-1)


def build(family, out, classes=0):
    config = transformers.AutoConfig.from_pretrained(os.path.join(out, family, "base"))
    torch.manual_seed(settings.SEED)
    if family == "lm":
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return Encoder(config, classes)


def put(model, state):
    """Takes a state dict as it is on disk; what a base lacks (the head) is left as it is."""
    if isinstance(model, Encoder):
        state = {n if n.startswith("head.") else "bert." + n: t for n, t in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not n.startswith(("head.", "lm_head.")) and "pooler" not in n for n in missing):
        raise SystemExit(f"tensors do not fit the model: {unexpected or missing}")


def state_of(model):
    """A state dict as it is on disk."""
    state = {n: t.detach() for n, t in model.state_dict().items() if n != "lm_head.weight"}
    return {n.removeprefix("bert."): t for n, t in state.items()} if isinstance(model, Encoder) else state


@functools.cache
def tokenizer(family, out):
    return transformers.PreTrainedTokenizerFast.from_pretrained(os.path.join(out, family, "tokenizer"))


@functools.cache
def lm_tokens(out, task):
    """(training, held-out): the files' tokens one after the other."""
    cache = os.path.join(out, "lm", f"{task}.npz")
    if not os.path.exists(cache):
        parts = []
        for part in text.files(settings.LM_TASKS[task].text, out):
            ids = tokenizer("lm", out)([t for _, t in part], add_special_tokens=False)["input_ids"]
            parts.append(np.concatenate([np.array(i, np.int32) for i in ids]))
        np.savez(cache + ".new.npz", train=parts[0], held=parts[1])
        os.rename(cache + ".new.npz", cache)
    data = np.load(cache)
    return data["train"], data["held"]


@functools.cache
def passages(out, task):
    """Encoder tasks: (training, held-out) lists of (first text, second text or class)."""
    parts = text.files(settings.ENCODER_TASKS[task].text, out)
    if task == "package":
        folder = lambda name: "/".join(name.split("/")[1:-1])
        count = {}
        for name, _ in parts[0] + parts[1]:
            count[folder(name)] = count.get(folder(name), 0) + 1
        classes = sorted(count, key=lambda f: (-count[f], f))[:settings.ENCODER_CLASSES]
        return [[(chunk, classes.index(folder(name))) for name, t in part if folder(name) in classes for chunk in chunks(t, 400)] for part in parts]
    pairs = []
    for part in parts:
        pairs.append([])
        for _, t in part:
            pieces = chunks(t, 300)
            pairs[-1] += list(zip(pieces[::2], pieces[1::2]))
    return pairs


def chunks(t, length):
    """Pieces of about so many characters that end where a line does; without the lines that tell where they come from."""
    lines = [line for line in t.split("\n") if line.strip() and not line.startswith(("package ", "import "))]
    out, piece = [], ""
    for line in lines:
        piece += line.strip() + "\n"
        if len(piece) >= length:
            out.append(piece)
            piece = ""
    return out


def encoder_batch(out, task, items):
    """Token ids and masks of the first (and second) texts, and the labels."""
    tok = tokenizer("encoder", out)
    def encode(texts):
        both = tok(list(texts), truncation=True, max_length=settings.ENCODER_TOKENS, padding="max_length", return_tensors="pt")
        return both["input_ids"], both["attention_mask"]

    first = encode(i[0] for i in items)
    if task == "package":
        return first, None, torch.tensor([i[1] for i in items])
    return first, encode(i[1] for i in items), torch.arange(len(items))


def encoder_logits(model, first, second):
    if second is None:
        return model(*first)
    return 20 * model(*first) @ model(*second).T


@functools.cache
def held_out(family, out, task):
    """Batches of the held-out split."""
    if family == "lm":
        held = lm_tokens(out, task)[1]
        rows = settings.EVAL_TOKENS // settings.SEQUENCE
        starts = np.linspace(0, len(held) - settings.SEQUENCE - 1, rows).astype(int)
        return torch.stack([torch.from_numpy(held[s:s + settings.SEQUENCE + 1].astype(np.int64)) for s in starts]).split(settings.EVAL_BATCH)
    items = passages(out, task)[1]
    picks = np.random.default_rng(settings.SEED).permutation(len(items))[:settings.ENCODER_EVAL]
    items = [items[p] for p in picks]
    return [encoder_batch(out, task, items[i:i + 64]) for i in range(0, len(items) - 63, 64)]


def in_bf16(task):
    """Whether a task is trained and measured in bf16. Without AVX-512 torch multiplies bf16 matrices ten to thirty times slower than float32 ones."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and task not in settings.FLOAT32


@torch.no_grad()
def losses(family, model, out, task):
    """Held-out loss of each batch: paired between models, so differences have their own standard error."""
    model.eval()
    values = []
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16(task)):
        for batch in held_out(family, out, task):
            if family == "lm":
                logits = model(input_ids=batch[:, :-1]).logits
                values.append(F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten()).item())
            else:
                values.append(F.cross_entropy(encoder_logits(model, *batch[:2]).float(), batch[2]).item())
    return np.array(values)
