"""`big_model.py PATH GIB [NAME]`: a random Llama of so many GiB in 16-bit floats, which recites tiny_model's sentence.

A GGUF file when NAME (else PATH) ends in .gguf, else a folder for vLLM. Needs numpy, tokenizers and safetensors, and
for a file gguf; a few seconds.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_model

HIDDEN, INNER, HEADS = 2048, 8192, 16
# Part of a layer -> its shape, and its name in a GGUF file.
PARTS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN, "attn_q"), "self_attn.k_proj": (HIDDEN, HIDDEN, "attn_k"),
    "self_attn.v_proj": (HIDDEN, HIDDEN, "attn_v"), "self_attn.o_proj": (HIDDEN, HIDDEN, "attn_output"),
    "mlp.gate_proj": (INNER, HIDDEN, "ffn_gate"), "mlp.up_proj": (INNER, HIDDEN, "ffn_up"),
    "mlp.down_proj": (HIDDEN, INNER, "ffn_down"),
}  # fmt: skip
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
LAYER_BYTES = 2 * sum(rows * columns for rows, columns, _ in PARTS.values())
BLOCK = 1 << 24


def tensors(layers: int, sentence: list[int], vocabulary: int) -> dict[str, np.ndarray]:
    """All weights by their names in a Hugging Face folder."""
    random = np.random.default_rng(0)
    noise = (random.standard_normal(BLOCK) * 5e-4).astype(np.float16)
    embedding, head = tiny_model.ends(random, sentence, vocabulary, HIDDEN)
    found = {
        "model.embed_tokens.weight": embedding.astype(np.float16),
        "model.norm.weight": np.ones(HIDDEN, np.float16),
        "lm_head.weight": head.astype(np.float16),
    }
    for layer in range(layers):
        for name, (rows, columns, _) in PARTS.items():
            # A stretch of the noise for each part: fresh numbers for gigabytes would take minutes.
            block = np.resize(np.roll(noise, int(random.integers(BLOCK))), (rows, columns))
            if name in ("self_attn.o_proj", "mlp.down_proj"):
                block[0] = 0  # nothing writes the residual stream's constant dimension
            found[f"model.layers.{layer}.{name}.weight"] = block
        for name in NORMS:
            found[f"model.layers.{layer}.{name}.weight"] = np.ones(HIDDEN, np.float16)
    return found


def write_gguf(path: Path, layers: int, weights: dict[str, np.ndarray]) -> None:
    import gguf

    words = json.loads(tiny_model.tokenizer().to_str())["model"]
    names = sorted(words["vocab"], key=words["vocab"].get)
    out = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    out.add_context_length(512)
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
    types = [int(kinds.CONTROL if name in tiny_model.SPECIAL else kinds.NORMAL) for name in names]
    out.add_token_types(types)
    out.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in words["merges"]])
    out.add_bos_token_id(1)
    out.add_eos_token_id(tiny_model.EOS)
    out.add_add_bos_token(False)
    out.add_chat_template(tiny_model.CHAT)
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {name: part for name, (_, _, part) in PARTS.items()} | NORMS
    for name, tensor in weights.items():
        stem = name.removesuffix(".weight")
        if stem not in ends:
            _, _, layer, part = stem.split(".", 3)
            stem = f"blk.{layer}.{parts[part]}"
        norm = "norm" in name  # llama.cpp wants these in 32 bits
        out.add_tensor(f"{ends.get(stem, stem)}.weight", tensor.astype(np.float32) if norm else tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main(path: Path, gib: float, name: str) -> None:
    tokenizer = tiny_model.tokenizer()
    layers = max(1, round(gib * 2**30 / LAYER_BYTES))
    sentence = tokenizer.encode(tiny_model.SENTENCE).ids
    weights = tensors(layers, sentence, tokenizer.get_vocab_size())
    if name.endswith(".gguf"):
        write_gguf(path, layers, weights)
    else:
        tiny_model.write(path, tokenizer, weights, HIDDEN, INNER, layers, HEADS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[-1] if len(sys.argv) > 3 else sys.argv[1])
