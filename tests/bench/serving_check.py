"""An artifact in transformers against uniquanf-batch: perplexity, greedy text, memory. Needs a GPU with
torch, transformers and triton; called by serving_check.sh.

  serving_check.py ARTIFACT DEQUANTIZED TOKENS EVAL_PERPLEXITY [WINDOWS]

DEQUANTIZED: its export in bf16. EVAL_PERPLEXITY: of `uniquanf-batch eval` on the same WINDOWS windows of 1024
tokens. Prints a line a check, "ok" or "FAIL" first; exits 1 when one fails."""

import json
import math
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "client", "python"))

import torch  # noqa: E402
import transformers  # noqa: E402
import uniquanf  # noqa: E402,F401
from safetensors import safe_open  # noqa: E402

WINDOW = 1024
# Logits of bf16 products are this far apart by chance; a token is only then to be the same when the two best are
# further from each other.
TIE = 0.25
failed = False


def report(ok: bool, text: str) -> None:
    global failed
    failed = failed or not ok
    print(("ok    " if ok else "FAIL  ") + text, flush=True)


def load(path: str, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map="cuda").eval()


@torch.no_grad()
def perplexity(model, ids, windows: int) -> float:
    total, count = 0.0, 0
    for i in range(windows):
        window = ids[i * WINDOW:(i + 1) * WINDOW].unsqueeze(0).cuda()
        if window.shape[1] < WINDOW:
            break
        logits = model(window).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
        count += window.shape[1] - 1
    return math.exp(total / count)


@torch.no_grad()
def greedy(model, prompt, count: int = 64):
    """Tokens, and at each the distance between the two best logits."""
    ids, tokens, gaps, past = prompt, [], [], None
    for _ in range(count):
        out = model(ids, past_key_values=past, use_cache=True)
        past = out.past_key_values
        best = out.logits[0, -1].float().topk(2)
        tokens.append(best.indices[0].item())
        gaps.append((best.values[0] - best.values[1]).item())
        ids = best.indices[:1].view(1, 1)
    return tokens, gaps


def same_text(what: str, a, b, tie: float) -> None:
    tokens_a, tokens_b = a[0], b[0]
    if tokens_a == tokens_b:
        return report(True, f"{what}: the same 64 tokens")
    at = next(i for i, (x, y) in enumerate(zip(tokens_a, tokens_b)) if x != y)
    gap = min(a[1][at], b[1][at])
    report(gap < tie, f"{what}: differ at token {at}, where the two best logits are {gap:.3f} apart (tie: {tie})")


def tensor_bytes(path: str, tied: bool) -> int:
    """Of the tensors that loading keeps."""
    total = 0
    for name in sorted(os.listdir(path)):
        if not name.endswith(".safetensors"):
            continue
        with safe_open(os.path.join(path, name), "pt") as file:
            for key in file.keys():
                if tied and key == "lm_head.weight":
                    continue
                tensor = file.get_tensor(key)
                total += tensor.numel() * tensor.element_size()
    return total


def main() -> None:
    artifact, dequantized, token_file, expected = sys.argv[1:5]
    windows = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    expected = float(expected)
    with safe_open(token_file, "pt") as file:
        ids = file.get_tensor("valid").long()
    with open(os.path.join(artifact, "config.json"), encoding="utf-8") as file:
        tied = json.load(file).get("tie_word_embeddings", False)
    print(f"{artifact}: torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.cuda.get_device_name()}")
    prompt = ids[:32].unsqueeze(0).cuda()
    text = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).split(".")[1]
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        model = load(artifact, dtype)
        held = torch.cuda.memory_allocated() - before
        if dtype == torch.bfloat16:
            stored = tensor_bytes(artifact, tied)
            report(held <= 1.15 * stored, f"memory after loading {held} = {held / stored:.3f} of the tensors stored")
        value = perplexity(model, ids, windows)
        limit = 1e-3 if dtype == torch.float32 else 5e-3
        report(abs(value / expected - 1) <= limit, f"perplexity {name} {value:.4f}, eval {expected:.4f}: "
               f"{100 * (value / expected - 1):+.3f}% (limit {100 * limit}%)")
        text[name] = greedy(model, prompt)
        if dtype == torch.bfloat16:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                again = load(folder, dtype)
                same_text("save_pretrained and back", text[name], greedy(again, prompt), 0)
                del again
        del model
        dense = load(dequantized, dtype)
        value = perplexity(dense, ids, windows)
        report(abs(value / expected - 1) <= 5e-3, f"dequantized export {name} {value:.4f}")
        if dtype == torch.bfloat16:
            same_text("greedy bfloat16 against dequantized", text[name], greedy(dense, prompt), TIE)
        else:
            # The export rounds weights to bf16: against the exact ones put into the same model.
            packed = load(artifact, dtype)
            for module_name, module in packed.named_modules():
                if type(module).__name__ == "PackedLinear":
                    dense.get_submodule(module_name).weight.data.copy_(module.dequantize(dtype).T)
            del packed
            same_text("greedy float32 against dequantized", text[name], greedy(dense, prompt), 0)
        del dense
    sys.exit(1 if failed else 0)


main()
