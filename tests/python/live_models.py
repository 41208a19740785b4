"""Live torch models from safetensors files; imports torch only where it is used."""


def live_model(tensors):
    """A module whose state dict has these names and tensors."""
    import torch
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        at.register_parameter(last, torch.nn.Parameter(tensor.clone(), requires_grad=tensor.is_floating_point()))
    return root


def model_of(folder):
    from safetensors.torch import load_file
    return live_model(load_file(f"{folder}/model.safetensors"))


def is_like(model, folder, dtype=None):
    """The model has the same bits as the folder's, in this dtype."""
    import torch
    from safetensors.torch import load_file
    return all(torch.equal(model.get_parameter(name).data.reshape(-1).view(torch.uint8), tensor.to(dtype or tensor.dtype).reshape(-1).view(torch.uint8))
               for name, tensor in load_file(f"{folder}/model.safetensors").items())
