"""What a trace says of each step: titles, sentences and captions, English, then Chinese."""

from __future__ import annotations

STEM = {
    "pixels.title": ("Pixels", "像素"),
    "pixels.text": (
        "The image is brought to {height} x {width} pixels. Then each colour channel is shifted "
        "and scaled, so that its numbers lie around zero.",
        "先把图像变为 {height} × {width} 像素，再对每个颜色通道做平移和缩放，使数值分布在零附近。",
    ),
    "pixels.corner": (
        "Upper left corner of the chosen patch: pixels from 0 to 255, and what the model sees.",
        "所选图块的左上角：0 到 255 的像素值，以及模型看到的数值。",
    ),
    "stem.padded": (
        "Sides that are no multiple of that are filled up with zeros on the right and at the "
        "bottom.",
        "边长不是其整数倍时，在右侧和下侧补零。",
    ),
    "patches.title": ("Patches", "图块"),
    "patches.text": (
        "The image is cut into {rows} x {columns} squares of {side} x {side} pixels. From here on "
        "each square is one item of a sequence, as a word is in a sentence.",
        "图像被切成 {rows} × {columns} 个 {side} × {side} 像素的方块。从这里开始，"
        "每个方块就是序列中的一项，如同句子中的一个词。",
    ),
    "patches.cut": ("The pieces, and the chosen one enlarged.", "所有图块，以及放大的所选图块。"),
    "conv.title": ("Convolutional stem", "卷积 stem"),
    "conv.text": (
        "{count} small convolutions walk over the image instead of one cut. Their last map has "
        "one cell for every {stride} x {stride} pixels, and each cell has seen a little of its "
        "neighbours.",
        "这里不是一次切开，而是用 {count} 层小卷积扫过图像。最后的特征图每 {stride} × {stride} "
        "像素对应一格，每一格也看到了邻近的一些像素。",
    ),
    "conv.cut": (
        "Where the cells lie, and the pixels of the chosen one.",
        "各格的位置，以及所选格对应的像素。",
    ),
    "conv.heat": (
        "Mean of the channels after the last 3x3 convolution.",
        "最后一层 3×3 卷积之后各通道的均值。",
    ),
    "resnet.title": ("ResNet", "残差网络 ResNet"),
    "resnet.text": (
        "A convolutional network looks first. Its last map has one cell for every {stride} x "
        "{stride} pixels, with {channels} channels; patches are cut from this map, not from the "
        "pixels.",
        "先由一个卷积网络处理图像。它最后的特征图每 {stride} × {stride} 像素对应一格，"
        "有 {channels} 个通道；图块取自这张特征图，而不是像素。",
    ),
    "resnet.maps": ("Mean of the channels of each stage.", "每个阶段各通道的均值。"),
    "resnet.map": ("stage {n}, {rows} x {columns}", "阶段 {n}，{rows} × {columns}"),
    "split.title": ("Soft split {n}", "软切分 {n}"),
    "split.text": (
        "Patches of {kernel} x {kernel} cells are cut every {stride} cells, so that neighbours "
        "share {overlap} rows or columns. Each patch is laid out as one long vector.",
        "每隔 {stride} 格切出一个 {kernel} × {kernel} 格的图块，相邻图块共享 {overlap} 行或列。"
        "每个图块展开成一个长向量。",
    ),
    "split.cut": (
        "Where the patches stand, and the pixels that the chosen one spans.",
        "各图块的位置，以及所选图块覆盖的像素。",
    ),
    "split.rows": ("The chosen patch as a vector.", "展开为向量的所选图块。"),
    "mix.title": ("Tokens mixed, {n}", "词元混合 {n}"),
    "mix.performer": (
        "A small attention block lets all tokens exchange what they hold. It uses random features "
        "(Performer), whose cost grows with the number of tokens, not with its square.",
        "一个小的注意力块让所有词元交换信息。它使用随机特征（Performer），"
        "计算量随词元数线性增长，而不是平方增长。",
    ),
    "mix.softmax": (
        "A small attention block lets all tokens exchange what they hold, before they are laid "
        "out as a map again and split once more.",
        "一个小的注意力块让所有词元交换信息，然后重新排成特征图，再次切分。",
    ),
    "mix.rows": ("The chosen token before and after.", "所选词元混合前后。"),
    "vectors.title": ("Patch vectors", "图块向量"),
    "vectors.text": (
        "One linear map turns the {inputs} numbers of each patch into {width}. Each of the "
        "{width} is a dot product of the patch with one filter: it is large where the patch looks "
        "like the filter.",
        "一个线性映射把每个图块的 {inputs} 个数变成 {width} 个。其中每一个都是图块与一个滤波器的"
        "点积：图块与滤波器越像，这个数就越大。",
    ),
    "vectors.tiles": (
        "The patch as the model sees it, the filter, and the products of the two, pixel by pixel. "
        "Blue is below zero, orange above.",
        "模型看到的图块、滤波器，以及两者逐点相乘的结果。蓝色小于零，橙色大于零。",
    ),
    "vectors.dot": (
        "Filter {n}, whose answers differ most from patch to patch.",
        "滤波器 {n}：它的响应在各图块之间差别最大。",
    ),
    "vectors.heat": ("Filter {n} at every patch.", "滤波器 {n} 在每个图块上的响应。"),
    "vectors.rows": ("The vector of the chosen patch.", "所选图块的向量。"),
    "tokens.title": ("Class token and positions", "类别标记与位置嵌入"),
    "tokens.title_places": ("Positions", "位置嵌入"),
    "tokens.title_swin": ("Norm of the patch vectors", "图块向量的归一化"),
    "tokens.class": (
        "A learned vector is put in front of the patches: the class token, which will collect "
        "what matters for the answer.",
        "在图块之前加入一个学得的向量：类别标记，它将汇集对答案重要的信息。",
    ),
    "tokens.distilled": (
        "Two learned vectors are put in front of the patches: the class token, and the "
        "distillation token, which learned from a teacher.",
        "在图块之前加入两个学得的向量：类别标记，以及向教师模型学习的蒸馏标记。",
    ),
    "tokens.registers": (
        "{count} of the learned tokens in front are registers: free places for what belongs to no "
        "patch.",
        "前面的标记中有 {count} 个寄存器标记：存放不属于任何图块的信息。",
    ),
    "tokens.queries": (
        "{count} of the learned tokens in front are there to find one object each.",
        "前面的标记中有 {count} 个检测标记：每个用来寻找一个物体。",
    ),
    "tokens.position": (
        "Attention does not know where a patch stands, so a vector that tells its place is added.",
        "注意力不知道图块在哪里，因此加上一个表示位置的向量。",
    ),
    "tokens.inside": (
        "No positions are added here: this model tells places inside the attention of each block.",
        "这里不加位置嵌入：这个模型在每个编码器块的注意力内部表示位置。",
    ),
    "tokens.nowhere": ("This model adds no positions.", "这个模型不加位置嵌入。"),
    "tokens.again": (
        "This model adds positions again before every later block.",
        "这个模型在后面每个编码器块之前都再次加入位置嵌入。",
    ),
    "tokens.swin": (
        "Each patch vector is normalised. No positions are added and there is no class token: "
        "places are told inside the attention of each window.",
        "对每个图块向量做归一化。不加位置嵌入，也没有类别标记：位置在每个窗口的注意力内部表示。",
    ),
    "tokens.swin_added": (
        "Each patch vector is normalised, and a vector that tells its place is added. There is no "
        "class token.",
        "对每个图块向量做归一化，再加上一个表示位置的向量。没有类别标记。",
    ),
    "tokens.rows": ("The chosen patch.", "所选图块。"),
    "tokens.class_rows": (
        "The class token, the same for every image.",
        "类别标记，对每张图像都相同。",
    ),
    "tokens.heat": (
        "How alike the position of the chosen patch is to the others (cosine).",
        "所选图块的位置嵌入与其他位置的相似度（余弦）。",
    ),
}
"""From pixels to tokens."""

