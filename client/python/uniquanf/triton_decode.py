"""Matrix-vector products from bit planes, in Triton."""

import torch
import triton
import triton.language as tl

_BLOCK_ROWS = 128


@triton.jit
def _decode_kernel(x_ptr, q_ptr, alpha_ptr, beta_ptr, out_ptr, num_outputs, num_inputs, num_words,
                   group_words, words_per_split, num_splits, BITS: tl.constexpr,
                   ROWS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    token = tl.program_id(2)
    inside = rows < num_outputs
    lanes = tl.arange(0, 32)
    y = tl.zeros((ROWS,), dtype=tl.float32)
    first = split * words_per_split
    for word in range(first, tl.minimum(first + words_per_split, num_words)):
        columns = word * 32 + lanes
        x = tl.load(x_ptr + token * num_inputs + columns, mask=columns < num_inputs,
                    other=0.0).to(tl.float32)
        group = word // group_words
        for i in tl.static_range(BITS):
            plane = tl.load(q_ptr + (word * BITS + i) * num_outputs + rows, mask=inside, other=0)
            signs = (plane[None, :] >> lanes[:, None]) & 1
            total = tl.sum(tl.where(signs != 0, x[:, None], -x[:, None]), axis=0)
            alpha = tl.load(alpha_ptr + (group * BITS + i) * num_outputs + rows, mask=inside,
                            other=0.0)
            y += alpha.to(tl.float32) * total
        beta = tl.load(beta_ptr + group * num_outputs + rows, mask=inside, other=0.0)
        y += beta.to(tl.float32) * tl.sum(x, axis=0)
    tl.store(out_ptr + (token * num_splits + split) * num_outputs + rows, y, mask=inside)


def decode(x: torch.Tensor, qweight: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor,
           group_size: int) -> torch.Tensor:
    """y [T, N] f32 for x [T, K]; groups are whole words or whole rows. The words are split over
    programs whose sums are added in a fixed order, so that results repeat bit by bit."""
    num_words, bits, num_outputs = qweight.shape
    tokens, num_inputs = x.shape
    group_words = num_words if group_size == num_inputs else group_size // 32
    row_blocks = triton.cdiv(num_outputs, _BLOCK_ROWS)
    per_split = max(1, min(32, num_words * row_blocks // 1024))
    num_splits = triton.cdiv(num_words, per_split)
    partial = torch.empty(tokens, num_splits, num_outputs, device=x.device, dtype=torch.float32)
    with torch.cuda.device(x.device):
        _decode_kernel[(row_blocks, num_splits, tokens)](
            x, qweight, alpha, beta, partial, num_outputs, num_inputs, num_words, group_words,
            per_split, num_splits, BITS=bits, ROWS=_BLOCK_ROWS)
    return partial.sum(dim=1)
