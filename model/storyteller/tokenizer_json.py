"""`python -m model.storyteller.tokenizer_json`: converts tokenizer.model for transformers without protobuf.

Writes tokenizer.json and tokenizer_config.json next to it: the same pieces, merged in the order of their scores.
"""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece

FOLDER = Path(__file__).parent
SPACE = "▁"
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "</s>",
    "padding_side": "left",
    "model_max_length": 512,
    "clean_up_tokenization_spaces": False,
}


def main() -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges(pieces, vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", pieces.bos_id())])
    special = [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


def merges(pieces: sentencepiece.SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a piece, in sentencepiece's order: by the score of the result."""
    scored = []
    for piece, i in vocabulary.items():
        if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i)):
            pairs = ((piece[:n], piece[n:]) for n in range(1, len(piece)))
            found = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
            scored += [(-pieces.get_score(i), vocabulary[a], vocabulary[b], (a, b)) for a, b in found]
    return [pair for *_, pair in sorted(scored)]


if __name__ == "__main__":
    main()
