"""Tiny models made by the libraries themselves: each case gives a model, how it is loaded, and what it is run on.

A case is (name, library, function); the function gives (model, load, inputs): `load(folder)` is the library's own way back, with what it says about keys, and
`inputs` are the arguments of a forward pass.
"""
import copy
import inspect
import sys
import types
import warnings

import torch

warnings.filterwarnings("ignore")

# What makes any configuration small. A configuration has some of these; sub-configurations are shrunk likewise.
SMALL = dict(
    hidden_size=64, d_model=64, n_embd=64, dim=64, embed_dim=64, intermediate_size=96, ffn_dim=96, d_ff=96, encoder_ffn_dim=96, decoder_ffn_dim=96, n_inner=96,
    moe_intermediate_size=32, shared_expert_intermediate_size=32, num_hidden_layers=2, num_layers=2, n_layer=2, n_layers=2, encoder_layers=2, decoder_layers=2,
    num_decoder_layers=2, depth=2, num_attention_heads=4, n_head=4, n_heads=4, num_heads=4, encoder_attention_heads=4, decoder_attention_heads=4,
    num_key_value_heads=2, head_dim=16, d_kv=16, vocab_size=160, max_position_embeddings=64, n_positions=64, max_target_positions=32, max_source_positions=32,
    num_experts=4, n_routed_experts=4, num_local_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, q_lora_rank=24, kv_lora_rank=24, qk_rope_head_dim=8,
    qk_nope_head_dim=8, v_head_dim=16, first_k_dense_replace=1, image_size=32, patch_size=8, num_mel_bins=16, embedding_size=64, state_size=8, conv_kernel=4,
    time_step_rank=4, projection_dim=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, rotary_dim=8, sliding_window=16)


def is_property(config, name):
    return isinstance(getattr(type(config), name, None), property)


def shrink(config, **more):
    """The configuration, its sizes made small, those of its parts too; `more` has the last word."""
    for name, value in SMALL.items():
        old = getattr(config, name, None)
        if isinstance(old, int) and not isinstance(old, bool) and not is_property(config, name):
            setattr(config, name, value)
    for part in list(vars(config).values()):
        if hasattr(part, "to_dict") and hasattr(part, "model_type"):
            shrink(part)
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(getattr(config, name, None), list) and not is_property(config, name):
            setattr(config, name, getattr(config, name)[-getattr(config, "num_hidden_layers", 2):])
    for name, value in more.items():
        setattr(config, name, value)
    return config


def from_transformers(model_type, auto="AutoModelForCausalLM", inputs="text", make=None, **more):
    def case():
        import transformers
        given = {k[5:]: v for k, v in more.items() if k.startswith("init_")}
        config = shrink(transformers.AutoConfig.for_model(model_type, **given), **{k: v for k, v in more.items() if not k.startswith("init_")})
        if make:
            make(config)
        cls = getattr(transformers, auto)
        model = (cls.from_config(config) if auto.startswith("Auto") else cls(config)).eval()

        def load(folder):
            loaded, about = (cls if auto.startswith("Auto") else type(model)).from_pretrained(folder, output_loading_info=True)
            return loaded.eval(), {k: list(about[k]) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}

        return model, load, INPUTS[inputs](config)

    return case


def ids(*shape):
    return (torch.arange(torch.Size(shape).numel()) % 90 + 5).reshape(shape)


def ramp(*shape):
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


INPUTS = {
    "text": lambda c: dict(input_ids=ids(1, 12)),
    "both": lambda c: dict(input_ids=ids(1, 12), decoder_input_ids=ids(1, 6)),
    "image": lambda c: dict(pixel_values=ramp(1, 3, 32, 32)),
    "image64": lambda c: dict(pixel_values=ramp(1, 3, 64, 64)),
    "sound": lambda c: dict(input_values=ramp(1, 4000)),
    "mel": lambda c: dict(input_features=ramp(1, 16, 64), decoder_input_ids=ids(1, 6)),
    "pair": lambda c: dict(input_ids=ids(1, 12), pixel_values=ramp(1, 3, 32, 32)),
}


def from_diffusers(name, arguments, **inputs):
    def case():
        import diffusers
        cls = getattr(diffusers, name)
        model = cls(**arguments).eval()

        def load(folder):
            loaded, about = cls.from_pretrained(folder, output_loading_info=True)
            return loaded.eval(), {k: list(about[k]) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}

        return model, load, inputs

    return case


class AbsentClass(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Absent(types.ModuleType):
    """Stands for torchvision, of which timm's models need nothing: no build of it works beside the CPU build of torch 2.13.0."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = AbsentClass(name, (), {}) if name[:1].isupper() else Absent(f"{self.__name__}.{name}")
        setattr(self, name, made)
        return made


def import_timm():
    import transformers  # noqa: F401  looks for torchvision by itself, and must not find this one
    for name in ("", ".transforms", ".transforms.functional", ".datasets", ".ops", ".ops.misc", ".models"):
        sys.modules.setdefault("torchvision" + name, Absent("torchvision" + name))
    import timm
    return timm


class Timm:
    """A model of timm with the library's own way to a folder."""

    def __init__(self, name, **more):
        timm = import_timm()
        self.model = timm.create_model(name, num_classes=5, **more).eval()
        self.more = more

    def __getattr__(self, name):
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def save_pretrained(self, folder):
        import timm.models
        timm.models.save_for_hf(self.model, folder, model_config=dict(num_classes=5), model_args=self.more, safe_serialization=True)


def from_timm(name, size=32, **more):
    def case():
        made = Timm(name, **more)

        def load(folder):
            import timm
            return timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), {}

        return made, load, dict(x=ramp(1, 3, size, size))

    return case


