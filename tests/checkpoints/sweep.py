#!/usr/bin/env python3
"""Every model that transformers and diffusers can build: is it compressed, and how much of its linear and convolution layers stays exact?

usage: sweep.py [--library transformers|diffusers] [--only NAME ...] [--report FILE.md] [--shapes] [--old DELTAZOO] [--work FOLDER]

Each model type is built from its default configuration on the device "meta", so at true size and without memory. Of its state dict only names, types
and shapes are written: the header of a safetensors file, and a hole in the place of the values (`deltazoo plan` reads headers only). The model is base
and task at once. Run by `make sweep-architectures`, with the Python that has the libraries; DELTAZOO names the program."""
import argparse
import collections
import json
import math
import os
import struct
import subprocess
import sys
import time
import warnings

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DELTAZOO = os.environ.get("DELTAZOO", os.path.join(ROOT, "build", "deltazoo"))
LIMIT = 0.10  # share of the bytes of linear and convolution layers that may stay exact
DTYPES = {"torch.float32": ("F32", 4), "torch.bfloat16": ("BF16", 2), "torch.float16": ("F16", 2), "torch.float64": ("F64", 8), "torch.int64": ("I64", 8),
          "torch.int32": ("I32", 4), "torch.int8": ("I8", 1), "torch.uint8": ("U8", 1), "torch.bool": ("BOOL", 1), "torch.complex64": ("C64", 8),
          "torch.int16": ("I16", 2), "torch.float8_e4m3fn": ("F8_E4M3", 1)}


# ------------------------------------------------------------------------------------------------------------ models

def transformers_models():
    """(type, function that builds it) of every type of configuration with a model of its own."""
    import transformers
    from transformers.models.auto import configuration_auto, modeling_auto

    mappings = [getattr(modeling_auto, m) for m in dir(modeling_auto) if m.startswith("MODEL_") and m.endswith("MAPPING")]
    mappings.sort(key=lambda m: m is not modeling_auto.MODEL_MAPPING)  # the plain model first, then those with heads
    for kind in sorted(configuration_auto.CONFIG_MAPPING_NAMES):
        try:
            config_class = configuration_auto.CONFIG_MAPPING[kind]
        except Exception:  # a type whose module needs what is not installed
            continue
        classes = []
        for mapping in mappings:
            try:
                found = mapping[config_class] if config_class in mapping else None
            except Exception:  # it needs what is not installed
                continue
            classes += [c for c in (found if isinstance(found, (tuple, list)) else [found]) if c is not None and c not in classes]
        if classes:
            yield kind, config_class, classes


def build_transformers(config_class, classes):
    import torch

    problems = []
    for model_class in classes[:4]:
        try:
            config = config_class()
            with torch.device("meta"):
                return model_class(config)
        except Exception as error:
            problems.append(f"{model_class.__name__}: {type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}")
    raise RuntimeError(problems[0])


def diffusers_models():
    import diffusers
    from diffusers import ModelMixin

    names = [n for n in dir(diffusers) if n[0].isupper()]
    for name in names:
        try:
            found = getattr(diffusers, name)
        except Exception:
            continue
        if isinstance(found, type) and issubclass(found, ModelMixin) and found is not ModelMixin:
            yield name, found, None


def build_diffusers(model_class, _):
    import torch

    with torch.device("meta"):
        return model_class()


def layers_of(model):
    """Names of the parameters of linear and convolution layers and of stacks of experts; those of an untied output head."""
    import torch

    linear, head = set(), set()
    plain = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    for name, module in model.named_modules():
        kind = type(module).__name__
        for parameter, value in module.named_parameters(recurse=False):
            full = f"{name}.{parameter}" if name else parameter
            is_layer = isinstance(module, plain) or kind in ("Conv1D",) or "Linear" in kind or ("Expert" in kind and value.ndim == 3)
            if is_layer and value.ndim >= 2:
                linear.add(full)
            if isinstance(module, torch.nn.MultiheadAttention) and value.ndim == 2:
                linear.add(full)
    try:
        out = model.get_output_embeddings()
    except Exception:
        out = None
    for name, module in model.named_modules():
        if out is not None and module is out:
            head |= {n for n in (f"{name}.weight", f"{name}.bias")}
    return linear, head


def describe(library, kind, first, second):
    """What the sweep needs to know of a model, as JSON can hold it."""
    model = (build_transformers if library == "transformers" else build_diffusers)(first, second)
    linear, head = layers_of(model)
    tensors, seen = [], set()
    for name, t in model.state_dict().items():
        if not hasattr(t, "dtype") or str(t.dtype) not in DTYPES:
            continue
        if id(t) in seen:
            continue
        tensors.append([name, DTYPES[str(t.dtype)][0], list(t.shape), "linear" if name in linear and name not in head else "head" if name in head else ""])
    return {"class": type(model).__name__, "tensors": tensors}


