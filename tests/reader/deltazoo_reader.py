#!/usr/bin/python3
"""An independent reader of deltazoo archives, written from src/archive/FORMAT.md alone.

  deltazoo_reader.py ARCHIVE --task NAME --base PATH --against DIR   decodes the task and compares it with DIR, byte for byte
  deltazoo_reader.py ARCHIVE --task NAME --base PATH --original DIR  compares it with the fine-tuned model: exact tensors are exact, and lossy ones keep
                                                                     just the levels that section 8 says the writer keeps
  deltazoo_reader.py ARCHIVE --check                                 walks all tasks: structure and checksums, no base needed

It shares no code with the C program: its rANS decoder, its tilings and its rounding are its own. Exit codes: 0 all is well, 1 something differs
or is damaged.
"""

import argparse
import json
import os
import struct
import sys

import h5py
import numpy as np
import xxhash
import zstandard

NONE = 4294967295
TILE = 4194304
LOSSLESS, ULTRADELTA, DROP, EQUAL, ABSENT, TIED = range(6)
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
         "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
UINTS = {1: np.uint8, 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
PREFIXES = "base_model. model. module. _orig_mod. transformer. language_model. gpt_neox. bert. roberta. distilbert. backbone.".split()
HEADS = "lm_head.weight embed_out.weight lm_head.decoder.weight cls.predictions.decoder.weight".split()
EMBEDDINGS = ("embed_tokens.weight decoder.embed_tokens.weight wte.weight word_embeddings.weight embed_in.weight "
              "embeddings.word_embeddings.weight shared.weight").split()
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class Damaged(Exception):
    """The archive, or the base, is not what the archive says."""


def need(condition, message):
    if not condition:
        raise Damaged(message)


def xxh3_32(data):
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def unzstd(data, size):
    """One zstd frame that unpacks to exactly `size` bytes and fills `data`."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        raw = unpacker.decompress(data)
    except zstandard.ZstdError as error:
        raise Damaged(f"zstd: {error}") from None
    need(unpacker.eof and not unpacker.unused_data, "zstd: not exactly one frame")
    need(len(raw) == size, f"zstd: {len(raw)} bytes where {size} are due")
    return raw


class Cursor:
    """Reads a body from its start to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(self.at + n <= len(self.data), "a body ends too early")
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def text(self):
        """Up to a NUL."""
        end = self.data.find(b"\0", self.at)
        need(end >= 0, "a text without an end")
        return self.take(end + 1 - self.at)[:-1]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                need(value < 1 << 64, "a varint is beyond 64 bits")
                return value
            shift += 7
            need(shift < 70, "a varint has more than 10 bytes")

    def rest(self):
        return self.take(len(self.data) - self.at)

    def done(self):
        need(self.at == len(self.data), f"{len(self.data) - self.at} bytes of a body are left over")


# ------------------------------------------------------------------------------------------------------------------------------------------ rANS


def uint7(cursor):
    """CRAM 3.1's number: 7 bits a byte, highest first."""
    value = 0
    while True:
        byte = cursor.u8()
        value = value << 7 | byte & 127
        if byte < 128:
            return value


def alphabet(cursor):
    """CRAM 3.1's run-length coded list of symbols."""
    symbols, symbol, run = [], cursor.u8(), 0
    last = symbol
    while True:
        symbols.append(symbol)
        if run:
            run -= 1
            symbol += 1
            need(symbol < 256, "rANS: a symbol is beyond 255")
        else:
            symbol = cursor.u8()
            if symbol == last + 1:
                run = cursor.u8()
        last = symbol
        if symbol == 0:
            return symbols


def stream(data, n):
    """The n symbols of a stream, as a numpy array of u8."""
    if n == 0:
        need(len(data) == 0, "a stream of no symbols has bytes")
        return np.zeros(0, np.uint8)
    cursor = Cursor(data)
    flags = cursor.u8()
    if flags == 0x30:
        symbols = np.frombuffer(cursor.take(n), np.uint8)
        cursor.done()
        return symbols
    need(flags == 0x10, f"rANS: flag byte {flags:#x}")
    symbols = alphabet(cursor)
    counts = [uint7(cursor) for _ in symbols]
    total = sum(counts)
    need(total > 0, "rANS: no frequencies")
    while total < 4096:
        counts = [2 * c for c in counts]
        total *= 2
    need(total == 4096 and min(counts) > 0, "rANS: the frequencies do not sum up to 4096")
    slots = np.repeat(np.array(symbols, np.uint8), counts)
    need(len(set(symbols)) == len(symbols), "rANS: a symbol occurs twice")
    frequency = np.repeat(counts, counts).tolist()
    bias = (np.arange(4096) - np.repeat(np.cumsum(counts) - counts, counts)).tolist()
    state = list(struct.unpack("<4I", cursor.take(16)))
    tail = cursor.rest()
    need(len(tail) % 2 == 0, "rANS: an odd byte at the end")
    words = np.frombuffer(tail, "<u2").tolist()
    a, b, c, d = state
    found = []
    add = found.append
    at = 0
    try:
        for _ in range(n >> 2):
            m = a & 4095
            add(m)
            a = frequency[m] * (a >> 12) + bias[m]
            if a < 32768:
                a = a << 16 | words[at]
                at += 1
            m = b & 4095
            add(m)
            b = frequency[m] * (b >> 12) + bias[m]
            if b < 32768:
                b = b << 16 | words[at]
                at += 1
            m = c & 4095
            add(m)
            c = frequency[m] * (c >> 12) + bias[m]
            if c < 32768:
                c = c << 16 | words[at]
                at += 1
            m = d & 4095
            add(m)
            d = frequency[m] * (d >> 12) + bias[m]
            if d < 32768:
                d = d << 16 | words[at]
                at += 1
        state = [a, b, c, d]
        for j in range(n & 3):
            m = state[j] & 4095
            add(m)
            state[j] = frequency[m] * (state[j] >> 12) + bias[m]
            if state[j] < 32768:
                state[j] = state[j] << 16 | words[at]
                at += 1
    except IndexError:
        raise Damaged("rANS: a stream ends too early") from None
    need(at == len(words), "rANS: a stream is not used up")
    need(state == [32768] * 4, "rANS: a state does not end where it began")
    return slots[np.array(found, np.uint16)]


# -------------------------------------------------------------------------------------------------------------------------------------- numbers


def to_f32(raw, dtype):
    if dtype == "F32":
        return np.frombuffer(raw, "<f4")
    if dtype == "F16":
        values = np.frombuffer(raw, "<f2").astype(np.float32)
        values.view(np.uint32)[np.isnan(values)] |= np.uint32(0x400000)
        return values
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F64":
        bits = np.frombuffer(raw, "<u8")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = bits.view("<f8").astype(np.float32)
        nan = np.isnan(values)
        quiet = (bits >> np.uint64(32)) & np.uint64(0x80000000) | np.uint64(0x7FC00000) | (bits >> np.uint64(29)) & np.uint64(0x3FFFFF)
        values.view(np.uint32)[nan] = quiet[nan].astype(np.uint32)
        return values
    codes = np.frombuffer(raw, np.uint8)
    if dtype == "F8_E5M2":
        return to_f32((codes.astype("<u2") << np.uint16(8)).tobytes(), "F16")
    values = E4M3[codes & 127].astype(np.float32)
    return (values.view(np.uint32) | (codes >> 7).astype(np.uint32) << np.uint32(31)).view(np.float32)


def f8_values(mantissa, bias):
    """What the codes 0 .. 127 stand for, were there no NaN and no infinity."""
    exponent, rest = np.arange(128) >> mantissa, np.arange(128) & ((1 << mantissa) - 1)
    return np.where(exponent > 0, (1 + rest / 2.0**mantissa) * 2.0**(exponent - bias), rest / 2.0**mantissa * 2.0**(1 - bias))


E4M3, E5M2 = f8_values(3, 7), f8_values(2, 15)
E4M3[127] = np.nan


def to_f8(values, dtype):
    """The codes of f32 values: of the two nearest the nearer one, of two as near the even one."""
    known = E4M3[:127] if dtype == "F8_E4M3" else E5M2[:125]  # the latter with infinity, as if it were 65536
    size, bits, nan = np.abs(values.astype(np.float64)), values.view(np.uint32), np.isnan(values)
    size[nan] = 0
    high = np.clip(np.searchsorted(known, size), 1, len(known) - 1)
    below, above = size - known[high - 1], known[high] - size
    codes = np.where((below < above) | (below == above) & (high % 2 == 1), high - 1, high).astype(np.uint8)
    if dtype == "F8_E4M3":
        codes[nan | np.isinf(values)] = 127
    else:
        codes[nan] = (0x7E | bits[nan] >> np.uint32(21) & np.uint32(3)).astype(np.uint8)
    return (codes | (bits >> np.uint32(31) << np.uint32(7)).astype(np.uint8)).tobytes()


def from_f32(values, dtype):
    """f32 to the bytes of a dtype, to nearest even. A NaN keeps its sign and its upper bits and becomes quiet."""
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    bits = values.view(np.uint32)
    nan = np.isnan(values)
    if dtype == "F16":
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            half = values.astype("<f2").view(np.uint16).copy()
        quiet = (bits >> np.uint32(16) & np.uint32(0x8000)) | np.uint32(0x7E00) | (bits >> np.uint32(13) & np.uint32(0x1FF))
        half[nan] = quiet[nan]
        return half.astype("<u2").tobytes()
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return to_f8(values, dtype)
    if dtype == "F64":
        wide = values.astype("<f8")
        quiet = (bits & np.uint32(0x80000000)).astype(np.uint64) << np.uint64(32) | np.uint64(0x7FF8000000000000) | \
            (bits & np.uint32(0x3FFFFF)).astype(np.uint64) << np.uint64(29)
        wide.view("<u8")[nan] = quiet[nan]
        return wide.tobytes()
    rounded = (bits.astype(np.uint64) + 0x7FFF + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint64(16)
    rounded = rounded.astype(np.uint16)
    rounded[nan] = (bits[nan] >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
    return rounded.astype("<u2").tobytes()


def convert(raw, dtype, wanted):
    """A base's elements in the task's dtype."""
    if dtype == wanted:
        return raw
    need(dtype in FLOATS and wanted in FLOATS, f"a base of {dtype} for a task of {wanted}")
    return from_f32(to_f32(raw, dtype), wanted)


def tiling(count):
    """Borders of tiles: a list of (start, end)."""
    if count == 0:
        return []
    n = max(1, (count + TILE // 2) // TILE)
    size = max(64, -(-(-(-count // n)) // 64) * 64)
    return [(k * size, min(count, (k + 1) * size)) for k in range(-(-count // size))]


def element_numbers(count, key):
    """u(i) for i = 0 .. count - 1."""
    k0, k1 = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    x = np.arange(count, dtype=np.uint32)
    x += k0
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x ^= k1
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


# ---------------------------------------------------------------------------------------------------------------------------------- kept bodies


def golomb(data, n, k, marked=False):
    """n positions of a Golomb-Rice code; with `marked` also the bit after each."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    zeros = np.flatnonzero(bits == 0).tolist()
    ends, at, index, starts = [], 0, 0, []
    for _ in range(n):
        while index < len(zeros) and zeros[index] < at:
            index += 1
        need(index < len(zeros), "Golomb: the gaps end too early")
        starts.append(at)
        ends.append(zeros[index])
        at = zeros[index] + 1 + k + marked
    need(at <= len(bits) and len(bits) - at < 8 and not bits[at:].any(), "Golomb: the gaps do not fill their bytes")
    starts, ends = np.array(starts, np.int64), np.array(ends, np.int64)
    gaps = (ends - starts) << k
    for j in range(k):
        gaps |= bits[ends + 1 + j].astype(np.int64) << j
    positions = np.cumsum(gaps + 1) - 1
    return (positions, bits[ends + 1 + k]) if marked else positions


def kept_values(cursor, kind, count, key):
    """Elements with values of their own."""
    if kind == 3:
        last, n = cursor.u32(), cursor.varint()
        positions = np.flatnonzero(element_numbers(count, key) <= np.uint32(last))
    else:
        need(kind == 4, f"a kept body of kind {kind} with 16 bits")
        k, gapslen = cursor.u8(), cursor.varint()
        gaps = cursor.take(gapslen)
        n = cursor.varint()
        positions = golomb(gaps, n, k)
    need(len(positions) == n, f"{len(positions)} elements for {n} values")
    need(n == 0 or positions[-1] < count, "a kept element is beyond its tile")
    return positions, to_f32(lossless_body(cursor.rest(), n, "F16", None), "F16")


RECORD = np.dtype([(name, kind) for kind, names in (
    ("<u4", "recipe_blob files_blob"), ("<f8", "sparsity"), ("<u4", "bits"), ("<u8", "seed key"), ("<f4", "gamma"),
    ("<f8", "trace_norm trace_norm_error reference_trace_norm"), ("<u8", "source_bytes lossy_source_bytes lossy_parameters lossy_kept"),
    ("<f8", "lossy_value_bits lossy_entropy_bytes")) for name in names.split()])


def record_of(group):
    """The numbers of a task."""
    record = group.attrs["record"]
    need(record.dtype == RECORD, "a task's record")
    return record


SIXTEENTHS = (2 ** (np.arange(16) / 16)).astype(np.float32)


def rotation_blocks(count):
    """[(begin, end)] of the blocks of a rotated tile."""
    n = max(1, count // 65536)
    return [(b * 65536, (b + 1) * 65536 if b + 1 < n else count) for b in range(n)]


def kept_signs(cursor, kind, count):
    """Coefficients of a rotated tile."""
    need(kind == 5, f"a kept body of kind {kind} with 17 bits")
    k, n = cursor.u8(), cursor.varint()
    blocks = rotation_blocks(count)
    numbers = [cursor.varint() for _ in blocks]
    need(0 < n <= count and max(numbers) <= 4608, "SIGNS: its head")
    positions, signs = golomb(cursor.rest(), n, k, True)
    values = np.zeros(n, np.float32)
    for (begin, end), e in zip(blocks, numbers):
        mine = (positions >= begin) & (positions < end)
        if mine.any():
            std = np.ldexp(SIXTEENTHS[e % 16], e // 16 - 160).astype(np.float32) if e else np.float32(0)
            values[mine] = std * (np.float32(end - begin) / np.float32(mine.sum()))
    return positions, np.where(signs, values, -values).astype(np.float32)


def hadamard(x):
    """The unnormalised Walsh-Hadamard transform, in f32, shortest distance first."""
    h = 1
    while h < len(x):
        pairs = x.reshape(-1, 2, h)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        h *= 2
    norm = np.float32(1) / np.float32(1 << (len(x).bit_length() - 1) // 2)
    if (len(x).bit_length() - 1) % 2:
        norm *= np.float32(0.5 ** 0.5)
    return x * norm


def unrotate(x, key):
    """What a rotated tile was before, in f32."""
    def signed(values, key, begin, end):
        return np.where(element_numbers(len(x), key)[begin:end] >> np.uint32(31), -values, values)

    for begin, end in rotation_blocks(len(x)):
        p = 1 << ((end - begin).bit_length() - 1)
        if p < end - begin:
            x[end - p:end] = signed(hadamard(x[end - p:end]), key ^ (1 << 64) - 1, end - p, end)
        x[begin:begin + p] = hadamard(x[begin:begin + p])
    return signed(x, key, 0, len(x))


def kept_body(body, count, bits, key):
    """(positions ascending, levels) of a kept body's elements; with 16 or 17 bits: (positions, f32 values)."""
    cursor = Cursor(body)
    kind = cursor.u8()
    if bits == 16:
        return kept_values(cursor, kind, count, key)
    if kind == 0:
        cursor.done()
        return np.zeros(0, np.int64), np.zeros(0, np.uint8 if bits <= 8 else np.float32)
    if bits == 17:
        positions, values = kept_signs(cursor, kind, count)
        need(positions[-1] < count, "a kept element is beyond its tile")
        return positions, values
    if kind == 1:
        skip, low, span = cursor.u8(), cursor.u32(), cursor.varint()
        ncore, corelen = cursor.varint(), cursor.varint()
        nfringe = cursor.varint()
        fringelen = cursor.varint() if nfringe else 0
        nexceptions = cursor.varint()
        core = stream(cursor.take(corelen), ncore)
        fringe = stream(cursor.take(fringelen), nfringe)
        need(bits == 8 or skip == 1 << bits, f"skip is {skip} with {bits} bits")
        first, second = low + 1, low + 1 + span
        need(second <= 1 << 32, "HIGH is beyond 2^32")
        u = element_numbers(count, key)
        inner = np.flatnonzero(u <= np.uint32(first - 1))
        outer = np.flatnonzero((u >= np.uint32(first)) & (u <= np.uint32(second - 1))) if span else np.zeros(0, np.int64)
        need(len(inner) == ncore and len(outer) == nfringe, f"{len(inner)} and {len(outer)} elements for {ncore} and {nfringe} symbols")
        positions, levels = np.concatenate([inner, outer]), np.concatenate([core, fringe])
        chosen = levels != skip
        positions, levels = positions[chosen], levels[chosen]
        at, more, extra = 0, [], []
        for _ in range(nexceptions):
            at += cursor.varint()
            more.append(at)
            extra.append(cursor.u8())
            at += 1
        cursor.done()
        positions = np.concatenate([positions, np.array(more, np.int64)])
        levels = np.concatenate([levels, np.array(extra, np.uint8)])
        order = np.argsort(positions, kind="stable")
        positions, levels = positions[order], levels[order]
        need((np.diff(positions) > 0).all(), "an element is kept twice")
    else:
        need(kind == 2, f"a kept body of kind {kind}")
        k, n, gapslen = cursor.u8(), cursor.varint(), cursor.varint()
        positions = golomb(cursor.take(gapslen), n, k)
        levels = stream(cursor.rest(), n)
    need(len(positions) == 0 or positions[-1] < count, "a kept element is beyond its tile")
    need(len(levels) == 0 or int(levels.max()) < 1 << bits, "a level is beyond its bits")
    return positions, levels


# ------------------------------------------------------------------------------------------------------------------------------ lossless bodies


def plane(cursor, n):
    kind = cursor.u8()
    if kind == 0:
        return np.full(n, cursor.u8(), np.uint8)
    if kind == 1:
        return np.frombuffer(cursor.take(n), np.uint8)
    nbytes = cursor.varint()
    need(kind in (2, 3), f"a plane of kind {kind}")
    data = cursor.take(nbytes)
    return stream(data, n) if kind == 2 else np.frombuffer(unzstd(data, n), np.uint8)


def planes_body(cursor, count, dtype, size, base):
    flags = cursor.u8()
    need(flags < 2, f"flags {flags} of PLANES")
    need(not flags or base is not None, "PLANES needs a base")
    kind = UINTS[size]
    x = np.zeros(count, kind)
    if count:
        for p in range(size):
            x |= plane(cursor, count).astype(kind) << kind.type(8 * p) if size > 1 else plane(cursor, count)
    if dtype in ("F64", "F32", "F16", "BF16"):
        one, up = kind.type(1), kind.type(8 * size - 1)
        x = x >> one | x << up
    if flags:
        x = x ^ base
    return x


def classes_body(cursor, count, dtype, size, base):
    need(dtype in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2") and base is not None and count > 0, "CLASSES where it may not be")
    width = 8 * size
    shift = cursor.u8()
    need(shift <= width - 2, f"shift {shift} of CLASSES")
    length = width - 1 - shift
    limit = 1 << length
    value = base.astype(np.int64)
    base_sign, b = value >> (width - 1), value & ((1 << (width - 1)) - 1)
    b = np.minimum((b + ((1 << (shift - 1)) if shift else 0)) >> shift, limit - 1)
    high = 7 if dtype == "F16" else 10
    contexts = 1 << min(length, high)
    context = b >> max(0, length - high)
    nclasses = cursor.varint()
    need(1 <= nclasses <= 64, f"{nclasses} classes")
    starts = [0]
    for _ in range(nclasses - 1):
        gap = cursor.varint()
        need(gap >= 1, "a class is empty")
        starts.append(starts[-1] + gap)
        need(starts[-1] < contexts, "a class begins beyond the contexts")
    of_context = np.searchsorted(np.array(starts), np.arange(contexts), side="right") - 1
    klass = of_context[context]
    nbytes = [cursor.varint() for _ in range(nclasses)]
    symbols = np.zeros(count, np.uint8)
    for k in range(nclasses):
        members = np.flatnonzero(klass == k)
        symbols[members] = stream(cursor.take(nbytes[k]), len(members))
    field = cursor.rest()

    f, tokens = (2, 56) if length <= 15 else (1, 62)

    def extra_bits(s):
        t = s % tokens
        return np.where(t < 1 << (f + 1), 0, (t >> f) - 1)

    def window(at):
        """64 bits of the bit stream from bit `at` on, at least 57 of them right."""
        byte = at >> 3
        word = np.zeros(len(at), np.uint64)
        for j in range(8):
            word |= padded[byte + j].astype(np.uint64) << np.uint64(8 * j)
        return word >> (at & 7).astype(np.uint64)

    padded = np.concatenate([np.frombuffer(field, np.uint8), np.zeros(16, np.uint8)])
    true = symbols.astype(np.int64)
    escaped = np.flatnonzero(symbols == 255)
    need(not ((true >= 4 * tokens) & (true != 255)).any(), "a symbol beyond 4T")
    lengths = extra_bits(true)
    lengths[escaped] = 0
    if len(escaped):
        before = (np.cumsum(lengths) - lengths)[escaped].tolist()
        number = int.from_bytes(field, "little") if len(field) < 4096 else None
        added = 0
        cost = extra_bits(np.arange(256)).tolist()
        found, costs = [], []
        for at in before:
            at += added
            need(at + 8 <= 8 * len(field), "the bits of CLASSES end too early")
            if number is None:
                symbol = (field[at >> 3] | (field[(at >> 3) + 1] << 8 if at & 7 else 0)) >> (at & 7) & 255
            else:
                symbol = number >> at & 255
            need(symbol < 4 * tokens, "an escaped symbol beyond 4T")
            found.append(symbol)
            costs.append(cost[symbol])
            added += 8 + cost[symbol]
        true[escaped] = found
        lengths[escaped] = np.array(costs) + 8
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    need(-(-total // 8) == len(field), f"{total} bits in {len(field)} bytes of CLASSES")
    need(total % 8 == 0 or field[-1] >> (total % 8) == 0, "the last byte of CLASSES is not filled with zeros")
    token, flags = true % tokens, true // tokens
    distance = token.copy()
    far = np.flatnonzero(token >= 1 << (f + 1))
    e = (token[far] >> f) - 1
    words = window(ends[far] - e).astype(np.uint64) & ((np.uint64(1) << e.astype(np.uint64)) - np.uint64(1))
    distance[far] = (((1 << f) + token[far] % (1 << f)) << e) + words.astype(np.int64)
    magnitude = np.where(flags & 1, b - distance, b + distance) & (limit - 1)
    sign = base_sign ^ (flags >> 1 & 1)
    return (sign << (width - 1) | magnitude << shift).astype(UINTS[size])


def lossless_elements(cursor, count, dtype, size, base, inner=False):
    kind = cursor.u8()
    if kind == 16 and not inner:
        need(base is not None, "EQUAL needs a base")
        return base
    if kind == 17:
        return np.frombuffer(cursor.take(count * size), UINTS[size])
    if kind == 18:
        return planes_body(cursor, count, dtype, size, base)
    if kind == 19:
        return classes_body(cursor, count, dtype, size, base)
    need(kind == 20 and not inner, f"a lossless body of kind {kind}")
    need(base is not None and count > 0, "SPARSE needs a base")
    chunklog = cursor.u8()
    need(chunklog <= 20, f"chunklog {chunklog}")
    nchunks = -(-count // (1 << chunklog))
    bitmap = np.unpackbits(plane(cursor, -(-nchunks // 8)), bitorder="little")
    need(not bitmap[nchunks:].any(), "a bit beyond the last chunk")
    differs = np.repeat(bitmap[:nchunks] != 0, 1 << chunklog)[:count]
    x = base.copy()
    x[differs] = lossless_elements(cursor, int(differs.sum()), dtype, size, base[differs], inner=True)
    return x


def lossless_body(body, count, dtype, base):
    """The bytes of a lossless tile; base: bytes in the same dtype, or None."""
    size = SIZES.get(dtype, 1)
    if base is not None:
        base = np.frombuffer(base, UINTS[size])
    cursor = Cursor(body)
    x = lossless_elements(cursor, count, dtype, size, base)
    cursor.done()
    return x.astype(UINTS[size]).tobytes()


# ------------------------------------------------------------------------------------------------------------------------------------ base model


def safetensors_header(raw, where):
    """[(name, dtype, shape, begin, end)] by position in the data, and where the data begins."""
    need(len(raw) >= 8, f"{where}: no safetensors file")
    length = struct.unpack("<Q", raw[:8])[0]
    need(8 + length <= len(raw), f"{where}: its header is cut off")
    entries = []
    for name, entry in json.loads(bytes(raw[8:8 + length])).items():
        if name != "__metadata__":
            entries.append((name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"]))
    return sorted(entries, key=lambda e: (e[3], e[4])), 8 + length


def safetensors_files(path):
    if os.path.isdir(path):
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".safetensors")]
    return [path]


class Base:
    """The tensors of a model on disk."""

    def __init__(self, path):
        self.tensors = {}
        for file in safetensors_files(path):
            raw = np.memmap(file, np.uint8, "r")
            entries, data = safetensors_header(raw[:8 + struct.unpack("<Q", raw[:8].tobytes())[0]].tobytes(), file)
            for name, dtype, shape, begin, end in entries:
                self.tensors[name] = (dtype, shape, raw[data + begin:data + end])


# ----------------------------------------------------------------------------------------------------------------------------------------- archive


def bare_name(name):
    """The name without the prefixes that wrappers put before it."""
    for prefix in PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return bare_name(name[len(prefix):])
    return name


def text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class Tensor:
    def __init__(self, row):
        self.name, self.dtype = text(row["name"]), text(row["dtype"])
        self.ndim, self.nbytes = int(row["ndim"]), int(row["nbytes"])
        need(self.ndim <= 8, f"{self.name}: {self.ndim} dimensions")
        self.shape = tuple(int(d) for d in row["shape"][:self.ndim])
        need(not row["shape"][self.ndim:].any(), f"{self.name}: a dimension beyond the last")
        self.size = SIZES.get(self.dtype, 1)
        self.count = self.nbytes
        if self.dtype in SIZES:
            self.count = 1
            for d in self.shape:
                self.count *= d
            need(self.count * self.size == self.nbytes, f"{self.name}: {self.nbytes} bytes do not fit its shape")


class Archive:
    def __init__(self, path):
        self.file = h5py.File(path, "r")
        need(text(self.file.attrs.get("format", b"")) == "deltazoo", f"{path}: not a deltazoo archive")
        need(int(self.file.attrs["format_version"]) == 1, f"{path}: format version {self.file.attrs['format_version']}")
        self.tensors = [Tensor(row) for row in self.file["tensors"][()]]
        keys = [(t.name, t.dtype, t.shape, t.nbytes) for t in self.tensors]
        need(len(set(keys)) == len(keys), "/tensors lists a tensor twice")
        self._read_base()
        self.blobs = self.file["blobs/index"][()]
        self.blob_cache = {}

    def _read_base(self):
        rows = self.file["base/tensors"][()]
        tiles = self.file["base/tiles"][()]
        need(all(int(r["tensor"]) < len(self.tensors) for r in rows), "/base/tensors: a row beyond /tensors")
        self.base = [self.tensors[int(r["tensor"])] for r in rows]
        need(len({t.name for t in self.base}) == len(self.base), "/base/tensors: a name occurs twice")
        self.base_digests, at = [], 0
        for row, tensor in zip(rows, self.base):
            need(int(row["first_tile"]) == at, f"/base/tensors: the first tile of {tensor.name} is not {at}")
            n = len(tiling(tensor.count))
            self.base_digests.append([(int(hi), int(lo)) for hi, lo in tiles[at:at + n].tolist()])
            at += n
        need(at == len(tiles), f"/base/tiles has {len(tiles)} rows, the tensors {at} tiles")
        hasher = xxhash.xxh3_128()
        for tensor, digests in sorted(zip(self.base, self.base_digests), key=lambda p: p[0].name.encode()):
            hasher.update(tensor.name.encode() + b"\0" + tensor.dtype.encode() + b"\0")
            hasher.update(struct.pack(f"<I{tensor.ndim}Q", tensor.ndim, *tensor.shape))
            for hi, lo in digests:
                hasher.update(struct.pack("<QQ", hi, lo))
        self.fingerprint = text(self.file["base"].attrs["fingerprint"])
        need(hasher.hexdigest() == self.fingerprint, "the base's fingerprint is not that of its digests")

    def base_for(self, tensor):
        """The base tensor that the writer's rule gives for a task's tensor; None for none."""
        def fits(base):
            return (tensor.dtype == base.dtype or tensor.dtype in FLOATS and base.dtype in FLOATS) and tensor.ndim == base.ndim and tensor.shape[1:] == base.shape[1:]

        def only(bare):
            found = [base for base in self.base if bare_name(base.name) == bare]
            return found[0] if len(found) == 1 and fits(found[0]) else None

        for base in self.base:
            if base.name == tensor.name:
                return base
        bare = bare_name(tensor.name)
        names = [bare] + (EMBEDDINGS if bare in HEADS and not any(bare_name(base.name) == bare for base in self.base) else [])
        return next((base for base in map(only, names) if base), None)

    def tasks(self):
        return sorted(self.file["tasks"])

    def blob(self, number):
        if number not in self.blob_cache:
            need(number < len(self.blobs), f"there is no blob {number}")
            row = self.blobs[number]
            begin, length = int(row["offset"]), int(row["length"])
            data = self.file["blobs/data"]
            need(begin + length <= len(data), f"blob {number} ends beyond the data")
            raw = unzstd(data[begin:begin + length].tobytes(), int(row["raw_size"]))
            digest = int(row["digest_hi"]) << 64 | int(row["digest_lo"])
            need(xxhash.xxh3_128_intdigest(raw) == digest, f"blob {number}: its digest is wrong")
            self.blob_cache[number] = raw
        return self.blob_cache[number]

    def _rows(self, name):
        """The index of a task as checked Rows."""
        need(name in self.file["tasks"], f"there is no task {name}")
        group = self.file["tasks"][name]
        payload = group["payload"]
        rows, at, in_base, names = [], 0, set(), set()
        absent = False
        for number, values in enumerate(group["index"][()]):
            row = Row(self, group, values, at)
            need(row.tensor.name not in names, f"{name}: {row.tensor.name} occurs twice")
            names.add(row.tensor.name)
            need(row.policy == ABSENT or not absent, f"{name}: row {number} follows an absent tensor")
            absent = row.policy == ABSENT
            if row.base is not None:
                need(row.policy != ABSENT or row.base_number not in in_base, f"{name}: {row.tensor.name} is absent, and a row's base")
                in_base.add(row.base_number)
            at += row.length
            rows.append(row)
        need(at == len(payload), f"{name}: the payload has {len(payload)} bytes, its regions {at}")
        need(all(b in in_base or self.base[b].name in names for b in range(len(self.base))), f"{name}: a base tensor has no row")
        for row in rows:
            if row.policy == TIED:
                need(row.kept < len(rows), f"{name}: {row.tensor.name} is tied to no row")
                row.tied = rows[row.kept]
                need(row.tied.policy in (LOSSLESS, ULTRADELTA, DROP, EQUAL), f"{name}: {row.tensor.name} is tied to a row of policy {row.tied.policy}")
                need((row.tied.tensor.dtype, row.tied.tensor.shape) == (row.tensor.dtype, row.tensor.shape), f"{name}: {row.tensor.name} is tied to another kind")
        return rows

    def tensor_names(self, name):
        return [row.tensor.name for row in self._rows(name) if row.policy != ABSENT]

    # -- the base on disk

    def open_base(self, path):
        """The base's tensors as bytes, in the order of /base/tensors; every digest checked."""
        model = Base(path).tensors
        need(set(model) == {t.name for t in self.base}, f"{path}: its tensors are not the archive's base")
        contents = []
        for tensor, digests in zip(self.base, self.base_digests):
            dtype, shape, raw = model[tensor.name]
            need((dtype, shape, len(raw)) == (tensor.dtype, tensor.shape, tensor.nbytes), f"{path}: {tensor.name} has another dtype or shape")
            for (begin, end), (hi, lo) in zip(tiling(tensor.count), digests):
                digest = xxhash.xxh3_128_intdigest(raw[begin * tensor.size:end * tensor.size])
                need(digest == hi << 64 | lo, f"{path}: {tensor.name}, element {begin} and on, is not the base's")
            contents.append(raw)
        return contents

    # -- tasks

    def restore_task(self, name, base_path):
        """name -> (dtype, shape, bytes) of every tensor of the task."""
        contents = self.open_base(base_path)
        restored = {}
        for row in self._rows(name):
            if row.policy != ABSENT:
                source = row.tied or row
                raw = source.restore(contents[source.base_number] if source.base is not None else None)
                need(len(raw) == row.tensor.nbytes, f"{name}: {row.tensor.name} has {len(raw)} bytes")
                restored[row.tensor.name] = (row.tensor.dtype, row.tensor.shape, raw)
        return restored

    def _files(self, name):
        """[(path, kind, blob, size)], the paths checked."""
        files = []
        listed = Cursor(self.blob(int(record_of(self.file["tasks"][name])["files_blob"])))
        while listed.at < len(listed.data):
            path = os.fsdecode(listed.text())
            need(path and not path.startswith("/") and ".." not in path.split("/"), f"{name}: path {path!r}")
            kind, blob, size = listed.u8(), listed.varint(), listed.varint()
            need(kind in (0, 1), f"{name}: {path} is of kind {kind}")
            files.append((path, kind, self.blob(blob), size))
        need(len({f[0] for f in files}) == len(files), f"{name}: a path occurs twice")
        return files

    def _check_files(self, name, rows):
        """The headers agree with the index."""
        listed = {}
        for path, kind, blob, size in self._files(name):
            if kind == 0:
                need(len(blob) == size, f"{name}: {path} has {len(blob)} bytes, not {size}")
                continue
            entries, data = safetensors_header(blob, path)
            need(data == len(blob), f"{name}: the blob of {path} is not its header")
            at = 0
            for tensor, dtype, shape, begin, end in entries:
                need(begin == at, f"{name}: {path} has a gap before {tensor}")
                need(tensor not in listed, f"{name}: {tensor} is in two files")
                listed[tensor] = (dtype, shape, end - begin)
                at = end
            need(data + at == size, f"{name}: {path} has {data + at} bytes, not {size}")
        index = {r.tensor.name: (r.tensor.dtype, r.tensor.shape, r.tensor.nbytes) for r in rows if r.policy != ABSENT}
        need(listed == index, f"{name}: the files' headers and the index disagree")

    def restore_files(self, name, base_path):
        """path -> bytes of every file of the task."""
        return self._assemble(name, self.restore_task(name, base_path))

    def _assemble(self, name, tensors):
        files = {}
        for path, kind, blob, size in self._files(name):
            if kind == 0:
                content = blob
            else:
                entries, data = safetensors_header(blob, path)
                need(data == len(blob), f"{name}: the blob of {path} is not its header")
                parts, at = [blob], 0
                for tensor, dtype, shape, begin, end in entries:
                    need(tensor in tensors, f"{name}: {path} has {tensor}, the index has not")
                    need(tensors[tensor][:2] == (dtype, shape) and end - begin == len(tensors[tensor][2]), f"{name}: {path} and the index disagree on {tensor}")
                    need(begin == at, f"{name}: {path} has a gap before {tensor}")
                    parts.append(tensors[tensor][2])
                    at = end
                content = b"".join(parts)
            need(len(content) == size, f"{name}: {path} has {len(content)} bytes, not {size}")
            files[path] = content
        return files

    def check_original(self, name, base_path, original_path, restored):
        """The writer did with the fine-tuned model what it says. Returns the numbers of exact and of lossy tensors."""
        contents, original = self.open_base(base_path), Base(original_path).tensors
        need(set(restored) == set(original), f"{original_path}: its tensors are not those of {name}")
        exact = lossy = 0
        for row in self._rows(name):
            if row.policy == ABSENT:
                continue
            dtype, shape, raw = original[row.tensor.name]
            need((dtype, shape) == restored[row.tensor.name][:2], f"{row.tensor.name}: another dtype or shape")
            if row.policy in (LOSSLESS, EQUAL) or row.policy == TIED and row.tied.policy in (LOSSLESS, EQUAL):
                need(restored[row.tensor.name][2] == raw.tobytes(), f"{row.tensor.name}: not the original's bytes")
                exact += 1
            elif row.policy == ULTRADELTA:
                rest = row.common * row.tensor.size
                need(restored[row.tensor.name][2][rest:] == raw[rest:].tobytes(), f"{row.tensor.name}: rows beyond the base's are not exact")
                row.check_levels(contents[row.base_number], raw)
                lossy += 1
            elif row.policy == TIED:
                need(raw.tobytes() == original[row.tied.tensor.name][2].tobytes(), f"{row.tensor.name}: tied to another tensor")
                lossy += 1
        return exact, lossy

    # -- structure

    def check(self):
        """Walks everything that needs no base. Returns (tasks, tensors, blocks)."""
        at = 0
        for number in range(len(self.blobs)):
            need(int(self.blobs[number]["offset"]) == at, f"blob {number} does not follow the one before")
            at += int(self.blobs[number]["length"])
            self.blob(number)
        need(at == len(self.file["blobs/data"]), "/blobs/data is longer than its blobs")
        ntensors = nblocks = 0
        for name in self.tasks():
            attributes = record_of(self.file["tasks"][name])
            need(xxhash.xxh64_intdigest(name.encode(), int(attributes["seed"])) == int(attributes["key"]), f"{name}: its key")
            need(float(attributes["gamma"]) <= 1, f"{name}: its gamma")
            self.blob(int(attributes["recipe_blob"]))
            rows = self._rows(name)
            source = lossy = kept = 0
            for row in rows:
                if row.policy == ABSENT:
                    continue
                ntensors += 1
                source += row.tensor.nbytes
                nblocks += len(row.tiles())
                kept += row.check()
                lossy += row.common if row.policy == ULTRADELTA else 0
            need(source == int(attributes["source_bytes"]), f"{name}: source_bytes is not {source}")
            need(lossy == int(attributes["lossy_parameters"]), f"{name}: lossy_parameters is not {lossy}")
            need(kept == int(attributes["lossy_kept"]), f"{name}: lossy_kept is not {kept}")
            self._check_files(name, rows)
        return len(self.tasks()), ntensors, nblocks


class Row:
    """One tensor of a task."""

    def __init__(self, archive, group, values, offset):
        need(int(values["tensor"]) < len(archive.tensors), "an index row beyond /tensors")
        self.payload = group["payload"]
        self.tensor = archive.tensors[int(values["tensor"])]
        self.base_number = int(values["base"])
        need(self.base_number == NONE or self.base_number < len(archive.base), f"{self.tensor.name}: a base row beyond /base/tensors")
        self.base = None if self.base_number == NONE else archive.base[self.base_number]
        self.policy, self.bits = int(values["policy"]), int(values["bits"])
        self.offset, self.length, self.kept = offset, int(values["length"]), int(values["kept"])
        self.lo, self.step, self.scale = np.float32(values["lo"]), np.float32(values["step"]), np.float32(values["scale"])
        self.sparsity = np.float32(values["sparsity"])
        self.gamma = np.float32(record_of(group)["gamma"])
        self.key = xxhash.xxh64_intdigest(self.tensor.name.encode(), int(record_of(group)["key"]))
        self.tied = None
        need(self.policy <= TIED, f"{self.tensor.name}: policy {self.policy}")
        need(self.base is not None or self.policy in (LOSSLESS, TIED), f"{self.tensor.name}: its policy needs a base")
        need(self.base is None or self.base is archive.base_for(self.tensor), f"{self.tensor.name}: its base is another tensor, {self.base}")
        if self.policy == ULTRADELTA:
            need(1 <= self.bits <= 8 or self.bits in (16, 17), f"{self.tensor.name}: {self.bits} bits")
            need(self.tensor.dtype in FLOATS and self.base.dtype in FLOATS, f"{self.tensor.name}: lossy, but {self.tensor.dtype}")
        self.common = 0 if self.base is None else min(self.tensor.count, self.base.count)
        if self.policy in (DROP, EQUAL):
            need(self.common == self.tensor.count, f"{self.tensor.name}: the base has not all of it")
        need(self.policy in (LOSSLESS, ULTRADELTA) or self.length == 0, f"{self.tensor.name}: a region where none is due")

    def tiles(self):
        """[(begin, end, has a base)]"""
        if self.policy not in (LOSSLESS, ULTRADELTA):
            return []
        tiles = []
        if self.base is not None:
            tiles = [(begin, min(end, self.common), True) for begin, end in tiling(self.base.count) if begin < self.common]
        return tiles + [(self.common + b, self.common + e, False) for b, e in tiling(self.tensor.count - self.common)]

    def bodies(self):
        """The tiles' bodies, checksums checked."""
        region = self.payload[self.offset:self.offset + self.length].tobytes()
        n = len(self.tiles())
        need(len(region) == self.length, f"{self.tensor.name}: its region is cut off")
        if n == 0:
            need(not region, f"{self.tensor.name}: a region without tiles")
            return []
        lengths, at = [len(region)], 0
        if n > 1:
            at = 4 * n + 4
            need(len(region) >= at, f"{self.tensor.name}: its region is too short")
            need(xxh3_32(region[:4 * n]) == struct.unpack("<I", region[4 * n:at])[0], f"{self.tensor.name}: the table of its blocks is damaged")
            lengths = struct.unpack(f"<{n}I", region[:4 * n])
        need(at + sum(lengths) == len(region), f"{self.tensor.name}: its blocks do not fill its region")
        bodies = []
        for k, length in enumerate(lengths):
            need(length >= 5, f"{self.tensor.name}: block {k} is too short")
            body = region[at:at + length - 4]
            need(xxh3_32(body) == struct.unpack("<I", region[at + length - 4:at + length])[0], f"{self.tensor.name}: block {k} is damaged")
            bodies.append(body)
            at += length
        return bodies

    def tile_key(self, k):
        return xxhash.xxh64_intdigest(struct.pack("<Q", k), self.key)

    def check(self):
        """Checksums and kept bodies; the number of kept elements."""
        kept = 0
        for k, ((begin, end, shared), body) in enumerate(zip(self.tiles(), self.bodies())):
            if self.policy == ULTRADELTA and shared:
                kept += len(kept_body(body, end - begin, self.bits, self.tile_key(k))[0])
            else:
                need(16 <= body[0] <= 20, f"{self.tensor.name}: a lossless body of kind {body[0]}")
        need(kept == self.kept or self.policy == TIED, f"{self.tensor.name}: {kept} elements are kept, not {self.kept}")
        return kept

    def check_levels(self, base, original):
        """Kept are the elements and levels that the quota asks for."""
        if self.common == 0:
            return
        delta = to_f32(original[:self.common * self.tensor.size].tobytes(), self.tensor.dtype) - \
            to_f32(base[:self.common * self.base.size].tobytes(), self.base.dtype)
        lo, hi = delta.min(), delta.max()
        step = (hi - lo) / np.float32((1 << self.bits) - 1)
        need((lo, step) == (self.lo, self.step), f"{self.tensor.name}: lo {self.lo} and step {self.step}, not {lo} and {step}")
        levels = np.zeros(self.common, np.uint8) if step == 0 else np.rint((delta - lo) / step).astype(np.uint8)
        members = np.bincount(levels, minlength=1 << self.bits).tolist()
        zero = [self.lo + np.float32(g) * self.step == 0 for g in range(1 << self.bits)]
        z = sum(n for n, is_zero in zip(members, zero) if is_zero) / self.common
        tiles = []
        for k, ((begin, end, shared), body) in enumerate(zip(self.tiles(), self.bodies())):
            if shared:
                tiles.append((begin, end, self.tile_key(k), *kept_body(body, end - begin, self.bits, self.tile_key(k))))
        quota = np.bincount(np.concatenate([t[4] for t in tiles]), minlength=1 << self.bits).tolist()

        def quotas(sparsity):
            pruned = max(0.0, (sparsity - z) / (1 - z)) if z < 1 else 0.0
            return [0 if is_zero else n - round(n * pruned) for n, is_zero in zip(members, zero)]

        # the writer's sparsity is an f64 that the index rounds to f32: any that rounds to it will do
        half = float(np.spacing(self.sparsity)) / 2
        least, most = quotas(float(self.sparsity) + half), quotas(float(self.sparsity) - half)
        for g in range(1 << self.bits):
            need(least[g] <= quota[g] <= most[g], f"{self.tensor.name}: {quota[g]} elements of level {g}, where {least[g]} to {most[g]} are due")
        seen = [0] * (1 << self.bits)
        for k, (begin, end, key, positions, found) in enumerate(tiles):
            u = element_numbers(end - begin, key)
            wanted = []
            for g in range(1 << self.bits):
                mine = np.flatnonzero(levels[begin:end] == g)
                if len(mine):
                    n, m, h = members[g], seen[g], len(mine)
                    share = (quota[g] * (m + h) + n // 2) // n - (quota[g] * m + n // 2) // n
                    wanted.append(mine[np.argsort(u[mine], kind="stable")[:share]])
                    seen[g] += h
            wanted = np.sort(np.concatenate(wanted))
            need(np.array_equal(wanted, positions), f"{self.tensor.name}: tile {k} keeps {len(positions)} elements, others than the {len(wanted)} due")
            need(np.array_equal(levels[begin:end][wanted], found), f"{self.tensor.name}: tile {k} has other levels")

    def restore(self, base):
        """The tensor's bytes. base: bytes of the whole base tensor, or None."""
        try:
            return self._restore(base)
        except Damaged as error:
            raise Damaged(f"{self.tensor.name}: {error}") from None

    def _restore(self, base):
        size, dtype = self.tensor.size, self.tensor.dtype
        base_size = self.base.size if self.base is not None else 0
        if self.policy in (DROP, EQUAL):
            return convert(base[:self.common * base_size].tobytes(), self.base.dtype, dtype)
        parts, kept = [], 0
        for k, ((begin, end, shared), body) in enumerate(zip(self.tiles(), self.bodies())):
            raw = base[begin * base_size:end * base_size].tobytes() if shared else None
            mine = convert(raw, self.base.dtype, dtype) if shared else None
            if self.policy == LOSSLESS or not shared:
                parts.append(lossless_body(body, end - begin, dtype, mine))
                continue
            positions, levels = kept_body(body, end - begin, self.bits, self.tile_key(k))
            kept += len(positions)
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                if self.bits == 17 and len(positions):
                    rotated = np.zeros(end - begin, np.float32)
                    rotated[positions] = levels
                    positions, levels = np.arange(end - begin), unrotate(rotated, self.tile_key(k))
                q = levels.astype(np.float32)
                delta = q if self.bits >= 16 else self.lo + q * self.step
                delta = (self.gamma * self.scale) * delta
                need(delta.dtype == np.float32, "not f32")
                if dtype == "F64":
                    value = (np.frombuffer(mine, "<f8")[positions] + delta.astype(np.float64)).tobytes()
                else:
                    value = from_f32(to_f32(raw, self.base.dtype)[positions] + delta, dtype)
            elements = np.frombuffer(mine, UINTS[size]).copy()
            elements[positions] = np.frombuffer(value, UINTS[size])
            parts.append(elements.tobytes())
        need(kept == self.kept, f"{kept} elements are kept, not {self.kept}")
        return b"".join(parts)


# ------------------------------------------------------------------------------------------------------------------------------------ command line


def first_difference(mine, theirs):
    n = min(len(mine), len(theirs))
    differ = np.flatnonzero(np.frombuffer(mine, np.uint8, n) != np.frombuffer(theirs, np.uint8, n))
    return int(differ[0]) if len(differ) else n


def compare(archive, task, tensors, directory):
    """(None, or what differs first; tensors; files)"""
    files = archive._assemble(task, tensors)
    found = set()
    for where, _, names in os.walk(directory):
        found |= {os.path.relpath(os.path.join(where, name), directory) for name in names}
    for path in sorted(found | set(files)):
        if path not in found:
            return f"{path}: not in {directory}", 0, 0
        if path not in files:
            return f"{path}: not in the archive", 0, 0
        with open(os.path.join(directory, path), "rb") as file:
            theirs = file.read()
        mine = files[path]
        if mine != theirs:
            at = first_difference(mine, theirs)
            inside = ""
            if path.endswith(".safetensors"):
                entries, data = safetensors_header(mine, path)
                for name, dtype, _, begin, end in entries:
                    if begin <= at - data < end:
                        element = (at - data - begin) // SIZES.get(dtype, 1)
                        size = SIZES.get(dtype, 1)
                        where = data + begin + element * size
                        inside = f", {name} element {element}: {mine[where:where + size][::-1].hex()} here, {theirs[where:where + size][::-1].hex()} there"
            return f"{path}: differs from byte {at} on ({len(mine)} bytes here, {len(theirs)} there){inside}", 0, 0
    return None, len(tensors), len(files)


def main():
    parser = argparse.ArgumentParser(description="reads deltazoo archives, independently of the C program")
    parser.add_argument("archive")
    parser.add_argument("--task")
    parser.add_argument("--base")
    parser.add_argument("--against", metavar="DIR")
    parser.add_argument("--original", metavar="DIR")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    wants_task = options.against or options.original
    if not (options.check or wants_task) or wants_task and not (options.task and options.base):
        parser.error("--check, or --task, --base and one of --against and --original")
    try:
        archive = Archive(options.archive)
        if options.check:
            ntasks, ntensors, nblocks = archive.check()
            print(f"sound: {ntasks} tasks, {ntensors} tensors, {nblocks} blocks")
        if wants_task:
            tensors = archive.restore_task(options.task, options.base)
        if options.against:
            difference, ntensors, nfiles = compare(archive, options.task, tensors, options.against)
            if difference:
                print(difference)
                return 1
            print(f"identical: {ntensors} tensors, {nfiles} files")
        if options.original:
            exact, lossy = archive.check_original(options.task, options.base, options.original, tensors)
            print(f"faithful: {exact} exact tensors, {lossy} lossy")
    except (Damaged, OSError, KeyError, ValueError) as error:
        print(f"damaged: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
