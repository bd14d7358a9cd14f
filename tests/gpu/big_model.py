"""`big_model.py FILE GIB`: a random Llama of so many GiB as a GGUF of 16-bit floats; it recites tiny_model's sentence.

Needs numpy, tokenizers and gguf, and half a minute.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_model

HIDDEN, INNER, HEADS = 2048, 8192, 16
# Parts of a layer with their shapes; the residual stream's constant is dimension 0, which nothing writes.
PARTS = {
    "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, HIDDEN), "attn_v": (HIDDEN, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER),
}  # fmt: skip
LAYER_BYTES = 2 * sum(rows * columns for rows, columns in PARTS.values())
BLOCK = 1 << 24


def write(path: Path, gib: float) -> None:
    tokenizer = tiny_model.tokenizer()
    words = json.loads(tokenizer.to_str())["model"]
    names = sorted(words["vocab"], key=words["vocab"].get)
    layers = max(1, round(gib * 2**30 / LAYER_BYTES))
    out = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    out.add_context_length(4096)
    out.add_embedding_length(HIDDEN)
    out.add_block_count(layers)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(HIDDEN // HEADS)
    out.add_rope_freq_base(10000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(names))
    out.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(names)
    kinds = gguf.TokenType
    out.add_token_types(
        [int(kinds.CONTROL if name in tiny_model.SPECIAL else kinds.NORMAL) for name in names]
    )
    out.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in words["merges"]])
    out.add_bos_token_id(1)
    out.add_eos_token_id(tiny_model.EOS)
    out.add_add_bos_token(False)
    out.add_chat_template(tiny_model.CHAT)
    _tensors(out, layers, tokenizer.encode(tiny_model.SENTENCE).ids, len(names))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _tensors(out: "gguf.GGUFWriter", layers: int, sentence: list[int], vocabulary: int) -> None:
    random = np.random.default_rng(0)
    noise = (random.standard_normal(BLOCK) * 5e-4).astype(np.float16)
    directions = random.standard_normal((vocabulary, HIDDEN))
    directions[:, 0] = 0
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    embedding, head = directions.copy(), 0.01 * random.standard_normal((vocabulary, HIDDEN))
    embedding[:, 0] = 0.5
    head[:, 0] = -8
    head[sentence[0], 0] = 17
    for token, following in zip(sentence, [*sentence[1:], tiny_model.EOS], strict=True):
        head[following] += 16 * directions[token]
    out.add_tensor("token_embd.weight", embedding.astype(np.float16))
    out.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    out.add_tensor("output.weight", head.astype(np.float16))
    for layer in range(layers):
        for name, (rows, columns) in PARTS.items():
            # A stretch of the noise for each part: fresh numbers for gigabytes would take minutes.
            begin = int(random.integers(BLOCK))
            block = np.resize(np.roll(noise, begin), (rows, columns))
            if name in ("attn_output", "ffn_down"):
                block[0] = 0
            out.add_tensor(f"blk.{layer}.{name}.weight", block)
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{layer}.{name}.weight", np.ones(HIDDEN, np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]), float(sys.argv[2]))
