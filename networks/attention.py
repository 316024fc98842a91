"""Transformers for records and windows: pieces of a signal, called tokens, that look at each other.

Masks (B, 1, N) are 1 where a token holds a real sample and 0 where it holds padding alone, as in layers.py. No token
gives a weight to padding, so the padding's length and content do not change the others.

Blocks normalise before attention and before the two linear layers, and not after the sum: they train without a long
warm-up (Xiong et al. 2020, arXiv:2002.04745).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import check_input, convolution, cut, initialise, keep_valid, mean_over_time, thin_mask, valid_mask

LONGEST_PERIOD = 10_000  # tokens: of the slowest wave among the positions, as Vaswani et al. 2017 have it
STEM_STRIDES = (2, 2, 2)


class Attention(nn.Module):
    """Each token becomes a weighted mean of all (Vaswani et al. 2017, arXiv:1706.03762): (B, N, W) -> (B, N, W).

    Keys have no bias: it would add the same to all scores of a token, and the softmax would take it out again.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def by_head(self, x: Tensor) -> Tensor:
        """x (B, N, W) -> (B, heads, N, W / heads)."""
        parts: Tensor = x.unflatten(2, (self.heads, -1))
        return parts.transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, N, W), mask (B, 1, N) or None -> (B, N, W)."""
        query, key, value = (self.by_head(linear(x)) for linear in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=without_padding(mask, query.dtype))
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weight that each token (row) gives to each (column), 0..1: (B, heads, N, N), rows sum to 1."""
        query, key = self.by_head(self.query(x)), self.by_head(self.key(x))
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        added = without_padding(mask, scores.dtype)
        return torch.softmax(scores if added is None else scores + added, dim=3)


def without_padding(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores: 0 for a real token, a number that leaves no weight for padding.

    (B, 1, N) -> (B, 1, 1, N). It is finite, so that a row without any real token has no NaN.
    """
    return None if mask is None else ((mask.to(dtype) - 1) * (torch.finfo(dtype).max / 2)).unsqueeze(1)


class Block(nn.Module):
    """Attention, then two linear layers with GELU, each after layer norm and beside a shortcut: (B, N, W) -> same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, N, W), mask (B, 1, N) or None -> (B, N, W)."""
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        h: Tensor = self.dropout(self.narrow(F.gelu(self.wide(self.norm2(x)))))
        return x + h


class Encoder(nn.Module):
    """Blocks of attention, and a layer norm after the last: (B, N, W) -> (B, N, W)."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width < 2 or width % 2 or depth < 1 or heads < 1 or width % heads:
            raise ValueError(
                f"width {width} must be even and a multiple of heads {heads}, depth {depth} and heads at least 1"
            )
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, N, W), mask (B, 1, N) or None -> (B, N, W)."""
        for block in self.blocks:
            x = block(x, mask)
        normalised: Tensor = self.norm(x)
        return normalised

    def attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights of attention in every layer, (B, depth, heads, N, N)."""
        weights = []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attention.weights(block.norm1(x), mask))
            x = block(x, mask)
        return torch.stack(weights, dim=1)


def positions(n_tokens: int, width: int, like: Tensor) -> Tensor:
    """Return sines and cosines of each place, (n_tokens, width): any length has them, also one never trained on."""
    steps = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width  # (W / 2,)
    angle = torch.arange(n_tokens, device=like.device).unsqueeze(1) * LONGEST_PERIOD**-steps  # (N, W / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


