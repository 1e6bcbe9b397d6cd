"""What each method does, in a few plain words for who meets it on a page."""

from __future__ import annotations

ABOUT = {
    "conservative": (
        "What the pixels of each cell gave to the class: gradient times pixel, with attention "
        "weights and norms held fixed. What speaks against the class is left out."
    ),
    "gradient_rollout": (
        "Attention followed through all layers, where only what helped the class counts, beside "
        "what each token kept of itself."
    ),
    "relevance": (
        "Attention times its gradient for the class, added up through all layers. What speaks "
        "against the class is left out."
    ),
    "gradcam": (
        "The last feature map, its channels weighted by how much they raise the class. What "
        "speaks against the class is left out."
    ),
    "rollout": (
        "Attention multiplied through all layers, half of each being what a token kept: how much "
        "of each patch flows into the answer, whatever the answer is."
    ),
    "raw": (
        "One layer by itself (the last one, heads averaged, unless said otherwise), as seen from "
        "the tokens that the answer is read from. It knows nothing of the class."
    ),
    "occlusion": (
        "How much less probable the class becomes when a square is covered. It asks the model "
        "itself and is the slow reference for the others."
    ),
    "centre": "A spot in the middle of every image. It knows nothing of the model.",
    "random": "Chance. It knows nothing of the model.",
}
"""One entry a method of `vitrail.explain.methods`, by its key."""

OBJECTS = (
    "Where the query of each object read the image to find it: the decoder's attention in its last "
    "layer, averaged over its heads. It says where was read, not what for."
)

REGIONS = {
    "regions": (
        "The pixels of each region. What follows tells what made it: methods that ask for a class "
        "ask here for the mean logit of the region's pixels."
    ),
    "queries": (
        "Where the query that tells a region read the image: its attention in the last layer, "
        "averaged over heads. It says where was read, not what for, and a query takes only what "
        "region to look for from there: the outline comes from comparing it with every pixel."
    ),
    "details": (
        "What the pixels gave to the region past all tokens: the head looks at the image itself, "
        "for edges that patches have averaged away. Gradient times pixel, norms held fixed. What "
        "speaks against the region is left out."
    ),
}
"""What a page shows of regions beside the methods."""

WORDS = ABOUT | REGIONS | {"objects": OBJECTS}
"""Of everything that a page has maps of, by key."""
