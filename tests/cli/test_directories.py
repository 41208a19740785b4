"""Directories as people have them: several sets of weights, adapters, folders of small files, links to nowhere, block-scaled F8 on one side only. What is taken,
what is kept beside it, and what is reported."""
import json
import os
import shutil

import numpy as np

from common import model_files, DELTAZOO, EMBED, NORM, Q, UP, SmallZoo, call, check, equal, good, hashes, info, refused, run, st_bytes, st_parse, to_dtype, with_scratch, write
from test_checkpoints import COMPRESS, K, f8_model, plan, policies, round_trip, shard

ADAPTER = st_bytes([("base_model.model.q.lora_A.weight", "F32", (2, 3), bytes(24))])


def notes(r, *texts):
    for text in texts:
        check(any(text in n for n in r.lines("note")), f"no note {text!r}: {r}")


def restored(folder, *without):
    """Task one is restored as it was, but for these files."""
    shutil.rmtree(f"{folder}/r", ignore_errors=True)
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 3, cwd=folder)
    want = {f: h for f, h in hashes(f"{folder}/one").items() if f not in without}
    equal(hashes(f"{folder}/r"), want, "restored files")


# ---------------------------------------------------------------------------------------------- which files are the model

@with_scratch
def test_adapter_beside_a_model_is_not_the_model(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/one/adapter_model.safetensors", ADAPTER)
    write(f"{folder}/one/adapter_config.json", "{}")
    write(f"{folder}/base/adapter_model.safetensors", ADAPTER)
    notes(zoo.compress(ranks=3), "'one': adapter_model.safetensors is not kept", "base: adapter_model.safetensors is not read")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    equal(model_files(f"{folder}/r"), ["adapter_config.json", "config.json", "model.safetensors"], "listing")


@with_scratch
def test_index_of_an_adapter_is_not_the_models(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", zoo.tasks["one"])
    write(f"{folder}/one/adapter_model.safetensors.index.json", json.dumps({"weight_map": {"a": "adapter_model.safetensors"}}))
    write(f"{folder}/one/adapter_model.safetensors", st_bytes([("a", "F32", (1,), bytes(4))]))
    zoo.compress("a.h5", "--recipe", "lossless")
    restored(folder, "adapter_model.safetensors")


@with_scratch
def test_two_indexes_of_which_none_has_the_usual_name_are_refused(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    for name in "a", "b":
        write(f"{folder}/one/{name}.safetensors", st_bytes(zoo.tasks["one"]))
        write(f"{folder}/one/{name}.safetensors.index.json", json.dumps({"weight_map": {t[0]: f"{name}.safetensors" for t in zoo.tasks["one"]}}))
    refused(folder, COMPRESS, 1, "one", "a.safetensors.index.json", "b.safetensors.index.json")


@with_scratch
def test_variant_in_another_type_is_reported_and_not_taken(folder):
    zoo = SmallZoo(folder)
    half = [(n, "F16", s, to_dtype(np.frombuffer(b, np.float32), "F16")) for n, _, s, b in zoo.tasks["one"]]
    write(f"{folder}/one/model.fp16.safetensors", st_bytes(half))
    notes(zoo.compress("a.h5", "--recipe", "lossless", ranks=3), "model.fp16.safetensors is not kept")
    restored(folder, "model.fp16.safetensors")


@with_scratch
def test_shard_that_the_index_does_not_know_is_refused(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", zoo.tasks["one"])
    index = f"{folder}/one/model.safetensors.index.json"
    text = json.load(open(index))
    text["weight_map"] = {n: s for n, s in text["weight_map"].items() if "model-00003" not in s}
    write(index, json.dumps(text))
    refused(folder, COMPRESS, 1, "one/model.safetensors.index.json", "model-00003-of-00003.safetensors", "missing from the index")
    write(index, json.dumps({"weight_map": {}}))
    refused(folder, COMPRESS, 1, "one", "no tensor")
    write(index, json.dumps(text))
    os.rename(f"{folder}/one/model-00003-of-00003.safetensors", f"{folder}/one/old-00003-of-00003.safetensors")
    notes(zoo.compress("a.h5", "--recipe", "lossless"), "old-00003-of-00003.safetensors is not kept")


@with_scratch
def test_part_of_a_model_without_index_is_refused(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    shard(folder, "one", zoo.tasks["one"])
    os.remove(f"{folder}/one/model.safetensors.index.json")
    zoo.compress("a.h5", "--recipe", "lossless", ranks=3)  # all shards are there: it is known what the model is
    restored(folder)
    os.remove(f"{folder}/one/model-00002-of-00003.safetensors")
    refused(folder, ["compress", "zoo.yaml", "-o", "b.h5", "-q"], 1, "one", "shard model-00002-of-00003.safetensors is missing")


@with_scratch
def test_files_of_other_kinds_are_named_as_what_they_are(folder):
    SmallZoo(folder)
    write(f"{folder}/one/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n")
    refused(folder, COMPRESS, 1, "one/model.safetensors", "git lfs pull")
    write(f"{folder}/one/model.safetensors", b"PK\x03\x04" + bytes(range(1, 100)))
    refused(folder, COMPRESS, 1, "one/model.safetensors", "PyTorch")


@with_scratch
def test_names_that_would_write_over_a_terminal_are_refused(folder):
    zoo = SmallZoo(folder)
    for name in "evil\ndeltazoo: error: forged", "red\x1b[31m", "x" * 65536:
        zoo.put("one", zoo.tasks["one"] + [(name, "F32", (1,), bytes(4))])
        refused(folder, COMPRESS, 1, "one/model.safetensors", "control character")


@with_scratch
def test_more_shards_than_files_may_be_open(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    many = [(f"extra.{i}", "F32", (2,), bytes([i] * 8)) for i in range(80)]
    shard(folder, "one", zoo.tasks["one"] + many, sizes=[1] * 84)
    for limit in "-Sn 40", "-n 60":  # what the process may raise, and what it may not
        code, _, err = call(["bash", "-c", f'ulimit {limit} && exec "$@"', "bash", DELTAZOO, "compress", "zoo.yaml", "-o", "a.h5", "-q", "--force", "--recipe",
                             "lossless"], folder)
        check(code == 0, f"ulimit {limit}: {err}")
        restored(folder)


# ------------------------------------------------------------------------------------------------------ the files beside it

@with_scratch
def test_small_folders_come_back_and_other_models_do_not(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/one/1_Pooling/config.json", '{"pooling": "mean"}')
    write(f"{folder}/one/original/more/params.json", '{"dim": 4096}')
    write(f"{folder}/one/.git/HEAD", "ref: refs/heads/main")
    write(f"{folder}/one/checkpoint-500/model.safetensors", st_bytes(zoo.tasks["one"]))
    write(f"{folder}/one/checkpoint-500/config.json", "{}")
    for i in range(300):
        write(f"{folder}/one/data/{i}.json", "{}")
    os.symlink("/nowhere/at/all", f"{folder}/one/gone.json")
    write(f"{folder}/one/bad\nname", "x")
    r = zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    reported = ["'one': checkpoint-500 is not kept", "'one': data is not kept", "'one': .git is not kept", "gone.json is a link that leads nowhere", "bad?name is not kept"]
    notes(r, *reported)
    check(not any("1_Pooling" in n or "params.json" in n for n in r.lines("note")), f"{r}")
    notes(plan(folder)[1], *reported)
    for gone in "checkpoint-500", "data", ".git":
        shutil.rmtree(f"{folder}/one/{gone}")
    os.remove(f"{folder}/one/gone.json")
    restored(folder, "bad\nname")
    good(["verify", "a.h5", "--base", "base"], cwd=folder)


@with_scratch
def test_shards_in_a_folder_are_kept_and_not_reported_otherwise(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/one/model.safetensors")
    write(f"{folder}/one/weights/a.safetensors", st_bytes(zoo.tasks["one"]))
    write(f"{folder}/one/weights/readme.txt", "weights")
    write(f"{folder}/one/model.safetensors.index.json", json.dumps({"weight_map": {t[0]: "weights/a.safetensors" for t in zoo.tasks["one"]}}))
    r = zoo.compress("a.h5", "--recipe", "lossless", ranks=3)
    check(not r.lines("note"), f"{r}")
    restored(folder)


@with_scratch
def test_unreadable_side_file_is_found_before_any_work(folder):
    SmallZoo(folder)
    os.chmod(folder, 0o777)
    write(f"{folder}/one/tokenizer.json", "{}")
    write(f"{folder}/one/secret/a.json", "{}")
    os.chmod(f"{folder}/one/secret", 0)
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    code, _, err = call(nobody + [DELTAZOO, "plan", "zoo.yaml"], folder)
    check(code == 0 and "'one': secret cannot be read (Permission denied): it is not kept" in err, f"{code} {err}")
    os.chmod(f"{folder}/one/tokenizer.json", 0)
    code, _, err = call(nobody + [DELTAZOO, "plan", "zoo.yaml"], folder)
    check(code == 1 and "one/tokenizer.json: cannot open: Permission denied" in err, f"{code} {err}")


# --------------------------------------------------------------------------------------------------------------- notes

@with_scratch
def test_notes_tell_each_kind_once(folder):
    zoo = SmallZoo(folder)
    extra = [(f"zero.{i}.bias", "F32", (2048,), bytes(8192)) for i in range(40)] + [(f"count.{i}", "I64", (1,), bytes([i] + [0] * 7)) for i in range(30)]
    zoo.put("one", [t for t in zoo.tasks["one"] if t[0] != UP] + extra)
    tensors, r = plan(folder)
    mine = [n for n in r.lines("note") if "'one'" in n]
    notes(r, "'one': 70 tensors ('zero.0.bias', ...) are not in the base", f"'one': tensor '{UP}' of the base is not in it")
    equal(len(mine), 2, "notes of task one")
    notes(zoo.compress(ranks=3), "'one': 39 tensors have the bytes of others ('zero.1.bias' of 'zero.0.bias'")
    equal(json.loads(r.out)["notes"], r.lines("note"), "notes in JSON")
    equal(tensors[Q]["shape"], [48, 32], "shape")
    check(not any("'two'" in n for n in r.lines("note")), f"{r}")


@with_scratch
def test_fewer_rows_than_the_base_are_reported(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", [(n, d, (39, 32) if n == EMBED else s, b[:39 * 128] if n == EMBED else b) for n, d, s, b in zoo.tasks["one"]])
    notes(plan(folder)[1], f"'{EMBED}' is F32 [39, 32], F32 [40, 32] in the base: the base's other rows are not needed")


# ---------------------------------------------------------------------------------------------------- F8 and its scales

@with_scratch
def test_task_over_a_block_scaled_base_is_kept_exactly(folder):
    """The base's codes are not its values: a difference to them would be no delta."""
    zoo = SmallZoo(folder)
    rng = np.random.default_rng(3)
    zoo.put("base", f8_model(1))
    zoo.put("one", [(n, "BF16", s, to_dtype(rng.standard_normal(int(np.prod(s))) * 0.02, "BF16")) for n, d, s, b in f8_model(2) if "scale" not in n])
    zoo.manifest("one")
    write(f"{folder}/r.yaml", 'sparsity: 0.8\ntensors:\n  - {match: "*", policy: ultradelta}\n')
    for recipe in [], ["--recipe", "r.yaml"]:
        r = round_trip(zoo, *recipe, lossless=False)
        notes(r, "'one': 3 tensors ('model.layers.0.self_attn.q_proj.weight', ...) are block-scaled F8 in the base ('model.layers.0.self_attn.q_proj.weight_scale_inv')")
        got, want = st_parse(f"{folder}/r/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
        check(all(got[n] == want[n] for n in want if n != K), "a tensor over block-scaled F8 is not exact")


@with_scratch
def test_block_scaled_task_does_not_stop_the_others(folder):
    zoo = SmallZoo(folder, "BF16")
    fp8 = [(n, "F8_E4M3", s, to_dtype(np.ones(int(np.prod(s))), "F8_E4M3")) for n, _, s, _ in zoo.base if "proj" in n]
    scales = [(n.replace(".weight", ".scale"), "F32", (1,), bytes(4)) for n, *_ in fp8]
    zoo.put("two", fp8 + scales + [t for t in zoo.tasks["two"] if "proj" not in t[0]])
    notes(round_trip(zoo, lossless=False), "'two': 3 block-scaled F8 tensors", "'two': all of it is kept exactly")
    equal(policies(folder)[Q], "ultradelta", "the other task")
    shutil.rmtree(f"{folder}/r", ignore_errors=True)
    good(["restore", "a.h5", "--task", "two", "--base", "base", "-o", "r"], cwd=folder)
    equal(hashes(f"{folder}/r"), hashes(f"{folder}/two"), "restored files")


@with_scratch
def test_lost_scales_are_found(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", f8_model(1))
    zoo.put("one", f8_model(2, scales=()))
    zoo.manifest("one")
    refused(folder, COMPRESS, 1, "one/model.safetensors", "fp8 scale missing", "the base's", lines=3)
    zoo.put("base", f8_model(1, scales=()))
    zoo.put("one", f8_model(2))
    refused(folder, COMPRESS, 1, "base/model.safetensors", "fp8 scale missing", "the task's", lines=3)
    up = (UP, "F8_E4M3", (64, 32), to_dtype(np.ones(2048), "F8_E4M3"))
    zoo.put("base", f8_model(1) + [up])
    zoo.put("one", f8_model(2) + [up])
    refused(folder, COMPRESS, 1, UP, "fp8 scale missing", lines=2)  # the others have scales


@with_scratch
def test_integers_under_a_lossy_rule_are_kept_exactly(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", [(n, "I8", s, bytes(range(64)) * (len(b) // 256)) if n == Q else (n, d, s, b) for n, d, s, b in zoo.tasks["one"]])
    notes(round_trip(zoo, lossless=False), f"'one': tensor '{Q}' is I8: kept exactly")
    equal((policies(folder)[Q], policies(folder)[K]), ("lossless", "ultradelta"), "policies")
    got = st_parse(f"{folder}/r/model.safetensors")
    check(got[Q] == st_parse(f"{folder}/one/model.safetensors")[Q] and got[NORM] == st_parse(f"{folder}/one/model.safetensors")[NORM], "not exact")
    check(info("a.h5", cwd=folder) and run(["verify", "a.h5", "--base", "base"], cwd=folder).code == 0, "verify")
