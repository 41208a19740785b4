"""An archive behind a server of ranges, opened by fsspec with aiohttp as users do: only the index and what is asked for is fetched."""
import http.server
import os
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make check-clients makes a Python that has it")
sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "..", "cli"), os.path.join(os.path.dirname(__file__), "..", "python")]

import fsspec  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from common import check, equal, good, write  # noqa: E402
from package import load  # noqa: E402

SIDE, MATRICES = 1536, 12


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves one file, whole or by ranges, and counts."""
    protocol_version = "HTTP/1.1"
    served, sent, requests = "", 0, 0

    def head(self, size, first=None, last=None):
        self.send_response(200 if first is None else 206)
        self.send_header("Content-Length", str(size if first is None else last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()

    def do_HEAD(self):
        self.head(os.path.getsize(Ranges.served))

    def do_GET(self):
        size = os.path.getsize(Ranges.served)
        asked = self.headers["Range"]
        first, last = (int(x or size - 1) for x in asked.removeprefix("bytes=").split("-")) if asked else (0, size - 1)
        last = min(last, size - 1)
        self.head(size, *((first, last) if asked else ()))
        Ranges.requests += 1
        Ranges.sent += last - first + 1
        with open(Ranges.served, "rb") as file:
            file.seek(first)
            self.wfile.write(file.read(last - first + 1))

    def log_message(self, *_):
        pass


@pytest.fixture()
def served(tmp_path):
    folder = str(tmp_path)
    torch.manual_seed(3)
    base = {f"model.layers.{k}.mlp.up_proj.weight": torch.randn(SIDE, SIDE).mul(0.05).bfloat16() for k in range(MATRICES)}
    for name, scale in (("base", 0), ("one", 1e-3), ("two", 3e-3)):
        os.makedirs(f"{folder}/{name}")
        save_file({k: (t.float() + scale * torch.randn(SIDE, SIDE)).bfloat16() for k, t in base.items()}, f"{folder}/{name}/model.safetensors", metadata={"format": "pt"})
    write(f"{folder}/zoo.yaml", "base: base\ntasks:\n  - {name: one, path: one}\n  - {name: two, path: two}\n")
    good(["compress", "zoo.yaml", "-o", "zoo.h5", "-q", "--recipe", "lossless"], cwd=folder)
    Ranges.served, Ranges.sent, Ranges.requests = f"{folder}/zoo.h5", 0, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/zoo.h5"
    server.shutdown()
    server.server_close()


def test_fsspec_over_http_fetches_what_is_asked_for(served):
    dz = load()
    folder, url = served
    size = os.path.getsize(f"{folder}/zoo.h5")
    with fsspec.open(url, cache_type="none") as file, dz.open(file) as z, dz.open(f"{folder}/zoo.h5") as local:
        equal((z.tasks, z.engine), (["one", "two"], "python"), "tasks")
        tensor = z.tensors("two")[5]
        opened = Ranges.sent
        check(opened < 40e3, f"{opened} bytes of {size} in {Ranges.requests} requests for the index")
        equal(z.restore_bytes("two", tensor.name, f"{folder}/base").tobytes(), local.restore_bytes("two", tensor.name, f"{folder}/base").tobytes(), "the tensor")
        equal(Ranges.sent - opened, tensor.stored_bytes, "bytes for one tensor")
        got = z.open_task("one", f"{folder}/base").get_slice(tensor.name)[:4]
        check(np.array_equal(got, local.restore("one", tensor.name, f"{folder}/base")[:4]), "a slice")
        check(Ranges.sent < size / 6, f"{Ranges.sent} of {size}")


def test_fsspec_s_own_reading_ahead(served):
    """Without cache_type, fsspec fetches whole blocks: the values are the same, and the archive is still not fetched whole."""
    dz = load()
    folder, url = served
    with fsspec.open(url, block_size=1 << 20) as file, dz.open(file) as z, dz.open(f"{folder}/zoo.h5") as local:
        tensor = z.tensors("one")[2]
        equal(z.restore_bytes("one", tensor.name, f"{folder}/base").tobytes(), local.restore_bytes("one", tensor.name, f"{folder}/base").tobytes(), "the tensor")
        check(Ranges.sent < 0.6 * os.path.getsize(f"{folder}/zoo.h5"), f"{Ranges.sent} bytes in {Ranges.requests} requests")
        print(Ranges.sent, Ranges.requests)
