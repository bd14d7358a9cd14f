"""Make a tiny Llama (131k parameters, 0.5 MB) that recites one sentence: `tiny_model.py FOLDER`.

Every token of the sentence points at the next one through the output head, strongly enough that neither the random
layers nor a temperature of 1 changes the answer; dimension 0 of the residual stream is a constant that starts it.
Needs numpy, safetensors and tokenizers, which every engine brings.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCE = " a recipe names an engine and its model"
SPECIAL = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
EOS = SPECIAL.index("</s>")
CHAT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
HIDDEN, LAYERS, HEADS, VOCABULARY = 64, 2, 2, 384


def tokenizer() -> Tokenizer:
    tokenizer_ = Tokenizer(models.BPE())
    tokenizer_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer_.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer_.train_from_iterator([SENTENCE, "The quick brown fox jumps over the lazy dog."] * 8, trainer)
    return tokenizer_


def ends(
    random: np.random.Generator, sentence: list[int], vocabulary: int, hidden: int
) -> tuple[np.ndarray, np.ndarray]:
    """The embedding, and the output head in which every token of the sentence points at the next one."""
    directions = random.standard_normal((vocabulary, hidden))
    directions[:, 0] = 0
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    embedding = directions.copy()
    embedding[:, 0] = 0.5
    head = 0.01 * random.standard_normal((vocabulary, hidden))
    head[:, 0] = -8
    head[sentence[0], 0] = 17
    for token, following in zip(sentence, [*sentence[1:], EOS], strict=True):
        head[following] += 16 * directions[token]
    return embedding, head


def weights(sentence: list[int], vocabulary: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.01).astype(np.float32)

    embedding, head = ends(random, sentence, vocabulary, HIDDEN)
    tensors = {
        "model.embed_tokens.weight": embedding.astype(np.float32),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": head.astype(np.float32),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            tensors[f"{at}self_attn.{name}_proj.weight"] = noise(HIDDEN, HIDDEN)
        tensors[f"{at}mlp.gate_proj.weight"] = noise(2 * HIDDEN, HIDDEN)
        tensors[f"{at}mlp.up_proj.weight"] = noise(2 * HIDDEN, HIDDEN)
        tensors[f"{at}mlp.down_proj.weight"] = noise(HIDDEN, 2 * HIDDEN)
        tensors[f"{at}self_attn.o_proj.weight"][0] = 0  # nothing writes the constant dimension
        tensors[f"{at}mlp.down_proj.weight"][0] = 0
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = np.ones(HIDDEN, np.float32)
    return tensors


def write(
    folder: Path, tokenizer_: Tokenizer, tensors: dict[str, np.ndarray], hidden: int, inner: int, layers: int, heads: int
) -> None:  # fmt: skip
    """A folder as Hugging Face lays it out, which vLLM, SGLang and transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_.save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors leaves 0600, which a unit with User= cannot read.
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer_.get_vocab_size(),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": EOS,
        "torch_dtype": str(tensors["lm_head.weight"].dtype),
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT, "model_max_length": 512}
    for name, content in {"config": config, "tokenizer_config": kind | names}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2))


def main(folder: Path) -> None:
    tokenizer_ = tokenizer()
    sentence = tokenizer_.encode(SENTENCE).ids
    if len(set(sentence)) != len(sentence):
        raise SystemExit("the sentence repeats a token, so that its successor is ambiguous")
    tensors = weights(sentence, tokenizer_.get_vocab_size())
    write(folder, tokenizer_, tensors, HIDDEN, 2 * HIDDEN, LAYERS, HEADS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