BLOCK = {
    "norm.text": (
        "The {width} numbers of each token are brought to mean 0 and standard deviation 1; then "
        "each is scaled and shifted by learned numbers.",
        "把每个词元的 {width} 个数变为均值 0、标准差 1，再用学得的数做缩放和平移。",
    ),
    "norm.facts": ("Mean and standard deviation of the token shown.", "所示词元的均值与标准差。"),
    "norm.rows": (
        "Before, brought to mean 0 and deviation 1, the learned scale and shift, and after.",
        "输入、变为均值 0 和标准差 1、学得的缩放与偏移、输出。",
    ),
    "norm.title_attention": ("LayerNorm before attention", "注意力之前的层归一化"),
    "norm.title_mlp": ("LayerNorm before the MLP", "MLP 之前的层归一化"),
    "norm.title_branch_attention": ("LayerNorm of what attention found", "注意力分支上的层归一化"),
    "norm.title_branch_mlp": ("LayerNorm of what the MLP computed", "MLP 分支上的层归一化"),
    "norm.title_sum": ("LayerNorm of the sum", "求和之后的层归一化"),
    "norm.title_last": ("Last LayerNorm", "最后的层归一化"),
    "norm.title_last_class": ("Last LayerNorm, class token", "最后的层归一化（类别标记）"),
    "norm.title_pooled": ("LayerNorm of the image vector", "图像向量的层归一化"),
    "windows.title": ("Windows", "窗口"),
    "windows.title_shifted": ("Shifted windows", "移位窗口"),
    "windows.text": (
        "The map is cut into {count} windows of {size} x {size} places. A place attends only to "
        "its own window.",
        "特征图被切成 {count} 个 {size} × {size} 的窗口。每个位置只在自己的窗口内做注意力。",
    ),
    "windows.straight": (
        "This block does not shift its windows; where there are several, a block that shifts lets "
        "neighbouring windows meet.",
        "这个编码器块不移动窗口；有多个窗口时，由移位的编码器块让相邻窗口相遇。",
    ),
    "windows.shifted": (
        "This block first rolls the map by {shift} places up and to the left, so that windows "
        "join what were neighbours before. Places that only the roll brought together are masked.",
        "这个编码器块先把特征图向上、向左循环移动 {shift} 格，让原来相邻的窗口相遇。"
        "只是因循环移动才相邻的位置用掩码隔开。",
    ),
    "windows.padded": (
        "The map is no multiple of the window: it is filled up with zeros.",
        "特征图边长不是窗口的整数倍，因此补零。",
    ),
    "windows.heat": ("The window of the chosen place.", "所选位置所在的窗口。"),
    "windows.mask": (
        "Bright: places of the window that the chosen place may see.",
        "亮色：窗口中所选位置可以看到的地方。",
    ),
    "qkv.title": ("Query, key and value", "查询、键和值"),
    "qkv.text": (
        "Three linear maps make of each token a query (what it looks for), a key (what it offers) "
        "and a value (what it hands over). They are divided among {heads} heads of {d} numbers.",
        "三个线性映射把每个词元变成查询（要找什么）、键（能提供什么）和值（交出什么），"
        "再分给 {heads} 个头，每个头 {d} 个数。",
    ),
    "qkv.turned": (
        "Queries and keys are rotated by angles that tell their places.",
        "查询和键按表示其位置的角度旋转。",
    ),
    "qkv.normed": (
        "Queries and keys are normalised, each head by itself.",
        "对每个头的查询和键分别做归一化。",
    ),
    "qkv.cosine": (
        "Keys are brought to length 1 and queries to a learned length τ, so that a score is τ "
        "times a cosine.",
        "键缩放到单位长度，查询缩放到学得的长度 τ，因此分数就是余弦的 τ 倍。",
    ),
    "qkv.rows": ("The chosen patch in head {head}.", "所选图块在头 {head} 中。"),
    "qkv.dot": ("The first number of the query, as a dot product.", "查询的第一个数：一个点积。"),
    "scores.title": ("Scores: query times key", "分数：查询乘键"),
    "scores.text": (
        "The query is compared with every key: {d} products are summed. The more query and key "
        "agree, the greater the score.",
        "查询与每个键比较：把 {d} 个乘积相加。查询与键越一致，分数越大。",
    ),
    "scores.relative": (
        "A learned bias for the offset of the two patches is added.",
        "再加上由两个图块的相对位置决定的、学得的偏置。",
    ),
    "scores.window": (
        "A bias for the offset of the two places is added.",
        "再加上由两个位置的相对偏移决定的偏置。",
    ),
    "scores.window_mask": (
        "A bias for the offset of the two places is added, and -100 where they must not meet.",
        "再加上由两个位置的相对偏移决定的偏置；不应相遇的位置加上 -100。",
    ),
    "scores.mask": (
        "-100 is added where two places must not meet.",
        "不应相遇的两个位置加上 -100。",
    ),
    "scores.keys": (
        "The query of the chosen patch with a few keys: its own, the class token's where there is "
        "one, those of the greatest weights, and the one of the least.",
        "所选图块的查询与几个键：它自己的键、类别标记的键（如果有）、权重最大的几个键，"
        "以及权重最小的一个键。",
    ),
    "softmax.title": ("Softmax: scores become weights", "Softmax：分数变成权重"),
    "softmax.text": (
        "The {count} scores become positive weights that sum to 1: how much the chosen patch "
        "takes from each.",
        "{count} 个分数变成和为 1 的正权重：所选图块从每个词元取多少。",
    ),
    "softmax.heat": (
        "Where the chosen patch looks. The brightest cell has the greatest weight.",
        "所选图块在看哪里。最亮的格权重最大。",
    ),
    "softmax.heads": (
        "All heads of this block, each from 0 to its own greatest weight.",
        "这个编码器块的所有头，每张图从 0 到各自的最大权重。",
    ),
    "softmax.sum": ("sum of all", "总和"),
    "softmax.padding": ("padding", "补零处"),
    "weighted.title": ("Weighted sum of the values", "值的加权和"),
    "weighted.text": (
        "Each value is multiplied by its weight, and all are added. torch does this and the two "
        "steps before in one fused kernel; the sum here is computed again to compare.",
        "每个值乘以它的权重，再全部相加。torch 用一个融合内核完成这一步和前两步；"
        "这里另外计算一次用来比较。",
    ),
    "weighted.rows": (
        "Weight times value of the chosen patch's keys.",
        "所选图块各个键的权重乘以值。",
    ),
    "weighted.part": ("no. {n} by weight", "权重第 {n} 大"),
    "weighted.rest": ("the other {count}", "其余 {count} 个"),
    "weighted.sum": ("sum, computed here", "和（此处计算）"),
    "weighted.fused": ("the model's kernel", "模型的融合内核"),
    "weighted.check": ("Check", "核对"),
    "weighted.difference": ("greatest difference", "最大差"),
    "weighted.relative": ("relative to the greatest number", "相对于最大的数"),
    "joined.title": ("Heads joined", "各头合并"),
    "joined.text": (
        "The outputs of the {heads} heads are laid side by side, {heads} x {d} = {width} numbers, "
        "and one linear map mixes them.",
        "{heads} 个头的输出拼接在一起，共 {heads} × {d} = {width} 个数，再由一个线性映射混合。",
    ),
    "joined.rows": ("The chosen patch.", "所选图块。"),
    "joined.dot": (
        "The first number after the projection, as a dot product.",
        "投影之后的第一个数：一个点积。",
    ),
    "residual.title_attention": ("Residual sum after attention", "注意力之后的残差连接"),
    "residual.title_mlp": ("Residual sum after the MLP", "MLP 之后的残差连接"),
    "residual.attention": (
        "What attention found is added to the token; nothing is replaced.",
        "把注意力得到的结果加到词元上，而不是取代它。",
    ),
    "residual.mlp": (
        "What the MLP computed is added to the token. This is the output of the block.",
        "把 MLP 的结果加到词元上。这就是编码器块的输出。",
    ),
    "residual.layer_scale": (
        "Before that, LayerScale multiplies each channel of the branch by a learned factor.",
        "在此之前，层缩放（LayerScale）给分支的每个通道乘一个学得的系数。",
    ),
    "residual.scaled": ("LayerScale on the branch.", "分支上的层缩放。"),
    "residual.rows": ("The chosen patch.", "所选图块。"),
    "residual.facts": ("How strong the branch is", "分支有多强"),
    "residual.share": (
        "length of the branch over length of the token",
        "分支长度与词元长度之比",
    ),
    "mlp.title": ("MLP", "多层感知机（MLP）"),
    "mlp.text": (
        "Each token by itself goes through {width} → {hidden} → {width} numbers, with the curve "
        "GELU in the middle, which keeps large numbers and quiets those below zero.",
        "每个词元单独经过 {width} → {hidden} → {width} 的两层映射，中间是 GELU 曲线："
        "保留大的数，压低小于零的数。",
    ),
    "mlp.swiglu": (
        "Each token by itself goes through {width} → {hidden} → {width} numbers. One half of the "
        "hidden numbers is a gate for the other (SwiGLU).",
        "每个词元单独经过 {width} → {hidden} → {width} 的映射，隐藏数的一半作为另一半的门控"
        "（SwiGLU）。",
    ),
    "mlp.rows": ("The chosen patch.", "所选图块。"),
    "mlp.curve": (
        "The activation, and the first {count} hidden numbers of the chosen patch on it.",
        "激活函数，以及所选图块的前 {count} 个隐藏数在曲线上的位置。",
    ),
    "mlp.facts": ("Hidden numbers", "隐藏数"),
    "mlp.active": ("share above zero after the activation", "激活后大于零的比例"),
}
"""Inside a block."""

