"""A hub folder of many families of tiny models, as transformers saves them.

    build/venv-clients/bin/python tests/client/families.py FOLDER [--models 300] [--families 40]

Families have their own architecture and seed; models of a family are their base with a small change of all values. Every fourth family is in bf16, every fifth in
shards, every sixth in a hub's cache (models--org--name/snapshots/...). Beside them: a model without a family, one that is cut short, and a training state.
FOLDER/families.json says which model is of which base.
"""
import argparse
import json
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import models as tiny  # noqa: E402

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mixtral", "olmo", "olmo2", "starcoder2", "stablelm",
                 "cohere", "granite", "bert", "roberta", "distilbert", "electra", "t5", "bart", "vit", "dinov2", "qwen2_moe", "gpt_neo")
KINDS = ("chat", "code", "math", "medical", "legal", "german", "japanese", "summary", "tools")


def place(folder, family, name):
    """Where a model of a family is saved."""
    if family % 6 == 5:
        return f"{folder}/models--org{family}--{name}/snapshots/0123456789abcdef0123456789abcdef01234567"
    return f"{folder}/org{family}/{name}"


def save(model, path, family):
    model.save_pretrained(path, **({"max_shard_size": "100KB"} if family % 5 == 4 else {}))
    with open(f"{path}/tokenizer.json", "w", encoding="utf-8") as file:
        json.dump({"version": "1.0", "family": family, "words": list(range(200))}, file)


def make(folder, nmodels, nfamilies):
    of_base = {}
    for family in range(nfamilies):
        arch = ARCHITECTURES[family % len(ARCHITECTURES)]
        torch.manual_seed(1000 + family)
        base, _, _ = tiny.CASES[arch]()
        if family % 4 == 3:
            base = base.to(torch.bfloat16)
        ntasks = (nmodels - nfamilies) // nfamilies + (family < (nmodels - nfamilies) % nfamilies)
        name = f"{arch}-{family}-base"
        path = place(folder, family, name)
        save(base, path, family)
        of_base[os.path.relpath(path, folder)] = []
        for task in range(ntasks):
            child = place(folder, family, f"{arch}-{family}-{KINDS[task % len(KINDS)]}{task // len(KINDS) or ''}")
            save(tiny.tuned(base, 100 * family + task), child, family)
            of_base[os.path.relpath(path, folder)].append(os.path.relpath(child, folder))
    torch.manual_seed(7)
    tiny.CASES["albert"]()[0].save_pretrained(f"{folder}/alone")
    os.makedirs(f"{folder}/broken")
    with open(f"{folder}/broken/model.safetensors", "wb") as file:
        file.write(b"\x10\0\0\0\0\0\0\0{")
    with open(f"{folder}/alone/optimizer.pt", "wb") as file:
        file.write(b"PK")
    with open(f"{folder}/families.json", "w", encoding="utf-8") as file:
        json.dump(of_base, file, indent=1)
    return of_base


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--families", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    of_base = make(args.folder, args.models, args.families)
    print(f"{len(of_base)} families, {len(of_base) + sum(map(len, of_base.values()))} models")


if __name__ == "__main__":
    main()
