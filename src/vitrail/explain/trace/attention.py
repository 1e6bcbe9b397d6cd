"""Attention of the chosen block and head, from queries and keys to heads joined."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from vitrail.explain.trace.data import (
    Facts,
    Heat,
    Item,
    Keys,
    Maps,
    Row,
    Rows,
    Source,
    Step,
    Text,
)
from vitrail.explain.trace.items import PRODUCTS, SHOWN, linear_dot, row
from vitrail.explain.trace.look import PADDING, Look, own_key, prefix_names, spread
from vitrail.explain.trace.scene import Scene, attention
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import join, say
from vitrail.nn.attention import Attention
from vitrail.nn.positions import AxialRotary, RelativeBias2d
from vitrail.nn.windows import (
    CosineWindowAttention,
    NoWindowPositions,
    WindowAttention,
)

_TOP = 3
"""Keys whose share in the weighted sum is shown by itself."""


def attention_steps(scene: Scene, seen: Look) -> list[Step]:
    """Queries, keys and values; scores; softmax; weighted sum; heads joined."""
    return [
        _queries(scene, seen),
        _scores(scene, seen),
        _softmax(scene, seen),
        _weighted(scene, seen),
        _joined(scene, seen),
    ]


def _queries(scene: Scene, seen: Look) -> Step:
    module = attention(scene.block)
    into = scene.into(module)
    d, heads, D = seen.q.shape[1], module.heads, into.shape[2]
    at = own_key(seen, scene)
    each = torch.arange(len(at))
    items: list[Item] = []
    text, code = [say("qkv.text", heads=heads, d=d)], [_projection_lines(module)]
    formula = (
        "<i>q</i> = <i>W</i><sub>Q</sub> <i>y</i>, <i>k</i> = <i>W</i><sub>K</sub> <i>y</i>,"
        " <i>v</i> = <i>W</i><sub>V</sub> <i>y</i>"
    )
    rows = [row(say("name.input"), scene.rows(into))]
    if isinstance(module, Attention):
        mine = scene.rows(scene.out(module.qkv)).reshape(-1, 3, heads, d)[:, :, scene.head]
        first = scene.head * d
        items.append(
            linear_dot(
                say("qkv.dot"),
                (say("name.input"), say("name.weights")),
                scene.rows(into),
                module.qkv,
                scene.rows(scene.out(module.qkv)),
                output=first,
            )
        )
        rows += [row(say("name.q"), mine[:, 0]), row(say("name.k"), mine[:, 1])]
        if not torch.equal(mine[:, 0], seen.q):
            name = "turned" if isinstance(module.positions, AxialRotary) else "normed"
            rows.append(row(say(f"name.q_{name}"), seen.q))
            rows.append(row(say(f"name.k_{name}"), seen.k[each, at]))
            text.append(say(f"qkv.{name}"))
            code.append(source(Attention.forward, "q, k, bias = self.positions"))
    else:
        cosine = isinstance(module, CosineWindowAttention)
        rows.append(row(say("name.q_cosine" if cosine else "name.q"), seen.q))
        rows.append(row(say("name.k_cosine" if cosine else "name.k"), seen.k[each, at]))
        if cosine:
            text.append(say("qkv.cosine"))
            code.append(source(CosineWindowAttention.match, "factor =", "return"))
            formula += ", <i>q</i> ← <i>τ</i> <i>q</i>/|<i>q</i>|, <i>k</i> ← <i>k</i>/|<i>k</i>|"
    rows.append(row(say("name.v"), seen.v[each, at]))
    N = seen.k.shape[1]
    per_head = (1, heads, N, d)
    if isinstance(module, WindowAttention):
        per_head = (1, scene.windows(scene.block).count, heads, N, d)
    return Step(
        key="qkv",
        title=say("qkv.title"),
        text=join(*text),
        shapes=(tuple(into.shape), (*into.shape[:2], 3 * D), (3, *per_head)),
        formula=formula,
        source=tuple(code),
        items=(Rows(say("qkv.rows", head=scene.head + 1), tuple(rows)), *items),
    )


def _projection_lines(module: Attention | WindowAttention) -> Source:
    if isinstance(module, Attention):
        return source(Attention.forward, "qkv = self.qkv", "q, k, v =")
    if isinstance(module, CosineWindowAttention):
        return source(CosineWindowAttention.project, "bias = torch.cat", "return")
    return source(WindowAttention.project, "return")


def _scores(scene: Scene, seen: Look) -> Step:
    own, weights = own_key(seen, scene), seen.weights
    order = weights.argsort(dim=1, descending=True)
    # The token itself, the class token where there is one, the greatest weights and the least.
    wanted = [own[:, None]]
    if scene.prefix:
        wanted.append(torch.zeros_like(own)[:, None])
    wanted += [order[:, : min(4 - len(wanted), order.shape[1])], order[:, -1:]]
    keys = torch.stack([_distinct(row_) for row_ in torch.cat(wanted, dim=1)])
    each = torch.arange(len(keys))[:, None]
    k = seen.k[each, keys]
    products = seen.q[:, None].double() * k.double()
    bias = None if seen.bias is None else seen.bias[each, keys]
    module = attention(scene.block)
    d = seen.q.shape[1]
    cosine = isinstance(module, CosineWindowAttention)
    scale = "" if cosine else f" · 1/√{d} (= {seen.scale:.4g})"
    added = " + <i>b</i><sub><i>ij</i></sub>" if bias is not None else ""
    return Step(
        key="scores",
        title=say("scores.title"),
        text=join(say("scores.text", d=d), _bias_text(scene)),
        shapes=((*_heads(scene, seen), d), (*_heads(scene, seen), seen.k.shape[1])),
        formula="<i>s</i><sub><i>ij</i></sub> = <i>q</i><sub><i>i</i></sub> · "
        f"<i>k</i><sub><i>j</i></sub>{scale}{added}",
        source=(_fused_line(scene),),
        items=(
            Keys(
                caption=say("scores.keys"),
                place=seen.cells[each, keys],
                others=prefix_names(scene),
                grid=scene.places.grid,
                q=seen.q[:, :PRODUCTS],
                k=k[:, :, :PRODUCTS],
                rest=products[:, :, PRODUCTS:].sum(dim=2).float(),
                width=d,
                scale=seen.scale,
                bias=bias,
                score=seen.scores[each, keys],
                weight=weights[each, keys],
            ),
        ),
    )


def _distinct(keys: Int[Tensor, " K"]) -> Int[Tensor, " _k"]:
    """Four keys without repetition, in the order of their first appearance; fewer are repeated."""
    found = list(dict.fromkeys(int(key) for key in keys))
    last = found[-1]
    few = found[:4] if len(found) <= 4 else [*found[:3], last]
    return torch.tensor(few + [few[-1]] * (4 - len(few)))


def _heads(scene: Scene, seen: Look) -> tuple[int, ...]:
    module = attention(scene.block)
    if isinstance(module, WindowAttention):
        return 1, scene.windows(scene.block).count, module.heads, seen.k.shape[1]
    return 1, module.heads, seen.k.shape[1]


def _by_image(scene: Scene, module: WindowAttention) -> bool:
    """Whether small windows took the route of plain products."""
    return scene.into(module.proj).ndim == 3


def _fused_line(scene: Scene) -> Source:
    module = attention(scene.block)
    if isinstance(module, Attention):
        return source(Attention.forward, "joined = F.scaled_dot_product_attention")
    if _by_image(scene, module):
        return source(WindowAttention._image_by_image, "torch.baddbmm", "torch.bmm")  # pyright: ignore[reportPrivateUsage]
    return source(WindowAttention._fused, "joined = F.scaled_dot", ").view")  # pyright: ignore[reportPrivateUsage]


def _bias_text(scene: Scene) -> Text:
    module = attention(scene.block)
    if isinstance(module, WindowAttention):
        placeless = isinstance(module.positions, NoWindowPositions)
        shifted = scene.windows(scene.block).shift > 0
        if placeless:
            return say("scores.mask") if shifted else Text("", "")
        return say("scores.window_mask" if shifted else "scores.window")
    return say("scores.relative") if isinstance(module.positions, RelativeBias2d) else Text("", "")


def _softmax(scene: Scene, seen: Look) -> Step:
    grid, stride = scene.places.grid, scene.places.stride
    cells = grid[0] * grid[1]
    beside = [(name, seen.weights[:, i]) for i, name in enumerate(prefix_names(scene))]
    outside = seen.cells == PADDING
    if bool(outside.any()):
        beside.append((say("softmax.padding"), (seen.weights * outside).sum(dim=1)))
    beside.append((say("softmax.sum"), seen.weights.sum(dim=1)))
    maps: list[Heat] = []
    for head in range(seen.all_heads.shape[1] + 1):
        chosen = seen.weights if head == 0 else seen.all_heads[:, head - 1]
        values = torch.full((len(chosen), cells), torch.nan)
        spread(values, seen.cells, chosen)
        caption = say("softmax.heat") if head == 0 else say("name.head", n=head)
        maps.append(
            Heat(
                caption,
                values,
                grid,
                stride,
                low=0.0,
                exact=head == 0,
                beside=tuple(beside) if head == 0 else (),
            )
        )
    return Step(
        key="softmax",
        title=say("softmax.title"),
        text=say("softmax.text", count=seen.k.shape[1]),
        shapes=(_both(scene, seen), _both(scene, seen)),
        formula="<i>a</i><sub><i>ij</i></sub> = exp(<i>s</i><sub><i>ij</i></sub>) / "
        "Σ<sub><i>n</i></sub> exp(<i>s</i><sub><i>in</i></sub>)",
        source=(_fused_line(scene),),
        items=(maps[0], Maps(say("softmax.heads"), tuple(maps[1:]))),
    )


def _both(scene: Scene, seen: Look) -> tuple[int, ...]:
    return (*_heads(scene, seen), seen.k.shape[1])


def _weighted(scene: Scene, seen: Look) -> Step:
    order = seen.weights.argsort(dim=1, descending=True)[:, :_TOP]
    each = torch.arange(len(order))[:, None]
    parts = seen.weights[each, order][..., None] * seen.v[each, order]
    rest = seen.mixed - parts.sum(dim=1)
    rows = [
        row(say("weighted.part", n=i + 1), parts[:, i], "+" if i else "")
        for i in range(parts.shape[1])
    ]
    others = seen.weights.shape[1] - order.shape[1]
    if others:
        rows.append(row(say("weighted.rest", count=others), rest, "+"))
    rows.append(row(say("weighted.sum"), seen.mixed, "="))
    rows.append(row(say("weighted.fused"), seen.out))
    difference = (seen.mixed - seen.out).abs().amax(dim=1)
    relative = difference / seen.out.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    facts = Facts(
        say("weighted.check"),
        (
            (say("weighted.difference"), difference),
            (say("weighted.relative"), relative),
        ),
    )
    return Step(
        key="weighted",
        title=say("weighted.title"),
        text=say("weighted.text"),
        shapes=(_both(scene, seen), (*_heads(scene, seen), seen.v.shape[2])),
        formula="<i>o</i><sub><i>i</i></sub> = Σ<sub><i>j</i></sub> "
        "<i>a</i><sub><i>ij</i></sub> <i>v</i><sub><i>j</i></sub>",
        source=(_fused_line(scene),),
        items=(Rows(say("weighted.rows"), tuple(rows)), facts),
    )


def _joined(scene: Scene, seen: Look) -> Step:
    module = attention(scene.block)
    into, out = scene.into(module.proj), scene.rows(scene.out(module))
    if into.ndim == 4:
        into = scene.windows(scene.block).join(into)
    mine, d = scene.rows(into), seen.out.shape[1]
    first = scene.head * d
    heads = [
        Row(say("name.head_output", n=head + 1), mine[:, head * d : head * d + SHOWN].clone(), d)
        for head in sorted({0, scene.head, module.heads - 1})
    ]
    code = (
        source(Attention.forward, "return self.proj")
        if isinstance(module, Attention)
        else source(WindowAttention.forward, "return self.proj")
        if _by_image(scene, module)
        else source(WindowAttention.forward, "return windows.join")
    )
    assert torch.equal(mine[:, first : first + d], seen.out), (
        "the kernel's output is what is joined"
    )
    return Step(
        key="joined",
        title=say("joined.title"),
        text=say("joined.text", heads=module.heads, d=d, width=mine.shape[1]),
        shapes=((*_heads(scene, seen), d), tuple(scene.out(module).shape)),
        formula="<i>u</i> = <i>W</i><sub>O</sub> [<i>o</i><sup>0</sup>; …; "
        f"<i>o</i><sup>{module.heads - 1}</sup>] + <i>b</i>",
        source=(code,),
        items=(
            Rows(say("joined.rows"), (*heads, row(say("name.joined"), out))),
            linear_dot(
                say("joined.dot"), (say("name.heads"), say("name.weights")), mine, module.proj, out
            ),
        ),
    )