END = {
    "through.title": ("All {depth} blocks", "全部 {depth} 个编码器块"),
    "through.text": (
        "The same steps repeat in each of the {depth} blocks, with weights of their own. Watch "
        "the token grow, and see which patches become like it.",
        "同样的步骤在 {depth} 个编码器块中重复，每个编码器块有自己的权重。"
        "观察词元如何增长，以及哪些图块变得与它相似。",
    ),
    "through.stages": (
        "From stage to stage the map becomes coarser and the tokens wider.",
        "从一个阶段到下一个阶段，特征图变粗，词元变宽。",
    ),
    "through.plot": (
        "Length (L2 norm) of the token before the first block and after each.",
        "第一个编码器块之前以及每个编码器块之后，词元的长度（L2 范数）。",
    ),
    "through.axis": ("blocks done", "已经过的编码器块数"),
    "through.maps": (
        "Cosine similarity of the chosen patch to all others.",
        "所选图块与其他所有图块的余弦相似度。",
    ),
    "through.before": ("at the start", "开始时"),
    "through.after": ("after block {n}", "编码器块 {n} 之后"),
    "merging.title": ("Patch merging, stage {a} to {b}", "图块合并，阶段 {a} 到 {b}"),
    "merging.text": (
        "Four neighbours are laid side by side, 4 x {width} = {four} numbers, and a linear map "
        "makes {two} of them. The map has half as many rows and columns.",
        "四个相邻位置拼接成 4 × {width} = {four} 个数，线性映射把它们变成 {two} 个。"
        "特征图的行数和列数减半。",
    ),
    "merging.count": (
        "This model merges {count} times; this is the merging nearest to the chosen block.",
        "这个模型共合并 {count} 次；这里是离所选编码器块最近的一次。",
    ),
    "merging.rows": ("The four places that become the chosen one.", "合成所选位置的四个位置。"),
    "merging.here": ("upper left", "左上"),
    "merging.below": ("lower left", "左下"),
    "merging.right": ("upper right", "右上"),
    "merging.diagonal": ("lower right", "右下"),
    "merging.merged": ("merged", "合并之后"),
    "pool.title": ("Pooling: one vector for the image", "池化：整张图像的一个向量"),
    "pool.class": (
        "The class token alone goes on. What it has collected from the patches speaks for the "
        "image.",
        "只有类别标记继续向前。它从各图块汇集的信息代表整张图像。",
    ),
    "pool.distilled": (
        "The distillation token goes to a head of its own.",
        "蒸馏标记送到它自己的分类头。",
    ),
    "pool.mean": (
        "The mean of all {count} tokens of the image becomes its vector.",
        "图像全部 {count} 个词元的均值成为图像向量。",
    ),
    "pool.both": (
        "The class token and the mean of the {count} patches stand side by side.",
        "类别标记与 {count} 个图块的均值拼接在一起。",
    ),
    "pool.attention": (
        "A learned query attends to all {count} tokens once; what it collects is the image vector.",
        "一个学得的查询对全部 {count} 个词元做一次注意力，汇集的结果就是图像向量。",
    ),
    "pool.heat": (
        "Where the learned query looks, in the chosen head.",
        "学得的查询在所选的头中看哪里。",
    ),
    "pool.rows": ("What goes in, and what comes out.", "输入与输出。"),
    "pool.mean_of": ("mean of {count}", "{count} 个的均值"),
    "representation.title": ("Representation layer", "表示层"),
    "representation.text": (
        "A linear map to {width} numbers, and tanh, before the head.",
        "分类头之前：线性映射到 {width} 个数，再经过 tanh。",
    ),
    "representation.rows": ("The image vector.", "图像向量。"),
    "logits.title": ("Logits: one number a class", "对数几率（logits）：每类一个数"),
    "logits.text": (
        "Each of the {count} classes has one row of weights. Its dot product with the image "
        "vector says how much the image speaks for the class.",
        "{count} 个类别各有一行权重。它与图像向量的点积表示图像有多支持这个类别。",
    ),
    "logits.two": (
        "This model has two heads, and the answer is the mean of both.",
        "这个模型有两个分类头，答案是两者的平均。",
    ),
    "logits.dot": ("The logit of “{label}”.", "“{label}”的 logit。"),
    "logits.dot_distilled": (
        "The logit of “{label}” from the distillation token.",
        "由蒸馏标记得到的“{label}”的 logit。",
    ),
    "logits.row": ("row of “{label}”", "“{label}”的权重行"),
    "logits.mean": ("Both heads for “{label}”", "两个分类头对“{label}”"),
    "logits.both": ("mean", "平均"),
    "probabilities.title": ("Probabilities", "概率"),
    "probabilities.text": (
        "Softmax turns the logits into shares that sum to 1. The greatest is the answer.",
        "Softmax 把 logits 变成和为 1 的概率。最大的就是答案。",
    ),
    "probabilities.sigmoid": (
        "Each logit by itself becomes a probability: an image may have several labels.",
        "每个 logit 单独变成一个概率：一张图像可以有多个标签。",
    ),
    "probabilities.temperature": (
        "Before that they are divided by {temperature}, a temperature fitted after training.",
        "在此之前先除以 {temperature}，这是训练后拟合的温度。",
    ),
    "probabilities.bars": ("The best classes.", "得分最高的类别。"),
    "probabilities.facts": ("All classes together", "所有类别合计"),
    "memory.title": ("The memory that the decoder reads", "解码器读取的记忆"),
    "memory.text": (
        "This model writes text. All {count} tokens, brought to the decoder's width {width}, are "
        "its memory: the decoder attends to them for every symbol it writes. The trace ends here.",
        "这个模型输出文字。全部 {count} 个词元变为解码器的宽度 {width}，成为它的记忆："
        "解码器每写一个符号都对它们做注意力。追踪到此为止。",
    ),
    "memory.rows": ("The chosen patch.", "所选图块。"),
    "memory.projected": ("in the decoder's width", "解码器的宽度"),
    "check.title": ("Check", "核对"),
    "check.text": (
        "The same image went through the model once more, with nobody watching.",
        "同一张图像在无人观察的情况下再次通过模型。",
    ),
    "check.equal": (
        "The result equals the traced one exactly: the way above is the model's own.",
        "结果与追踪到的完全相等：以上就是模型本身的计算过程。",
    ),
    "check.near": (
        "The result differs from the traced one by rounding; the greatest difference is below.",
        "结果与追踪到的只有舍入误差，最大差见下。",
    ),
    "check.facts": ("Traced beside untraced", "追踪与不追踪的对比"),
    "check.numbers": ("numbers compared", "比较的数"),
    "check.difference": ("greatest difference", "最大差"),
}
"""Through all blocks, and from tokens to the answer."""
