"""Text and ids. Oracles: the tutorial's ids, SentencePiece's own decoder, and the text that was put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Tokenizer

BUILT_IN = Tokenizer.from_pretrained()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\u2581\x00"), max_size=40)


def test_the_tutorials_ids(llama2_tokenizer):
    tokenizer = Tokenizer(llama2_tokenizer)
    ids = [1, 24948, 592, 263, 5828, 1048, 263, 8338, 265, 29889]
    assert tokenizer.encode("Tell me a story about a dragon.") == ids
    assert tokenizer.decode(ids) == "Tell me a story about a dragon."
    assert tokenizer.pieces(ids)[:3] == ["<s>", "▁Tell", "▁me"]
    assert tokenizer.vocab_size == 32000


def test_begin_and_end():
    bare = BUILT_IN.encode("The king", bos=False)
    assert BUILT_IN.encode("The king") == [BUILT_IN.bos_id, *bare]
    assert BUILT_IN.encode("The king", eos=True) == [BUILT_IN.bos_id, *bare, BUILT_IN.eos_id]
    assert BUILT_IN.encode("") == [BUILT_IN.bos_id]


@given(TEXT)
def test_round_trip(text: str):
    ids = BUILT_IN.encode(text, eos=True)
    assert BUILT_IN.decode(ids) == text


@given(TEXT)
def test_decode_as_sentencepiece(text: str):
    ids = BUILT_IN.encode(text, bos=False)
    assert BUILT_IN.decode(ids) == BUILT_IN.sp.decode(ids)


@given(TEXT)
def test_a_stream_shows_the_text_and_never_half_a_character(text: str):
    stream = BUILT_IN.stream()
    shown = ""
    for token in BUILT_IN.encode(text):
        shown += stream.put(token)
        assert (" " + text).startswith(shown)
    assert shown + stream.end() == (" " + text if text else "")


@given(st.lists(st.integers(0, BUILT_IN.vocab_size + 5), max_size=30))
def test_any_ids_decode(ids: list[int]):
    text = BUILT_IN.decode(ids)
    assert text.encode().decode() == text  # valid UTF-8 whatever the ids
    assert len(BUILT_IN.pieces(ids)) == len(ids)


def test_broken_utf8_is_marked():
    first, second = (BUILT_IN.sp.piece_to_id(piece) for piece in ("<0xC3>", "<0xA9>"))
    assert BUILT_IN.decode([first, second]) == "é"
    assert BUILT_IN.decode([first]) == "\ufffd"
    stream = BUILT_IN.stream()
    assert [stream.put(first), stream.put(second), stream.end()] == ["", "é", ""]


def test_special_tokens_in_a_text_stay_text():
    text = "a <s> b </s> [INST]"
    plain = BUILT_IN.encode(text)
    assert plain.count(BUILT_IN.bos_id) == 1 and BUILT_IN.eos_id not in plain
    assert BUILT_IN.decode(plain) == text
    asked = BUILT_IN.encode(text, bos=False, parse_special=True)
    assert asked.count(BUILT_IN.bos_id) == asked.count(BUILT_IN.eos_id) == 1


def test_leading_spaces_are_kept():
    for text in (" Hello", "   Hello", "Hello  ", "\n\tHello"):
        assert BUILT_IN.decode(BUILT_IN.encode(text)) == text


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model: no such file"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="text must be a str, got int"):
        BUILT_IN.encode(5)


def test_a_vocabulary_that_is_no_file_is_named(tmp_path):
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(ValueError, match=r"tokenizer\.model: must be a file, got a folder"):
        Tokenizer.from_pretrained(tmp_path)
