#!/usr/bin/python3
"""Reads deltazoo archives, in Python alone: numpy, h5py, xxhash, zstandard.

    import deltazoo
    with deltazoo.open("zoo.h5") as z:
        z.tasks                                            # ["code", "math"]
        z.tensors("math")                                  # what it has: name, dtype, shape, policy, nbytes, stored_bytes
        z.restore("math", "model.norm.weight", "base")     # the tensor, a numpy array; the base is a path or the tensor itself
        z.delta("math", "model.layers.0.mlp.up_proj.weight")
        z.restore_model("math", "base", "math")            # all files of the model, as `deltazoo restore` makes them

    python3 -m deltazoo list|show|restore ...

Written from src/archive/FORMAT.md alone, it shares no code with the C program: its rANS decoder, its tilings and its rounding are its own, and the tests
hold the two against each other. What is damaged, or not what the archive says, raises deltazoo.Error.
"""

import argparse
import builtins
import contextlib
import filecmp
import fnmatch
import json
import math
import os
import re
import struct
import sys
import time
import typing

import h5py
import numpy as np
import xxhash
import zstandard

__all__ = ["open", "Archive", "Base", "Error", "TensorInfo"]
__version__ = "0.1.0"

NONE = 4294967295
TILE = 4194304
LOSSLESS, ULTRADELTA, DROP, EQUAL, ABSENT, TIED = range(6)
POLICIES = ("lossless", "ultradelta", "drop", "equal", "absent", "tied")
# Names of a quality, with the most noise against delta and base, and the least share of the delta (METHODS.md "Noise").
VERDICTS = (("high", 1.2, 0.002, 0.9), ("balanced", 5, 0.01, 0.8), ("small", 12, 0.02, 0.7), ("poor", math.inf, math.inf, 0))
TOLERANCE = 1.1  # of a limit
VOCABULARY_SHARE = 0.2  # of the limits, for embeddings and heads of tokens
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
         "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
