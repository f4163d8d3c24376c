"""What do a picture's tokens say, read as words? Two looks at the positions of a prompt that hold the picture.

    one plain pass over prompt and picture ─► `stream`: the residual stream before the first and after every layer
      ─► `neighbours`: the vocabulary's embeddings nearest to each projected image token, at the decoder's input, and
         random vectors of the same spread (P1, arXiv 2308.01544, Table 2). P1 finds no difference: no words yet
      ─► `projection`: after each layer, sent straight through the final norm and the unembedding (nostalgebraist 2020;
         on image tokens Neo et al., arXiv 2410.07149): when, and where, the picture becomes words

Both read `hidden_states`, so no hook is needed. `mmn.experiments.lens` asks them of a scored run. Left out: families
whose picture enters by cross-attention and so has no positions of its own.
"""

from __future__ import annotations

from mmn.lens.neighbours import nearest, random_like, require_bare_embeddings
from mmn.lens.projection import Projected, project_to_words
from mmn.lens.stream import Stream, normed_stream, read_stream

__all__ = [
    "Projected",
    "Stream",
    "nearest",
    "normed_stream",
    "project_to_words",
    "random_like",
    "read_stream",
    "require_bare_embeddings",
]