# ------------------------------------------------------------------------------------------------------------- plans

def write_model(folder, tensors):
    """A safetensors file of which only the header is there."""
    sizes = {d: s for d, s in DTYPES.values()}
    head, at = {}, 0
    for name, dtype, shape, _ in tensors:
        end = at + sizes[dtype] * math.prod(shape)
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(head, separators=(",", ":")).encode()
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "model.safetensors")
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)


def plan(folder, tensors, older=False):
    for name in "base", "task":
        write_model(os.path.join(folder, name), tensors)
    with open(os.path.join(folder, "zoo.yaml"), "w", encoding="utf-8") as f:
        f.write("base: base\ntasks:\n  - {name: task, path: task}\n")
    headers = [] if older else ["--headers"]
    done = subprocess.run([DELTAZOO, "plan", "zoo.yaml", "--json", *headers], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr.strip()


def judge(known, planned):
    """Bytes of linear and convolution layers, those that stay exact by the place they have in the model, and the largest of these."""
    sizes = {d: s for d, s in DTYPES.values()}
    reported = {t["name"]: t for t in planned["tasks"][0]["tensors"]}
    exact, total, largest = collections.Counter(), 0, (0, "")
    for name, dtype, shape, what in known["tensors"]:
        if what != "linear":
            continue
        nbytes = sizes[dtype] * math.prod(shape)
        total += nbytes
        if reported[name]["policy"] not in ("ultradelta", "tied"):
            exact[reported[name].get("place") or "not in the base"] += nbytes
            largest = max(largest, (nbytes, name))
    return total, exact, largest[1]


def known_model(work, library, kind, first, second):
    """The description of a model, from the file of an earlier run where there is one."""
    path = os.path.join(work, library, kind + ".json")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            known = describe(library, kind, first, second)
        except Exception as error:
            known = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(known, f)
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Found:
    """What the sweep has seen of a library."""

    def __init__(self, library):
        self.library, self.good, self.bad, self.refused, self.unbuilt, self.without = library, [], [], [], [], []

    def lines(self):
        out = [f"## {self.library}", "", f"{len(self.good) + len(self.bad) + len(self.refused)} models built; {len(self.good)} with less than {LIMIT:.0%} of the bytes of "
               f"their linear and convolution layers exact, {len(self.bad)} with more, {len(self.refused)} refused. {len(self.without)} have no such layer, "
               f"{len(self.unbuilt)} cannot be built from their default configuration.", "", "| model | exact | of MB | what stays exact | largest of it |", "|---|---|---|---|---|"]
        for share, kind, total, exact, largest in sorted(self.bad, reverse=True):
            out.append(f"| {kind} | {share:.0%} | {total / 1e6:,.0f} | {', '.join(f'{p} {b / total:.0%}' for p, b in exact.most_common(3))} | `{largest}` |")
        out += [f"| {kind} | refused | | {text} | |" for kind, text in self.refused]
        out += ["", "Not built: " + "; ".join(f"{kind} ({text})" for kind, text in self.unbuilt) + "." if self.unbuilt else "", ""]
        return out


def sweep(library, opt):
    found = Found(library)
    for kind, first, second in (transformers_models if library == "transformers" else diffusers_models)():
        if opt.only and kind not in opt.only:
            continue
        known = known_model(opt.work, library, kind, first, second)
        if "error" in known:
            found.unbuilt.append((kind, known["error"].split(": ", 1)[-1][:90].replace("|", "/")))
            continue
        if not any(t[3] == "linear" for t in known["tensors"]):
            found.without.append(kind)
            continue
        planned, said = plan(os.path.join(opt.work, "zoo"), known["tensors"])
        if planned is None:
            found.refused.append((kind, said[-200:]))
            print(f"{library} {kind}: REFUSED: {said[-300:]}", flush=True)
            continue
        total, exact, largest = judge(known, planned)
        share = sum(exact.values()) / total
        if share < LIMIT:
            found.good.append(kind)
        else:
            found.bad.append((share, kind, total, exact, largest))
        print(f"{library} {kind}: {share:.1%} exact of {total / 1e6:,.0f} MB", flush=True)
    return found


# ------------------------------------------------------------------------------------------- well-known models, true shape

def well_known():
    """(name, function that builds it at its published shape)."""
    import diffusers
    import transformers as t

    sdxl = dict(sample_size=128, block_out_channels=(320, 640, 1280), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
                cross_attention_dim=2048, addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
                use_linear_projection=True)
    whisper = dict(d_model=1280, encoder_layers=32, decoder_layers=32, encoder_attention_heads=20, decoder_attention_heads=20, encoder_ffn_dim=5120, decoder_ffn_dim=5120,
                   num_mel_bins=128, vocab_size=51866)
    return [("Qwen3-VL", lambda: t.Qwen3VLForConditionalGeneration(t.Qwen3VLConfig())), ("Llama 4", lambda: t.Llama4ForConditionalGeneration(t.Llama4Config())),
            ("gpt-oss", lambda: t.GptOssForCausalLM(t.GptOssConfig())), ("Qwen3.5", lambda: t.Qwen3_5ForConditionalGeneration(t.Qwen3_5Config())),
            ("DeepSeek-V3", lambda: t.DeepseekV3ForCausalLM(t.DeepseekV3Config())), ("Flux", lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True)),
            ("SD3", lambda: diffusers.SD3Transformer2DModel(num_layers=24, pos_embed_max_size=192, out_channels=16, caption_projection_dim=1536)),
            ("SDXL UNet", lambda: diffusers.UNet2DConditionModel(**sdxl)), ("Whisper large-v3", lambda: t.WhisperForConditionalGeneration(t.WhisperConfig(**whisper))),
            ("ModernBERT", lambda: t.ModernBertForMaskedLM(t.ModernBertConfig()))]


