"""Stop strings over any split into tokens. Oracle: str.find on the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from model.decoding.stop_strings import StopStrings

LETTERS = st.text("ab ", max_size=30)


@given(LETTERS, st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3), st.data())
def test_any_split_stops_at_the_first_one(text: str, strings: list[str], data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stop, shown, read = StopStrings(strings), "", ""
    for piece in pieces:
        shown += stop.put(piece)
        read += piece
        if stop.found:
            break
        # Never half a stop string on show: what is held back is all that could still become one.
        assert not any(
            shown.endswith(s[:n]) and text.startswith(shown[: len(shown) - n] + s)
            for s in strings
            for n in range(1, len(s))
        )
    ends = [at for at in (read.find(s) for s in strings) if at >= 0]
    assert stop.found == bool(ends)
    assert shown + stop.end() == read[: min(ends, default=len(read))]
