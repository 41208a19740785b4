"""Models that are missing, broken, hostile or do not fit the recipe: exit 1, one line that names file, tensor and value, with 1, 3 and 7 ranks."""
import io
import json
import os
import re
import zipfile

import numpy as np

from common import (ALL, EMBED, K, NORM, Q, RANKS, UP, SmallZoo, check, equal, good, hashes, info, read, refused, replaced, run, small_model, st_bytes, st_header,
                    st_parse, st_raw, turns, with_scratch, write)

COMPRESS = ["compress", "zoo.yaml", "-o", "a.h5", "-q"]
MODEL = "one/model.safetensors"


def hostile(content, *wanted):
    """A test: a task with this file is refused. With several ranks: test_hostile_models_are_reported_all_at_once."""

    def test(folder):
        SmallZoo(folder)
        write(f"{folder}/{MODEL}", content)
        refused(folder, COMPRESS, 1, "one", *wanted, ranks=RANKS if ALL else (1,))

    return with_scratch(test)


def one(dtype, shape, begin, end, data):
    return st_raw(st_header([("t", dtype, shape, begin, end)]), data)


HOSTILE = {
    "empty_file": (b"", "0 bytes"),
    "seven_bytes": (b"\x01" * 7, "7 bytes"),
    "eight_bytes": (b"\0" * 8,),
    "header_longer_than_file": (st_raw("{}", length=1000), "1000"),
    "header_of_200_MB": (st_raw("{}", b"\0" * 64, length=200_000_000), "200000000"),
    "header_length_of_all_ones": (b"\xff" * 64,),
    "header_not_json": (st_raw("this is no JSON", b"\0" * 8),),
    "header_an_array": (st_raw("[1, 2, 3]"),),
    "header_a_number": (st_raw("17"),),
    "header_with_a_tail": (st_raw('{"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}} more', b"\0" * 4),),
    "header_nested_deep": (st_raw('{"t": ' + "[" * 100_000 + "]" * 100_000 + "}"),),
    "header_not_utf8": (st_raw(b'{"t\xff\xfe": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"\0" * 4),),
    "duplicate_keys": (st_raw('{"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "t": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}',
                              b"\0" * 8), "duplicate"),
    "no_tensor": (st_raw("{}"), "no tensor"),
    "only_metadata": (st_raw('{"__metadata__": {"format": "pt"}}'), "no tensor"),
    "entry_not_an_object": (st_raw('{"t": 5}'), "'t'"),
    "no_dtype": (st_raw('{"t": {"shape": [4], "data_offsets": [0, 4]}}', b"\0" * 4), "'t'", "dtype"),
    "no_shape": (st_raw('{"t": {"dtype": "U8", "data_offsets": [0, 4]}}', b"\0" * 4), "'t'", "shape"),
    "no_offsets": (st_raw('{"t": {"dtype": "U8", "shape": [4]}}', b"\0" * 4), "'t'", "offsets"),
    "three_offsets": (st_raw('{"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4, 8]}}', b"\0" * 8), "'t'", "offsets"),
    "dtype_made_up": (one("F17", [4], 0, 4, b"\0" * 4), "'t'", "'F17' is no dtype"),
    "dtype_in_small_letters": (one("f32", [1], 0, 4, b"\0" * 4), "'t'", "'f32' is no dtype"),
    "dtype_of_half_bytes": (one("F4", [3], 0, 2, b"\0" * 2), "'t'", "[3]", "2 bytes"),
    "overlapping_offsets": (st_raw(st_header([("t", "U8", [8], 0, 8), ("u", "U8", [8], 4, 12)]), b"\0" * 12), "'t'", "'u'"),
    "gapped_offsets": (st_raw(st_header([("t", "U8", [4], 0, 4), ("u", "U8", [4], 8, 12)]), b"\0" * 12), "'u'", "4 bytes"),
    "gap_before_the_first": (st_raw(st_header([("t", "U8", [4], 4, 8)]), b"\0" * 8), "'t'", "4 bytes"),
    "out_of_range_offsets": (one("U8", [4], 1000, 1004, b"\0" * 4), "'t'", "1004"),
    "negative_offsets": (one("U8", [4], -4, 0, b"\0" * 4), "'t'", "-4"),
    "reversed_offsets": (one("U8", [4], 4, 0, b"\0" * 4), "'t'"),
    "offsets_too_big_for_64_bits": (one("U8", [4], 0, 2**64 + 4, b"\0" * 4),),
    "offsets_with_fractions": (one("U8", [4], 0.0, 4.0, b"\0" * 4), "'t'"),
    "shape_does_not_fill_the_bytes": (one("F32", [3, 5], 0, 64, b"\0" * 64), "'t'", "[3, 5]", "64"),
    "shape_negative": (one("F32", [-4, -4], 0, 64, b"\0" * 64), "'t'"),
    "shape_overflows": (one("F32", [2**62, 2**62], 0, 64, b"\0" * 64), "'t'", "overflow"),
    "shape_overflows_to_the_right_size": (one("F32", [2**32, 2**32, 2], 0, 0, b""), "'t'", "overflow"),
    "shape_of_two_to_the_63": (st_raw('{"t": {"dtype": "F32", "shape": [9223372036854775808, 9223372036854775808], "data_offsets": [0, 64]}}', b"\0" * 64),),
    "shape_times_size_overflows": (one("F64", [2**61], 0, 0, b""), "'t'"),
    "nine_dimensions": (one("F32", [1] * 9, 0, 4, b"\0" * 4), "'t'", "9"),
    "trailing_bytes": (st_bytes(small_model(2)) + b"\0" * 24, "24 bytes"),
    "truncated_data": (st_bytes(small_model(2))[:-10],),
    "a_text_file": (b"This is a text, not a model. It is long enough to have eight bytes and more.\n" * 20,),
    "name_empty": (st_raw('{"": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"\0" * 4),),
    "name_with_nul": (st_raw('{"a\\u0000b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"\0" * 4),),
}
for key, (content, *wanted) in HOSTILE.items():
    globals()["test_hostile_" + key] = hostile(content, *wanted)


@with_scratch
def test_hostile_base_is_refused_too(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/base/model.safetensors", HOSTILE["overlapping_offsets"][0])
    refused(folder, COMPRESS, 1, "base/model.safetensors", "'t'", "'u'")


def several_hostile(names):
    def test(folder):
        zoo = SmallZoo(folder)
        for name in names:
            write(f"{folder}/{name}/model.safetensors", HOSTILE[name][0])
        zoo.manifest("one", *names)
        refused(folder, COMPRESS, 1, *names, lines=len(names), ranks=RANKS)
        errors = run(COMPRESS, cwd=folder).lines("error")
        for name, line in zip(names, errors):
            check(line.startswith(name), f"{line!r} is not about {name}")
            check(all(w in line for w in HOSTILE[name][1:]), f"{line!r} does not name all of {HOSTILE[name][1:]}")

    return with_scratch(test)


for part in range(0, len(HOSTILE), 8):
    globals()[f"test_hostile_models_are_reported_all_at_once_{1 + part // 8}"] = several_hostile(list(HOSTILE)[part:part + 8])


@with_scratch
def test_hostile_base_at_restore(folder):
    zoo = SmallZoo(folder)
    zoo.compress()
    write(f"{folder}/base/model.safetensors", HOSTILE["header_an_array"][0])
    refused(folder, ["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 1, "base/model.safetensors")


@with_scratch
def test_task_path_does_not_exist(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one", "nowhere")
    refused(folder, COMPRESS, 1, "nowhere")


@with_scratch
def test_task_and_base_that_do_not_exist_are_reported_at_once(folder):
    zoo = SmallZoo(folder)
    zoo.manifest("one", "nowhere", base="nobase")
    refused(folder, COMPRESS, 1, "nowhere", "nobase", lines=2, ranks=RANKS)


@with_scratch
def test_task_is_a_dangling_link(folder):
    zoo = SmallZoo(folder)
    os.symlink("gone", f"{folder}/link")
    zoo.manifest("one", "link")
    refused(folder, COMPRESS, 1, "link")


@with_scratch
def test_task_is_a_fifo_without_waiting(folder):
    zoo = SmallZoo(folder)
    os.mkfifo(f"{folder}/pipe.safetensors")
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: p, path: pipe.safetensors}\n")
    refused(folder, COMPRESS, 1, "pipe.safetensors", ranks=(1, 3))


# ------------------------------------------------------------------------------------------------------ directories

@with_scratch
def test_directory_without_safetensors(folder):
    zoo = SmallZoo(folder)
    os.remove(f"{folder}/{MODEL}")
    write(f"{folder}/one/pytorch_model.bin", b"\x80\x02")
    refused(folder, COMPRESS, 1, "one", ".safetensors")


def sharded(zoo, name="one", mapping=None, shards=None):
    """Puts a task as two shards with an index; `mapping` changes the weight_map."""
    tensors = zoo.tasks[name]
    where = f"{zoo.folder}/{name}"
    os.remove(f"{where}/model.safetensors")
    parts = shards or {"a.safetensors": tensors[:2], "b.safetensors": tensors[2:]}
    for file, part in parts.items():
        write(f"{where}/{file}", st_bytes(part))
    weight_map = {t[0]: file for file, part in parts.items() for t in part}
    weight_map.update(mapping or {})
    write(f"{where}/model.safetensors.index.json", json.dumps({"metadata": {"total_size": 1}, "weight_map": {k: v for k, v in weight_map.items() if v}}))


_variants = iter(range(1000))


def index_case(mapping, *wanted, shards=None):
    ranks = turns(next(_variants))

    def test(folder):
        zoo = SmallZoo(folder)
        sharded(zoo, mapping=mapping, shards=shards(zoo.tasks["one"]) if shards else None)
        refused(folder, COMPRESS, 1, "one", *wanted, ranks=ranks)

    return with_scratch(test)


test_index_names_a_missing_shard = index_case({Q: "c.safetensors"}, "index.json", "c.safetensors")
test_index_names_a_file_outside = index_case({Q: "../x.safetensors"}, "index.json", Q, "../x.safetensors")
test_index_names_an_absolute_file = index_case({Q: "/etc/x.safetensors"}, "index.json", Q, "/etc/x.safetensors")
test_index_names_no_text = index_case({Q: 7}, "index.json", Q)
test_index_names_another_kind_of_file = index_case({Q: "a.bin"}, "index.json", Q, "a.bin")
test_index_tensor_in_two_shards = index_case(None, Q, "a.safetensors", "b.safetensors", shards=lambda t: {"a.safetensors": t[:2], "b.safetensors": t[1:]})


@with_scratch
def test_two_files_without_index_have_the_same_tensor(folder):
    zoo = SmallZoo(folder)
    os.rename(f"{folder}/one/model.safetensors", f"{folder}/one/most.safetensors")  # model.safetensors would be the model, by its name
    write(f"{folder}/one/more.safetensors", st_bytes(zoo.tasks["one"][1:2]))
    refused(folder, COMPRESS, 1, Q, "more.safetensors", "most.safetensors")


def broken_index(text):
    def test(folder):
        zoo = SmallZoo(folder)
        sharded(zoo)
        write(f"{folder}/one/model.safetensors.index.json", text)
        refused(folder, COMPRESS, 1, "one/model.safetensors.index.json", ranks=(1, 3))

    return with_scratch(test)


test_index_not_json = broken_index("{")
test_index_without_weight_map = broken_index("{}")
test_index_empty = broken_index("")
test_index_lists_a_tensor_twice = broken_index(f'{{"weight_map": {{"{Q}": "a.safetensors", "{Q}": "b.safetensors"}}}}')
test_index_weight_map_an_array = broken_index('{"weight_map": ["a.safetensors"]}')


@with_scratch
def test_stray_shard_beside_an_index_is_named_and_left_out(folder):
    zoo = SmallZoo(folder)
    sharded(zoo)
    want = hashes(f"{folder}/one")
    write(f"{folder}/one/stray.safetensors", st_bytes(small_model(99)))
    for ranks in (1, 3):
        r = zoo.compress("a.h5", "--force", "--recipe", "lossless", ranks=ranks)
        check(any("stray.safetensors" in n for n in r.lines("note")), f"no note names the stray file: {r}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    equal(hashes(f"{folder}/r"), want, "restored files")


# --------------------------------------------------------------------------------------------------- PyTorch files

def torch_file(pickle, kind=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + pickle)
        file.writestr("archive/version", b"3\n")
    return out.getvalue()


TORCH = {
    "foreign_global": (torch_file(b"cposix\nsystem\nX\x0e\0\0\0touch executed\x85R."), "global 'posix.system' is not allowed"),
    "foreign_global_deep_in_a_dict": (torch_file(b"}X\1\0\0\0acbuiltins\neval\ns."), "global 'builtins.eval' is not allowed"),
    "bomb_of_marks": (torch_file(b"(" * 1000 + b"."), "more than the 64 objects"),
    "bomb_of_depth": (torch_file(b"N" + b"\x85" * 1000 + b"."), "nested deeper"),
    "bomb_of_objects": (torch_file(b"N" * 5_000_000 + b"."), "objects that are allowed"),
    "bomb_of_a_length": (torch_file(b"\x8d" + b"\xff" * 8 + b"."), "cut short"),
    "bomb_in_a_compressed_entry": (torch_file(b"N" * 50_000_000, zipfile.ZIP_DEFLATED), "is compressed"),
    "persistent_id_of_an_object": (torch_file(b"NQ."), "data.pkl"),
}


def torch_case(content, *wanted):
    def test(folder):
        SmallZoo(folder)
        os.remove(f"{folder}/{MODEL}")
        write(f"{folder}/one/pytorch_model.bin", content)
        refused(folder, COMPRESS, 1, "one/pytorch_model.bin", *wanted)

    return with_scratch(test)


for key, (content, *wanted) in TORCH.items():
    globals()["test_torch_" + key] = torch_case(content, *wanted)


# --------------------------------------------------------------------------------------------- shapes, types, values

@with_scratch
def test_shapes_differ_under_a_lossy_rule(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", replaced(zoo.tasks["one"], Q, shape=(32, 48)))
    refused(folder, COMPRESS + ["--recipe", "llama"], 1, "one", Q, "[32, 48]", "[48, 32]", ranks=RANKS)
    r = good(COMPRESS, cwd=folder)  # by structure, what does not fit is exact
    check(any(Q in n and "kept exactly, without the base" in n for n in r.lines("note")), f"no note names the tensor: {r}")


@with_scratch
def test_shapes_that_differ_are_reported_all_at_once(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", replaced(replaced(zoo.tasks["one"], Q, shape=(32, 48)), K, shape=(24, 64)))
    zoo.put("two", replaced(zoo.tasks["two"], UP, shape=(2048,)))
    refused(folder, COMPRESS + ["--recipe", "llama"], 1, Q, K, UP, lines=3, ranks=RANKS)


@with_scratch
def test_shapes_that_differ_under_an_exact_rule_come_back(folder):
    zoo = SmallZoo(folder)
    rng = np.random.default_rng(5)
    grown = rng.standard_normal((44, 32)).astype(np.float32)
    grown[:40] = np.frombuffer(zoo.tasks["one"][0][3], np.float32).reshape(40, 32)
    model = replaced(replaced(zoo.tasks["one"], EMBED, data=grown.tobytes(), shape=(44, 32)), NORM, data=b"\1\2\3\4" * 7, shape=(7,))
    zoo.put("one", model)
    zoo.compress()
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 3, cwd=folder)
    got = st_parse(f"{folder}/r/model.safetensors")
    for name, dtype, shape, data in model:
        if name in (EMBED, NORM):
            equal(got[name][:2], (dtype, shape), name)
            check(got[name][2] == data, f"{name} is not byte-identical")


@with_scratch
def test_extra_rows_under_a_lossy_rule_come_back_exactly(folder):
    zoo = SmallZoo(folder)
    rows = np.random.default_rng(6).standard_normal((5, 32)).astype(np.float32).tobytes()
    old = dict((n, b) for n, _, _, b in zoo.tasks["one"])[Q]
    zoo.put("one", replaced(zoo.tasks["one"], Q, data=old + rows, shape=(53, 32)))
    r = zoo.compress()
    check(any(Q in n for n in r.lines("note")), f"no note names {Q}: {r}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], 3, cwd=folder)
    check(st_parse(f"{folder}/r/model.safetensors")[Q][2][-len(rows):] == rows, "the rows beyond the base differ")


@with_scratch
def test_dtypes_that_are_bytes_are_kept_exactly(folder):
    zoo = SmallZoo(folder)
    zoo.base.append(("odd.weight", "F4", (6, 5), bytes(range(15))))
    zoo.put("base", zoo.base)
    zoo.put("one", zoo.tasks["one"] + [("odd.weight", "F4", (6, 5), bytes(range(100, 115))), ("own.weight", "F8_E8M0", (7,), b"\xff" * 7)])
    want = hashes(f"{folder}/one")
    for ranks in (1, 3):
        zoo.compress("a.h5", "--force", "--recipe", "lossless", ranks=ranks)
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], ranks, cwd=folder)
        equal(hashes(f"{folder}/r{ranks}"), want, "restored files")
    zoo.compress("b.h5", "--set", "sparsity=0.9")
    equal([t["policy"] for t in info("b.h5", "one", folder)["tasks"][0]["tensors"] if t["name"] == "odd.weight"], ["lossless"], "policy")


@with_scratch
def test_unusual_tensors_come_back_exactly(folder):
    """Scalars, tensors without elements, eight dimensions, integers, names in Unicode and an own order of the data."""
    zoo = SmallZoo(folder)
    odd = [("scalar", "F32", (), b"\1\2\3\4"), ("none", "F32", (0, 5), b""), ("eight", "F16", (1, 2, 1, 2, 1, 2, 1, 1), bytes(range(16))),
           ("ganz.größe \"x\"", "I64", (2,), bytes(range(16))), ("flags", "BOOL", (3,), b"\1\0\1")]
    zoo.put("base", zoo.base + odd[:3])
    zoo.put("one", list(reversed(zoo.tasks["one"])) + odd)
    want = hashes(f"{folder}/one")
    for ranks in RANKS:
        zoo.compress("a.h5", "--force", "--recipe", "lossless", ranks=ranks)
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], ranks, cwd=folder)
        equal(hashes(f"{folder}/r{ranks}"), want, "restored files")
    good(["verify", "a.h5", "--base", "base"], 3, cwd=folder)


@with_scratch
def test_model_of_empty_tensors_alone(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", [("none", "F32", (0, 5), b"")])
    want = hashes(f"{folder}/one")
    zoo.compress("a.h5", "--recipe", "lossless")
    for ranks in (1, 3):
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], ranks, cwd=folder)
        equal(hashes(f"{folder}/r{ranks}"), want, "restored files")


def nonfinite_case(side, value, dtype, shown):
    def test(folder):
        zoo = SmallZoo(folder, dtype)
        before = zoo.base if side == "base" else zoo.tasks[side]

        def edit(x):
            x[137] = x[1001] = value

        zoo.put(side, replaced(before, K, edit=edit))
        refused(folder, COMPRESS, 1, side, K, "137", shown, ranks=RANKS if ALL or value != value else (1, 3))
        want = hashes(f"{folder}/one")
        for ranks in (1, 3):
            r = zoo.compress("a.h5", "--force", "--set", "nonfinite=lossless", ranks=ranks)
            check(any(K in n for n in r.lines("note")), f"no note names {K}: {r}")
            good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], cwd=folder)
            got, model = st_parse(f"{folder}/r{ranks}/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
            check(got[K] == model[K], f"{K} is not byte-identical")
            check(got[Q] != model[Q], f"{Q} should be lossy")
        equal([t["policy"] for t in info("a.h5", "one", folder)["tasks"][0]["tensors"] if t["name"] == K], ["lossless"], "policy")
        zoo.compress("a.h5", "--force", "--recipe", "lossless")
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "exact"], cwd=folder)
        equal(hashes(f"{folder}/exact"), want, "restored files")

    return with_scratch(test)


test_nan_in_a_task = nonfinite_case("one", float("nan"), "F32", "nan")
test_infinity_in_a_task = nonfinite_case("one", float("-inf"), "BF16", "-inf")
test_nan_in_the_base = nonfinite_case("base", float("nan"), "BF16", "nan")
test_infinity_in_the_base = nonfinite_case("base", float("inf"), "F16", "inf")


@with_scratch
def test_delta_too_wide_for_a_float(folder):
    zoo = SmallZoo(folder)
    zoo.put("base", replaced(zoo.base, K, edit=lambda x: x.__setitem__(11, -3e38)))
    zoo.put("one", replaced(zoo.tasks["one"], K, edit=lambda x: x.__setitem__(11, 3e38)))
    refused(folder, COMPRESS, 1, "one", K, ranks=(1, 3))
    zoo.put("base", replaced(zoo.base, K, edit=lambda x: x.__setitem__(slice(11, 13), 0)))
    zoo.put("one", replaced(zoo.tasks["one"], K, edit=lambda x: x.__setitem__(slice(11, 13), [3e38, -3e38])))
    refused(folder, COMPRESS, 1, "one", K, ranks=(1, 3))


# ---------------------------------------------------------------------------------------------- what is odd but works

@with_scratch
def test_more_ranks_than_work_is_a_note(folder):
    zoo = SmallZoo(folder, tasks=("one",), shapes={Q: (48, 32)})
    zoo.compress("a.h5")
    r = zoo.compress("b.h5", ranks=7)
    check(any("7 ranks" in n for n in r.lines("note")), f"no note: {r}")
    check(read(f"{folder}/a.h5") == read(f"{folder}/b.h5"), "archives differ")
    good(["restore", "b.h5", "--task", "one", "--base", "base", "-o", "r"], 7, cwd=folder)


@with_scratch
def test_task_equal_to_the_base_is_a_note(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", zoo.base)
    want = hashes(f"{folder}/one")
    for ranks in RANKS:
        r = zoo.compress("a.h5", "--force", "--recipe", "ultradelta", ranks=ranks)
        check(any("'one'" in n and "equals the base" in n for n in r.lines("note")), f"no note: {r}")
        check(not any("'two'" in n and "quality" not in n for n in r.lines("note")), f"a note about the other task: {r}")
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], ranks, cwd=folder)
        equal(hashes(f"{folder}/r{ranks}"), want, "restored files")
    tasks = {t: info("a.h5", t, folder)["tasks"][0] for t in ("one", "two")}
    check(all(t["policy"] == "equal" and t["stored_bytes"] == 0 for t in tasks["one"]["tensors"]), "not all tensors are recorded as equal")
    equal((tasks["one"]["trace_norm"], tasks["one"]["gamma"], tasks["two"]["gamma"]), (0, 1, 1), "trace norm and gammas")
    check(tasks["two"]["trace_norm"] > 0, "trace norm of the other task")


@with_scratch
def test_tensors_that_one_side_lacks(folder):
    zoo = SmallZoo(folder)
    own = ("model.layers.9.self_attn.q_proj.weight", "F32", (4, 4), bytes(range(64)))
    model = [t for t in zoo.tasks["one"] if t[0] != K] + [own]
    zoo.put("one", model)
    r = zoo.compress(ranks=3)
    check(any(own[0] in n for n in r.lines("note")), f"no note names {own[0]}: {r}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    got = st_parse(f"{folder}/r/model.safetensors")
    equal(list(got), [t[0] for t in model], "names")
    check(got[own[0]][2] == own[3], "the task's own tensor is not byte-identical")
    equal([t["policy"] for t in info("a.h5", "one", folder)["tasks"][0]["tensors"] if t["name"] == K], ["absent"], "policy")


@with_scratch
def test_dropped_tensors_are_reported(folder):
    zoo = SmallZoo(folder)
    write(f"{folder}/drop.yaml", 'tensors:\n  - {match: "*norm*", policy: drop}\n  - {match: "*_proj*", policy: ultradelta}\n  - {match: "*", policy: lossless}\n')
    r = zoo.compress("a.h5", "--recipe", "drop.yaml")
    check(sum("drop" in n and f"'{NORM}'" in n for n in r.lines("note")) == 2, f"not a note for each task that names the tensor: {r}")
    good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", "r"], cwd=folder)
    check(st_parse(f"{folder}/r/model.safetensors")[NORM] == st_parse(f"{folder}/base/model.safetensors")[NORM], "not the base's value")


@with_scratch
def test_ratios_beside_drops_say_so(folder):
    zoo = SmallZoo(folder)
    zoo.put("two", replaced(zoo.base, EMBED, edit=lambda x: x.__setitem__(0, 9)))
    write(f"{folder}/drop.yaml", f'tensors:\n  - {{match: "{EMBED}", policy: drop}}\n  - {{match: "{NORM}", policy: drop}}\n  - {{match: "*", policy: lossless}}\n')
    dropped = 4 * (40 * 32 + 32)
    for ranks in (1, 3):
        r = zoo.compress("a.h5", "--force", "--recipe", "drop.yaml", "--report", "r.json", ranks=ranks)
        check(any(n.startswith("task 'one': 2 tensors are dropped") for n in r.lines("note")), f"no note: {r}")
        check(not any("'two' equals the base" in n for n in r.lines("note")), f"a false note: {r}")
        check(any("'two'" in n and "3 of 5 tensors" in n for n in r.lines("note")), f"no note of what is kept: {r}")
        for t in info("a.h5", cwd=folder)["tasks"] + json.loads(read(f"{folder}/r.json"))["tasks"]:
            equal(t["dropped"], {"tensors": 2, "source_bytes": dropped}, "dropped")
            want = (t["source_bytes"] - dropped) / t["stored_bytes"]
            check(abs(t["ratio"]["on_disk_without_dropped"] - want) < 1e-8, f"ratio without what is dropped: {t['ratio']}, not {want}")
            row = rf"{t['name']} .* {t['ratio']['on_disk']:.1f}x .*\n *2 tensors of {t['name']}, 5.25 KB, dropped; without: {want:.1f}x\n"
            for out in (r.out, good(["info", "a.h5"], cwd=folder).out):
                check(re.search(row, out) and re.search(r"archive .*x \(dropped tensors excluded, ", out), f"{row} is not in {out}")
    check("ratio without dropped tensors" in good(["report", "r.json"], cwd=folder).out, "report does not tell")


@with_scratch
def test_task_that_lacks_a_tensor_does_not_equal_the_base(folder):
    zoo = SmallZoo(folder)
    zoo.put("one", [t for t in zoo.base if t[0] != NORM])
    for ranks in (1, 3):
        r = zoo.compress("a.h5", "--force", ranks=ranks)
        check(not any("'one' equals the base" in n for n in r.lines("note")), f"a false note: {r}")
        check(any("'one'" in n and "4 of 4 tensors" in n and f"'{NORM}'" in n for n in r.lines("note")), f"no note of what is kept: {r}")


@with_scratch
def test_task_in_another_dtype_than_the_base(folder):
    zoo = SmallZoo(folder, "F32")
    half = small_model(2, "BF16", base=small_model(1, "BF16"))
    zoo.put("one", half)
    zoo.compress(ranks=3)
    good(["verify", "a.h5", "--base", "base"], 3, cwd=folder)
    for ranks in (1, 3):
        good(["restore", "a.h5", "--task", "one", "--base", "base", "-o", f"r{ranks}"], ranks, cwd=folder)
    equal(hashes(f"{folder}/r1"), hashes(f"{folder}/r3"), "restored files")
    got, want = st_parse(f"{folder}/r1/model.safetensors"), st_parse(f"{folder}/one/model.safetensors")
    for name in (EMBED, NORM):
        check(got[name] == want[name], f"{name} is not byte-identical")
    equal(got[Q][:2], want[Q][:2], "dtype and shape")