def shapes(opt):
    """Rows of the table of well-known models, for this program and an older one: how much stays exact, and the ratio of the whole when lossy tensors take
    one bit an element (16x) and exact ones are as large as they were, which is the most they can take."""
    global DELTAZOO
    import torch

    rows = ["| model | parameters | exact bytes, before | exact bytes, now | ratio, before | ratio, now |", "|---|---|---|---|---|---|"]
    for name, build in well_known():
        with torch.device("meta"):
            model = build()
        head = getattr(model, "_tied_weights_keys", None) or {}
        skip = set(head) if getattr(model.config, "tie_word_embeddings", False) else set()
        tensors = [[n, "BF16", list(v.shape), ""] for n, v in model.state_dict().items() if v.is_floating_point() and n not in skip]
        del model
        cells, count = {}, sum(math.prod(s) for _, _, s, _ in tensors)
        for which, program in (("before", opt.old), ("now", DELTAZOO)):
            keep, DELTAZOO = DELTAZOO, program
            planned, _ = plan(os.path.join(opt.work, "zoo"), tensors, which == "before") if program else (None, "")
            DELTAZOO = keep
            if planned is None:
                cells[which] = ("refused", "-")
                continue
            task = planned["tasks"][0]
            everything = task["lossy_bytes"] + task["lossless_bytes"]
            cells[which] = (f"{task['lossless_bytes'] / everything:.1%}", f"{everything / (task['lossy_bytes'] / 16 + task['lossless_bytes']):.1f}")
        rows.append(f"| {name} | {count / 1e9:.2f} G | {cells['before'][0]} | {cells['now'][0]} | {cells['before'][1]} | {cells['now'][1]} |")
        print(rows[-1], flush=True)
    return rows


HEAD = """# Architectures

Which layers of the models that libraries can build are compressed without any recipe. `make sweep-architectures` builds every type of transformers {transformers} and every model
class of diffusers {diffusers} from its default configuration (torch {torch}, on the device "meta"), writes the header of its state dict, plans it as a base with itself as the task, and
adds up the bytes of linear layers, convolutions and experts that stay exact. Output heads that `get_output_embeddings` names are not counted. What stays exact is meant to:
heads, embeddings of patches and tokens, and layers that no repeated block has; `plan` names them where they are more than 2 % of the model.
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", action="append")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--report")
    parser.add_argument("--shapes", action="store_true", help="the table of well-known models instead")
    parser.add_argument("--old", help="another program, for the table of well-known models")
    parser.add_argument("--work", default=os.path.join(ROOT, "build", "sweep"))
    opt = parser.parse_args()
    warnings.filterwarnings("ignore")
    if opt.shapes:
        lines = shapes(opt)
    else:
        import importlib.metadata as versions
        found = [sweep(library, opt) for library in opt.library or ["transformers", "diffusers"]]
        for f in found:
            print(f"{f.library}: {len(f.good)} under {LIMIT:.0%}, {len(f.bad)} over, {len(f.refused)} refused, {len(f.without)} without such layers, {len(f.unbuilt)} not built")
        lines = [HEAD.format(**{p: versions.version(p) for p in ("transformers", "diffusers", "torch")})] + [line for f in found for line in f.lines()]
    if opt.report:
        with open(opt.report, "w", encoding="utf-8") as f:
            f.write("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