class TokenNetwork(nn.Module):
    """What the transformers share: tokens with their places, an encoder, and the mean over the tokens.

    A network makes its tokens by `embed`: `token_samples` of each of `token_leads` groups of leads, one each or all.
    """

    n_leads: int
    width: int
    token_leads: int
    token_samples: int
    lead: nn.Parameter | None  # (token_leads, 1, W) what is added to the tokens of each group
    encoder: Encoder
    dropout: nn.Dropout
    last: nn.Linear

    def embed(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, L, T), valid (B, 2) or None -> tokens (B, token_leads, N, W), mask (B, 1, N) of all groups."""
        raise NotImplementedError

    def place(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add time and lead, and put the groups one after another, with their mask.

        tokens (B, token_leads, N, W), mask (B, 1, N) or None -> (B, token_leads * N, W), (B, 1, token_leads * N)
        """
        placed = tokens + positions(tokens.shape[2], self.width, tokens)
        if self.lead is not None:
            placed = placed + self.lead.to(tokens.dtype)
        return placed.flatten(1, 2), None if mask is None else mask.repeat(1, 1, self.token_leads)

    def encode(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Let tokens look at each other: (B, token_leads, N, W), mask (B, 1, N) or None -> (B, token_leads, N, W)."""
        encoded: Tensor = self.encoder(*self.place(tokens, mask)).unflatten(1, (self.token_leads, -1))
        return encoded

    def fill(self, x: Tensor, valid: Tensor | None, hidden: Tensor, vector: Tensor) -> Tensor:
        """Encode a signal whose hidden tokens are a learnt vector, and zero to whatever reaches into them.

        x (B, L, T), valid (B, 2) or None, hidden (B, token_leads, N) bool, vector (W,) -> (B, token_leads, N, W)
        """
        seen = ~hidden.repeat_interleave(self.token_samples, dim=2)[..., : x.shape[2]]  # (B, token_leads, T)
        tokens, mask = self.embed(keep_valid(x, seen), valid)
        return self.encode(torch.where(hidden.unsqueeze(3), vector.to(tokens.dtype), tokens), mask)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        tokens, mask = self.embed(x, valid)
        encoded = self.encode(tokens, mask).mean(dim=1)  # (B, N, W), of all groups, whose mask is the same
        logits: Tensor = self.last(self.dropout(mean_over_time(encoded.transpose(1, 2), mask)))  # (B, K)
        return logits

    def attention(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return what each token looks at, in eval mode as forward computes it.

        Parameters
        ----------
        x : (B, L, T) float
        valid : (B, 2) int64 or None

        Returns
        -------
        (B, depth, heads, G * N, G * N), 0..1, of G = token_leads groups: the tokens of the first in order of time, then
        those of the next; token n of a group begins at sample n * token_samples. Each row sums to 1, and is 0 at
        padding.
        """
        return self.encoder.attention(*self.place(*self.embed(x, valid)))


class ECGTransformer(TokenNetwork):
    """Convolutions that make a token of each eight samples, positions, an encoder, and the mean over the tokens.

    After the transformer of the entry that won the PhysioNet/CinC Challenge of 2020. Departures: no hand-made numbers
    beside it, which were its other half; three convolutions and a token of 8 samples instead of six and one of 36;
    narrower and less deep, so that two CPU cores can train it; layer norm before each layer instead of after it; GELU
    instead of ReLU; one linear layer after the mean instead of two.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, even and a multiple of heads, features of a token
    depth : int, blocks of attention
    heads : int, of each block
    kernel : int, odd, samples that each of the three convolutions sees, at its own rate
    dropout : float, 0..1, after attention and after the linear layers of each block, and before the last layer
    """

    source = "Natarajan et al. 2020, doi 10.22489/CinC.2020.107; Vaswani et al. 2017, arXiv:1706.03762"
    uses_valid = True
    min_samples = 16
    embedding, blocks = ("convolutions", "norms"), "encoder.blocks"
    token_samples, token_leads, token_span = 8, 1, 8  # of all leads, and hidden in stretches
    lead = None

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        width: int = 128,
        depth: int = 6,
        heads: int = 8,
        kernel: int = 7,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_leads, self.width = n_leads, width
        self.encoder = Encoder(width, depth, heads, dropout)
        widths = (n_leads, width // 2, width, width)
        self.convolutions = nn.ModuleList(
            convolution(widths[k], widths[k + 1], kernel, stride) for k, stride in enumerate(STEM_STRIDES)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in widths[1:])
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, n_classes)
        initialise(self, self.last)

    def embed(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, L, T), valid (B, 2) or None -> a token for each 8 samples (B, 1, N, W), mask (B, 1, N).

        N is T / 8, rounded up.
        """
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = keep_valid(x, mask)
        for layer, norm, stride in zip(self.convolutions, self.norms, STEM_STRIDES, strict=True):
            mask = thin_mask(mask, stride)
            x = keep_valid(F.gelu(norm(layer(x))), mask)  # (B, C, ceil(T / stride))
        return x.transpose(1, 2).unsqueeze(1), mask


class HeartBEiT(TokenNetwork):
    """A token for each piece of time of each lead, embeddings of both, an encoder, and the mean over the tokens.

    After HeartBEiT, a vision transformer of BEiT's kind (Bao et al. 2022) that learns from pictures of ECGs with masked
    patches before it learns from labels. Departures: a patch is a piece of one lead's signal instead of 16 x 16 points
    of its picture, since the signal is at hand; place is a sum of waves for the time, which suit any length, and of a
    learnt vector for the lead, instead of learnt biases between places of a picture of fixed size; no token of its own
    for the class, since the mean is read; layer norm before the mean instead of after it; no stochastic depth and no
    LayerScale, which matter in deeper networks. Twelve leads of 10 s at 100 Hz are 240 tokens; the picture has 196.
    The published size is width 768, depth 12, heads 12.

    Parameters
    ----------
    n_leads, n_classes : int
    patch : int, samples of a patch; the last one of a lead is filled up with zeros
    width : int, even and a multiple of heads, features of a token
    depth : int, blocks of attention
    heads : int, of each block
    dropout : float, 0..1, after attention and after the linear layers of each block, and before the last layer
    """

    source = "Vaid et al. 2023, doi 10.1038/s41746-023-00840-9; Bao et al. 2022, arXiv:2106.08254"
    uses_valid = True
    min_samples = 16
    embedding, blocks = ("patch", "lead"), "encoder.blocks"
    token_span = 1

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        patch: int = 50,
        width: int = 128,
        depth: int = 4,
        heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch {patch}: must be at least 1 sample")
        self.n_leads, self.token_leads, self.token_samples, self.width = n_leads, n_leads, patch, width
        self.encoder = Encoder(width, depth, heads, dropout)
        self.patch = nn.Linear(patch, width)
        self.lead = nn.Parameter(0.5**0.5 * torch.randn(n_leads, 1, width))  # as large as the waves of time
        self.lead.decays = False  # type: ignore[attr-defined]  # train.py: no weight decay
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, n_classes)
        initialise(self, self.last)

    def patches(self, x: Tensor) -> Tensor:
        """Cut each lead into patches, the last one filled up with zeros: (B, L, T) -> (B, L, N, patch)."""
        return cut(x, self.token_samples)

    def embed(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, L, T), valid (B, 2) or None -> a token for each patch (B, L, N, W), mask (B, 1, N) of all leads."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        tokens: Tensor = self.patch(self.patches(keep_valid(x, mask)))
        return tokens, thin_mask(mask, self.token_samples)