def unet():
    return dict(sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


def vae():
    return dict(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8)


LM, MASKED, BOTH = "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM"
CASES = {
    **{name: from_transformers(name) for name in (
        "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mixtral", "olmo", "olmo2", "starcoder2",
        "stablelm", "cohere", "granite", "smollm3", "glm4", "qwen2_moe", "qwen3_moe", "granitemoe", "gpt_oss", "mamba")},
    "nemotron": from_transformers("nemotron", head_dim=16, num_key_value_heads=2),
    "deepseek_v3": from_transformers("deepseek_v3", head_dim=8, num_key_value_heads=4),
    "gpt_neo": from_transformers("gpt_neo", init_attention_types=[[["global", "local"], 1]], init_num_layers=2),
    "gptj": from_transformers("gptj"),
    "mpt": from_transformers("mpt"),
    "mamba2": from_transformers("mamba2", num_heads=8, head_dim=16, expand=2, n_groups=2, chunk_size=8),
    **{name: from_transformers(name, MASKED) for name in ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2", "mpnet", "xlm-roberta", "modernbert")},
    "bert with a head": from_transformers("bert", "AutoModelForSequenceClassification"),
    **{name: from_transformers(name, BOTH, "both") for name in ("t5", "bart", "mbart", "pegasus", "marian")},
    "whisper": from_transformers("whisper", "WhisperForConditionalGeneration", "mel"),
    **{name: from_transformers(name, "AutoModelForImageClassification", "image") for name in ("vit",)},
    **{name: from_transformers(name, "AutoModelForImageClassification", "image", init_num_hidden_layers=2) for name in ("beit", "dinov2")},
    "swin": from_transformers("swin", "AutoModelForImageClassification", "image64", embed_dim=16, depths=[2, 1, 1, 1], num_heads=[2, 2, 2, 2], patch_size=4, image_size=64, window_size=2),
    "convnext": from_transformers("convnext", "AutoModelForImageClassification", "image", init_hidden_sizes=[16, 32], init_depths=[2, 2], init_num_stages=2),
    "resnet": from_transformers("resnet", "AutoModelForImageClassification", "image", init_hidden_sizes=[16, 32], init_depths=[2, 2], init_embedding_size=16, embedding_size=16),
    "segformer": from_transformers("segformer", "AutoModelForImageClassification", "image64", init_hidden_sizes=[16, 32, 32, 64], init_depths=[1, 1, 1, 1],
                                   init_num_attention_heads=[1, 2, 2, 4], num_attention_heads=[1, 2, 2, 4], patch_sizes=[7, 3, 3, 3]),
    **{name: from_transformers(name, "AutoModelForCTC", "sound", num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4) for name in ("wav2vec2", "hubert")},
    "clip": from_transformers("clip", "CLIPModel", "pair"),
    "siglip": from_transformers("siglip", "SiglipModel", "pair", make=lambda config: setattr(config.text_config, "projection_size", 64)),
    "unet": from_diffusers("UNet2DConditionModel", unet(), sample=ramp(1, 4, 16, 16), timestep=torch.tensor(3), encoder_hidden_states=ramp(1, 5, 32)),
    "vae": from_diffusers("AutoencoderKL", vae(), sample=ramp(1, 3, 16, 16)),
    "flux": from_diffusers("FluxTransformer2DModel", dict(in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=32,
                                                          pooled_projection_dim=32, axes_dims_rope=(4, 4, 8)), hidden_states=ramp(1, 4, 16), timestep=torch.tensor([0.5]),
                           encoder_hidden_states=ramp(1, 5, 32), pooled_projections=ramp(1, 32), img_ids=torch.zeros(4, 3), txt_ids=torch.zeros(5, 3)),
    "sd3": from_diffusers("SD3Transformer2DModel", dict(sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=4,
                                                        joint_attention_dim=32, caption_projection_dim=64, pooled_projection_dim=32, out_channels=4),
                          hidden_states=ramp(1, 4, 8, 8), timestep=torch.tensor([3]), encoder_hidden_states=ramp(1, 5, 32), pooled_projections=ramp(1, 32)),
    "dit": from_diffusers("DiTTransformer2DModel", dict(num_attention_heads=4, attention_head_dim=16, in_channels=4, num_layers=2, sample_size=8, num_embeds_ada_norm=10),
                          hidden_states=ramp(1, 4, 8, 8), timestep=torch.tensor([3]), class_labels=torch.tensor([2])),
    "controlnet": from_diffusers("ControlNetModel", {k: v for k, v in unet().items() if k not in ("sample_size", "up_block_types")}, sample=ramp(1, 4, 16, 16),
                                 timestep=torch.tensor(3), encoder_hidden_states=ramp(1, 5, 32), controlnet_cond=ramp(1, 3, 128, 128)),
    "timm vit": from_timm("vit_tiny_patch16_224", 32, img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3),
    "timm convnext": from_timm("convnext_atto", 64, depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
    "timm resnet": from_timm("resnet10t", 64),
}


def tuned(model, seed):
    """The model with a small change of all its floats, as fine-tuning leaves it."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 1e-3 * (tensor.std() + 1e-3))
    return other


def outputs(model, inputs):
    """All floats that a forward pass gives, in order. What a model draws at random is drawn the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        inner = model.model if isinstance(model, Timm) else model
        known = inspect.signature(inner.forward).parameters
        given = dict(inputs, use_cache=False) if "use_cache" in known else inputs
        return list(flat(inner(**given) if "x" not in given else inner(given["x"])))


def flat(value):
    if torch.is_tensor(value):
        yield value
    elif hasattr(value, "to_tuple"):
        yield from flat(value.to_tuple())
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from flat(part)
