from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.cache.answer import Answer, Entry, decode, encode

headers = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=200)), max_size=20).map(tuple)
answers = st.builds(Answer, st.integers(100, 599), headers, st.binary(max_size=2_000))
times = st.floats(0, 4e9)
entries = st.builds(Entry, st.binary(max_size=500), times, times, times, times, st.integers(0, 2**64 - 1), answers)


@settings(deadline=None)
@given(entries)
def test_decodes_to_what_was_encoded(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_whatever_is_no_entry_decodes_to_none_or_to_an_entry_but_never_fails(data: bytes) -> None:
    decode(data)


@settings(deadline=None)
@given(entries)
def test_another_form_is_none(entry: Entry) -> None:
    assert decode(b"\x01" + encode(entry)[1:]) is None
    assert decode(b"") is None


def test_takes_little_more_than_its_parts() -> None:
    answer = Answer(200, ((b"content-type", b"application/json"), (b"etag", b'"0123456789abcdef"')), b"x" * 1_000)
    assert len(encode(Entry(b"f" * 40, 1.0, 2.0, 3.0, 0.1, 2**40, answer))) < 1_000 + 40 + 46 + 64
