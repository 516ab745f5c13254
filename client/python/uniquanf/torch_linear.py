"""A linear layer whose weight stays packed, for torch."""

import torch
from torch import nn

# Tokens up to which the planes are read once a token instead of being dequantized.
MAX_DECODE_TOKENS = 8


class PackedLinear(nn.Module):
    """y = x · ŵᵀ + bias from qweight i32 [Kp/32, n, N], alpha_n f16 [G, n, N], beta_n f16 [G, N].
    q_bias is stored by the format and never used."""

    def __init__(self, in_features: int, out_features: int, bits: int, group_size: int, bias: bool,
                 dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bits, self.group_size = bits, group_size
        words, groups = (in_features + 31) // 32, in_features // group_size
        half = torch.float16
        self.register_buffer("qweight", torch.zeros(words, bits, out_features, dtype=torch.int32))
        self.register_buffer(f"alpha_{bits}", torch.zeros(groups, bits, out_features, dtype=half))
        self.register_buffer(f"beta_{bits}", torch.zeros(groups, out_features, dtype=half))
        self.register_buffer("q_bias", torch.zeros(groups, out_features, dtype=half))
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype), requires_grad=False)
        else:
            self.register_parameter("bias", None)

    @property
    def alpha(self) -> torch.Tensor:
        return getattr(self, f"alpha_{self.bits}")

    @property
    def beta(self) -> torch.Tensor:
        return getattr(self, f"beta_{self.bits}")

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """ŵᵀ [K, N]: summed in float32 in plane order (FORMAT.md, "Arithmetic"), then rounded."""
        shifts = torch.arange(32, device=self.qweight.device, dtype=torch.int32)[None, :, None]
        shape = (self.in_features // self.group_size, self.group_size, self.out_features)
        alpha, total = self.alpha.float(), None
        for i in range(self.bits):
            signs = self.qweight[:, i].unsqueeze(1).bitwise_right_shift(shifts).bitwise_and_(1)
            signs = signs.view(-1, self.out_features)[:self.in_features].view(shape)
            a = alpha[:, i].unsqueeze(1)
            term = torch.where(signs.bool(), a, -a)
            total = term if total is None else total.add_(term)
        total += self.beta.float().unsqueeze(1)
        return total.view(self.in_features, self.out_features).to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.numel() // self.in_features
        if x.is_cuda and 0 < tokens <= MAX_DECODE_TOKENS and self._words_are_whole():
            from .triton_decode import decode

            y = decode(x.reshape(tokens, -1).contiguous(), self.qweight, self.alpha, self.beta,
                       self.group_size)
            y = y.view(*x.shape[:-1], self.out_features).to(x.dtype)
        else:
            y = torch.matmul(x, self.dequantize(x.dtype))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _words_are_whole(self) -> bool:
        return self.group_size % 32 == 0 or self.group_size == self.in_features

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bits={self.bits}, group_size={self.group_size}, bias={self.bias is not None}")