UINTS = {1: np.uint8, 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


MARK_FILE = "deltazoo.json"
NOTE = "Not the original: weights were restored from a lossy archive. 'deltazoo unmark' takes this mark off."
FOREIGN = "exists and is not of deltazoo restore: it is never replaced; restore into another folder"


class Error(Exception):
    """What cannot be done, and what to do about it, in one line."""


class Damaged(Error):
    """The archive, or the base, is not what the archive says."""


def need(condition, message):
    if not condition:
        raise Damaged(message)


@contextlib.contextmanager
def about(where):
    """Puts the place before the text of an error."""
    try:
        yield
    except Error as error:
        raise type(error)(f"{where}: {error}") from None


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


class Stream:
    """A stream of n symbols before it is decoded: `table` has for each of the 4096 slots symbol << 24 | start of its slots' way << 12 | frequency - 1."""

    def __init__(self, data, n):
        self.n, self.symbols = n, None
        if n == 0:
            need(len(data) == 0, "a stream of no symbols has bytes")
            self.symbols = np.zeros(0, np.uint8)
            return
        cursor = Cursor(data)
        flags = cursor.u8()
        if flags == 0x30:
            self.symbols = np.frombuffer(cursor.take(n), np.uint8)
            cursor.done()
            return
        need(flags == 0x10, f"rANS: flag byte {flags:#x}")
        symbols = alphabet(cursor)
        counts = [uint7(cursor) for _ in symbols]
        total = sum(counts)
        need(total > 0, "rANS: no frequencies")
        while total < 4096:
            counts = [2 * c for c in counts]
            total *= 2
        need(total == 4096 and min(counts) > 0, "rANS: the frequencies do not sum up to 4096")
        need(len(set(symbols)) == len(symbols), "rANS: a symbol occurs twice")
        bias = np.arange(4096) - np.repeat(np.cumsum(counts) - counts, counts)
        self.table = (np.repeat(symbols, counts) << 24 | bias << 12 | np.repeat(counts, counts) - 1).astype(np.uint32)
        self.state = np.array(struct.unpack("<4I", cursor.take(16)), np.uint32)
        tail = cursor.rest()
        need(len(tail) % 2 == 0, "rANS: an odd byte at the end")
        self.words, self.at = np.frombuffer(tail, "<u2"), 0
        self.parts = []

    def finish(self, done):
        """Decodes one by one from symbol 4 * done on; the checks of a stream's end."""
        found, words, at, state = bytearray(), self.words.tolist(), self.at, self.state.tolist()
        add = found.append
        frequency, bias = (self.table & np.uint32(4095)).astype(np.int64) + 1, self.table >> np.uint32(12) & np.uint32(4095)
        symbol, frequency, bias = (self.table >> np.uint32(24)).tolist(), frequency.tolist(), bias.tolist()
        a, b, c, d = state
        try:
            for _ in range((self.n >> 2) - done):
                m = a & 4095
                add(symbol[m])
                a = frequency[m] * (a >> 12) + bias[m]
                if a < 32768:
                    a = a << 16 | words[at]
                    at += 1
                m = b & 4095
                add(symbol[m])
                b = frequency[m] * (b >> 12) + bias[m]
                if b < 32768:
                    b = b << 16 | words[at]
                    at += 1
                m = c & 4095
                add(symbol[m])
                c = frequency[m] * (c >> 12) + bias[m]
                if c < 32768:
                    c = c << 16 | words[at]
                    at += 1
                m = d & 4095
                add(symbol[m])
                d = frequency[m] * (d >> 12) + bias[m]
                if d < 32768:
                    d = d << 16 | words[at]
                    at += 1
            state = [a, b, c, d]
            for j in range(self.n & 3):
                m = state[j] & 4095
                add(symbol[m])
                state[j] = frequency[m] * (state[j] >> 12) + bias[m]
                if state[j] < 32768:
                    state[j] = state[j] << 16 | words[at]
                    at += 1
        except IndexError:
            raise Damaged("rANS: a stream ends too early") from None
        need(at == len(words), "rANS: a stream is not used up")
        need(state == [32768] * 4, "rANS: a state does not end where it began")
        self.symbols = np.concatenate([*self.parts, np.frombuffer(bytes(found), np.uint8)])
        self.parts = self.words = self.table = None


class Lanes:
    """Numbers of a CLOSE body before they are decoded, 128 at a step, the last elements first. For each class and each of its 4096 slots: `frequency` and
    `into`, how far the slot is into its number's slots, and `number`."""

    def __init__(self, frequencies, klass, words, state):
        self.n, self.symbols, self.steps = len(klass), None, -(-len(klass) // 128)
        counts = np.array([*frequencies, [0] * 15 + [4096]], np.int64)
        each = counts.reshape(-1)
        self.number = np.repeat(np.tile(np.arange(16, dtype=np.uint8), len(counts)), each)
        self.frequency = np.repeat(each, each).astype(np.uint32)
        begin = np.repeat((np.cumsum(counts, axis=1) - counts).reshape(-1), each)
        self.into = (np.tile(np.arange(4096), len(counts)) - begin).astype(np.uint32)
        rows = np.full(128 * self.steps, len(frequencies), np.uint8)
        rows[:self.n] = klass
        self.rows = rows.reshape(-1, 4, 16, 2).transpose(0, 1, 3, 2).reshape(-1, 128)
        self.words, self.state = words, state

    def finish(self, found):
        numbers = found.reshape(-1, 4, 2, 16).transpose(0, 1, 3, 2).reshape(-1)
        self.symbols, self.rows, self.words = numbers[:self.n], None, None


def decode_lanes(live):
    """Decodes Lanes side by side, and sets their `symbols`."""
    live = sorted(live, key=lambda s: -s.steps)
    found = [np.empty((s.steps, 128), np.uint8) for s in live]
    frequency, into, number = (np.concatenate([getattr(s, name) for s in live]) for name in ("frequency", "into", "number"))
    words = np.concatenate([*(s.words for s in live), [0]]).astype(np.uint32)
    starts = np.cumsum([0] + [len(s.words) for s in live[:-1]])
    firsts = np.cumsum([0] + [len(s.number) for s in live[:-1]])
    at, x, done = starts + [len(s.words) for s in live], np.stack([s.state for s in live]), 0
    low, bits, limit, refill = np.uint32(4095), np.uint32(12), np.uint32(32768), np.uint32(16)
    while live:
        n, steps = len(live), min(live[-1].steps - done, 1024)
        slots = np.stack([s.rows[s.steps - done - steps:s.steps - done] for s in live], axis=1).astype(np.int64)
        slots <<= 12
        slots += firsts[:n, None]
        rank, f, g, short = np.empty((n, 128), np.int64), np.empty_like(x), np.empty_like(x), np.empty(x.shape, bool)
        for slot in slots[::-1]:
            np.bitwise_and(x, low, out=f)
            np.add(slot, f, out=slot)
            frequency.take(slot, out=f, mode="clip")
            into.take(slot, out=g, mode="clip")
            np.right_shift(x, bits, out=x)
            np.multiply(x, f, out=x)
            np.add(x, g, out=x)
            np.less(x, limit, out=short)
            short.cumsum(axis=1, out=rank)
            at = at - rank[:, 127]
            np.add(rank, at[:, None] - 1, out=rank)
            words.take(rank, out=g, mode="clip")
            np.left_shift(x, refill, out=f)
            np.bitwise_or(f, g, out=f)
            np.copyto(x, f, where=short)
        part = number.take(slots)
        for k, s in enumerate(live):
            found[k][s.steps - done - steps:s.steps - done] = part[:, k]
        done += steps
        while live and live[-1].steps == done:
            s = live.pop()
            need(at[len(live)] == starts[len(live)], "rANS: the words of CLOSE and what their lanes take")
            need(bool((x[len(live)] == 32768).all()), "rANS: a lane does not end where it began")
            s.finish(found.pop())
        at, x = at[:len(live)], x[:len(live)]


AT_ONCE = 16  # exact tiles that are decoded side by side, of some 4 million elements each
SIDE_BY_SIDE = 12  # streams from which on numpy's steps are faster than Python's


def decode(streams):
    """Decodes streams side by side: a step takes one symbol of each of their states, as long as there are enough of them. Sets their `symbols`."""
    lanes = [s for s in streams if isinstance(s, Lanes)]
    if lanes:
        decode_lanes(lanes)
    live = sorted((s for s in streams if s.symbols is None), key=lambda s: -s.n)
    done = 0
    if len(live) >= SIDE_BY_SIDE:
        table, words = np.concatenate([s.table for s in live]), np.concatenate([*(s.words for s in live), [0]]).astype(np.uint32)
        starts = np.cumsum([0] + [len(s.words) for s in live[:-1]])
        rows, at = np.arange(len(live)) << 12, np.zeros((5, len(live)), np.int64)
        at[0] = starts
        x = np.stack([s.state for s in live], axis=1)
        low, bits, refill, limit = np.uint32(4095), np.uint32(12), np.uint32(16), np.uint32(32768)
        while len(live) >= SIDE_BY_SIDE:
            steps = min((live[-1].n >> 2) - done, 1 << 16)
            found = np.empty((steps, *x.shape), np.uint8)
            slot, entry, f, short = np.empty(x.shape, np.int64), np.empty_like(x), np.empty_like(x), np.empty(x.shape, bool)
            for t in range(steps):
                np.bitwise_and(x, low, out=f)
                np.add(f, rows, out=slot)
                table.take(slot, out=entry, mode="clip")
                np.right_shift(entry, np.uint32(24), out=found[t], casting="unsafe")
                np.bitwise_and(entry, low, out=f)
                np.add(f, np.uint32(1), out=f)
                np.right_shift(x, bits, out=x)
                np.multiply(x, f, out=x)
                np.right_shift(entry, bits, out=f)
                np.bitwise_and(f, low, out=f)
                np.add(x, f, out=x)
                np.less(x, limit, out=short)
                for j in range(4):
                    np.add(at[j], short[j], out=at[j + 1])
                words.take(at[:4], out=entry, mode="clip")
                np.left_shift(x, refill, out=f)
                np.bitwise_or(f, entry, out=f)
                np.copyto(x, f, where=short)
                at[0] = at[4]
            done += steps
            for k, s in enumerate(live):
                s.parts.append(found[:, :, k].reshape(-1))
            while live and live[-1].n >> 2 == done:
                s = live.pop()
                s.state, s.at = x[:, len(live)], int(at[0, len(live)] - starts[len(live)])
                s.finish(done)
            n = len(live)
            rows, at, x = rows[:n], np.ascontiguousarray(at[:, :n]), np.ascontiguousarray(x[:, :n])
        for k, s in enumerate(live):
            s.state, s.at = x[:, k], int(at[0, k] - starts[k])
    for s in live:
        s.finish(done)


def together(bodies):
    """The results of decoders, generators that ask for lists of streams: what all of them ask for is decoded side by side."""
    results, waiting = [None] * len(bodies), [(k, body, None) for k, body in enumerate(bodies)]
    while waiting:
        asked = []
        for k, body, answer in waiting:
            try:
                asked.append((k, body, body.send(answer)))
            except StopIteration as done:
                results[k] = done.value
        decode([s for _, _, streams in asked for s in streams])
        waiting = [(k, body, [s.symbols for s in streams]) for k, body, streams in asked]
    return results


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


PIECE = 65536  # elements that stay in the cache


def pieces(count):
    return [(begin, min(begin + PIECE, count)) for begin in range(0, count, PIECE)]


def numbers(begin, end, key, x, y):
    """u(begin) to u(end - 1), made in x; y is as long."""
    k0, k1 = np.uint32((key + begin) & 0xFFFFFFFF), np.uint32(key >> 32)
    x, y = x[:end - begin], y[:end - begin]
    np.add(ASCENDING[:end - begin], k0, out=x)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        np.right_shift(x, np.uint32(shift), out=y)
        np.bitwise_xor(x, y, out=x)
        if shift == 15:
            np.bitwise_xor(x, k1, out=x)
        np.multiply(x, np.uint32(factor), out=x)
    np.right_shift(x, np.uint32(16), out=y)
    return np.bitwise_xor(x, y, out=x)


ASCENDING = np.arange(PIECE, dtype=np.uint32)


def element_numbers(count, key):
    """u(i) for i = 0 .. count - 1."""
    u, spare = np.empty(count, np.uint32), np.empty(PIECE, np.uint32)
    for begin, end in pieces(count):
        numbers(begin, end, key, u[begin:end], spare)
    return u


def elements_up_to(last, count, key):
    """The elements with u <= last, ascending, and their u."""
    x, y, where, what = np.empty(PIECE, np.uint32), np.empty(PIECE, np.uint32), [], []
    for begin, end in pieces(count):
        u = numbers(begin, end, key, x, y)
        at = np.flatnonzero(u <= np.uint32(last))
        where.append(at + begin)
        what.append(u[at])
    return np.concatenate(where), np.concatenate(what)


# ---------------------------------------------------------------------------------------------------------------------------------- kept bodies


def golomb(data, n, k):
    """n positions of a Golomb-Rice code."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    need(n <= len(bits), "Golomb: the gaps end too early")
    following = np.where(bits == 0, np.arange(len(bits)), len(bits))
    following = np.minimum.accumulate(following[::-1])[::-1].tolist()  # the next zero, from each bit on
    starts, ends, at, skip = [], [], 0, 1 + k
    try:
        for _ in range(n):
            starts.append(at)
            at = following[at]
            ends.append(at)
            at += skip
    except IndexError:
        raise Damaged("Golomb: the gaps end too early") from None
    need(at <= len(bits) and len(bits) - at < 8 and not bits[at:].any(), "Golomb: the gaps do not fill their bytes")
    starts, ends = np.array(starts, np.int64), np.array(ends, np.int64)
    gaps = (ends - starts) << k
    for j in range(k):
        gaps |= bits[ends + 1 + j].astype(np.int64) << j
    return np.cumsum(gaps + 1) - 1


def kept_values(cursor, kind, count, key):
    """Elements with values of their own."""
    if kind == 3:
        last, n = cursor.u32(), cursor.varint()
        positions, _ = elements_up_to(last, count, key)
    else:
        need(kind == 4, f"a kept body of kind {kind} with 16 bits")
        k, gapslen = cursor.u8(), cursor.varint()
        gaps = cursor.take(gapslen)
        n = cursor.varint()
        positions = golomb(gaps, n, k)
    need(len(positions) == n, f"{len(positions)} elements for {n} values")
    need(n == 0 or positions[-1] < count, "a kept element is beyond its tile")
    return positions, to_f32((yield from lossless_body(cursor.rest(), n, "F16", None)).tobytes(), "F16")


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


def score_of(group):
    try:
        score = json.loads(text(group.attrs.get("score", b"null")))
    except ValueError:
        return None
    return score if isinstance(score, dict) else None


def rotation_blocks(count):
    """[(begin, end)] of the blocks of a rotated tile."""
    n = max(1, count // 65536)
    return [(b * 65536, (b + 1) * 65536 if b + 1 < n else count) for b in range(n)]


def sections(n, share):
    """Firsts and lengths of the sections of a block of n elements."""
    wanted = min(max(int(np.rint(share * n)), 1), n)
    log = (n // wanted).bit_length() - 1
    pairs = -(-n // (2 << log))
    pair = np.arange(pairs)
    split = pair * (wanted - pairs) % pairs < wanted - pairs
    half = np.tile([False, True], pairs)
    first = np.repeat(pair * (2 << log), 2) + half * (1 << log)
    length = np.minimum(np.where(np.repeat(split, 2), 1 << log, 2 << log), n - first)
    there = (~half | np.repeat(split, 2)) & (length > 0)
    return first[there], length[there]


def kept_signs(cursor, kind, count, share):
    """Coefficients of a rotated tile."""
    need(kind == 5, f"a kept body of kind {kind} with 17 bits")
    blocks = rotation_blocks(count)
    numbers = [cursor.varint() for _ in blocks]
    need(any(numbers) and max(numbers) <= 4608, "SIGNS: its head")
    bits = np.unpackbits(np.frombuffer(cursor.rest(), np.uint8), bitorder="little")
    at, positions, values = 0, [], []
    for (begin, end), e in zip(blocks, numbers):
        if not e:
            continue
        first, length = sections(end - begin, share)
        width = np.array([int(n - 1).bit_length() for n in length])
        starts = at + np.concatenate(([0], np.cumsum(width + 1)))
        at, starts = int(starts[-1]), starts[:-1]
        need(at <= len(bits), "SIGNS: cut short")
        place = sum(np.where(width > b, bits[np.minimum(starts + 1 + b, at - 1)].astype(np.int64) << b, 0) for b in range(int(width.max())))
        need(np.all(place < length), "SIGNS: a place past its section")
        value = np.ldexp(SIXTEENTHS[e % 16], e // 16 - 160).astype(np.float32) * (np.float32(end - begin) / np.float32(len(first)))
        positions.append(begin + first + place)
        values.append(np.where(bits[starts], value, -value).astype(np.float32))
    need(len(bits) - at < 8, "SIGNS: bytes left over")
    return np.concatenate(positions), np.concatenate(values)


def hadamard(x):
    """The unnormalised Walsh-Hadamard transform of f32 values, shortest distance first; then times 1 / sqrt(their number)."""
    def steps(x, width):  # of the first axis; a step of the second is `width`
        h, y = 1, np.empty_like(x)
        while h < len(x):
            a, b = x.reshape(-1, 2, h * width), y.reshape(-1, 2, h * width)
            np.add(a[:, 0], a[:, 1], out=b[:, 0])
            np.subtract(a[:, 0], a[:, 1], out=b[:, 1])
            x, y, h = y, x, 2 * h
        return x

    low = min(len(x), 256)  # the short distances go down the columns, where numpy's loops are long
    columns = steps(np.ascontiguousarray(x.reshape(-1, low).T), len(x) // low)
    x = steps(np.ascontiguousarray(columns.T), low).reshape(-1)
    norm = np.float32(1) / np.float32(1 << (len(x).bit_length() - 1) // 2)
    if (len(x).bit_length() - 1) % 2:
        norm *= np.float32(0.5 ** 0.5)
    return x * norm


def unrotate(x, key):
    """What a rotated tile was before, in f32."""
    def signed(values, key, begin, end):
        u = element_numbers(end, key)[begin:] & np.uint32(1 << 31)
        return (values.view(np.uint32) ^ u).view(np.float32)

    for begin, end in rotation_blocks(len(x)):
        p = 1 << ((end - begin).bit_length() - 1)
        if p < end - begin:
            x[end - p:end] = signed(hadamard(x[end - p:end]), key ^ (1 << 64) - 1, end - p, end)
        x[begin:begin + p] = hadamard(x[begin:begin + p])
    return signed(x, key, 0, len(x))


def levels_of(numbers):
    """0, 1, 2, 3, 4 .. stand for 0, -1, 1, -2, 2 .."""
    return numbers >> 1 ^ -(numbers & 1)


def rice_codes(data, n, k):
    """n codes of a bit stream: ones, a zero, k low bits."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    zeros = np.flatnonzero(bits == 0)
    need(n <= len(zeros), "UNIFORM: codes cut short")
    ends = np.append(zeros, len(bits))[np.searchsorted(zeros, np.arange(len(bits) + 1))].tolist()  # the first zero at or after a bit
    at, starts, ones = 0, np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        need(at <= len(bits) and ends[at] + 1 + k <= len(bits), "UNIFORM: codes cut short")
        ones[i], starts[i] = ends[at] - at, ends[at] + 1
        at = ends[at] + 1 + k
    need(len(bits) - at < 8, "UNIFORM: bytes left over")
    low = sum((bits[starts + b].astype(np.int64) << b for b in range(k)), np.zeros(n, np.int64))
    need(int(ones.max()) < 1 << 21, "UNIFORM: a level that cannot be")
    return ones << k | low


def block_sizes(cursor, count, what):
    """The f32 sizes of a rotated tile's blocks, which have 16 bits each; not all are 0."""
    sizes = np.frombuffer(cursor.take(2 * count), "<u2").astype(np.uint32)
    need(sizes.any() and sizes.max() <= 65279, f"{what}: its head")
    return (sizes << np.uint32(15)).view(np.float32)


def uniform_body(body, count, step, shift):
    """A decoder (see together): the f32 coefficients of a rotated tile. step, shift: of the row, as its f32 `step` and `lo`."""
    step, shift = np.float32(step), np.float32(shift)
    need(2.0 ** -10 <= step <= 8 and 0 <= shift < 1, f"UNIFORM: a step of {step} with a shift of {shift}")
    y, cursor = np.zeros(count, np.float32), Cursor(body)
    kind = cursor.u8()
    if kind == 0:
        cursor.done()
        return y
    need(kind == 6, f"a kept body of kind {kind} with 18 bits")
    form, blocks = cursor.u8(), rotation_blocks(count)
    need(form <= 8 or 32 <= form <= 53, f"UNIFORM: form {form}")
    stds = block_sizes(cursor, len(blocks), "UNIFORM")
    with np.errstate(over="ignore", under="ignore"):
        widths = step * stds
    need(np.all((stds == 0) | (widths >= np.float32(2.0 ** -126)) & np.isfinite(widths)), "UNIFORM: its head")
    blocks = [(begin, end, width) for (begin, end), width, std in zip(blocks, widths, stds) if std]
    m = sum(end - begin for begin, end, _ in blocks)
    if form >= 32:
        numbers = rice_codes(cursor.rest(), m, form - 32)
        need(int(numbers.max()) <= 2097150, "UNIFORM: a level that cannot be")
        levels = levels_of(numbers)
    else:
        core = Stream(cursor.take(cursor.varint()), m)
        escapes = np.array([cursor.varint() for _ in range(cursor.varint())], np.uint64)
        need(len(escapes) == 0 or int(escapes.max()) <= 2097150 >> form, "UNIFORM: a level that cannot be")
        low = np.unpackbits(np.frombuffer(cursor.take((m * form + 7) // 8), np.uint8), count=m * form, bitorder="little")
        cursor.done()
        core, = yield [core]
        numbers, escaped = core.astype(np.int32), np.flatnonzero(core == 255)
        need(len(escaped) == len(escapes), "UNIFORM: its escapes")
        numbers[escaped] += escapes.astype(np.int32)
        levels = levels_of(numbers) << form
        for b in range(form):
            levels |= low[b::form].astype(np.int32) << b
    at = 0
    for begin, end, width in blocks:
        level, at = levels[at:at + end - begin], at + end - begin
        with np.errstate(over="ignore", under="ignore"):
            size = (np.abs(level).astype(np.float32) - shift) * width
        y[begin:end] = np.where(level == 0, np.float32(0), np.where(level < 0, -size, size))
    return y


def trellis_body(body, count, rate):
    """The f32 coefficients of a rotated tile. rate: of the row, as its f32 `step`."""
    rate = float(np.float32(rate))
    need(0 < rate <= 1, f"TRELLIS: a rate of {rate}")
    y, cursor = np.zeros(count, np.float32), Cursor(body)
    kind = cursor.u8()
    if kind == 0:
        cursor.done()
        return y
    need(kind in (7, 11), f"a kept body of kind {kind} with 19 bits")
    memory, blocks = cursor.u8(), rotation_blocks(count)
    need(5 <= memory <= 12, f"TRELLIS: a memory of {memory} bits")
    if kind == 7:
        sizes, widths = block_sizes(cursor, len(blocks), "TRELLIS"), [min(max(int(np.rint(rate * (end - begin))), 1), end - begin) for begin, end in blocks]
    else:
        numbers, widths = [], []
        for begin, end in blocks:
            widths.append(cursor.varint())
            numbers.append(int.from_bytes(cursor.take(2), "little") if widths[-1] else 0)
            need(widths[-1] <= end - begin and (numbers[-1] > 0) == (widths[-1] > 0), "TRELLIS: the bits of a block")
        sizes = block_sizes(Cursor(np.array(numbers, "<u2").tobytes()), len(blocks), "TRELLIS")
    need(np.all((sizes == 0) | (sizes >= np.float32(2.0 ** -126))), "TRELLIS: its head")
    parts = [(begin, end, size, width) for (begin, end), size, width in zip(blocks, sizes, widths) if size]
    nbits = sum(part[3] for part in parts)
    bits = np.unpackbits(np.frombuffer(cursor.take((nbits + 7) // 8), np.uint8), bitorder="little").astype(np.uint32)
    cursor.done()
    need(not bits[nbits:].any(), "TRELLIS: bits beyond the message")
    at = 0
    for begin, end, size, k in parts:
        message, at, n = np.append(np.zeros(memory, np.uint32), bits[at:at + k]), at + k, end - begin
        window = np.zeros(k, np.uint32)
        for b in range(memory + 1):  # the newest bit is the highest
            window |= message[b:b + k] << np.uint32(b)
        first = np.arange(k + 1, dtype=np.uint64) * np.uint64(n) // np.uint64(k)
        step = np.repeat(np.arange(k), np.diff(first).astype(np.int64))
        place = (np.arange(n, dtype=np.uint64) - first[step]).astype(np.int64)
        middle = element_numbers(int(place.max()) + 1, 25) & np.uint32((1 << memory - 1) - 1)
        common = window[step] & (np.uint32(1 << memory | 1) | middle[place] << np.uint32(1))
        for shift in (8, 4, 2, 1):
            common = common ^ common >> np.uint32(shift)
        y[begin:end] = np.where(common & np.uint32(1), -size, size)
    return y


QUARTERS = (2 ** (np.arange(4) / 4)).astype(np.float32)


def channel_factors(body, elements):
    """Of a body that begins with CHANNELS: (f32 factors by which elements are multiplied, elements of a channel one after another, the rest)."""
    cursor = Cursor(body)
    need(cursor.u8() == 8, "CHANNELS: missing")
    stride, count, k = cursor.varint(), cursor.varint(), cursor.u8()
    need(k <= 6 and 0 < stride and 0 < count <= 1 << 20 and stride * count <= elements, "CHANNELS: its head")
    if k == 6:
        codes, at = np.zeros(count, np.int64), 0
        for _ in range(cursor.varint()):
            at += cursor.varint()
            z = cursor.u8()
            need(at < count and 0 < z <= 62, "CHANNELS: a code that cannot be")
            codes[at], at = -int(levels_of(z)), at + 1
        return np.ldexp(QUARTERS[codes & 3], codes >> 2).astype(np.float32), stride, cursor.rest()
    bits, at, numbers = np.unpackbits(np.frombuffer(body, np.uint8)[cursor.at:], bitorder="little").tolist(), 0, []
    for _ in range(count):
        ones = 0
        while at < len(bits) and bits[at]:
            ones, at = ones + 1, at + 1
        at += 1 + k
        need(at <= len(bits), "CHANNELS: cut short")
        numbers.append(ones << k | sum(bits[at - k + b] << b for b in range(k)))
    end = -(-at // 8)
    need(not any(bits[at:8 * end]) and max(numbers) <= 62, "CHANNELS: a code that cannot be")
    codes = -levels_of(np.array(numbers))
    return np.ldexp(QUARTERS[codes & 3], codes >> 2).astype(np.float32), stride, body[cursor.at + end:]


def kept_body(body, count, bits, key, share, step=None, shift=None):
    """A decoder (see together): (positions ascending, levels) of a kept body's elements; with 16 bits and more: (positions, f32 values).
    share: 1 - sparsity, which divides blocks of SIGNS. step, shift: of the row, for UNIFORM and TRELLIS."""
    if bits in (18, 19):
        values = trellis_body(body, count, step) if bits == 19 else (yield from uniform_body(body, count, step, shift))
        positions = np.flatnonzero(values)
        return positions, values[positions]
    cursor = Cursor(body)
    kind = cursor.u8()
    if bits == 16:
        return (yield from kept_values(cursor, kind, count, key))
    if kind == 0:
        cursor.done()
        return np.zeros(0, np.int64), np.zeros(0, np.uint8 if bits <= 8 else np.float32)
    if bits == 17:
        positions, values = kept_signs(cursor, kind, count, share)
        need(positions[-1] < count, "a kept element is beyond its tile")
        return positions, values
    if kind == 1:
        skip, low, span = cursor.u8(), cursor.u32(), cursor.varint()
        ncore, corelen = cursor.varint(), cursor.varint()
        nfringe = cursor.varint()
        fringelen = cursor.varint() if nfringe else 0
        nexceptions = cursor.varint()
        core, fringe = yield [Stream(cursor.take(corelen), ncore), Stream(cursor.take(fringelen), nfringe)]
        need(bits == 8 or skip == 1 << bits, f"skip is {skip} with {bits} bits")
        first, second = low + 1, low + 1 + span
        need(second <= 1 << 32, "HIGH is beyond 2^32")
        positions, u = elements_up_to(second - 1, count, key)
        inner = u <= np.uint32(first - 1)
        found = int(np.count_nonzero(inner))
        need(found == ncore and len(u) - found == nfringe, f"{found} and {len(u) - found} elements for {ncore} and {nfringe} symbols")
        levels = np.empty(len(u), np.uint8)
        levels[inner], levels[~inner] = core, fringe
        chosen = levels != skip
        positions, levels = positions[chosen], levels[chosen]
        at, more, extra = 0, [], []
        for _ in range(nexceptions):
            at += cursor.varint()
            more.append(at)
            extra.append(cursor.u8())
            at += 1
        cursor.done()
        if more:
            positions = np.concatenate([positions, np.array(more, np.int64)])
            levels = np.concatenate([levels, np.array(extra, np.uint8)])
            order = np.argsort(positions, kind="stable")
            positions, levels = positions[order], levels[order]
            need((np.diff(positions) > 0).all(), "an element is kept twice")
    else:
        need(kind == 2, f"a kept body of kind {kind}")
        k, n, gapslen = cursor.u8(), cursor.varint(), cursor.varint()
        positions = golomb(cursor.take(gapslen), n, k)
        levels, = yield [Stream(cursor.rest(), n)]
    need(len(positions) == 0 or positions[-1] < count, "a kept element is beyond its tile")
    need(len(levels) == 0 or int(levels.max()) < 1 << bits, "a level is beyond its bits")
    return positions, levels


# ------------------------------------------------------------------------------------------------------------------------------ lossless bodies


def planes(cursor, n, nplanes):
    """A decoder of planes that follow each other: their bytes."""
    found = []
    for _ in range(nplanes):
        kind = cursor.u8()
        if kind == 0:
            found.append(np.full(n, cursor.u8(), np.uint8))
        elif kind == 1:
            found.append(np.frombuffer(cursor.take(n), np.uint8))
        else:
            need(kind in (2, 3), f"a plane of kind {kind}")
            data = cursor.take(cursor.varint())
            found.append(Stream(data, n) if kind == 2 else np.frombuffer(unzstd(data, n), np.uint8))
    symbols = iter((yield [p for p in found if isinstance(p, Stream)]))
    return [next(symbols) if isinstance(p, Stream) else p for p in found]


def planes_body(cursor, count, dtype, size, base):
    flags = cursor.u8()
    need(flags < 2, f"flags {flags} of PLANES")
    need(not flags or base is not None, "PLANES needs a base")
    kind = np.dtype(UINTS[size])
    x = np.zeros(count, kind)
    if count:
        for p, values in enumerate((yield from planes(cursor, count, size))):
            x |= values.astype(kind) << kind.type(8 * p)
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

    def parts(base):
        """Sign and magnitude of a base's elements."""
        value = base.astype(np.int32 if size <= 2 else np.int64)
        b = value & ((1 << (width - 1)) - 1)
        return value >> (width - 1), np.minimum((b + ((1 << (shift - 1)) if shift else 0)) >> shift, limit - 1)

    high = 7 if dtype == "F16" else 10
    contexts = 1 << min(length, high)
    nclasses = cursor.varint()
    need(1 <= nclasses <= 64, f"{nclasses} classes")
    starts = [0]
    for _ in range(nclasses - 1):
        gap = cursor.varint()
        need(gap >= 1, "a class is empty")
        starts.append(starts[-1] + gap)
        need(starts[-1] < contexts, "a class begins beyond the contexts")
    of_context = np.searchsorted(np.array(starts), np.arange(contexts), side="right") - 1
    of_context = of_context.astype(np.uint8)
    klass = of_context[parts(base)[1] >> max(0, length - high)]
    nbytes = [cursor.varint() for _ in range(nclasses)]
    symbols, members = np.zeros(count, np.uint8), np.bincount(klass, minlength=nclasses).tolist()
    found = yield [Stream(cursor.take(nbytes[k]), members[k]) for k in range(nclasses)]
    for k in range(nclasses):
        symbols[klass == k] = found[k]
    del klass
    base_sign, b = parts(base)
    field = cursor.rest()

    f, tokens = (2, 56) if length <= 15 else (1, 62)

    token = np.arange(256) % tokens  # of each symbol
    cost = np.where(token < 1 << (f + 1), 0, (token >> f) - 1)
    start = np.where(token < 1 << (f + 1), token, ((1 << f) + token % (1 << f)) << cost).astype(b.dtype)

    def window(at, bits):
        """The `bits` bits of the bit stream from bit `at` on, at most 32."""
        byte = at >> 3
        word = np.zeros(len(at), np.uint64)
        for j in range(3 if size <= 2 else 5):
            word |= padded[byte + j].astype(np.uint64) << np.uint64(8 * j)
        return word >> (at & 7).astype(np.uint64) & (np.uint64(1) << bits.astype(np.uint64)) - np.uint64(1)

    padded = np.concatenate([np.frombuffer(field, np.uint8), np.zeros(16, np.uint8)])
    true, lengths = symbols, cost[symbols]
    escaped = np.flatnonzero(symbols == 255)
    need(not ((true >= 4 * tokens) & (true != 255)).any(), "a symbol beyond 4T")
    lengths[escaped] = 0
    if len(escaped):
        before = (np.cumsum(lengths) - lengths)[escaped].tolist()
        number = int.from_bytes(field, "little") if len(field) < 4096 else None
        added = 0
        found, costs, cost_of = [], [], cost.tolist()
        for at in before:
            at += added
            need(at + 8 <= 8 * len(field), "the bits of CLASSES end too early")
            if number is None:
                symbol = (field[at >> 3] | (field[(at >> 3) + 1] << 8 if at & 7 else 0)) >> (at & 7) & 255
            else:
                symbol = number >> at & 255
            need(symbol < 4 * tokens, "an escaped symbol beyond 4T")
            found.append(symbol)
            costs.append(cost_of[symbol])
            added += 8 + cost_of[symbol]
        true[escaped] = found
        lengths[escaped] = np.array(costs) + 8
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    need(-(-total // 8) == len(field), f"{total} bits in {len(field)} bytes of CLASSES")
    need(total % 8 == 0 or field[-1] >> (total % 8) == 0, "the last byte of CLASSES is not filled with zeros")
    distance = start[true]
    far = np.flatnonzero(cost[true])
    e = cost[true[far]]
    distance[far] += window(ends[far] - e, e).astype(b.dtype)
    flags = (np.arange(256) // tokens)[true].astype(b.dtype)
    magnitude = np.where(flags & 1, b - distance, b + distance) & (limit - 1)
    sign = base_sign ^ (flags >> 1)
    return (sign << (width - 1) | magnitude << shift).astype(UINTS[size])


def intervals_body(cursor, count, dtype):
    need(dtype in ("F32", "F16", "BF16") and count > 0, "INTERVALS where it may not be")
    mantissa, width = {"F32": 23, "F16": 10, "BF16": 7}[dtype], 8 * SIZES[dtype]
    shift, fine = cursor.u8(), cursor.u8()
    signed, fine = fine >> 7, fine & 0x7f
    need(shift <= mantissa and fine <= min(3, mantissa - shift), f"shift {shift} and {fine} bits of INTERVALS")
    low_bits, magnitudes = mantissa - shift - fine, 1 << (width - 1 - mantissa + fine)
    wide, keys = low_bits + 1 - signed, magnitudes << signed
    first, more, key = [], [], 0
    while key < keys:
        x, run = cursor.u8(), cursor.varint()
        need(x < 16 and 1 <= run <= 256 - len(first) and key + (run << x) <= keys and key % (1 << x) == 0, "intervals that do not fit")
        first += range(key, key + (run << x), 1 << x)
        more += [x] * run
        key += run << x
    stream = Stream(cursor.take(cursor.varint()), count)
    inside = cursor.take(cursor.varint())
    field = cursor.rest()
    need(len(field) == -(-count * wide // 8), "the low fields of INTERVALS do not fill their bytes")
    symbols = (yield [stream])[0]
    need(int(symbols.max()) < len(first), "a symbol of no interval")
    x = np.array(more, np.int64)[symbols]
    need(-(-int(x.sum()) // 8) == len(inside), "the keys' bits of INTERVALS do not fill their bytes")
    key = np.array(first, np.int64)[symbols]
    at = np.flatnonzero(x)
    if len(at):
        bits = np.unpackbits(np.frombuffer(inside, np.uint8), bitorder="little")
        need(not bits[int(x.sum()):].any(), "the last byte of the keys' bits is not filled with zeros")
        begin = (np.cumsum(x) - x)[at]
        for j in range(max(more)):
            more_bits = x[at] > j
            key[at[more_bits]] |= bits[begin[more_bits] + j].astype(np.int64) << j
    bits = np.unpackbits(np.frombuffer(field, np.uint8), bitorder="little")
    need(not bits[count * wide:].any(), "the last byte of the low fields is not filled with zeros")
    bits = bits[:count * wide].reshape(count, wide)
    sign = key // magnitudes if signed else bits[:, low_bits].astype(np.int64)
    value = key % magnitudes << low_bits
    for j in range(low_bits):
        value |= bits[:, j].astype(np.int64) << j
    return (value << shift | sign << (width - 1)).astype(UINTS[width // 8])


def near_body(cursor, count, dtype, base):
    need(dtype in ("F16", "BF16") and base is not None and count > 0, "NEAR where it may not be")
    mantissa = {"F16": 10, "BF16": 7}[dtype]
    first, nclasses = cursor.u8(), cursor.u8()
    need(1 <= nclasses <= 15 and first + nclasses <= 1 << (15 - mantissa), f"{nclasses} classes from exponent {first} on")
    low_bits = [cursor.u8() for _ in range(nclasses)]
    need(max(low_bits) <= 8, "more than 8 low bits in a class of NEAR")
    klass = ((base & 0x7fff) >> mantissa).astype(np.int32) - first
    klass[(klass < 0) | (klass >= nclasses)] = nclasses
    members = np.bincount(klass, minlength=nclasses + 1).tolist()
    numbers = [np.zeros(0, np.uint8)] * nclasses
    for k in range(nclasses):
        if members[k]:
            pairs = (yield from planes(cursor, (members[k] + 1) // 2, 1))[0]
            numbers[k] = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:members[k]]
    difference = [(n.astype(np.int32) - 7) << k for n, k in zip(numbers, low_bits)]
    for k in range(nclasses):
        low = np.frombuffer(cursor.take(-(-members[k] * low_bits[k] // 8)), np.uint8)
        bits = np.unpackbits(low, bitorder="little")[:members[k] * low_bits[k]].reshape(members[k], low_bits[k])
        for j in range(low_bits[k]):
            difference[k] |= bits[:, j].astype(np.int32) << j
    nescapes = cursor.varint()
    need(nescapes == sum(int((n == 15).sum()) for n in numbers), "escapes of NEAR and their number")
    if nescapes:
        low, high = yield from planes(cursor, nescapes, 2)
        escapes, at = low.astype(np.int32) | high.astype(np.int32) << 8, 0
        for k in range(nclasses):
            escaped = np.flatnonzero(numbers[k] == 15)
            difference[k][escaped] = escapes[at:at + len(escaped)]
            at += len(escaped)
    x = base.astype(np.int32)
    for k in range(nclasses):
        x[klass == k] += difference[k]
    far = klass == nclasses
    if members[nclasses]:
        x[far] = yield from classes_body(cursor, members[nclasses], dtype, 2, base[far])
    return (x & 0xffff).astype(np.uint16)


def close_body(cursor, count, dtype, base):
    need(dtype in ("F16", "BF16") and base is not None and count > 0, "CLOSE where it may not be")
    mantissa = {"F16": 10, "BF16": 7}[dtype]
    first, nclasses = cursor.u8(), cursor.u8()
    need(1 <= nclasses <= 15 and first + nclasses <= 1 << (15 - mantissa), f"{nclasses} classes from exponent {first} on")
    low_bits = np.array([cursor.u8() for _ in range(nclasses)] + [0])
    need(low_bits.max() <= 8, "more than 8 low bits in a class of CLOSE")
    frequencies = []
    for _ in range(nclasses):
        least, most = cursor.u8(), 0
        least, most = least & 15, least >> 4
        need(least <= most < 15, f"numbers {least} to {most} of a class")
        of = [0] * least + [cursor.varint() for _ in range(most - least + 1)] + [0] * (14 - most)
        need(sum(of) <= 4096, "the frequencies of a class do not sum up to 4096")
        frequencies.append(of + [4096 - sum(of)])
    nbits, nwords = cursor.varint(), cursor.varint()
    need(nwords <= count, "more words than elements")
    low = np.frombuffer(cursor.take(-(-nbits // 8)) + bytes(2), np.uint8)
    need(nbits % 8 == 0 or low[nbits // 8] >> nbits % 8 == 0, "the last byte of the low bits is not filled with zeros")
    words = np.frombuffer(cursor.take(2 * nwords), "<u2")
    state = np.frombuffer(cursor.take(512), "<u4")
    need(bool((state >> 15).all() and not (state >> 31).any()), "a state of CLOSE that cannot be")
    klass = ((base & 0x7fff) >> mantissa).astype(np.int32) - first
    klass[(klass < 0) | (klass >= nclasses)] = nclasses
    number, = yield [Lanes(frequencies, klass, words, state)]
    width = low_bits.astype(np.int32).take(klass)
    begin = np.cumsum(width, dtype=np.int64)
    need(begin[-1] == nbits, "the low bits of CLOSE and its classes")
    begin -= width
    two = low[:-1] | low[1:].astype(np.uint16) << np.uint16(8)
    plain = two.take(begin >> 3) >> (begin & 7).astype(np.uint16) & (np.uint16(1) << width.astype(np.uint16)) - np.uint16(1)
    difference = (number.astype(np.int32) - 7) << width | plain
    far, escaped = klass == nclasses, np.flatnonzero((number == 15) & (klass < nclasses))
    nescapes = cursor.varint()
    need(nescapes == len(escaped), "escapes of CLOSE and their number")
    if nescapes:
        below, above = yield from planes(cursor, nescapes, 2)
        difference[escaped] = below.astype(np.int32) | above.astype(np.int32) << 8
    x = base.astype(np.int32) + difference
    if far.any():
        x[far] = yield from classes_body(cursor, int(np.count_nonzero(far)), dtype, 2, base[far])
    return (x & 0xffff).astype(np.uint16)


def rows_of(cursor, count, what):
    """How the elements lie in rows: columns, column of the first one, number of rows."""
    columns, first = cursor.varint(), cursor.varint()
    need(1 <= columns <= count and first < columns, f"{columns} columns from column {first} on in {what}")
    return columns, first, (first + count - 1) // columns + 1


def small_numbers(cursor, n):
    """Numbers of 16 bits, in planes of their low and high bytes; odd ones stand for numbers below 0."""
    low, high = yield from planes(cursor, n, 2)
    z = low.astype(np.int64) | high.astype(np.int64) << 8
    return np.where(z & 1, -(z >> 1) - 1, z >> 1)


def lowrank_sums(cursor, count, what):
    """f32 predictions of low rank of the elements; columns, column of the first one."""
    columns, first, rows = rows_of(cursor, count, what)
    rank, exponent = cursor.u8(), cursor.u8()
    need(1 <= rank <= 16 and exponent <= 190, f"rank {rank} and exponent {exponent} of {what}")
    total = np.zeros((rows, columns), np.int64)
    for _ in range(rank):
        v = yield from small_numbers(cursor, columns)
        u = yield from small_numbers(cursor, rows)
        total += np.outer(u, v)
    total = total.reshape(-1)[first:first + count].astype(np.int32)  # modulo 2^32
    return total.astype(np.float32) * np.float32(2.0**(exponent - 126)), columns, first


def lowrank_base(cursor, count, dtype, size, base):
    """The base's elements with the prediction added."""
    need(dtype in ("F32", "F16", "BF16") and base is not None and count > 0, "LOWRANK where it may not be")
    sums = (yield from lowrank_sums(cursor, count, "LOWRANK"))[0]
    x = to_f32(base.tobytes(), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = x + sums
    return np.where(np.isfinite(x), np.frombuffer(from_f32(moved, dtype), UINTS[size]), base)


def columns_body(cursor, count, dtype, size):
    need(dtype in ("F32", "F16", "BF16") and count > 0, "COLUMNS where it may not be")
    columns, first, _ = rows_of(cursor, count, "COLUMNS")
    ngroups = cursor.u8()
    need(1 <= ngroups <= 64, f"{ngroups} groups of columns")
    group = (yield from planes(cursor, columns, 1))[0].astype(np.int64)
    need(int(group.max()) >> 1 < ngroups, "a column of no group")
    of = group[(first + np.arange(count)) % columns]
    x = np.zeros(count, UINTS[size])
    for g in range(ngroups):
        members = np.flatnonzero(of >> 1 == g)
        need(len(members) > 0, f"group {g} of columns has no elements")
        inner = Cursor(cursor.take(cursor.varint()))
        x[members] = yield from lossless_elements(inner, len(members), dtype, size, None, inner=True)
        inner.done()
    return x ^ ((of & 1) << (8 * size - 1)).astype(UINTS[size])


def lossless_elements(cursor, count, dtype, size, base, inner=False):
    kind = cursor.u8()
    if kind == 16 and not inner:
        need(base is not None, "EQUAL needs a base")
        return base
    if kind == 17:
        return np.frombuffer(cursor.take(count * size), UINTS[size])
    if kind == 18:
        return (yield from planes_body(cursor, count, dtype, size, base))
    if kind == 19:
        return (yield from classes_body(cursor, count, dtype, size, base))
    if kind == 21:
        return (yield from intervals_body(cursor, count, dtype))
    if kind == 22:
        return (yield from near_body(cursor, count, dtype, base))
    if kind == 23 and not inner:
        moved = yield from lowrank_base(cursor, count, dtype, size, base)
        return (yield from lossless_elements(cursor, count, dtype, size, moved, inner=True))
    if kind == 24 and not inner:
        return (yield from columns_body(cursor, count, dtype, size))
    if kind == 25:
        return (yield from close_body(cursor, count, dtype, base))
    need(kind == 20 and not inner, f"a lossless body of kind {kind}")
    need(base is not None and count > 0, "SPARSE needs a base")
    chunklog = cursor.u8()
    need(chunklog <= 20, f"chunklog {chunklog}")
    nchunks = -(-count // (1 << chunklog))
    bitmap = np.unpackbits((yield from planes(cursor, -(-nchunks // 8), 1))[0], bitorder="little")
    need(not bitmap[nchunks:].any(), "a bit beyond the last chunk")
    differs = np.repeat(bitmap[:nchunks] != 0, 1 << chunklog)[:count]
    x = base.copy()
    x[differs] = yield from lossless_elements(cursor, int(differs.sum()), dtype, size, base[differs], inner=True)
    return x


def lossless_body(body, count, dtype, base):
    """A decoder: the elements of a lossless tile, as unsigned integers; base: bytes in the same dtype, or None."""
    size = SIZES.get(dtype, 1)
    if base is not None:
        base = np.frombuffer(base, UINTS[size])
    cursor = Cursor(body)
    x = yield from lossless_elements(cursor, count, dtype, size, base)
    cursor.done()
    return x.astype(UINTS[size], copy=False)


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


# What transformers takes first, and what diffusers does; other names come after these.
USUAL = ("model.safetensors", "model.safetensors.index.json")
USUAL_DIFFUSERS = ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors")


def is_variant(name, names):
    """STEM.fp16.safetensors where STEM.safetensors is there too; with shards the variant comes before the number."""
    found = re.fullmatch(r"(.+)\.[^./]+?(-\d{5}-of-\d{5})?\.safetensors", name)
    return bool(found) and f"{found[1]}{found[2] or ''}.safetensors" in names


def folder_files(path):
    """The .safetensors files of one folder that are its model, as the program chooses them."""
    names = sorted(os.listdir(path))
    order = USUAL + USUAL_DIFFUSERS
    with contextlib.suppress(OSError, ValueError, AttributeError):
        with builtins.open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            order = USUAL_DIFFUSERS + USUAL if "_class_name" in json.load(file) else order
    first = next((name for name in order if name in names), None)
    if first is None:
        indexes = [name for name in names if name.endswith(".safetensors.index.json") and not name.startswith("adapter_model")]
        first = indexes[0] if len(indexes) == 1 else None
    if first and first.endswith(".json"):
        with builtins.open(os.path.join(path, first), encoding="utf-8") as file:
            return sorted(set(json.load(file)["weight_map"].values()))
    if first:
        return [first]
    files = [name for name in names if name.endswith(".safetensors") and not is_variant(name, names)]
    return [name for name in files if len(files) == 1 or name != "consolidated.safetensors"]


def safetensors_files(path):
    """[(file, what comes before the names of its tensors)]: the folder's model, and those of the folders in it."""
    if not os.path.isdir(path):
        return [(path, "")]
    found = []
    for where, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if os.path.relpath(where, path).count(os.sep) < 2 else []
        prefix = "" if where == path else os.path.relpath(where, path).replace(os.sep, "/") + "/"
        if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
            found += [(os.path.join(where, name), prefix) for name in folder_files(where)]
    if not found:
        raise Error(f"{path}: has no .safetensors files (PyTorch's own files are read by `deltazoo restore` only)")
    return found


def is_marked(path):
    """A safetensors file that deltazoo restored and marked."""
    try:
        with builtins.open(path, "rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0]
            mark = json.loads(file.read(length)).get("__metadata__", {}).get("deltazoo") if length <= 100 << 20 else None
            return mark is not None and json.loads(mark).get("kind") != "vector"
    except (OSError, ValueError, AttributeError, struct.error):
        return False


def is_mark_file(path, file=None, size=None):
    """A restored model's deltazoo.json; with `file`: one that lists a file of this name and size."""
    try:
        with builtins.open(path, "rb") as stream:
            mark = json.load(stream)
        return mark.get("kind") == "restored" and (file is None or mark["files"].get(file) == size)
    except (OSError, ValueError, AttributeError, KeyError):
        return False


def quoted(text):
    """A JSON string; only what must be is escaped."""
    return '"' + "".join(f"\\{c}" if c in '"\\' else f"\\u{ord(c):04x}" if ord(c) < 32 else c for c in text) + '"'


def share_text(x):
    return f"{x:.3g}" if math.isfinite(x) else "null"


def find_metadata(header):
    """Where the object under "__metadata__" begins, past its brace; None without one. `header`: JSON."""
    depth, at = 0, 0
    while at < len(header):
        c = header[at:at + 1]
        if c == b'"':
            after = string_end(header, at)
            found = re.compile(rb"\s*:\s*(\{?)").match(header, after)
            if depth == 1 and header[at:after] == b'"__metadata__"' and found:
                return found.end() if found[1] else None
            at = after
            continue
        depth += (c in b"{[") - (c in b"}]")
        at += 1
    return None


def string_end(header, at):
    """Past a JSON string that begins at `at`."""
    found = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S).match(header, at)
    return found.end() if found else len(header)


def marked_header(blob, line):
    """A safetensors header with the mark first among its metadata, in the place of an earlier one."""
    header = blob[8:].rstrip(b" ")
    at, entry = find_metadata(header), b'"deltazoo":' + quoted(line).encode()
    if at is None:
        start = header.index(b"{") + 1
        rest = header[start:]
        header = b'{"__metadata__":{' + entry + (b"}" if rest.lstrip().startswith(b"}") else b"},") + rest
    else:
        rest = header[at:]
        if rest.startswith(b'"deltazoo":"'):
            rest = re.sub(rb"^\s*,?", b"", rest[string_end(rest, len(b'"deltazoo":')):])
        header = header[:at] + entry + (b"" if rest.lstrip().startswith(b"}") else b",") + rest
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


class Base:
    """The tensors of a model on disk, a .safetensors file or a directory with some: base[name] is (dtype, shape, bytes)."""

    def __init__(self, path):
        self.path, self.tensors = os.fspath(path), {}
        self.paths = [os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names] or [self.path]
        for file, prefix in safetensors_files(self.path):
            try:
                raw = np.memmap(file, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise Error(f"{file}: {getattr(error, 'strerror', None) or error}") from None
            need(len(raw) >= 8, f"{file}: no safetensors file")
            length = struct.unpack("<Q", raw[:8].tobytes())[0]
            try:
                entries, data = safetensors_header(raw[:8 + length].tobytes(), file)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Damaged(f"{file}: its header: {error}") from None
            for name, dtype, shape, begin, end in entries:
                need(data + end <= len(raw), f"{file}: {name} is cut off")
                self.tensors.setdefault(prefix + name, (dtype, shape, raw[data + begin:data + end]))

    def __getitem__(self, name):
        return self.tensors[name]


def bytes_of(array, dtype):
    """The bytes of a tensor in memory: bytes, a numpy array or a torch tensor, also of f32 where numpy lacks the type."""
    if hasattr(array, "detach"):  # torch
        import torch
        array = array.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    if isinstance(array, (bytes, bytearray, memoryview)):
        return np.frombuffer(array, np.uint8)
    array = np.ascontiguousarray(array)
    if array.dtype == np.float32 and dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
        return np.frombuffer(from_f32(array.reshape(-1), dtype), np.uint8)
    return array.reshape(-1).view(np.uint8)


def array_of(raw, dtype, shape, framework):
    if framework == "np":
        if dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
            return np.array(to_f32(raw.tobytes(), dtype)).reshape(shape)
        return raw.view(NUMPY.get(dtype, np.uint8)).reshape(shape if dtype in NUMPY else -1)
    if framework != "pt":
        raise Error(f"framework {framework!r}: 'np' or 'pt'")
    import torch
    if dtype not in TORCH or not hasattr(torch, TORCH[dtype]):
        raise Error(f"this torch has no type for {dtype} (restore_bytes gives its bytes)")
    kind = getattr(torch, TORCH[dtype])
    if dtype == "F4":  # a byte of torch's has two
        shape = (*shape[:-1], shape[-1] // 2)
    return torch.from_numpy(np.array(raw)).view(kind).reshape(shape) if len(raw) else torch.empty(shape, dtype=kind)


NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2",
         "U8": "u1", "BOOL": "?", "C64": "<c8"}
TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I64": "int64",
         "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
         "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2"}


# ----------------------------------------------------------------------------------------------------------------------------------------- archive


def fits(tensor, base):
    """A tensor can be coded against this one of the base: the same type or two floats, and the same dimensions beyond the first."""
    return (tensor.dtype == base.dtype or tensor.dtype in FLOATS and base.dtype in FLOATS) and tensor.ndim == base.ndim and tensor.shape[1:] == base.shape[1:]


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


class TensorInfo(typing.NamedTuple):
    """What an archive tells of a task's tensor. sparsity, bits and kept count for the policy ultradelta only."""

    name: str
    dtype: str
    shape: tuple
    policy: str
    nbytes: int
    stored_bytes: int
    sparsity: float
    bits: int
    kept: int


def has_tokens(shape):
    """A row for each token: at least 4,096, twice as many as columns."""
    return len(shape) == 2 and shape[0] >= 4096 and shape[0] >= 2 * shape[1]


def is_embedding(name):
    """By the last word of its name but "weight"; the program looks at its place in the model too (src/plan/structure.c)."""
    words = name.split(".")
    word = words[-2] if len(words) > 1 and words[-1] in ("weight", "kernel", "w") else words[-1]
    if "pos" in word.split("_") or "position" in word or "positions" in word:
        return False
    return "embed" in word or word in ("wte", "emb", "embs", "embd", "vocab", "tokens")


def quality_within(sums, share):
    """What `quality` gives, of sums of energies (delta, base, inner product, restored, noise), with this share of the limits."""
    delta, base, inner, restored, noise = sums
    if delta == 0:
        return 1.0, 1.0, 0.0, 0.0, delta, base, "exact"
    if math.isnan(delta):
        return (math.nan,) * 6 + ("unknown",)
    gain = inner / delta
    to_delta, to_base = noise / (gain * gain * delta) if gain > 0 else math.inf, noise / base if base > 0 else math.nan
    most = TOLERANCE * share
    fits = [v for v, most_delta, most_base, least in VERDICTS if to_delta <= most * most_delta and gain >= least and not to_base > most * most_base]
    return inner / math.sqrt(restored * delta) if restored > 0 else 0.0, gain, to_delta, to_base, delta, base, fits[0]


class Archive:
    """An open archive; `with` closes it. path: of a file, or a file object that can seek and read bytes (remote ones: only what is needed is read)."""

    def __init__(self, path):
        remote = hasattr(path, "read")
        self.path = str(getattr(path, "name", None) or getattr(path, "path", None) or path) if remote else os.fspath(path)
        try:
            self.file = h5py.File(path if remote else self.path, "r")
        except OSError as error:
            reason = "there is no such file" if not remote and not os.path.exists(self.path) else "not an HDF5 file, or one that is damaged: " + str(error).split("(")[-1].rstrip(")")
            raise Error(f"{self.path}: {reason}") from None
        with about(self.path):
            self._open()

    def _open(self):
        need(text(self.file.attrs.get("format", b"")) == "deltazoo", "not a deltazoo archive")
        version = int(self.file.attrs["format_version"])
        need(1 <= version <= 4, f"format version {version}, and this reader knows versions 1 to 4: a newer deltazoo.py is needed")
        self.listed = [Tensor(row) for row in self.file["tensors"][()]]
        keys = [(t.name, t.dtype, t.shape, t.nbytes) for t in self.listed]
        need(len(set(keys)) == len(keys), "/tensors lists a tensor twice")
        self._read_base()
        self.blobs = self.file["blobs/index"][()]
        self.blob_cache, self.row_cache, self.named_cache, self.whole_cache, self.digested, self.model = {}, {}, {}, {}, set(), None

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read_base(self):
        rows = self.file["base/tensors"][()]
        tiles = self.file["base/tiles"][()]
        need(all(int(r["tensor"]) < len(self.listed) for r in rows), "/base/tensors: a row beyond /tensors")
        self.base = [self.listed[int(r["tensor"])] for r in rows]
        self.base_named = {t.name: t for t in self.base}
        need(len(self.base_named) == len(self.base), "/base/tensors: a name occurs twice")
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
        self.base_name = text(self.file["base"].attrs.get("name", b""))
        self.stored = text(self.file["base"].attrs.get("stored", b"")) or None
        need(hasher.hexdigest() == self.fingerprint, "the base's fingerprint is not that of its digests")

    def base_text(self):
        """Which model the base is, for messages."""
        return (f"'{self.base_name}' " if self.base_name else "") + f"(fingerprint {self.fingerprint})"

    @property
    def tasks(self):
        """The tasks' names."""
        found = self.file["tasks"]
        return sorted(name for name in found if isinstance(found.get(name, getlink=True), h5py.HardLink) and isinstance(found[name], h5py.Group) and
                      ("index" in found[name] or "payload" in found[name] or "record" in found[name].attrs))  # others are of other tools

    def task(self, name):
        """The numbers of a task: sparsity, bits, seed, gamma, trace_norm, source_bytes, ... (FORMAT.md "Task attributes"); score: what an evaluation made
        of it (deltazoo tune), a dict, or None."""
        group = self._group(name)
        record = {key: value.item() for key, value in zip(RECORD.names, record_of(group))}
        return {"recipe": text(group.attrs["recipe"]), "score": score_of(group), **{k: v for k, v in record.items() if not k.endswith("_blob")}}

    def tensors(self, task):
        """A TensorInfo of each tensor of a task, in the order of its files."""
        return [TensorInfo(r.tensor.name, r.tensor.dtype, r.tensor.shape, POLICIES[r.policy], r.tensor.nbytes, r.length,
                           *((float(r.sparsity), r.bits, r.kept) if r.policy == ULTRADELTA else (0.0, 0, 0))) for r in self._rows(task) if r.policy != ABSENT]

    def _group(self, task):
        if task not in self.tasks:
            raise Error(f"{self.path}: no task {task!r}; it has {', '.join(self.tasks)}")
        return self.file["tasks"][task]

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
        if name in self.row_cache:
            need(self.row_cache[name] is not None, f"{name}: its sources refer to each other in a circle")
            return self.row_cache[name]
        group = self._group(name)
        self.row_cache[name] = None
        try:
            self._read_rows(name, group)
        finally:
            if self.row_cache[name] is None:
                del self.row_cache[name]
        return self.row_cache[name]

    def _sources(self, name, group):
        """The rows of the tasks that a task's rows refer to, by number from 1."""
        names = text(group.attrs.get("sources", b"")).split("/") if "sources" in group.attrs else []
        need(len(set(names)) == len(names) and all(n in self.tasks for n in names), f"{name}: its sources {names} are not tasks of the archive")
        return [None] + [self._rows(n) for n in names]

    def _read_rows(self, name, group):
        payload, record, sources = group["payload"], record_of(group), self._sources(name, group)
        rows, at, in_base, names = [], 0, set(), set()
        absent = False
        for number, values in enumerate(group["index"][()]):
            row = Row(self, payload, record, values, at, sources)
            need(row.tensor.name not in names, f"{name}: {row.tensor.name} occurs twice")
            names.add(row.tensor.name)
            need(row.policy == ABSENT or not absent, f"{name}: row {number} follows an absent tensor")
            absent = row.policy == ABSENT
            if row.base is not None:
                need(row.policy != ABSENT or row.base_number not in in_base or row.up, f"{name}: {row.tensor.name} is absent, and a row's base")
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
        self.row_cache[name], self.named_cache[name] = rows, {row.tensor.name: row for row in rows}

    def _named(self, task):
        """The rows by their tensors' names."""
        self._rows(task)
        return self.named_cache[task]

    def _row(self, task, name):
        """The row that tells how a tensor is restored, and its own."""
        row = self._named(task).get(name)
        if row is not None and row.policy != ABSENT:
            return row.tied or row, row
        raise Error(f"{self.path}: task {task} has no tensor {name!r}; tensors({task!r}) lists what it has")

    # -- the base

    def _digests(self, number, raw, where, wrong=Error):
        """The tensor's bytes are those of the base."""
        tensor = self.base[number]
        for (begin, end), (hi, lo) in zip(tiling(tensor.count), self.base_digests[number]):
            digest = xxhash.xxh3_128_intdigest(raw[begin * tensor.size:end * tensor.size])
            if digest != hi << 64 | lo:
                raise wrong(f"{where}: {tensor.name}, element {begin} and on, is not the base's: another model than {self.base_text()}, which the archive was made from")

    def _open_base(self, base):
        """A model whose tensors have the names, dtypes and shapes of the base's. The last one is remembered."""
        if not isinstance(base, Base):
            if self.model is not None and self.model.path == os.fspath(base):
                return self.model
            base = Base(base)
        if base is not self.model:
            wrong = [t.name for t in self.base if t.name not in base.tensors or base[t.name][:2] != (t.dtype, t.shape)]
            wrong += [name for name in base.tensors if name not in self.base_named]
            need(not wrong, f"{base.path}: not the base of this archive, {self.base_text()}: {len(wrong)} tensors differ in name, dtype or shape, first {', '.join(wrong[:3])}")
            self.model, self.digested = base, set()
        return base

    def _reference(self, row, base):
        """The bytes of what a row is coded against: a tensor of the base (None where there is none), or another row as restored, the oldest first."""
        under = [row]
        while under[-1].up is not None:
            under.append(under[-1].up)
        raw = self._base_of(under[-1], base)
        for other in reversed(under[1:]):
            raw = other.restore(raw)
        return raw

    def _stored_base(self, number):
        """A tensor of the base that the archive holds."""
        tensor = self.base[number]
        row, own = self._row(self.stored, tensor.name)
        need((own.tensor.dtype, own.tensor.shape) == (tensor.dtype, tensor.shape) and row.policy == LOSSLESS and row.base is None and row.up is None,
             f"the stored base: {tensor.name} is not the base's, or not stored by itself")
        raw = row.restore(None)
        self._digests(number, raw, "the stored base", Damaged)
        return raw

    def _base_of(self, row, base):
        """The bytes of the base's tensor of a row, None where it has none; `base` is a path, a Base, or the tensor itself; None: as the archive holds it."""
        if row.base is None:
            return None
        if base is None and self.stored is not None:
            return self._stored_base(row.base_number)
        if base is None:
            raise Error(f"{row.tensor.name} needs the base's {row.base.name} ({row.base.dtype}, {list(row.base.shape)}): give base=, that tensor or a path")
        if isinstance(base, (str, os.PathLike, Base)):
            model = self._open_base(base)
            raw = model[row.base.name][2]
            if row.base_number not in self.digested:
                self._digests(row.base_number, raw, model.path)
                self.digested.add(row.base_number)
            return raw
        raw = bytes_of(base, row.base.dtype)
        need(len(raw) == row.base.nbytes, f"base has {len(raw)} bytes, {row.base.name} ({row.base.dtype}, {list(row.base.shape)}) has {row.base.nbytes}")
        self._digests(row.base_number, raw, "base")
        return raw

    # -- tensors

    def restore_bytes(self, task, name, base=None):
        """A tensor's bytes, a numpy array of u8. base: a path, a Base, or the base's tensor; not needed for what has none. A tensor of the task's files
        that is kept as parts (its base has these as tensors) is put together; base is then a path or a Base."""
        whole = self._whole(task, name)
        if whole:
            return np.concatenate([self.restore_bytes(task, row.tensor.name, base) for row in whole[2]])
        row, wanted = self._row(task, name)
        with about(f"{self.path}: task {task}"):
            raw = row.restore(self._reference(row, base))
            need(len(raw) == wanted.tensor.nbytes, f"{name}: has {len(raw)} bytes")
        return raw

    def restore(self, task, name, base=None, framework="np"):
        """A tensor as a numpy array (BF16 and F8 as the f32 of the same values, since numpy has no such types), or with framework="pt" a torch tensor."""
        whole = self._whole(task, name)
        if whole:
            return array_of(self.restore_bytes(task, name, base), *whole[:2], framework)
        _, row = self._row(task, name)
        return array_of(self.restore_bytes(task, name, base), row.tensor.dtype, row.tensor.shape, framework)

    def delta_sparse(self, task, name):
        """(positions in the flat tensor, ascending; f32 values) of what is not 0 in a lossy tensor's delta. No base is needed."""
        row, _ = self._row(task, name)
        if row.policy != ULTRADELTA:
            raise Error(f"{self.path}: task {task}: {name} is {POLICIES[row.policy]}, not ultradelta: delta(..., base=...) gives the difference")
        if row.up is not None:
            raise Error(f"{self.path}: task {task}: {name} is coded against another task: delta(..., base=...) gives its difference from the base")
        where, what = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        with about(f"{self.path}: task {task}"):
            for begin, _, positions, values in row.deltas():
                positions = np.flatnonzero(values) if positions is None else positions[values != 0]
                where.append(positions + begin)
                what.append(values[values != 0])
        return np.concatenate(where), np.concatenate(what)

    def delta(self, task, name, base=None):
        """What is added to the base, gamma and scale applied: a dense f32 array. A tensor that is not lossy needs `base`: its delta is the difference."""
        row, wanted = self._row(task, name)
        if row.policy == ULTRADELTA and row.up is None:
            dense = np.zeros(wanted.tensor.count, np.float32)
            positions, values = self.delta_sparse(task, name)
            dense[positions] = values
            return dense.reshape(wanted.tensor.shape)
        if row.base is None or wanted.tensor.dtype not in FLOATS:
            raise Error(f"{self.path}: task {task}: {name} has no delta ({wanted.tensor.dtype}, base {row.base.name if row.base else 'none'}): restore it")
        dense = to_f32(self.restore_bytes(task, name, base).tobytes(), wanted.tensor.dtype).copy()
        with about(f"{self.path}: task {task}"):
            raw = self._base_of(row, base)
        common = min(row.base.count, row.tensor.count)
        dense[:common] -= to_f32(raw[:common * row.base.size].tobytes(), row.base.dtype)
        dense[common:] = 0
        return dense.reshape(wanted.tensor.shape)

    # -- models

    def restore_model(self, task, base, out, force=False):
        """Makes all files of a task's model in the directory `out`. Returns their paths in it; nothing is left of a restore that fails. Where tensors are lossy,
        their files' metadata and deltazoo.json say so."""
        if os.fspath(out).endswith(".safetensors"):
            raise Error(f"{out}: a model is made as a folder here: give a folder's name; the program's restore -o makes one file")
        self._rows(task)
        with about(f"{self.path}: task {task}"):
            need(base is not None or self.stored is not None or not self.base, "the archive does not hold its base: base= (--base) is needed")
            need(base is None or self.base, "has no base: leave out base= (--base)")
            files, base = self._marked_files(task), None if base is None else self._open_base(base)
        if os.path.isdir(out) and os.listdir(out) and not force:
            raise Error(f"{out}: exists and is not empty (force=True, or --force, replaces an earlier restore's files)")
        unmarked = self._check_replaced(out, files, base)
        made, fresh = [], not os.path.exists(out)
        try:
            for path, kind, blob, size, prefix in files:
                target = os.path.join(out, path)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                if os.path.lexists(target + ".partial"):
                    raise Error(f"{target}.partial: exists and is not this restore's; move it away first")
                made.append(target)
                with builtins.open(target + ".partial", "xb") as file:
                    file.write(blob)
                    for raw in self._contents(task, path, kind, blob, size, prefix, base):
                        file.write(raw)
            for target in unmarked:
                if not filecmp.cmp(target, target + ".partial", shallow=False):
                    raise Error(f"{target}: {FOREIGN}")
            for target in made:
                os.replace(target + ".partial", target)
            old_mark = os.path.join(out, MARK_FILE)
            if old_mark not in made and is_mark_file(old_mark):
                os.remove(old_mark)
        except BaseException:
            for target in made:
                with contextlib.suppress(OSError):
                    os.remove(target + ".partial")
            if fresh:
                for folder, _, _ in os.walk(out, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
            raise
        return [path for path, *_ in files if path != MARK_FILE]

    def _noise(self, rows):
        """Expected |restored - true| / |true| of the delta of the lossy tensors together; nan where the archive does not say (format version 1)."""
        total = energy = 0.0
        for row in (row.values() for row in rows if row.policy != TIED):
            if row.policy == ULTRADELTA or row.was_lossy():
                gain, here = float(row.gamma) * row.gain, float(row.common) * row.delta_rms * row.delta_rms
                total += here * ((1 - gain) * (1 - gain) + gain * gain * row.nsr)
                energy += here
        return math.sqrt(total / energy) if energy > 0 else math.nan

    def quality(self, task, name=None):
        """(cosine, gain, noise to delta, noise to base, energy of the delta, of the base, verdict) that are expected of the lossy tensors of a task together, or of one
        tensor (METHODS.md "Noise"); nan and "unknown" where the archive does not say (format version 1)."""
        rows = [row.values() for row in self._rows(task) if row.policy != TIED] if name is None else [self._row(task, name)[1].values()]
        tables = {tuple(t.shape) for t in (row.tensor for row in self._rows(task)) if has_tokens(t.shape) and is_embedding(t.name)}
        sums = {False: [0.0] * 5, True: [0.0] * 5}  # matrices; embeddings and heads of tokens
        for row in rows:
            if row.policy != ULTRADELTA and not row.was_lossy():
                continue
            gain, energy = float(row.gamma) * row.gain, float(row.common) * row.delta_rms * row.delta_rms
            if energy == 0:
                continue
            shape, words = tuple(row.tensor.shape), row.tensor.name
            own = sums[shape in tables and (is_embedding(words) or "head" in words)]
            for k, more in enumerate((energy, float(row.common) * row.base_rms * row.base_rms, gain * energy, gain * gain * (1 + row.nsr) * energy if gain else 0.0,
                                      gain * gain * row.nsr * energy if gain else 0.0)):
                own[k] += more
        whole = quality_within([a + b for a, b in zip(*sums.values())], 1)
        if whole[-1] in ("exact", "unknown"):
            return whole
        order = ["exact", *(v for v, *_ in VERDICTS)]
        return whole[:-1] + (max((quality_within(sums[False], 1)[-1], quality_within(sums[True], VOCABULARY_SHARE)[-1]), key=order.index),)

    def _mark(self, task, lossy=True):
        """What a restored model that is not the original says of itself, as [(key, JSON text)]."""
        record = record_of(self._group(task))
        method = re.search(r"^method: (.*)$", self.blob(int(record["recipe_blob"])).decode(errors="replace"), re.M)
        parameters = int(record["lossy_parameters"])
        kept = int(record["lossy_kept"]) / parameters if parameters else math.nan
        return [("kind", '"restored"'), ("lossy", "true" if lossy else "false"), ("task", quoted(task)), ("method", quoted(method[1] if method else "ultradelta")),
                ("kept", share_text(kept)), ("noise", share_text(self._noise(self._rows(task)))), ("base", quoted(self.base_name)),
                ("base_fingerprint", quoted(self.fingerprint)), ("compressed_by", quoted(text(self.file.attrs["generator"])))]

    def _marked_files(self, task):
        """The files of a task as they are restored: [(path, kind, blob, size, prefix)]. Headers of files with lossy tensors carry a mark, and deltazoo.json is added."""
        named = {row.tensor.name: row.tied or row for row in self._rows(task) if row.policy != ABSENT}
        lossy = {name for name, row in named.items() if row.values().policy in (ULTRADELTA, DROP) or row.values().was_lossy()}
        lossy |= {name for name, (_, _, rows) in self._wholes(task).items() if any(row.tensor.name in lossy for row in rows)}
        files = self._files(task)
        if not lossy:
            return files
        mark, marked = self._mark(task), []
        line = "{" + ",".join(f'"{key}":{value}' for key, value in mark) + "}"
        for path, kind, blob, size, prefix in files:
            if kind == 0 and path == MARK_FILE:
                continue
            if kind != 0 and any(prefix + name in lossy for name, *_ in safetensors_header(blob, path)[0]):
                size, blob = size - len(blob), marked_header(blob, line)
                size += len(blob)
            marked.append((path, kind, blob, size, prefix))
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.stat(self.path).st_mtime) if os.path.exists(self.path) else 0))
        mark += [("restored_by", quoted(f"deltazoo {__version__}")), ("format_version", str(int(self.file.attrs["format_version"]))),
                 ("archive", quoted(os.path.basename(self.path))), ("archive_date", quoted(date)), ("damaged", "0"), ("note", quoted(NOTE))]
        listed = ",".join(f"\n    {quoted(path)}: {size}" for path, _, _, size, _ in marked)
        whole = ("{\n  " + ",\n  ".join(f'"{key}": {value}' for key, value in mark) + ',\n  "files": {' + listed + "\n  }\n}\n").encode()
        return marked + [(MARK_FILE, 0, whole, len(whole), "")]

    def _check_replaced(self, out, files, base):
        """Refuses what is never replaced: the archive, files of the base, whatever deltazoo did not make. Returns files that carry no mark and may be those of
        an exact model: they are replaced only by their own bytes. The same rules as in the C program (src/base/overwrite.h)."""
        unmarked = []
        for path, _, blob, size, _ in files:
            target = os.path.join(out, path)
            if not os.path.exists(target):
                continue
            if os.path.exists(self.path) and os.path.samefile(target, self.path):
                raise Error(f"{target}: is the archive: nothing is written over it")
            if base is not None and any(os.path.samefile(target, other) for other in base.paths if os.path.exists(other)):
                raise Error(f"{target}: is a file of the model {base.path}: nothing is written over it")
            if path == MARK_FILE:
                if not is_mark_file(target):
                    raise Error(f"{target}: {FOREIGN}")
                continue
            if os.path.getsize(target) == 0 or is_marked(target) or is_mark_file(os.path.join(out, MARK_FILE), path, os.path.getsize(target)):
                continue
            if not os.path.isfile(target) or os.path.getsize(target) != size:
                raise Error(f"{target}: {FOREIGN}")
            unmarked.append(target)
        return unmarked

    def _contents(self, task, path, kind, blob, size, prefix, base):
        """What follows the blob in a file, tensor by tensor."""
        if kind == 0:
            need(len(blob) == size, f"{self.path}: task {task}: {path} has {len(blob)} bytes, not {size}")
            return
        entries, data = safetensors_header(blob, path)
        entries = [(prefix + name, *rest) for name, *rest in entries]
        need(data == len(blob), f"{self.path}: task {task}: the blob of {path} is not its header")
        at, named, wholes = 0, {row.tensor.name: row for row in self._rows(task) if row.policy != ABSENT}, self._wholes(task)

        def parts_of(name):
            need(name in named or name in wholes, f"{self.path}: task {task}: {name} of {path} is not in its index")
            return [named[name]] if name in named else wholes[name][2]

        lossy = [row for name, *_ in entries for row in parts_of(name) if row.policy == ULTRADELTA]
        for name, dtype, shape, begin, end in entries:
            need(begin == at, f"{self.path}: task {task}: {path} has a gap before {name}")
            need(name in wholes or (named[name].tensor.dtype, named[name].tensor.shape, named[name].tensor.nbytes) == (dtype, shape, end - begin),
                 f"{self.path}: {path} and the index disagree on {name}")
            for row in parts_of(name):
                if lossy and row is lossy[0]:
                    lossy = ahead(lossy)
                yield self.restore_bytes(task, row.tensor.name, base)
            at = end
        need(data + at == size, f"{self.path}: task {task}: {path} has {data + at} bytes, not {size}")

    def _files(self, name):
        """[(path, kind, blob, size, prefix of its tensors' names)], the paths checked."""
        return self._listed(name)[0]

    def _wholes(self, name):
        """{name: (dtype, shape, [rows])} of the tensors of a task's files that are kept as parts, the tensors of these rows one after another."""
        if name not in self.whole_cache:
            files, fused = self._listed(name)
            rows, wholes = self._rows(name), {}
            named = {row.tensor.name for row in rows if row.policy != ABSENT}
            for path, kind, blob, size, prefix in files:
                ranges = fused.get(path, [])
                wanted = [entry for entry in safetensors_header(blob, path)[0] if prefix + entry[0] not in named] if ranges else []
                need(len(wanted) == len(ranges), f"{name}: {path} has {len(ranges)} tensors kept as parts, and {len(wanted)} that the index has not")
                need(all(a + b <= c for (a, b), (c, _) in zip(ranges, ranges[1:])), f"{name}: parts of {path} overlap")
                for (tensor, dtype, shape, begin, end), (first, count) in zip(wanted, ranges):
                    parts = rows[first:first + count]
                    need(count > 0 and len(parts) == count and all(r.policy != ABSENT and r.tensor.dtype == dtype for r in parts) and
                         sum(r.tensor.nbytes for r in parts) == end - begin, f"{name}: the parts of {tensor} are not its own")
                    wholes[prefix + tensor] = dtype, shape, parts
            self.whole_cache[name] = wholes
        return self.whole_cache[name]

    def _whole(self, task, name):
        """Of _wholes; None for a tensor that the index has: then the list of files is not needed, which may be damaged."""
        return None if name in self._named(task) else self._wholes(task).get(name)

    def _listed(self, name):
        """The files, and {path: [(first row, number of rows)]} of those with tensors kept as parts."""
        files, fused = [], {}
        listed = Cursor(self.blob(int(record_of(self._group(name))["files_blob"])))
        while listed.at < len(listed.data):
            raw = listed.text()
            path = os.fsdecode(raw)
            need(path and not path.startswith("/") and ".." not in path.split("/"), f"{name}: path {path!r}")
            kind, blob, size = listed.u8(), listed.varint(), listed.varint()
            need(kind in (0, 1, 2, 3), f"{name}: {path} is of kind {kind}")
            prefix = os.fsdecode(raw[:listed.varint()]) if kind >= 2 else ""
            need(prefix.endswith("/") if prefix else kind != 2, f"{name}: {path} has the prefix {prefix!r}")
            if kind == 3:
                fused[path] = [(listed.varint(), listed.varint()) for _ in range(listed.varint())]
            files.append((path, kind, self.blob(blob), size, prefix))
        need(len({f[0] for f in files}) == len(files), f"{name}: a path occurs twice")
        return files, fused

    def _check_files(self, name, rows):
        """The headers agree with the index."""
        listed = {}
        for path, kind, blob, size, prefix in self._files(name):
            if kind == 0:
                need(len(blob) == size, f"{name}: {path} has {len(blob)} bytes, not {size}")
                continue
            entries, data = safetensors_header(blob, path)
            need(data == len(blob), f"{name}: the blob of {path} is not its header")
            at = 0
            for tensor, dtype, shape, begin, end in entries:
                need(begin == at, f"{name}: {path} has a gap before {tensor}")
                tensor = prefix + tensor
                need(tensor not in listed, f"{name}: {tensor} is in two files")
                listed[tensor] = (dtype, shape, end - begin)
                at = end
            need(data + at == size, f"{name}: {path} has {data + at} bytes, not {size}")
        wholes = self._wholes(name)
        parts = [row.tensor.name for _, _, rows in wholes.values() for row in rows]
        need(len(set(parts)) == len(parts) and not any(part in listed for part in parts), f"{name}: a part belongs to two tensors")
        index = {r.tensor.name: (r.tensor.dtype, r.tensor.shape, r.tensor.nbytes) for r in rows if r.policy != ABSENT}
        for part in parts:
            del index[part]
        index.update({tensor: (dtype, shape, sum(r.tensor.nbytes for r in rows)) for tensor, (dtype, shape, rows) in wholes.items()})
        need(listed == index, f"{name}: the files' headers and the index disagree")

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
        for name in self.tasks:
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
        return len(self.tasks), ntensors, nblocks


def ahead(rows):
    """Decodes what the first of these lossy rows keep, side by side, as many as there is room for. Returns the others."""
    n = kept = 0
    while n == 0 or n < len(rows) and kept + rows[n].kept <= 1 << 23:
        kept += rows[n].kept
        n += 1
    with contextlib.suppress(Damaged):  # reported with its tensor's name on restore
        bodies = [row.kept_bodies() for row in rows[:n]]
        found = iter(together([body for row in bodies for body in row]))
        for row, mine in zip(rows, bodies):
            row.found = [next(found) for _ in mine]
    return rows[n:]


class Row:
    """One tensor of a task."""

    def __init__(self, archive, payload, record, values, offset, sources):
        need(int(values["tensor"]) < len(archive.listed), "an index row beyond /tensors")
        self.payload = payload
        self.tensor = archive.listed[int(values["tensor"])]
        self.base_number, self.up, self.depth = int(values["base"]), None, 0
        self.policy = int(values["policy"])
        if "source" in values.dtype.names and values["source"]:
            self._refer(sources, int(values["source"]))
        need(self.base_number == NONE or self.base_number < len(archive.base), f"{self.tensor.name}: a base row beyond /base/tensors")
        self.base = None if self.base_number == NONE else archive.base[self.base_number]
        self.bits = int(values["bits"])
        self.offset, self.length, self.kept = offset, int(values["length"]), int(values["kept"])
        self.lo, self.step, self.scale = np.float32(values["lo"]), np.float32(values["step"]), np.float32(values["scale"])
        self.sparsity = np.float32(values["sparsity"])
        self.nsr, self.gain, self.delta_rms, self.base_rms = (float(values[f]) if f in values.dtype.names else math.nan for f in ("nsr", "gain", "delta_rms", "base_rms"))
        self.digest = int(values["digest_hi"]) << 64 | int(values["digest_lo"]) if "digest_hi" in values.dtype.names else 0
        self.gamma = np.float32(record["gamma"])
        self.key = xxhash.xxh64_intdigest(self.tensor.name.encode(), int(record["key"]))
        self.tied, self.found, self.read, self.predicted = None, None, None, {}
        need(self.policy <= TIED, f"{self.tensor.name}: policy {self.policy}")
        need(self.base is not None or self.up is not None or self.policy in (LOSSLESS, TIED), f"{self.tensor.name}: its policy needs a base")
        need(self.base is None or self.up is not None or fits(self.tensor, self.base), f"{self.tensor.name}: its base is of another type or shape, {self.base}")
        if self.policy == ULTRADELTA:
            need(1 <= self.bits <= 8 or self.bits in (16, 17, 18, 19), f"{self.tensor.name}: {self.bits} bits")
            need(self.tensor.dtype in FLOATS and (self.up is not None or self.base.dtype in FLOATS), f"{self.tensor.name}: lossy, but {self.tensor.dtype}")
        in_base = 0 if self.base is None else min(self.tensor.count, self.base.count)
        self.borders = [(begin, min(end, in_base), True) for begin, end in tiling(self.base.count) if begin < in_base] if in_base else []
        self.borders += [(in_base + b, in_base + e, self.up is not None) for b, e in tiling(self.tensor.count - in_base)]
        self.common = in_base if self.up is None else self.tensor.count
        self.under = self.base if self.up is None else self.up.tensor
        if self.policy in (DROP, EQUAL):
            need(self.common == self.tensor.count, f"{self.tensor.name}: the base lacks a part of it")
        need(self.policy in (LOSSLESS, ULTRADELTA) or self.length == 0, f"{self.tensor.name}: a region where none is due")

    def _refer(self, sources, number):
        """The row of another task that this one is coded against, and the base under it."""
        need(number < len(sources), f"{self.tensor.name}: there is no source {number}")
        need(self.policy in (LOSSLESS, ULTRADELTA, EQUAL), f"{self.tensor.name}: a source, and policy {self.policy}")
        need(self.base_number < len(sources[number]), f"{self.tensor.name}: refers to a row that is not there")
        up = sources[number][self.base_number]
        self.up = up.tied or up
        need(self.up.policy != ABSENT and (self.up.tensor.dtype, self.up.tensor.shape) == (self.tensor.dtype, self.tensor.shape),
             f"{self.tensor.name}: refers to a tensor of another kind")
        self.base_number, self.depth = self.up.base_number, self.up.depth + 1
        need(self.depth <= 64, f"{self.tensor.name}: more than 64 rows deep")

    def was_lossy(self):
        """It keeps exactly what a lossy coding had restored."""
        return self.policy == LOSSLESS and self.nsr > 0

    def values(self):
        """The row that holds the values: itself, or what it equals."""
        row = self.tied or self
        while row.policy == EQUAL and row.up is not None:
            row = row.up
        return row

    def tiles(self):
        """[(begin, end, has a reference)]"""
        return self.borders if self.policy in (LOSSLESS, ULTRADELTA) else []

    def bodies(self):
        """The tiles' bodies, checksums checked."""
        if self.read is not None:
            return self.read
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

    def kept_body(self, body, count, tile):
        if self.bits in (18, 19) and body[:1] in (b"\x08", b"\x09"):
            need((body[0] == 8) == (tile == 0), "CHANNELS: in another tile than the first")
            body = channel_factors(body, self.tensor.count)[2] if tile == 0 else body[1:]
            if body[:1] == b"\x0a":
                cursor = Cursor(body[1:])
                self.predicted[tile] = yield from lowrank_sums(cursor, count, "PREDICTED")
                body = cursor.rest()
        return (yield from kept_body(body, count, self.bits, self.tile_key(tile), 1 - float(self.sparsity), self.step, self.lo))

    def check(self):
        """Checksums and kept bodies; the number of kept elements."""
        kept = 0
        for k, ((begin, end, shared), body) in enumerate(zip(self.tiles(), self.bodies())):
            if self.policy == ULTRADELTA and shared:
                kept += len(together([self.kept_body(body, end - begin, k)])[0][0])
                self.predicted.clear()
            else:
                need(16 <= body[0] <= 25, f"{self.tensor.name}: a lossless body of kind {body[0]}")
        need(kept == self.kept or self.policy == TIED, f"{self.tensor.name}: {kept} elements are kept, not {self.kept}")
        return kept

    def kept_bodies(self):
        """Decoders of the tiles that have a base, of a lossy tensor."""
        return [self.kept_body(body, end - begin, k)
                for k, ((begin, end, shared), body) in enumerate(zip(self.tiles(), self.bodies())) if shared]

    def deltas(self):
        """(begin, end, positions in the tile or None for all, f32 values) of each tile of a lossy tensor that has a base."""
        found, self.found, kept = self.found or together(self.kept_bodies()), None, 0
        bodies = self.bodies() if self.bits in (18, 19) else []
        factors, stride = channel_factors(bodies[0], self.tensor.count)[:2] if bodies and bodies[0][0] == 8 else (None, 1)
        for k, ((begin, end, _), (positions, levels)) in enumerate(zip(self.tiles(), found)):
            kept += len(positions)
            predicted = self.predicted.pop(k, None)
            scale = self.gamma * self.scale
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                if self.bits >= 17 and (len(positions) or predicted):
                    rotated = np.zeros(end - begin, np.float32)
                    rotated[positions] = levels
                    positions, levels = None, unrotate(rotated, self.tile_key(k))
                    if predicted:
                        need(predicted[1:] == (stride, begin % stride), "PREDICTED: of other rows than the factors")
                        levels, scale = levels * scale + predicted[0], np.float32(1)
                    if bodies and bodies[k][0] in (8, 9):
                        need(factors is not None, "CHANNELS: not in the first tile")
                        levels = levels * factors[np.arange(begin, end) // stride % len(factors)]
                q = levels.astype(np.float32, copy=False)
                values = scale * (q if self.bits >= 16 else self.lo + q * self.step)
            need(values.dtype == np.float32, "not f32")
            yield begin, end, positions, values
        need(kept == self.kept, f"{kept} elements are kept, not {self.kept}")

    def restore(self, base):
        """The tensor's bytes, an array of u8. base: bytes of the whole tensor that it is coded against, or None."""
        try:
            with about(self.tensor.name):
                self.read = self.bodies()  # once
                return self._restore(base)
        finally:
            self.read = None

    def _restore(self, base):
        size, dtype = self.tensor.size, self.tensor.dtype
        base_size = self.under.size if self.under is not None else 0
        if self.policy in (DROP, EQUAL):
            return np.frombuffer(convert(base[:self.common * base_size], self.under.dtype, dtype), np.uint8)
        out, exact = np.empty(self.tensor.count, UINTS[size]), []
        for (begin, end, shared), body in zip(self.tiles(), self.bodies()):
            mine = convert(base[begin * base_size:end * base_size], self.under.dtype, dtype) if shared else None
            if self.policy == LOSSLESS or not shared:
                exact.append((begin, end, lossless_body(body, end - begin, dtype, mine)))
            else:
                out[begin:end] = np.frombuffer(mine, UINTS[size])
        for k in range(0, len(exact), AT_ONCE):
            some = exact[k:k + AT_ONCE]
            for (begin, end, _), elements in zip(some, together([body for _, _, body in some])):
                out[begin:end] = elements
        if self.policy == ULTRADELTA:
            for begin, end, positions, values in self.deltas():
                self._add(out[begin:end], base[begin * base_size:end * base_size], slice(None) if positions is None else positions, values)
        return out.view(np.uint8)

    def _add(self, tile, raw, positions, values):
        """Puts base + delta, rounded once, at the positions of a tile."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self.tensor.dtype == "F64":
                tile[positions] = (tile.view("<f8")[positions] + values.astype(np.float64)).view("<u8")
            else:
                old = to_f32(np.frombuffer(raw, UINTS[self.under.size])[positions].tobytes(), self.under.dtype)
                tile[positions] = np.frombuffer(from_f32(old + values, self.tensor.dtype), UINTS[self.tensor.size])


# ------------------------------------------------------------------------------------------------------------------------------------ command line


def open(path):
    """Opens an archive; `with` closes it."""
    return Archive(path)


def size_text(nbytes):
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000


def print_table(rows, right):
    """Columns as wide as need be; those of `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths))).rstrip())


def command_list(options):
    with open(options.archive) as z:
        rows = [["task", "recipe", "tensors", "bytes in", "payload", "sparsity", "gamma"]]
        for name in z.tasks:
            about_task, tensors = z.task(name), z.tensors(name)
            rows.append([name, about_task["recipe"], str(len(tensors)), size_text(about_task["source_bytes"]), size_text(sum(t.stored_bytes for t in tensors)),
                         f"{about_task['sparsity']:g}", f"{about_task['gamma']:.4f}"])
        print_table(rows, (2, 3, 4, 5, 6))


def command_show(options):
    with open(options.archive) as z:
        rows = [["tensor", "dtype", "shape", "policy", "sparsity", "bytes", "stored"]]
        for t in z.tensors(options.task):
            if fnmatch.fnmatchcase(t.name, options.tensor):
                rows.append([t.name, t.dtype, "x".join(map(str, t.shape)) or "scalar", t.policy, f"{t.sparsity:g}" if t.policy == "ultradelta" else "",
                             str(t.nbytes), str(t.stored_bytes)])
        print_table(rows, (4, 5, 6))


def command_restore(options):
    if options.dtype:
        raise Error(f"--dtype {options.dtype}: this reader restores the types that a model had; the program converts: deltazoo restore --dtype {options.dtype}")
    with open(options.archive) as z:
        files = z.restore_model(options.task, options.base, options.output, options.force)
        print(f"{options.output}: task {options.task}, {len(z.tensors(options.task))} tensors in {len(files)} files")


def command_check(options):
    with open(options.archive) as z:
        with about(z.path):
            ntasks, ntensors, nblocks = z.check()
        print(f"{z.path}: {ntasks} tasks, {ntensors} tensors, {nblocks} blocks: sound")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="deltazoo", description="Reads deltazoo archives.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help, task=False):
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("archive", metavar="ARCHIVE")
        if task:
            sub.add_argument("--task", "-t", required=True, metavar="NAME")
        return sub

    command("list", command_list, "the tasks of an archive")
    command("show", command_show, "the tensors of a task", True).add_argument("--tensor", default="*", metavar="GLOB")
    restore = command("restore", command_restore, "a task's model, all its files", True)
    restore.add_argument("--base", "-b", metavar="PATH", help="the base model; not needed if the archive holds it")
    restore.add_argument("--output", "-o", required=True, metavar="DIR")
    restore.add_argument("--dtype", help="not in this reader: deltazoo restore --dtype")
    restore.add_argument("--force", action="store_true", help="replace files that DIR has")
    command("check", command_check, "structure and checksums; no base is needed")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (Error, OSError) as error:
        print(f"deltazoo: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
