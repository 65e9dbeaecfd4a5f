"""A vision transformer with the layers and names of EVA-X-Ti, so that it can start from its file.

EVA-X (Yao et al. 2025, npj Digital Medicine 8:678) is EVA-02 (Fang et al. 2023) that has learned
from 520,000 chest radiographs without labels. Patches of 16 x 16 pixels become tokens; each of 12
blocks mixes them by attention with rotary positions (Su et al. 2021), then each by itself through a
gated layer (SwiGLU, Shazeer 2020).

EVA-X averages the tokens and then normalises the mean. Here each token is normalised and the mean
is taken last, as in its first training. So a linear head gives an exact map.

Shape suffixes: N images, T tokens (the class token first), D channels, a heads, d channels of a
head, H and W input rows and columns, h and w rows and columns of patches.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.backbone import Backbone

PATCH = 16
"""Pixels on a side."""

_LEARNED_ROWS = 14
"""Rows and columns of patches of the images that the weights learned from, 224 x 224 pixels."""

_TEMPERATURE = 10_000.0
_EPSILON = 1e-6


class EvaXBackbone(Backbone):
    """EVA-X-Ti with 192 channels, 3 heads and 12 blocks; one cell of the map for 16 x 16 pixels."""

    def __init__(self, channels: int = 192, *, heads: int = 3, depth: int = 12) -> None:
        super().__init__()
        self.channels = channels
        self.head_channels = channels // heads
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, channels, PATCH, stride=PATCH)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, _LEARNED_ROWS**2 + 1, channels))
        self.blocks = nn.ModuleList(_Block(channels, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the normalised tokens of the patches; they are not kept above zero."""
        patch_NDhw = self.patch_embed["proj"](image_N1HW)
        rows, columns = patch_NDhw.shape[2:]
        token_NTD = torch.cat(
            (
                self.cls_token.expand(patch_NDhw.shape[0], -1, -1),  # len() would fix the batch
                patch_NDhw.flatten(2).transpose(1, 2),
            ),
            dim=1,
        )
        token_NTD = token_NTD + self._positions(rows, columns)
        turn_2Td = rotary_positions(rows, columns, self.head_channels, token_NTD)
        for block in self.blocks:
            token_NTD = block(token_NTD, turn_2Td)
        feature_NTD: Tensor = self.norm(token_NTD)[:, 1:]
        return feature_NTD.transpose(1, 2).reshape(-1, self.channels, rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the learned positions, interpolated for images of another size."""
        if (rows, columns) == (_LEARNED_ROWS, _LEARNED_ROWS):
            return self.pos_embed
        learned_1Dhw = (
            self.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, _LEARNED_ROWS, _LEARNED_ROWS)
        )
        fitted_1Dhw = functional.interpolate(
            learned_1Dhw, size=(rows, columns), mode="bicubic", align_corners=False
        )
        return torch.cat((self.pos_embed[:, :1], fitted_1Dhw.flatten(2).transpose(1, 2)), dim=1)


class _Block(nn.Module):
    """Attention between tokens, then a gated layer for each token; both add to it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPSILON)
        self.attn = _Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=_EPSILON)
        self.mlp = _GatedLayer(channels, channels * 8 // 3)

    def forward(self, token_NTD: Tensor, turn_2Td: Tensor) -> Tensor:
        token_NTD = token_NTD + self.attn(self.norm1(token_NTD), turn_2Td)
        mixed_NTD: Tensor = token_NTD + self.mlp(self.norm2(token_NTD))
        return mixed_NTD


class _Attention(nn.Module):
    """Attention with several heads; queries and values have a bias, keys have none."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.proj = nn.Linear(channels, channels)

    def forward(self, token_NTD: Tensor, turn_2Td: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        all_NTD = functional.linear(token_NTD, self.qkv.weight, bias)
        tokens, channels = token_NTD.shape[1:]
        query_NaTd, key_NaTd, value_NaTd = (
            part.reshape(-1, tokens, self.heads, channels // self.heads).transpose(1, 2)
            for part in all_NTD.chunk(3, dim=2)
        )
        mixed_NaTd = functional.scaled_dot_product_attention(
            _turned(query_NaTd, turn_2Td), _turned(key_NaTd, turn_2Td), value_NaTd
        )
        mixed_NTD: Tensor = self.proj(mixed_NaTd.transpose(1, 2).flatten(2))
        return mixed_NTD


class _GatedLayer(nn.Module):
    """SwiGLU, with both of its first layers in one matrix."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(channels, 2 * hidden)
        self.w3 = nn.Linear(hidden, channels)

    def forward(self, token_NTD: Tensor) -> Tensor:
        gate_NTD, value_NTD = self.w12(token_NTD).chunk(2, dim=2)
        mixed_NTD: Tensor = self.w3(functional.silu(gate_NTD) * value_NTD)
        return mixed_NTD


def rotary_positions(rows: int, columns: int, channels: int, like: Tensor) -> Tensor:
    """Return `turn_2Td`, the cosines and sines that turn pairs of a head's channels.

    The first half of the channels turns with the row, the second with the column; the class token
    is not turned. Positions are scaled to the grid that the weights learned from.
    """
    pairs = channels // 4
    pace_d = _TEMPERATURE ** -(torch.arange(pairs, dtype=torch.float32) / pairs)
    row_h = torch.arange(rows, dtype=torch.float32) * (_LEARNED_ROWS / rows)
    column_w = torch.arange(columns, dtype=torch.float32) * (_LEARNED_ROWS / columns)
    by_row_hwd = (row_h[:, None] * pace_d)[:, None].expand(-1, columns, -1)
    by_column_hwd = (column_w[:, None] * pace_d)[None].expand(rows, -1, -1)
    angle_Td = torch.cat((by_row_hwd, by_column_hwd), dim=2).flatten(0, 1).repeat_interleave(2, 1)
    angle_Td = functional.pad(angle_Td, (0, 0, 1, 0))
    return torch.stack((angle_Td.cos(), angle_Td.sin())).to(like)


def _turned(part_NaTd: Tensor, turn_2Td: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by its angle."""
    even_NaTd, odd_NaTd = part_NaTd[..., ::2], part_NaTd[..., 1::2]
    across_NaTd = torch.stack((-odd_NaTd, even_NaTd), dim=-1).flatten(-2)
    return part_NaTd * turn_2Td[0] + across_NaTd * turn_2Td[1]
