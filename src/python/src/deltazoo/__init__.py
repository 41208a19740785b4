"""Reads deltazoo archives: fine-tuned models as one base and tiny deltas.

    import deltazoo
    with deltazoo.open("zoo.h5") as z:
        z                                                  # a table of its tasks
        z.tensors("math")                                  # name, dtype, shape, policy, ...
        z.restore("math", "model.norm.weight", "base")     # one tensor; the base is a path, that tensor, or a mapping
        z.delta("math", "model.layers.0.mlp.up_proj.weight")
        z.load_state_dict("math", "base")                  # the model's torch tensors, without files in between
        live = z.load_into(model, "math", "base")          # in place; live.load("code"), live.unload()
        z.restore_model("math", "base", "math")            # all files, as `deltazoo restore` makes them

The C library reads where the package has it (`z.engine` is "native"), else the reader in Python alone (`deltazoo.pure`, written from FORMAT.md and
sharing no code with it). What is damaged, or not what the archive says, raises deltazoo.Error.
"""

from ._archive import Archive, Slice, TaskReader, load_into, load_state_dict, open
from ._gguf import GgufLora, gguf_lora
from ._patch import Patch, PatchTensor, fingerprint, open_patch
from ._types import BaseInfo, Damaged, Error, Quality, TaskInfo, TensorInfo

__version__ = "0.1.0"
__all__ = ["Archive", "BaseInfo", "Damaged", "Error", "GgufLora", "Live", "Patch", "PatchTensor", "Quality", "Slice", "TaskInfo", "TaskReader", "TensorInfo", "fingerprint", "gguf_lora", "load_into", "load_state_dict",
           "open", "open_patch"]


def __getattr__(name: str) -> object:
    if name == "Live":  # imports torch
        from ._live import Live
        return Live
    raise AttributeError(f"module 'deltazoo' has no attribute {name!r}")
