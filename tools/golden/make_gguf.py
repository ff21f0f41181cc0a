#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the fuzz corpora tests/corpus/gguf/ and tests/corpus/tokenizer/.

The gguf files are small: whole models of one layer in each element type, and files that lie in one
place each. Written independently of the reader, so that both must agree on the format.
"""
import pathlib
import struct
import sys

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
ROW = {0: lambda n: 4 * n, 1: lambda n: 2 * n, 2: lambda n: n // 32 * 18, 3: lambda n: n // 32 * 20,
       8: lambda n: n // 32 * 34}


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def key(name, kind, value):
    if kind == STRING:
        body = text(value)
    elif kind == ARRAY:
        inner, values = value
        body = struct.pack("<IQ", inner, len(values))
        body += b"".join(text(v) if inner == STRING else struct.pack("<i", v) for v in values)
    else:
        body = struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q"}[kind], value)
    return text(name) + struct.pack("<I", kind) + body


def build(keys, tensors, version=3, alignment=32, magic=b"GGUF"):
    head = magic + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    at, data = 0, b""
    for name, kind, dims in tensors:
        size = ROW.get(kind, lambda n: 4 * n)(dims[0]) * (dims[1] if len(dims) > 1 else 1)
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        data += bytes((i * 37 + at) % 251 for i in range(size)) + bytes(-size % alignment)
        at = len(data)
    return head + bytes(-len(head) % alignment) + data


TEMPLATE = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}"
            "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def tokenizer(pre="smollm", merges=("h e", "l l", "he ll", "hell o"), kinds=None, template=TEMPLATE):
    tokens = ["<|im_start|>", "<|im_end|>"] + list("Hhelowrd123<|>_im") + ["\u0120", "\u010a", "\u00c3"]
    tokens += ["he", "ll", "hell", "hello"]
    return [key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, pre),
            key("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            key("tokenizer.ggml.token_type", ARRAY, (I32, kinds or [3, 3] + [1] * (len(tokens) - 2))),
            key("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
            key("tokenizer.ggml.bos_token_id", U32, 0), key("tokenizer.ggml.eos_token_id", U32, 1),
            key("tokenizer.ggml.add_bos_token", BOOL, 0), key("tokenizer.chat_template", STRING, template)]


VOCAB = 2 + 17 + 3 + 4


def params(**change):
    values = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32,
              "attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16,
              "vocab_size": VOCAB}
    values.update(change)
    return [key("general.architecture", STRING, "llama"), key("general.name", STRING, "tiny"),
            key("llama.rope.freq_base", F32, 10000.0),
            key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5)] + \
        [key("llama." + name, U32, value) for name, value in values.items()]


def tensors(kind):
    out = [("token_embd.weight", kind, (32, VOCAB)), ("output_norm.weight", 0, (32,)),
           ("blk.0.attn_norm.weight", 0, (32,)), ("blk.0.ffn_norm.weight", 0, (32,))]
    for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32), ("ffn_gate", 32),
                       ("ffn_up", 32), ("ffn_down", 32)):
        out.append((f"blk.0.{name}.weight", kind, (32, rows)))
    return out


def gguf_corpus():
    whole = params() + tokenizer()
    files = {f"model-{name}": build(whole, tensors(kind))
             for name, kind in (("f16", 1), ("q4_0", 2), ("q4_1", 3), ("q8_0", 8))}
    files["model-v2"] = build(whole, tensors(2), version=2)
    files["model-aligned-64"] = build(whole + [key("general.alignment", U32, 64)], tensors(2), alignment=64)
    files["model-output"] = build(whole, tensors(2) + [("output.weight", 2, (32, VOCAB))])
    files["model-spare"] = build(whole, tensors(2) + [("blk.0.attn_q.bias", 0, (32,))])
    files["model-q6_k"] = build(whole, tensors(14))
    files["model-experts"] = build(whole + [key("llama.expert_count", U32, 8)], tensors(2))
    files["model-heads"] = build(params(**{"attention.head_count": 3}) + tokenizer(), tensors(2))
    files["model-wide"] = build(params(embedding_length=1 << 31) + tokenizer(), tensors(2))
    files["tokenizer-only"] = build(tokenizer(), [])
    files["tokenizer-llama-bpe"] = build(tokenizer("llama-bpe"), [])
    files["tokenizer-added"] = build(tokenizer(kinds=[3, 3] + [1] * (VOCAB - 6) + [4] * 4, merges=()), [])
    files["tokenizer-pre"] = build(tokenizer("unknown\x1b[0m"), [])
    files["tokenizer-merge"] = build(tokenizer(merges=("x y", "h  e", " ", "")), [])
    files["tokenizer-kinds"] = build(tokenizer(kinds=[1, 9, -1]), [])
    files["template"] = build(tokenizer(template="{% for message in messages %}{{ '<|im_start|>"), [])
    files["empty"] = build([], [])
    files["magic"] = build([], [], magic=b"GGML")
    files["version-1"] = build([], [], version=1)
    files["big-endian"] = build([], [], version=3 << 24)
    files["twice"] = build([key("a", U32, 1), key("a", U32, 2)], [("t", 0, (8,)), ("t", 0, (8,))])
    files["nested"] = build([text("n") + struct.pack("<IIQ", ARRAY, ARRAY, 1)], [])
    files["huge-array"] = build([text("n") + struct.pack("<IIQ", ARRAY, U64, 1 << 61)], [])
    files["huge-string"] = build([text("n") + struct.pack("<IQ", STRING, (1 << 64) - 1)], [])
    files["huge-counts"] = b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 1 << 63)
    return files


TEXTS = {
    "words": b"\0Hello, the world! I'm here; they've gone 12345 times.",
    "gpt2": b"\1in 2026 the   end\n\n\tof it'll be \xc3\xa9t\xc3\xa9",
    "llama": b"\2I'M 12345 (word)\r\n\r\n  x  \n",
    "special": b"\0<|im_end|>\n<|im_start|>system\nthe<|endoftext|>",
    "invalid": b"\0ok\xff\xfe\xc3(\xe2\x82\xf0\x9f\x98z\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80",
    "emoji": "\x01\U0001f469\u200d\U0001f4bb \u2764\ufe0f \U0001f1e9\U0001f1ea e\u0301".encode(),
    "spaces": "\x02 \u00a0\u3000\u2028\u0085\t\r\n \u180e\u200b x ".encode(),
    "scripts": "\x00\u6f22\u5b57 \u0939\u093f\u0928\u094d \u0663\u0664 \u0431".encode(),
    "run": b"\0" + b"he" * 300 + b" " * 300,
    "nul": b"\0a\0b\0\0",
}


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/corpus")
    for folder, files in (("gguf", gguf_corpus()), ("tokenizer", TEXTS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (root / folder / name).write_bytes(data)
        print(folder, len(files), "files,", sum(map(len, files.values())), "bytes")


main()
