#!/usr/bin/env python3
"""The original SentencePiece tokenizer of a GGUF file (tokenizer.ggml.model = llama), for tokens.py.

    spm.py TOKENIZER.model OUT.gguf     write a vocabulary as a GGUF file without weights, for `longhaul tokenize`

The sentencepiece package reads a model that is put together here from the pieces, scores and kinds in the file, with
the identity normaliser: the merging is the original's. Control tokens are no part of a text; user-defined pieces
are. Needs: pip install sentencepiece protobuf gguf
"""
import argparse

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

SPACE = "\u2581"
UNKNOWN = 2
BPE = 2  # TrainerSpec.ModelType


def value(fields, key, absent=None):
    return fields[key].contents() if key in fields else absent


def model_of(fields):
    model = sentencepiece_model_pb2.ModelProto()
    scores = value(fields, "tokenizer.ggml.scores")
    kinds = value(fields, "tokenizer.ggml.token_type")
    unknown = value(fields, "tokenizer.ggml.unknown_token_id", 0)
    for i, piece in enumerate(value(fields, "tokenizer.ggml.tokens")):
        # user-defined pieces are written with spaces in some files; sentencepiece wants one unknown piece
        model.pieces.add(piece=piece.replace(" ", SPACE), score=scores[i], type=UNKNOWN if i == unknown else kinds[i])
    model.trainer_spec.model_type = BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(scores)
    model.trainer_spec.unk_id = unknown
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = bool(value(fields, "tokenizer.ggml.add_space_prefix", True))
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model


class Encoding:
    def __init__(self, ids):
        self.ids = ids


class Original:
    """With the methods of tokenizers.Tokenizer that tokens.py uses."""

    def __init__(self, fields):
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model_of(fields).SerializeToString())

    def encode(self, text, add_special_tokens=False):
        return Encoding(self.processor.EncodeAsIds(text))

    def encode_batch(self, texts, add_special_tokens=False):
        return [self.encode(text) for text in texts]

    def id_to_token(self, i):
        return self.processor.IdToPiece(i)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    args = parser.parse_args()
    model = sentencepiece_model_pb2.ModelProto()
    with open(args.model, "rb") as file:
        model.ParseFromString(file.read())
    if model.trainer_spec.model_type != BPE or model.normalizer_spec.precompiled_charsmap:
        parser.error(f"{args.model} is not of the kind BPE with the identity normaliser")
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.piece for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([piece.type for piece in model.pieces])
    writer.add_unk_token_id(model.trainer_spec.unk_id)
    writer.add_bos_token_id(model.trainer_spec.bos_id)
    writer.add_eos_token_id(model.trainer_spec.eos_id)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


if __name__ == "__main__":
    main()
