"""Text to token ids and back, on SentencePiece."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from model.config import BUILT_IN
from model.untrusted import require_file

SPACE = "\u2581"  # how SentencePiece writes a space within a piece


class Tokenizer:
    """A `tokenizer.model` of SentencePiece, as Llama 2 has it.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> ids = tokenizer.encode("Once upon a time")
    >>> ids[0] == tokenizer.bos_id, tokenizer.decode(ids)
    (True, 'Once upon a time')
    """

    def __init__(self, path: str | Path) -> None:
        self.sp = SentencePieceProcessor()
        try:
            self.sp.Load(str(path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path}: not a SentencePiece model ({error})") from None
        self.bos_id, self.eos_id = self.sp.bos_id(), self.sp.eos_id()
        if self.bos_id < 0 or self.eos_id < 0:
            raise ValueError(f"{path}: must have BOS and EOS, got ids {self.bos_id} and {self.eos_id}")
        self.vocab_size = self.sp.vocab_size()
        ids = range(self.vocab_size)
        self.special = {self.sp.id_to_piece(i): i for i in ids if self.sp.is_control(i)}
        self._bytes = [self._as_bytes(i) for i in ids]
        self._adds_space = self.sp.encode("a", out_type=str)[0].startswith(SPACE)  # Llama's does, before every text

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Tokenizer:
        """Read `folder/tokenizer.model`; no folder: the storyteller's. Raises: FileNotFoundError if it is missing."""
        folder = BUILT_IN if folder is None else Path(folder)
        path = folder / "tokenizer.model"
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; give one with config.json, *.safetensors, tokenizer.model"
            )
        return cls(require_file(path, "; a Llama-2 folder holds its SentencePiece model there"))

    def encode(self, text: str, bos: bool = True, eos: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of a text; bos, eos: add BOS before it, EOS after it.

        A literal `<s>` in the text stays text, unless parse_special is set.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"text must be valid Unicode, got a lone surrogate in {text[:40]!r}") from None
        ids = self._encode_special(text) if parse_special else self.sp.encode(text)
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def _encode_special(self, text: str) -> list[int]:
        names = "|".join(re.escape(name) for name in self.special)
        ids: list[int] = []
        for part in re.split(f"({names})", text):
            if part:
                ids += [self.special[part]] if part in self.special else self.sp.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Special tokens have no text; bytes that are no UTF-8 become U+FFFD."""
        stream = self.stream()
        text = "".join(stream.put(i) for i in ids) + stream.end()
        return text[1:] if self._adds_space and text.startswith(" ") else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """How the vocabulary writes each id: `▁time`, `<0x0A>`, `</s>`."""
        return [self.sp.id_to_piece(i) if 0 <= i < self.vocab_size else f"<{i}>" for i in ids]

    def stream(self, special: bool = False) -> TokenStream:
        """A decoder for one id at a time; special: whether special tokens appear in the text, by name."""
        return TokenStream(self, special)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds to the text; none for special tokens and ids outside the vocabulary."""
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def has_text(self, token: int) -> bool:
        """Whether a token stands for bytes: not a special token, nor the one for what the vocabulary lacks."""
        return bool(self._bytes[token]) and not self.sp.is_unknown(token)

    def _as_bytes(self, token: int) -> bytes:
        piece = self.sp.id_to_piece(token)
        if self.sp.is_byte(token):
            return bytes([int(piece[3:5], 16)])  # "<0x0A>"
        if self.sp.is_control(token):
            return b""
        return " \u2047 ".encode() if self.sp.is_unknown(token) else piece.replace(SPACE, " ").encode()


class TokenStream:
    """Ids in, text out: a character appears with its last byte; spaces stay."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self.tokenizer, self.special = tokenizer, special
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def put(self, token: int) -> str:
        """The text that this token completes, possibly none."""
        data = self.tokenizer.token_bytes(token)
        if not data and self.special:
            return self.decoder.decode(b"", final=True) + self.tokenizer.pieces([token])[0]
        return self.decoder.decode(data)

    def end(self) -> str:
        """The rest: U+FFFD for an incomplete character."""
        return self.decoder.decode(b"", final=True)
