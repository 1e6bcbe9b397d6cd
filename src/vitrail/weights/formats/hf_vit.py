"""Hugging Face `vit` and `deit` (transformers `ViTForImageClassification`, `DeiTFor...`).

LayerNorm's epsilon is 1e-12 unless the file says otherwise, positions have an entry for the class
token and are resampled bicubically, and every DeiT has its distillation token in the sequence,
also where only the class token has a head: that token is a register of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.errors import CheckpointError
from vitrail.nn.positions import Resampling
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats.hf import (
    RENAMED,
    HfReader,
    LayerNames,
    check_head,
    write_folder,
)
from vitrail.weights.formats.hf_processor import Processor
from vitrail.weights.mapping import Derived, Entry, Joined, Same, pair, write_all
from vitrail.weights.reader import Described, Given, Writer, settle

LEGACY = LayerNames(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    out="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
)

NORMS = ("layernorm_before", "layernorm_after")


class HfViTReader(HfReader):
    """A `vit` or `deit` folder, with a classifier, two, or none."""

    types: ClassVar[tuple[str, ...]] = ("vit", "deit")

    @property
    def processor(self) -> Processor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the two families."""
        return "ViTImageProcessor" if self.model_type == "vit" else "DeiTImageProcessor"

    def describe(self, given: Given) -> Described:
        """The model, from `config.json` and the head that the file has."""
        settings = self.settings
        patch, image_size, notes = self.patch_and_image(16)
        settings.insist("use_mean_pooling", wanted=False, why="this family pools the class token")
        width = settings.whole("hidden_size", 768)
        hidden = settings.whole("intermediate_size", 3072)
        teacher = self.any("cls_classifier.", "distillation_classifier.")
        plain = self.any("classifier.")
        if teacher and (plain or self.model_type == "vit"):
            heads = ("classifier.", "cls_classifier.", "distillation_classifier.")
            found = [name for name in self.checkpoint.tensors if name.startswith(heads)]
            raise CheckpointError(
                f"{self.checkpoint.path}: heads of two kinds, or not of this family: "
                f"{', '.join(found[:6])}"
            )
        deit = self.model_type == "deit"
        depth = settings.whole("num_hidden_layers", 12)
        layers = "layers" if self.renamed else "encoder.layer"
        self.insist_layers(layers, depth, "num_hidden_layers")
        known = {
            "image_size": image_size,
            "stem": {"kind": "patch", "patch_size": patch},
            "positions": {"kind": "learned_1d", "prefix": True, "resampling": "bicubic"},
            "width": width,
            "depth": depth,
            "heads": settings.whole("num_attention_heads", 12),
            "mlp_ratio": hidden / width,
            "qkv_bias": settings.flag("qkv_bias", default=True),
            "activation": self.activation(),
            "eps": settings.number("layer_norm_eps", 1e-12, most=1.0),
            "distillation_token": deit and not plain,
            "registers": int(deit and plain),
        }
        backbone, variant, more = settle(ViTConfig, known, {}, given, self.checkpoint)
        task = None
        if teacher or plain:
            task = self.head("cls_classifier.bias" if teacher else "classifier.bias", given)
        if deit and plain:
            notes.append("the distillation token has no head here; it is kept as a register")
        if self.any(f"{self.stem}pooler."):
            notes.append("pooler (a tanh layer) feeds no classifier here and is not taken")
        preprocess, prepared = self.preprocess(image_size)
        return Described(
            backbone=backbone,
            task=task,
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *more, *prepared),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        return table(config, described.classifier, self.stem, renamed=self.renamed)

    def derived(self, described: Described) -> list[Derived]:
        """What serves masked images, and the pooler, which no classifier reads."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        found = [Derived(f"{self.stem}embeddings.mask_token", (1, 1, config.width))]
        if self.any(f"{self.stem}pooler."):
            outputs = self.settings.whole("pooler_output_size", config.width)
            found += [
                Derived(f"{self.stem}pooler.dense.weight", (outputs, config.width)),
                Derived(f"{self.stem}pooler.dense.bias", (outputs,)),
            ]
        return found


class HfViTWriter(Writer):
    """A `vit` or `deit` folder that transformers itself loads."""

    name = "hf"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What neither family can express."""
        config = described.backbone
        if not isinstance(config, ViTConfig):
            return f"family '{config.kind}' is none of Hugging Face's vit and deit"
        prefix = (config.class_token, config.distillation_token, config.registers)
        if prefix not in ((True, False, 0), (True, True, 0), (True, False, 1)):
            return "Hugging Face's vit has a class token, its deit one more token, and no others"
        return check_vit(config, described) or check_head(described)

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write the folder."""
        config = described.backbone
        assert isinstance(config, ViTConfig)
        kind = "deit" if config.distillation_token or config.registers else "vit"
        stem = f"{kind}." if described.classifier else ""
        tensors = write_all(table(config, described.classifier, stem, renamed=False), state)
        return write_folder(out, _config_json(kind, config, described), described, tensors)


def table(
    config: ViTConfig, task: ClassifyConfig | None, stem: str, *, renamed: bool
) -> list[Entry]:
    """Which tensor is which.

    Args:
        config: The backbone.
        task: Its head, if any.
        stem: What leads their names: `vit.`, `deit.` or nothing.
        renamed: Whether the names are those of transformers 5.x in memory.
    """
    names = RENAMED if renamed else LEGACY
    layers = f"{stem}layers" if renamed else f"{stem}encoder.layer"
    entries = [
        *pair("backbone.patch_embed.proj", f"{stem}embeddings.patch_embeddings.projection."),
        prefix_tokens(config, f"{stem}embeddings."),
        Entry("backbone.pos_embed.weight", (f"{stem}embeddings.position_embeddings",)),
    ]
    for i in range(config.depth):
        ours, layer = f"backbone.blocks.{i}", f"{layers}.{i}."
        entries += names.qkv(layer, f"{ours}.attn", config.width, bias=config.qkv_bias)
        entries += names.rest(layer, ours, NORMS)
    entries += pair("backbone.norm", f"{stem}layernorm.")
    if task is None:
        return entries
    if not config.distillation_token:
        return entries + pair("task.head", "classifier.")
    head = pair("task.head", "cls_classifier.")
    return entries + head + pair("task.head_dist", "distillation_classifier.")


def prefix_tokens(config: ViTConfig, stem: str) -> Entry:
    """Class token and, in a DeiT, the distillation token."""
    if config.prefix == 1:
        return Entry("backbone.prefix_token", (f"{stem}cls_token",), Same())
    theirs = (f"{stem}cls_token", f"{stem}distillation_token")
    return Entry("backbone.prefix_token", theirs, Joined((1, 1), axis=1))


def check_vit(config: ViTConfig, described: Described, resampling: Resampling = "bicubic") -> str:
    """Why no ViT of Hugging Face is like this one, whatever its tokens, or an empty string.

    Args:
        config: The backbone.
        described: For the size of its images.
        resampling: By which the family stretches positions.
    """
    positions = config.positions
    learned = isinstance(positions, Learned1dConfig) and config.positions_in == "stem"
    norms = config.norm == "pre" and not config.qk_norm and not config.norm_after_pool
    plain = config.activation != "swiglu" and config.layer_scale is None
    checks = (
        (isinstance(config.stem, PatchStemConfig), f"stem '{config.stem.kind}'"),
        (learned, f"positions '{positions.kind}' in '{config.positions_in}'"),
        (norms, "norm after the residual sum, after pooling or on queries and keys"),
        (plain, "SwiGLU and LayerScale in vit and deit"),
        (config.pool == "class", f"pool '{config.pool}' in vit and deit"),
        (config.final_norm, "ViT without a last norm"),
        (not config.detection_tokens, "detection tokens in a classifier"),
        (
            not any(side % config.stride for side in config.image_size),
            f"image_size {config.image_size}, which is no multiple of the patch",
        ),
    )
    lacks = next((lacks for fine, lacks in checks if not fine), "")
    if lacks:
        return f"Hugging Face has no {lacks}"
    assert isinstance(positions, Learned1dConfig)
    if not positions.prefix:
        return "Hugging Face has a position for the class token, here it has none"
    own = described.preprocess.output_size(*config.image_size) == config.image_size
    if positions.resampling == resampling or own:
        return ""  # at its own size no table is stretched
    return (
        f"positions are resampled by '{positions.resampling}', by Hugging Face '{resampling}'; "
        f"give --set positions.resampling={resampling} to accept that"
    )


def _config_json(kind: str, config: ViTConfig, described: Described) -> dict[str, object]:
    family = "ViT" if kind == "vit" else "DeiT"
    suffix = "ForImageClassification" if described.classifier else "Model"
    if described.classifier and config.distillation_token:
        suffix += "WithTeacher"
    return {
        "architectures": [family + suffix],
        "model_type": kind,
        **common_config(config),
        "intermediate_size": round(config.width * config.mlp_ratio),
        "pooler_act": "tanh",
        "pooler_output_size": config.width,
    }


def common_config(config: ViTConfig) -> dict[str, object]:
    """Fields of `config.json` that all their ViTs have."""
    assert isinstance(config.stem, PatchStemConfig)
    rows, columns = config.image_size
    return {
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.width,
        "image_size": rows if rows == columns else [rows, columns],
        "layer_norm_eps": config.eps,
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.depth,
        "patch_size": config.stem.patch_size,
        "qkv_bias": config.qkv_bias,
    }
