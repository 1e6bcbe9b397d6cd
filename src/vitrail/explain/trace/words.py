"""The words of a trace in both languages, one entry a sentence or name: English, then Chinese."""

from __future__ import annotations

from vitrail.explain.trace.data import Text
from vitrail.explain.trace.sentences import BLOCK, END, STEM

_CHAPTERS = {
    "model": (
        "{kind}, {depth} blocks, {params} M parameters",
        "{kind}，{depth} 个编码器块，参数量 {params} M",
    ),
    "answer.class": ("{label} ({share})", "{label}（{share}）"),
    "answer.text": ("it reads “{text}”", "读作“{text}”"),
    "chapter.stem": ("From pixels to tokens", "从像素到词元"),
    "chapter.block": (
        "Inside block {layer}, head {head}",
        "编码器块 {layer}、注意力头 {head} 的内部",
    ),
    "chapter.through": ("Through all blocks", "穿过所有编码器块"),
    "chapter.end": ("From tokens to the answer", "从词元到答案"),
}

_NAMES = {
    "name.after": ("after", "输出"),
    "name.activated": ("after the activation", "激活之后"),
    "name.before": ("before", "输入"),
    "name.beta": ("shift β", "偏移 β"),
    "name.branch": ("branch", "分支"),
    "name.branch_scaled": ("scaled branch", "缩放后的分支"),
    "name.chosen": ("chosen patch", "所选图块"),
    "name.class": ("class token", "类别标记"),
    "name.deviation": ("standard deviation", "标准差"),
    "name.distilled": ("distillation token", "蒸馏标记"),
    "name.filter": ("filter", "滤波器"),
    "name.gamma": ("scale γ", "缩放 γ"),
    "name.gate": ("gate x W₁", "门控 x W₁"),
    "name.gated": ("value x W₂", "值 x W₂"),
    "name.head": ("head {n}", "头 {n}"),
    "name.head_output": ("output of head {n}", "头 {n} 的输出"),
    "name.heads": ("heads side by side", "拼接的各头"),
    "name.hidden": ("hidden layer", "隐藏层"),
    "name.image_vector": ("image vector", "图像向量"),
    "name.input": ("input y", "输入 y"),
    "name.joined": ("after the projection", "投影之后"),
    "name.k": ("key k", "键 k"),
    "name.k_cosine": ("key k, length 1", "键 k（单位长度）"),
    "name.k_normed": ("key after its norm", "归一化后的键"),
    "name.k_turned": ("key after its rotation", "旋转后的键"),
    "name.layer_scale": ("LayerScale γ", "层缩放 γ"),
    "name.learned": ("learned vector", "学得的向量"),
    "name.mean": ("mean", "均值"),
    "name.normed": ("after LayerNorm", "层归一化之后"),
    "name.output": ("output", "输出"),
    "name.patch": ("patch", "图块"),
    "name.patch_vector": ("patch vector", "图块向量"),
    "name.position": ("position", "位置嵌入"),
    "name.products": ("products", "乘积"),
    "name.q": ("query q", "查询 q"),
    "name.q_cosine": ("query q, length τ", "查询 q（长度为 τ）"),
    "name.q_normed": ("query after its norm", "归一化后的查询"),
    "name.q_turned": ("query after its rotation", "旋转后的查询"),
    "name.register": ("register {n}", "寄存器标记 {n}"),
    "name.standard": ("(x − mean) / deviation", "（x − 均值）/ 标准差"),
    "name.sum": ("sum", "和"),
    "name.tanh": ("after tanh", "tanh 之后"),
    "name.token": ("token", "词元"),
    "name.v": ("value v", "值 v"),
    "name.weights": ("row of weights", "权重的一行"),
}

PAGE = {
    "page.title": (
        "The way of an image through a Vision Transformer",
        "一张图像在 Vision Transformer 中的旅程",
    ),
    "page.eyebrow": ("vitrail trace", "vitrail trace"),
    "page.lead": (
        "The numbers on this page come from one run of the real model on this image. Choose "
        "a patch and follow it.",
        "本页的数值都来自真实模型对这张图像的一次运行。请选择一个图块，跟着它走。",
    ),
    "page.model": ("Model", "模型"),
    "page.answer": ("Answer", "答案"),
    "page.inside": ("Shown inside", "展示的内部"),
    "page.inside_value": (
        "block {layer} of {depth}, head {head} of {heads}",
        "编码器块 {layer}（共 {depth} 个），头 {head}（共 {heads} 个）",
    ),
    "page.contents": ("Steps", "步骤"),
    "page.skip": ("Skip to the steps", "跳到步骤"),
    "page.language": ("Language", "语言"),
    "page.pick": ("The chosen patch", "所选图块"),
    "page.pick_hint": (
        "Click a patch, here or in any map, or use the arrow keys.",
        "在这里或任意图上点击图块，或使用方向键。",
    ),
    "page.some": (
        "{count} of {all} patches can be chosen; the nearest is taken.",
        "{all} 个图块中可选 {count} 个；会选取最近的一个。",
    ),
    "page.patch": ("Patch: row {row}, column {column}", "图块：第 {row} 行，第 {column} 列"),
    "page.canvas": (
        "Image with a grid of patches; arrow keys move the chosen patch",
        "带图块网格的图像；方向键移动所选图块",
    ),
    "page.code": ("lines {first} to {last}", "第 {first} 至 {last} 行"),
    "page.line": ("line {first}", "第 {first} 行"),
    "page.formula": ("Formula", "公式"),
    "page.source": ("Source", "源代码"),
    "page.shape": ("Shape", "形状"),
    "page.more": ("… of {n}", "… 共 {n}"),
    "page.rest": ("{n} more", "其余 {n} 个"),
    "page.bias": ("bias", "偏置"),
    "page.total": ("computed here", "此处计算"),
    "page.real": ("in the model", "模型中的数"),
    "page.difference": ("difference", "差"),
    "page.key": ("key", "键"),
    "page.product": ("q · k", "q · k"),
    "page.scaled": ("× scale", "× 缩放"),
    "page.score": ("score", "分数"),
    "page.weight": ("weight", "权重"),
    "page.cell": ("row {row}, column {column}", "第 {row} 行第 {column} 列"),
    "page.self": ("itself", "它自己"),
    "page.raw": ("0 to 255", "0 到 255"),
    "page.normalised": ("normalised", "归一化后"),
    "page.class": ("class", "类别"),
    "page.logit": ("logit", "logit"),
    "page.share": ("probability", "概率"),
    "page.script": (
        "Without JavaScript the words, formulas and code are here, but not the numbers.",
        "未启用 JavaScript 时，这里有文字、公式和代码，但没有数值。",
    ),
    "page.made": (
        "Made by vitrail trace. One file, no network.",
        "由 vitrail trace 生成。单个文件，无需网络。",
    ),
}
"""What the page says around the steps; its script fills these in itself."""

WORDS = _CHAPTERS | _NAMES | STEM | BLOCK | END | PAGE
"""Every entry; `{names}` are filled in by `say`."""


def say(key: str, **facts: str | int) -> Text:
    """An entry in both languages, with its facts filled in."""
    english, chinese = WORDS[key]
    return Text(english.format(**facts), chinese.format(**facts))


def join(*texts: Text) -> Text:
    """Sentences one after another; empty ones are left out."""
    said = [text for text in texts if text.en]
    return Text(" ".join(text.en for text in said), "".join(text.zh for text in said))
